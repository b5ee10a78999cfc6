//! The disk fails, fills up, rots and tears; clocks step: what was acknowledged is there, and the broker goes on with
//! whatever can be done.
//!
//! Needs to be root: file systems are mounted.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::lives::{End, Life, Lives};
use forebay_tests::mqtt::{Client, Connect, PUBACK, SUBACK, packet, span, text, user_property};
use forebay_tests::random::{Random, seed};
use forebay_tests::wait;
use tempfile::TempDir;

const QUOTA_EXCEEDED: u8 = 0x97;

fn lasting(id: &str) -> Connect {
    Connect::v5(id).resume().session_expiry(u32::MAX)
}

/// A client that is away, and for whom everything on `topic` is kept.
fn subscribe_and_leave(broker: &Forebay, id: &str, topic: &str) {
    let mut client = Client::connect(broker.addr, &lasting(id));
    let asks = user_property("aio-persistence", "true");
    client.send(&packet(0x82, &[vec![0, 7], span(&asks), text(topic), vec![1]].concat()));
    assert_eq!(client.expect(SUBACK).body.last(), Some(&1));
    client.disconnect();
}

/// Publishes at QoS 1; the reason code of the PUBACK.
fn publish(client: &mut Client, topic: &str, payload: &[u8]) -> u8 {
    client.send(&client.publish_bytes(topic, 1, false, &[], payload));
    client.expect(PUBACK).body.get(2).copied().unwrap_or(0)
}

/// What a client that comes back gets until it has `count` messages, and then no more.
fn collect(broker: &Forebay, id: &str, count: usize) -> Vec<String> {
    let mut client = Client::connect(broker.addr, &lasting(id));
    assert!(client.session_present());
    let texts = (0..count).map(|_| client.receive().text()).collect();
    client.settle();
    client.disconnect();
    texts
}

/// Somebody who asks for nothing to be kept notices nothing.
fn others_are_served(broker: &Forebay) {
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("reading-bystander"));
    let mut publisher = Client::connect(broker.addr, &Connect::v5("writing-bystander"));
    subscriber.subscribe("memory/#", 1);
    for payload in ["a", "b"] {
        assert_eq!(publish(&mut publisher, "memory/x", payload.as_bytes()), 0);
        assert_eq!(subscriber.receive().text(), payload);
    }
    subscriber.disconnect();
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said} (these tests are run as root)");
}

/// A file system of its own, in memory.
struct Mount(TempDir);

impl Mount {
    fn new(size: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path]);
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.path().to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn tool(command: &str, data_dir: &Path) -> (ExitStatus, String) {
    forebay::run(["store".as_ref(), command.as_ref(), "--data-dir".as_ref(), data_dir.as_os_str()])
}

/// The segments of the log, in order.
fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("store/log")).unwrap();
    let mut segments: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    segments
}

/// Where in a file some bytes stand.
fn find(path: &Path, wanted: &[u8]) -> usize {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(wanted.len()).position(|window| window == wanted);
    at.unwrap_or_else(|| panic!("{} is not in {}", String::from_utf8_lossy(wanted), path.display()))
}

fn flip(path: &Path, at: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}

// Crashes at every step.

/// What must be true of a broker's life for it to come by a step.
fn life_that_reaches(step: &str, random: &mut Random) -> Life {
    // The first of these that a start comes by, or any later one.
    let often = [
        "store.before-write",
        "store.after-write",
        "store.after-sync",
        "store.after-apply",
        "store.after-told",
    ];
    let nth = if often.contains(&step) { 1 + random.below(40) } else { 1 };
    let serve = Serve::new().env("FOREBAY_FAILPOINT", &format!("{step}:{nth}"));
    // Checkpoints, and the segments that they make superfluous, come at an end in good order at the latest.
    Life { serve, lives: Duration::from_millis(1500), end: End::Terminate }
}

#[test]
fn killed_at_every_step_of_the_store() {
    let mut random = Random::new(seed());
    let mut lives = Lives::new(2000, false);
    for &step in broker_store::FAILPOINTS {
        // There is no older version yet; a segment is cut only when the disk fails, and compacted only when little in it
        // is needed. The tests below see to the latter two.
        if step.starts_with("store.migration") || step.ends_with("-truncate") || step.ends_with("-move") {
            continue;
        }
        let reached = (0..8).any(|_| {
            let (status, output) = lives.live(life_that_reaches(step, &mut random));
            let aborted = status.signal() == Some(6);
            assert!(aborted || status.success(), "{step}: {status}\n{output}");
            aborted
        });
        assert!(reached, "no life ended at {step}");
    }
    lives.settle();
}

#[test]
fn killed_while_messages_are_moved() {
    let data = TempDir::new().unwrap();
    let mut broker = Serve::new().data_dir(data.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    assert_eq!(publish(&mut client, "p/x", b"waits"), 0);
    // One among many that are not needed any more.
    let asks = user_property("aio-persistence", "true");
    for payload in ["for now"; 100].into_iter().chain(["for good"]) {
        client.publish_with("kept", 1, true, &asks, payload.as_bytes());
    }
    assert!(broker.terminate().success());
    // Its checkpoint is behind them all: the next life begins with moving.
    for step in ["store.before-move", "store.after-move"] {
        let serve = Serve::new().data_dir(data.path()).env("FOREBAY_FAILPOINT", step);
        let status = match serve.try_start() {
            Err((status, _)) => status,
            Ok(mut broker) => broker.process.wait(),
        };
        assert_eq!(status.signal(), Some(6), "{step}");
    }
    let mut broker = Serve::new().data_dir(data.path()).start();
    assert!(broker.terminate().success());
    let broker = Serve::new().data_dir(data.path()).start();
    assert_eq!(collect(&broker, "away", 1), ["waits"]);
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    client.subscribe("kept", 0);
    assert_eq!(client.receive().text(), "for good");
}

#[test]
fn killed_while_a_segment_is_given_up() {
    for step in ["store.before-truncate", "store.after-truncate"] {
        let mut lives = Lives::new(0, true);
        let strace = strace("fdatasync:error=EIO:when=20..30");
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        let serve = Serve::new().env("FOREBAY_FAILPOINT", step).under(&strace);
        let life = Life { serve, lives: Duration::from_secs(30), end: End::Kill };
        let (status, output) = lives.live_with_refusals(life);
        assert!(status.signal() == Some(6) || status.code() == Some(128 + 6), "{step}: {status}\n{output}");
        lives.settle();
    }
}

// The disk fails.

fn strace(inject: &str) -> Vec<String> {
    let inject = format!("inject={inject}");
    ["strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject]
        .map(str::to_owned)
        .into()
}

#[test]
fn a_failed_sync_refuses_what_it_was_for_and_nothing_else() {
    let data = TempDir::new().unwrap();
    let strace = strace("fdatasync:error=EIO:when=12..16");
    let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
    let broker = Serve::new().data_dir(data.path()).under(&strace).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let mut taken = Vec::new();
    let mut refused = 0;
    // Without a restart: it is taken again as soon as the disk works.
    wait::until("publishing has failed, and works again", || {
        let payload = format!("{}", taken.len() + refused);
        match publish(&mut publisher, "p/x", payload.as_bytes()) {
            0 => taken.push(payload),
            reason => {
                assert!(reason >= 0x80 && reason != QUOTA_EXCEEDED, "{reason:#x}");
                refused += 1;
                others_are_served(&broker);
                old_publisher_is_hung_up_on(&broker);
            }
        }
        if refused > 0 && taken.last().is_some_and(|last| *last == (taken.len() + refused - 1).to_string()) {
            return Ok(());
        }
        Err(format!("{} taken, {refused} refused\n{}", taken.len(), broker.output()))
    });
    wait::until("the store does not fail any more", || match broker.metric("forebay_store_failing", &[]) {
        0.0 => Ok(()),
        _ => Err(broker.output()),
    });
    drop(broker);
    let (status, said) = tool("check", data.path());
    assert!(status.success(), "{said}");
    let broker = Serve::new().data_dir(data.path()).start();
    let got = collect_at_least(&broker, "away", &taken);
    assert!(got.is_sorted_by_key(|text| text.parse::<usize>().unwrap()), "{got:?}");
}

/// MQTT 3.1.1 has no reason codes: the connection ends, and the message is sent again.
fn old_publisher_is_hung_up_on(broker: &Forebay) {
    let mut old = Client::connect(broker.addr, &Connect::v4("old"));
    old.send(&old.publish_bytes("p/old", 1, false, &[], b"-1"));
    // Unless the disk works again.
    if let Some(answer) = old.try_packet() {
        assert_eq!(answer.kind(), PUBACK);
    }
}

/// What a client gets that comes back: at least these, and else only what was refused without certainty.
fn collect_at_least(broker: &Forebay, id: &str, least: &[String]) -> Vec<String> {
    let mut client = Client::connect(broker.addr, &lasting(id));
    assert!(client.session_present());
    let mut got: Vec<String> = Vec::new();
    wait::until("everything that was acknowledged comes", || {
        let text = client.receive().text();
        if text != "-1" {
            got.push(text);
        }
        let missing: Vec<_> = least.iter().filter(|text| !got.contains(text)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
    });
    got
}

#[test]
fn a_full_disk_refuses_with_quota_exceeded_and_recovers_when_space_returns() {
    let mount = Mount::new("4m");
    let broker = Serve::new().data_dir(mount.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let pad = "x".repeat(20_000);
    let mut taken: Vec<String> = Vec::new();
    for round in 0..3 {
        let reason = loop {
            let payload = format!("{round}-{} {pad}", taken.len());
            match publish(&mut publisher, "p/x", payload.as_bytes()) {
                0 => taken.push(payload),
                reason => break reason,
            }
            assert!(taken.len() < 300, "more than fits is taken");
        };
        assert_eq!(reason, QUOTA_EXCEEDED);
        assert!(taken.len() > 50, "{} fit", taken.len());
        others_are_served(&broker);
        // Who reads makes room.
        assert_eq!(collect(&broker, "away", taken.len()), taken);
        taken.clear();
        wait::until("there is room again", || match publish(&mut publisher, "p/x", b"again") {
            0 => Ok(()),
            reason => Err(format!("{reason:#x}\n{}", broker.output())),
        });
        taken.push("again".to_owned());
    }
    // MQTT 3.1.1 has no reason codes.
    while publish(&mut publisher, "p/x", pad.as_bytes()) == 0 {
        taken.push(pad.clone());
    }
    let mut old = Client::connect(broker.addr, &Connect::v4("old"));
    old.send(&old.publish_bytes("p/x", 1, false, &[], pad.as_bytes()));
    assert_eq!(old.closed(), []);
    // And all of it is there after a kill, on a disk that is full.
    drop(broker);
    assert!(tool("check", mount.path()).0.success());
    let broker = Serve::new().data_dir(mount.path()).start();
    assert_eq!(collect(&broker, "away", taken.len()), taken);
}

#[test]
fn a_disk_that_others_filled_is_used_again_when_they_make_room() {
    let mount = Mount::new("8m");
    let broker = Serve::new().data_dir(mount.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    assert_eq!(publish(&mut publisher, "p/x", b"before"), 0);
    let others = mount.path().join("others");
    let mut size = 16 << 20;
    while size > 0 {
        // As much as fits.
        match fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&others)
            .and_then(|file| std::io::Write::write_all(&mut &file, &vec![1; size]))
        {
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            written => written.unwrap(),
        }
    }
    let pad = "x".repeat(20_000);
    let mut taken = vec!["before".to_owned()];
    loop {
        match publish(&mut publisher, "p/x", pad.as_bytes()) {
            0 => taken.push(pad.clone()),
            reason => {
                assert_eq!(reason, QUOTA_EXCEEDED);
                break;
            }
        }
        assert!(taken.len() < 200, "more than fits is taken");
    }
    others_are_served(&broker);
    fs::remove_file(others).unwrap();
    wait::until("there is room again", || match publish(&mut publisher, "p/x", b"after") {
        0 => Ok(()),
        reason => Err(format!("{reason:#x}\n{}", broker.output())),
    });
    taken.push("after".to_owned());
    assert_eq!(collect(&broker, "away", taken.len()), taken);
}

#[test]
fn a_read_only_disk_can_be_looked_at_but_not_served_from() {
    let mount = Mount::new("8m");
    let broker = Serve::new().data_dir(mount.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    assert_eq!(publish(&mut publisher, "p/x", b"kept"), 0);
    drop(broker);
    mount.remount("ro");
    let (status, said) = Serve::new().data_dir(mount.path()).try_start().err().expect("it does not start");
    assert!(!status.success() && said.contains("store") && said.contains("Read-only"), "{said}");
    for command in ["check", "stats", "export"] {
        let (status, said) = tool(command, mount.path());
        assert!(status.success(), "{said}");
    }
    mount.remount("rw");
    let broker = Serve::new().data_dir(mount.path()).start();
    assert_eq!(collect(&broker, "away", 1), ["kept"]);
}

// The disk rots.

#[test]
fn a_flipped_bit_costs_one_message_and_is_reported() {
    let data = TempDir::new().unwrap();
    let broker = Serve::new().data_dir(data.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for number in 0..20 {
        assert_eq!(publish(&mut publisher, "p/x", format!("message-{number:02}").as_bytes()), 0);
    }
    drop(broker);
    let segment = &segments(data.path())[0];
    let at = find(segment, b"message-07");
    flip(segment, at);

    let (status, said) = tool("check", data.path());
    assert_eq!(status.code(), Some(1), "{said}");
    let place = format!("{}:", segment.display());
    assert!(said.lines().any(|line| line.starts_with(&place) && line.contains("checksum")), "{said}");
    // Looking has changed nothing.
    assert_eq!(tool("check", data.path()).1, said);

    let mut broker = Serve::new().data_dir(data.path()).start();
    broker.process.says("quarantine");
    let expected: Vec<_> =
        (0..20).filter(|&number| number != 7).map(|number| format!("message-{number:02}")).collect();
    assert_eq!(collect(&broker, "away", 19), expected);
    // A checkpoint leaves the damage behind, and the segment with it.
    assert!(broker.terminate().success());
    let kept: Vec<_> = fs::read_dir(data.path().join("store/quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1, "the damaged record is kept");
    assert!(tool("check", data.path()).0.success());
}

#[test]
fn a_message_that_rots_behind_a_checkpoint_is_passed_over_and_told() {
    let data = TempDir::new().unwrap();
    let mut broker = Serve::new().data_dir(data.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for number in 0..5 {
        assert_eq!(publish(&mut publisher, "p/x", format!("message-{number}").as_bytes()), 0);
    }
    assert!(broker.terminate().success());
    let segment = &segments(data.path())[0];
    flip(segment, find(segment, b"message-3"));
    let (status, said) = tool("export", data.path());
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.matches("\"unreadable\"").count(), 1, "{said}");
    let broker = Serve::new().data_dir(data.path()).start();
    assert_eq!(collect(&broker, "away", 4), ["message-0", "message-1", "message-2", "message-4"]);
    assert_eq!(broker.metric("forebay_store_messages_unreadable_total", &[]), 1.0);
}

#[test]
fn files_that_are_cut_or_lost_do_not_keep_the_broker_from_starting() {
    let data = TempDir::new().unwrap();
    let mut random = Random::new(seed());
    for _ in 0..6 {
        let broker = Serve::new().data_dir(data.path()).start();
        // Whatever is left of it: it works.
        let mut client = Client::connect(broker.addr, &Connect::v5("away"));
        client.settle();
        subscribe_and_leave(&broker, "away", "p/#");
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        for number in 0..20 {
            assert_eq!(publish(&mut publisher, "p/x", format!("{number}").as_bytes()), 0);
        }
        let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(collect(&broker, "away", 20), expected);
        drop(broker);
        let mut files = segments(data.path());
        files.push(data.path().join("store/format"));
        let path = &files[random.below(files.len() as u64) as usize];
        let len = fs::metadata(path).unwrap().len();
        match random.below(3) {
            0 => fs::remove_file(path).unwrap(),
            _ => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(random.below(len)).unwrap(),
        }
    }
}

// Clocks.

/// What `faketime` loads into programs. The command itself does not pass signals on.
fn libfaketime() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = directories.map(|directory| directory.join("faketime/libfaketime.so.1"));
    libraries.find(|path| path.exists()).expect("faketime is installed by tests/setup")
}

#[test]
fn clocks_that_step_back_and_forth_lose_nothing() {
    let data = TempDir::new().unwrap();
    let mut sent = Vec::new();
    for (round, offset) in ["+0", "-400d", "+400d", "-1d", "+0"].into_iter().enumerate() {
        let broker = Serve::new()
            .data_dir(data.path())
            .env("LD_PRELOAD", libfaketime().to_str().unwrap())
            .env("FAKETIME", offset)
            // The monotonic clock never steps.
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start();
        if round == 0 {
            subscribe_and_leave(&broker, "away", "p/#");
        }
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        for number in 0..5 {
            let payload = format!("{round}-{number}");
            assert_eq!(publish(&mut publisher, "p/x", payload.as_bytes()), 0);
            sent.push(payload);
        }
    }
    let broker = Serve::new().data_dir(data.path()).start();
    assert_eq!(collect(&broker, "away", sent.len()), sent);
}

// Looking into it.

#[test]
fn a_running_broker_keeps_its_store_to_itself() {
    let data = TempDir::new().unwrap();
    let broker = Serve::new().data_dir(data.path()).start();
    for command in ["check", "stats", "export"] {
        let (status, said) = tool(command, data.path());
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("another process") && said.contains("stop the broker"), "{said}");
    }
    others_are_served(&broker);
    let nowhere = TempDir::new().unwrap();
    let (status, said) = tool("stats", nowhere.path());
    assert!(status.code() == Some(2) && said.contains("there is no store"), "{said}");
}

#[test]
fn everything_can_be_got_out() {
    let data = TempDir::new().unwrap();
    let mut broker = Serve::new().data_dir(data.path()).start();
    subscribe_and_leave(&broker, "away", "p/#");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let user = user_property("color", "blue");
    publisher.publish_with("p/x", 1, false, &user, b"text");
    publisher.publish_with("p/y", 1, false, &[], &[0xff, 0]);
    let asks = user_property("aio-persistence", "true");
    publisher.publish_with("r", 1, true, &asks, b"kept");
    assert!(broker.terminate().success());

    let (status, said) = tool("export", data.path());
    assert!(status.success(), "{said}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |kind: &str| lines.iter().filter(move |line| line["type"] == kind).collect::<Vec<_>>();
    let [session] = of("session")[..] else { panic!("{said}") };
    assert_eq!(session["clientId"], "away");
    let [subscription] = of("subscription")[..] else { panic!("{said}") };
    assert_eq!((&subscription["filter"], &subscription["session"]), (&"p/#".into(), &session["session"]));
    let messages = of("message");
    assert_eq!(messages.len(), 3);
    assert_eq!((&messages[0]["topic"], &messages[0]["payloadText"]), (&"p/x".into(), &"text".into()));
    assert_eq!(messages[0]["properties"]["userProperties"], serde_json::json!([["color", "blue"]]));
    assert_eq!(messages[1]["payloadBase64"], "/wA=");
    let queued: Vec<_> = of("queued").iter().map(|line| line["message"].clone()).collect();
    assert_eq!(queued, [messages[0]["id"].clone(), messages[1]["id"].clone()]);
    let [retained] = of("retained")[..] else { panic!("{said}") };
    assert_eq!((&retained["topic"], &retained["message"]), (&"r".into(), &messages[2]["id"]));

    let (status, said) = tool("stats", data.path());
    assert!(status.success() && said.contains("queued") && said.contains("away"), "{said}");
    let data_dir = data.path().to_str().unwrap();
    let (_, said) = forebay::run(["store", "stats", "--data-dir", data_dir, "-o", "json"]);
    let stats: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!((&stats["queued"], &stats["sessions"], &stats["retained"]), (&2.into(), &1.into(), &1.into()));
    let (status, said) = tool("check", data.path());
    assert!(status.success() && said.contains("whole"), "{said}");
}

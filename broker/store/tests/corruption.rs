//! Bits flip, files are cut and lost: the store opens all the same, says what is damaged, and loses nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_store::sim::{ByHand, SimDisk};
use broker_store::{
    Disk, Event, Inspection, Message, OnFailure, OpenError, Options, Recovery, Store, Taker, VERSION,
};

/// The session whose queue shows what is there.
const SESSION: u64 = 1;
const SEGMENT_BYTES: u64 = 4 << 10;
const MARK: &[u8] = b"forebay store\n";

fn options() -> Options {
    // No checkpoint comes by itself.
    Options { segment_bytes: SEGMENT_BYTES, checkpoint_bytes: 1 << 20, ..Options::default() }
}

fn append(store: &Store, hand: &mut ByHand, event: Event) {
    store.append(vec![event], OnFailure::Refuse, true, 0).unwrap();
    assert!(hand.settle(1000));
}

fn message(number: u32) -> Event {
    let payload = format!("{number}:{}", "x".repeat(200));
    let message = Message { topic: "t".into(), payload: payload.into(), ..Message::default() };
    let takers = vec![Taker { session: SESSION, qos: 1, ..Taker::default() }];
    Event::Stored { message: Arc::new(message), takers, retained: false, from: None }
}

/// A store with two checkpoints and some log behind the second, each record a batch of its own; as a power cut left it.
fn store(end: impl FnOnce(&SimDisk, ByHand)) -> SimDisk {
    let disk = SimDisk::new(7);
    let (store, mut hand, _) = ByHand::open(&disk.process(), options()).unwrap();
    let client_id = "client".into();
    append(&store, &mut hand, Event::SessionOpened { session: SESSION, client_id, expiry: 9, will: None });
    for number in 0..75 {
        if number == 25 || number == 50 {
            hand.ask_checkpoint();
            assert!(hand.settle(1000));
        }
        append(&store, &mut hand, message(number));
    }
    end(&disk, hand);
    disk
}

fn cut_power(disk: &SimDisk, hand: ByHand) {
    disk.cut_power();
    drop(hand);
}

/// Opens it; the numbers of the messages that are there, in order, and what was found.
fn open(disk: &SimDisk) -> (Vec<u32>, Recovery) {
    let (store, mut hand, recovery) = ByHand::open(&disk.process(), options()).expect("it opens");
    let numbers = numbers(&store);
    hand.audit().unwrap();
    // It goes on as if nothing had been.
    append(&store, &mut hand, message(999));
    assert_eq!(numbers.len() + 1, self::numbers(&store).len());
    disk.kill();
    (numbers, recovery)
}

fn numbers(store: &Store) -> Vec<u32> {
    let queued: Vec<_> = {
        let state = store.state();
        let session = state.session(SESSION).expect("the session is there");
        session.queue.iter().map(|entry| entry.message).collect()
    };
    let text = |message: Arc<Message>| String::from_utf8(message.payload.to_vec()).unwrap();
    let number = |text: String| text.split_once(':').unwrap().0.parse().unwrap();
    queued.into_iter().filter_map(|message| store.read(message).ok()).map(|it| number(text(it))).collect()
}

fn all() -> Vec<u32> {
    (0..75).collect()
}

fn missing(found: &[u32]) -> BTreeSet<u32> {
    assert!(found.is_sorted(), "order is kept: {found:?}");
    let found: BTreeSet<u32> = found.iter().copied().collect();
    all().into_iter().filter(|number| !found.contains(number)).collect()
}

/// Files of the store that hold something.
fn files(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name != "lock" && name != "reserve").collect()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    files(disk).into_iter().filter(|name| name.starts_with("log/")).collect()
}

fn checkpoints(disk: &SimDisk) -> Vec<String> {
    files(disk).into_iter().filter(|name| name.starts_with("checkpoint-")).collect()
}

fn inspect(disk: &SimDisk) -> broker_store::Report {
    let before: Vec<_> = disk.files().iter().map(|name| disk.contents(name)).collect();
    let report = Inspection::open(disk.process()).unwrap().verify().unwrap();
    let after: Vec<_> = disk.files().iter().map(|name| disk.contents(name)).collect();
    assert_eq!(before, after, "looking changes nothing");
    report
}

#[test]
fn undamaged_it_is_whole() {
    let disk = store(cut_power);
    assert!(segments(&disk).len() > 4 && checkpoints(&disk).len() == 2, "{:?}", files(&disk));
    let report = inspect(&disk);
    assert!(report.is_whole() && report.torn.is_none() && report.records == 76, "{report:?}");
    let (found, recovery) = open(&disk);
    assert_eq!((found, recovery.quarantined), (all(), vec![]));
}

#[test]
fn a_flipped_bit_costs_the_record_that_it_is_in_and_is_reported() {
    let disk = store(cut_power);
    let segments = segments(&disk);
    for (at, name) in segments.iter().enumerate() {
        let len = disk.contents(name).unwrap().len();
        for byte in (0..44).chain((44..len).step_by(7)) {
            let damaged = disk.copy(1);
            damaged.flip(name, byte, byte as u8);
            let report = inspect(&damaged);
            // The last batch may have been torn: nobody can tell.
            let is_last = at + 1 == segments.len() && report.torn.is_some();
            let is_told = report.damaged.iter().any(|found| {
                let range = found.offset..(found.offset + found.bytes).max(found.offset + 1);
                found.file == *name && range.contains(&(byte as u64))
            });
            assert!(is_told || is_last, "{name} {byte}: {report:?}");
            assert_eq!(report.is_whole(), is_last, "{name} {byte}");
            let (found, _) = open(&damaged);
            // The session's own record is in the checkpoint, too.
            let lost = missing(&found);
            assert!(lost.len() <= 1, "{name} {byte}: {lost:?} are lost");
            if byte < 44 {
                assert!(lost.is_empty(), "a header can be done without, {name} {byte}: {lost:?}");
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_costs_nothing_while_there_is_another() {
    let disk = store(cut_power);
    for name in checkpoints(&disk) {
        let len = disk.contents(&name).unwrap().len();
        for byte in 0..len {
            let damaged = disk.copy(1);
            damaged.flip(&name, byte, byte as u8);
            let report = inspect(&damaged);
            assert!(report.damaged.iter().any(|found| found.file == name), "{name} {byte}: {report:?}");
            let (found, recovery) = open(&damaged);
            assert_eq!(found, all(), "{name} {byte}");
            // A start does not read the body of one that it does not need.
            let is_newest = name == checkpoints(&disk)[1];
            assert_eq!(!recovery.quarantined.is_empty(), is_newest || byte < 64, "{name} {byte}");
        }
    }
}

#[test]
fn both_checkpoints_damaged_cost_what_only_they_knew() {
    let disk = store(cut_power);
    for name in checkpoints(&disk) {
        disk.flip(&name, 80, 0);
    }
    // All of the log is there still.
    let (found, recovery) = open(&disk);
    assert_eq!((found, recovery.quarantined.len(), recovery.checkpoint), (all(), 2, None));
}

#[test]
fn the_format_file_can_be_done_without() {
    let disk = store(cut_power);
    let len = disk.contents("format").unwrap().len();
    for byte in 0..len {
        let damaged = disk.copy(1);
        damaged.flip("format", byte, 3);
        let (found, recovery) = open(&damaged);
        assert_eq!((found, recovery.quarantined.len()), (all(), 1), "{byte}");
        let (_, recovery) = open(&damaged);
        assert_eq!(recovery.quarantined, [], "it is written anew");
    }
    disk.lose("format");
    assert_eq!(open(&disk).0, all());
}

#[test]
fn a_cut_file_costs_what_was_cut_off() {
    let disk = store(cut_power);
    let segments = segments(&disk);
    for name in &segments {
        let bytes = disk.contents(name).unwrap();
        for len in (0..bytes.len()).step_by(61) {
            let damaged = disk.copy(1);
            damaged.set_contents(name, bytes[..len].to_vec());
            let beyond = bytes.len() - len;
            let report = inspect(&damaged);
            let is_last = *name == segments[segments.len() - 1];
            assert!(is_last || !report.is_whole(), "{name} {len}: {report:?}");
            let lost = missing(&open(&damaged).0);
            // A record takes some 230 bytes.
            assert!(lost.len() <= beyond / 220 + 1, "{name} {len}: {lost:?}");
        }
    }
    for name in checkpoints(&disk).iter().chain(&["format".to_owned()]) {
        let bytes = disk.contents(name).unwrap();
        for len in 0..bytes.len() {
            let damaged = disk.copy(1);
            damaged.set_contents(name, bytes[..len].to_vec());
            assert_eq!(open(&damaged).0, all(), "{name} {len}");
        }
    }
}

#[test]
fn a_lost_file_costs_what_was_in_it() {
    let disk = store(cut_power);
    let segments = segments(&disk);
    for name in files(&disk) {
        let damaged = disk.copy(1);
        damaged.lose(&name);
        let report = inspect(&damaged);
        let (found, recovery) = open(&damaged);
        let lost = missing(&found);
        if !name.starts_with("log/") {
            assert!(lost.is_empty(), "{name}: {lost:?}");
            continue;
        }
        assert!(!lost.is_empty() && lost.len() <= 18, "{name}: {lost:?}");
        let (first, last) = (*lost.first().unwrap(), *lost.last().unwrap());
        assert_eq!(lost.len() as u32, last - first + 1, "{name}: only what was in it: {lost:?}");
        // That the log once went on after the last record cannot be seen.
        if name != segments[segments.len() - 1] {
            assert!(!recovery.quarantined.is_empty() && !report.is_whole(), "{name}: {report:?}");
        }
    }
}

#[test]
fn what_is_damaged_is_set_aside_and_not_reported_again() {
    let disk = store(cut_power);
    let name = &segments(&disk)[4];
    let bytes = disk.contents(name).unwrap();
    disk.flip(name, 300, 0);
    let (_, recovery) = open(&disk);
    let [damage] = &recovery.quarantined[..] else { panic!("{recovery:?}") };
    let kept: Vec<_> = disk.files().into_iter().filter(|name| name.starts_with("quarantine/")).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    let kept = disk.contents(kept).unwrap();
    let (reason, kept) = kept.split_at(damage.reason.len() + 1);
    assert_eq!(reason, format!("{}\n", damage.reason).as_bytes());
    let (from, to) = (damage.offset as usize, (damage.offset + damage.bytes) as usize);
    let mut damaged = bytes;
    damaged[300] ^= 1;
    assert_eq!(kept, &damaged[from..to]);
    // A checkpoint has left it behind.
    assert_eq!(open(&disk).1.quarantined, []);
}

#[test]
fn after_an_end_in_good_order_no_record_is_taken_for_torn() {
    let disk = store(|disk, hand| {
        hand.close();
        disk.kill();
    });
    let segments = segments(&disk);
    let last = &segments[segments.len() - 1];
    let len = disk.contents(last).unwrap().len();
    for byte in 44..len {
        let damaged = disk.copy(1);
        damaged.flip(last, byte, 1);
        let lost = missing(&open(&damaged).0);
        assert!(lost.len() <= 1, "{byte}: {lost:?}");
    }
}

#[test]
fn noise_in_every_file_never_keeps_it_from_opening() {
    let mut random = broker_store::sim::Random::new(5);
    let disk = store(cut_power);
    for _ in 0..300 {
        let damaged = disk.copy(1);
        for name in files(&damaged) {
            let mut bytes = damaged.contents(&name).unwrap();
            for _ in 0..random.below(4) {
                let at = random.below_len(bytes.len());
                let end = bytes.len().min(at + random.below_len(60));
                bytes[at..end].iter_mut().for_each(|byte| *byte = random.number() as u8);
            }
            damaged.set_contents(&name, bytes);
        }
        let (store, hand, _) = ByHand::open(&damaged.process(), options()).expect("it opens");
        hand.audit().unwrap();
        hand.close();
        drop(store);
        damaged.kill();
        assert_eq!(ByHand::open(&damaged.process(), options()).unwrap().2.quarantined, []);
    }
}

#[test]
fn names_and_files_of_others_do_no_harm() {
    let disk = store(cut_power);
    let other = SimDisk::new(99);
    let (theirs, mut hand, _) = ByHand::open(&other.process(), options()).unwrap();
    append(&theirs, &mut hand, Event::KeySet { key: "foreign".into(), value: "x".into() });
    hand.ask_checkpoint();
    assert!(hand.settle(1000));
    let foreign = other.contents(&segments(&other)[0]).unwrap();
    disk.set_contents("log/00000000000000009999.log", foreign);
    disk.set_contents("log/18446744073709551615.log", vec![0xff; 100]);
    disk.set_contents("log/notes.txt", b"hello".to_vec());
    let checkpoint = other.contents(&checkpoints(&other)[0]).unwrap();
    disk.set_contents("checkpoint-00000000000000009999", checkpoint);
    let (found, recovery) = open(&disk);
    assert_eq!(found, all());
    let files: Vec<_> = recovery.quarantined.iter().map(|damage| damage.file.as_str()).collect();
    assert!(files.contains(&"log/00000000000000009999.log"), "{files:?}");
    assert!(files.contains(&"checkpoint-00000000000000009999"), "{files:?}");
    let (store, ..) = ByHand::open(&disk.process(), options()).unwrap();
    assert!(store.state().get(b"foreign").is_none());
}

fn format(version: u32) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&7u32.to_le_bytes());
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn refusal(disk: &Arc<dyn Disk>) -> (OpenError, OpenError) {
    let opened = ByHand::open(disk, options()).err().expect("it is refused");
    (opened, Inspection::open(disk.clone()).expect_err("it is refused"))
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let disk = store(cut_power);
    disk.set_contents("format", format(VERSION + 1));
    let before: Vec<_> = disk.files().iter().map(|name| disk.contents(name)).collect();
    let (opened, inspected) = refusal(&disk.process());
    assert!(matches!(opened, OpenError::Newer { version, .. } if version == VERSION + 1), "{opened}");
    assert!(opened.to_string().contains("a newer one is needed"), "{opened}");
    assert!(matches!(inspected, OpenError::Newer { .. }), "{inspected}");
    // Even when the file that says so is lost.
    let name = &segments(&disk)[0];
    let mut segment = disk.contents(name).unwrap();
    segment[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let copy = disk.copy(1);
    copy.set_contents(name, segment);
    copy.lose("format");
    assert!(matches!(refusal(&copy.process()).0, OpenError::Newer { .. }));
    let after: Vec<_> = disk.files().iter().map(|name| disk.contents(name)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_version_that_never_was_is_refused() {
    let disk = store(cut_power);
    disk.set_contents("format", format(0));
    let (opened, inspected) = refusal(&disk.process());
    assert!(matches!(opened, OpenError::Older { version: 0, .. }), "{opened}");
    assert!(matches!(inspected, OpenError::Older { .. }), "{inspected}");
}

#[test]
fn nobody_looks_while_a_process_has_it_and_no_store_is_none() {
    let disk = SimDisk::new(1);
    let empty = Inspection::open(disk.process()).expect_err("there is nothing");
    assert!(matches!(empty, OpenError::Missing(_)), "{empty}");
    let process = disk.process();
    let (_store, _hand, _) = ByHand::open(&process, options()).unwrap();
    let (again, looking) = refusal(&process);
    assert!(matches!(again, OpenError::Locked(_)) && matches!(looking, OpenError::Locked(_)), "{looking}");
}

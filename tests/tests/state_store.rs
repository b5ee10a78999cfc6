//! The state store over MQTT: every verb, every error, notifications, and the same keys for operators.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{Client, Connect, DISCONNECT, Publish, text, user_property};
use forebay_tests::{process, wait};

const TOPIC: &str = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

fn stamp(ahead_ms: i128) -> String {
    format!("{}:0:test", now_ms() as i128 + ahead_ms)
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

/// A client that asks the state store.
struct Asker {
    client: Client,
    answers: String,
}

impl Asker {
    fn new(broker: &Forebay, id: &str) -> Self {
        let mut client = Client::connect(broker.addr, &Connect::v5(id));
        let answers = format!("clients/{id}/answers");
        client.subscribe(&answers, 0);
        Self { client, answers }
    }

    fn send(&mut self, properties: &[(&str, &str)], payload: &[u8]) {
        let mut bytes = [[0x08].as_slice(), &text(&self.answers), &[0x09], &text("c-1")].concat();
        for (key, value) in properties {
            bytes.extend(user_property(key, value));
        }
        self.client.publish_with(TOPIC, 0, false, &bytes, payload);
    }

    /// Asks with these user properties; the answer's payload, and all of it.
    fn ask_with(&mut self, properties: &[(&str, &str)], words: &[&str]) -> (String, Publish) {
        self.send(properties, &request(words));
        let answer = self.client.receive();
        assert_eq!(answer.topic, self.answers);
        assert!(contains(&answer.properties, b"c-1"), "the correlation data comes back");
        (answer.text(), answer)
    }

    /// Asks with a timestamp of now.
    fn ask(&mut self, words: &[&str]) -> String {
        let now = stamp(0);
        self.ask_with(&[("__ts", &now)], words).0
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_verb_does_what_it_says() {
    let broker = Serve::new().start();
    let mut asker = Asker::new(&broker, "asker");
    assert_eq!(asker.ask(&["GET", "k"]), "$-1\r\n");
    assert_eq!(asker.ask(&["SET", "k", "v"]), "+OK\r\n");
    assert_eq!(asker.ask(&["GET", "k"]), "$1\r\nv\r\n");
    assert_eq!(asker.ask(&["SET", "k", "w", "NX"]), ":-1\r\n");
    assert_eq!(asker.ask(&["SET", "k", "w", "NEX"]), ":-1\r\n");
    assert_eq!(asker.ask(&["SET", "k", "w", "NEX", "v"]), "+OK\r\n");
    assert_eq!(asker.ask(&["VDEL", "k", "v"]), ":-1\r\n");
    assert_eq!(asker.ask(&["VDEL", "k", "w"]), ":1\r\n");
    assert_eq!(asker.ask(&["DEL", "k"]), ":0\r\n");
    assert_eq!(asker.ask(&["SET", "k", "v", "PX", "50"]), "+OK\r\n");
    assert_eq!(asker.ask(&["GET", "k"]), "$1\r\nv\r\n");
    wait::until("the key expires", || match asker.ask(&["GET", "k"]).as_str() {
        "$-1\r\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(asker.ask(&["KEYNOTIFY", "k", "STOP"]), ":0\r\n");
    let now = stamp(0);
    let (_, answer) = asker.ask_with(&[("__ts", &now), ("aio-persistence", "true")], &["SET", "p", "v"]);
    for part in ["__stat", "200", "__ts", "StateStore", "aio-persistence", "true"] {
        assert!(contains(&answer.properties, part.as_bytes()), "{part} in {answer:?}");
    }
}

#[test]
fn every_error_is_told_in_the_protocols_words() {
    let broker = Serve::new().start();
    let mut asker = Asker::new(&broker, "asker");
    assert_eq!(asker.ask_with(&[], &["SET", "k", "v"]).0, "-ERR missing timestamp\r\n");
    assert_eq!(asker.ask_with(&[("__ts", "x")], &["SET", "k", "v"]).0, "-ERR malformed timestamp\r\n");
    let ahead = stamp(120_000);
    let (told, _) = asker.ask_with(&[("__ts", &ahead)], &["SET", "k", "v"]);
    assert!(told.starts_with("-ERR the request timestamp is too far in the future;"), "{told}");
    assert_eq!(asker.ask(&["GET", ""]), "-ERR the key length is zero\r\n");
    assert_eq!(asker.ask(&["GET"]), "-ERR wrong number of arguments\r\n");
    assert_eq!(asker.ask(&["FLUSHALL"]), "-ERR unknown command\r\n");
    asker.send(&[], b"GET k\r\n");
    assert_eq!(asker.client.receive().text(), "-ERR syntax error\r\n");
    // Fencing: once a key has a token, requests need one that is as new.
    let (now, old, far) = (stamp(0), stamp(-10_000), stamp(120_000));
    let mut fenced = |fence: Option<&str>, words: &[&str]| {
        let mut properties = vec![("__ts", now.as_str())];
        properties.extend(fence.map(|fence| ("__ft", fence)));
        asker.ask_with(&properties, words).0
    };
    assert_eq!(fenced(Some(&now), &["SET", "f", "v"]), "+OK\r\n");
    assert_eq!(fenced(None, &["SET", "f", "v"]), "-ERR a fencing token is required for this request\r\n");
    let lower = "-ERR the request fencing token is a lower version that the fencing token protecting the resource\r\n";
    assert_eq!(fenced(Some(&old), &["DEL", "f"]), lower);
    assert!(fenced(Some(&far), &["DEL", "f"]).contains("fencing token timestamp is too far in the future"));
    assert_eq!(fenced(Some(&now), &["DEL", "f"]), ":1\r\n");
}

#[test]
fn whoever_watches_a_key_is_told_until_they_stop_or_go() {
    let broker = Serve::new().start();
    let mut asker = Asker::new(&broker, "asker");
    let mut watcher = Asker::new(&broker, "w1");
    watcher.client.subscribe("clients/statestore/v1/+/7731/command/notify/#", 0);
    watcher
        .client
        .subscribe("clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/7731/command/notify/6B", 0);
    assert_eq!(watcher.ask(&["KEYNOTIFY", "k"]), "+OK\r\n");
    assert_eq!(asker.ask(&["SET", "k", "v"]), "+OK\r\n");
    let told = watcher.client.receive();
    assert_eq!(told.text(), "*4\r\n$6\r\nNOTIFY\r\n$3\r\nSET\r\n$5\r\nVALUE\r\n$1\r\nv\r\n");
    assert!(
        told.topic.ends_with("/7731/command/notify/6B") && contains(&told.properties, b"__ts"),
        "{told:?}"
    );
    assert_eq!(asker.ask(&["DEL", "k"]), ":1\r\n");
    assert_eq!(watcher.client.receive().text(), "*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n");
    // What expires is told, too, though nobody looks at it.
    assert_eq!(asker.ask(&["SET", "k", "v", "PX", "20"]), "+OK\r\n");
    watcher.client.receive();
    assert_eq!(watcher.client.receive().text(), "*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n");
    assert_eq!(watcher.ask(&["KEYNOTIFY", "k", "STOP"]), "+OK\r\n");
    assert_eq!(asker.ask(&["SET", "k", "v"]), "+OK\r\n");
    assert_eq!(watcher.ask(&["GET", "k"]), "$1\r\nv\r\n", "and no notification before it");
    // A registration ends with its connection, also when the session goes on.
    let mut goes = Asker::new(&broker, "w2");
    assert_eq!(goes.ask(&["KEYNOTIFY", "k"]), "+OK\r\n");
    let sent = || broker.metric("aio_broker_state_store_notifications_sent", &[]);
    let before = sent();
    goes.client.disconnect();
    wait::until("the registration is gone", || {
        asker.ask(&["SET", "k", "v"]);
        let (after, again) = (sent(), {
            asker.ask(&["SET", "k", "v"]);
            sent()
        });
        if after == again { Ok(()) } else { Err(format!("{before} {after} {again}")) }
    });
}

#[test]
fn a_request_that_asks_for_its_answer_on_the_stores_own_topics_ends_the_connection() {
    let broker = Serve::new().start();
    for topic in [TOPIC, "clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/x"] {
        let mut asker = Asker::new(&broker, "bad");
        asker.answers = topic.to_owned();
        asker.send(&[], &request(&["GET", "k"]));
        asker.client.expect(DISCONNECT);
    }
    // Without a response topic there is nobody to tell.
    let mut mute = Asker::new(&broker, "mute");
    mute.client.publish_with(TOPIC, 1, false, &[], &request(&["GET", "k"]));
    broker.wait_metric("forebay_state_store_requests_unanswerable", &[], 3.0);
}

#[test]
fn of_two_that_race_for_a_key_one_gets_it() {
    let broker = Serve::new().start();
    let (mut one, mut two) = (Asker::new(&broker, "one"), Asker::new(&broker, "two"));
    for round in 0..50 {
        let key = format!("lock-{round}");
        let (first, second) = (stamp(0), stamp(0));
        one.send(&[("__ts", &first)], &request(&["SET", &key, "one", "NX"]));
        two.send(&[("__ts", &second)], &request(&["SET", &key, "two", "NX"]));
        let mut answers = [one.client.receive().text(), two.client.receive().text()];
        answers.sort();
        assert_eq!(answers, ["+OK\r\n", ":-1\r\n"]);
    }
}

#[test]
fn the_quota_is_kept_and_what_goes_makes_room() {
    let broker = Serve::new().options(&["--state-store-keys", "2", "--state-store-bytes", "100"]).start();
    let mut client = Asker::new(&broker, "client");
    let full = "-ERR the quota has been exceeded\r\n";
    for (words, answer) in [
        (&["SET", "a", "1"][..], "+OK\r\n"),
        (&["SET", "b", "2"], "+OK\r\n"),
        (&["SET", "c", "3"], full),
        (&["SET", "b", "22"], "+OK\r\n"),
        (&["DEL", "a"], ":1\r\n"),
        (&["SET", "c", "3"], "+OK\r\n"),
        (&["SET", "c", &"x".repeat(100)], full),
        (&["GET", "c"], "$1\r\n3\r\n"),
    ] {
        assert_eq!(client.ask(words), answer, "{words:?}");
    }
}

#[test]
fn an_independent_client_gets_its_answer() {
    let broker = Serve::new().start();
    let mut command = Command::new("mosquitto_rr");
    let port = broker.addr.port().to_string();
    let now = stamp(0);
    command.args([
        "-V",
        "5",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-t",
        TOPIC,
        "-e",
        "clients/rr/answer",
        "-q",
        "1",
    ]);
    command.args(["-D", "PUBLISH", "correlation-data", "0123456789abcdef"]);
    command.args(["-D", "PUBLISH", "user-property", "__ts", &now, "-W", "5"]);
    command.arg("-m").arg(String::from_utf8(request(&["SET", "k", "v"])).expect("text"));
    let (status, output) = process::run(command);
    assert!(status.success() && output.contains("+OK"), "{status}: {output}");
}

//! What was acknowledged is there after the process was killed: queues, subscriptions, retained messages, exactly once.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{
    Client, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, UNSUBACK, Will, packet, span, text,
    user_properties, user_property,
};
use forebay_tests::wait;
use tempfile::TempDir;

fn serve(data_dir: &Path) -> Forebay {
    Serve::new().data_dir(data_dir).start()
}

fn asks() -> Vec<u8> {
    user_property("aio-persistence", "true")
}

/// A session that outlives its connection.
fn lasting(id: &str) -> Connect {
    Connect::v5(id).resume().session_expiry(u32::MAX)
}

/// Subscribes and asks for persistence; what was granted.
fn subscribe_persisted(client: &mut Client, filter: &str, qos: u8) -> String {
    let body = [vec![0, 7], span(&asks()), text(filter), vec![qos]].concat();
    client.send(&packet(0x82, &body));
    let suback = client.expect(SUBACK);
    assert_eq!(suback.body.last(), Some(&qos), "{suback:02x?}");
    let length = usize::from(suback.body[2]);
    let said = user_properties(&suback.body[3..3 + length]);
    let granted = said.into_iter().find(|(key, _)| key == "aio-persistence");
    granted.map(|(_, value)| value).unwrap_or_default()
}

fn texts(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.receive().text()).collect()
}

#[test]
fn a_persisted_subscription_has_its_messages_after_a_kill() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut away = Client::connect(broker.addr, &lasting("away"));
    assert_eq!(subscribe_persisted(&mut away, "p/#", 1), "true");
    away.subscribe("q", 1);
    drop(away);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let sent: Vec<String> = (0..50).map(|n| format!("{n}")).collect();
    for text in &sent {
        publisher.publish("p/x", 1, text.as_bytes());
    }
    publisher.publish("q", 1, b"in memory only");
    drop(broker);

    let broker = serve(data.path());
    // Routed to before its client is back.
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    publisher.publish("p/x", 1, b"after");
    let mut away = Client::connect(broker.addr, &lasting("away"));
    assert!(away.session_present());
    assert_eq!(texts(&mut away, 51), [sent, vec!["after".to_owned()]].concat());
    away.settle();
    // The other subscription is there, too: it belongs to the session, but not its queue.
    publisher.publish("q", 1, b"now");
    assert_eq!(away.receive().text(), "now");
    wait::until("everything is done with", || match broker.metric("forebay_store_queued", &[]) {
        0.0 => Ok(()),
        queued => Err(format!("{queued} entries wait")),
    });
    drop(broker);

    // What was acknowledged is not sent again, once that is written down.
    let broker = serve(data.path());
    let mut away = Client::connect(broker.addr, &lasting("away"));
    away.settle();
}

#[test]
fn what_is_under_way_is_sent_again_with_its_identifier() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut subscriber = Client::connect(broker.addr, &lasting("s"));
    subscribe_persisted(&mut subscriber, "t", 2);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for (qos, text) in [(1, "a"), (2, "b"), (2, "c"), (1, "d")] {
        publisher.publish("t", qos, text.as_bytes());
    }
    let first: Vec<_> = (0..4).map(|_| subscriber.message()).collect();
    assert!(first.iter().all(|message| !message.dup && message.id >= 0x8000), "{first:?}");
    // b is received: from now on only its PUBREL is owed.
    subscriber.acknowledge(PUBREC, first[1].id);
    assert_eq!(subscriber.expect(PUBREL).id(), first[1].id);
    drop(broker);

    let broker = serve(data.path());
    let mut subscriber = Client::connect(broker.addr, &lasting("s"));
    let mut publishes = Vec::new();
    let mut released = Vec::new();
    for _ in 0..4 {
        let next = subscriber.packet();
        match next.kind() {
            PUBREL => released.push(next.id()),
            _ => publishes.push(next),
        }
    }
    assert_eq!(released, [first[1].id]);
    let ids: Vec<u16> =
        publishes.iter().map(|publish| u16::from_be_bytes([publish.body[3], publish.body[4]])).collect();
    assert_eq!(ids, [first[0].id, first[2].id, first[3].id]);
    assert!(publishes.iter().all(|publish| publish.first & 8 == 8), "marked as sent before");
    subscriber.acknowledge(PUBCOMP, first[1].id);
    subscriber.acknowledge(PUBACK, first[0].id);
    subscriber.acknowledge(PUBACK, first[3].id);
    subscriber.acknowledge(PUBREC, first[2].id);
    assert_eq!(subscriber.expect(PUBREL).id(), first[2].id);
    subscriber.acknowledge(PUBCOMP, first[2].id);
    subscriber.settle();
}

#[test]
fn a_qos_2_message_that_is_sent_again_after_a_kill_is_not_taken_twice() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut subscriber = Client::connect(broker.addr, &lasting("s"));
    subscribe_persisted(&mut subscriber, "t", 2);
    drop(subscriber);
    let connect = lasting("p").property(&asks());
    let mut publisher = Client::connect(broker.addr, &connect);
    let publish = publisher.publish_bytes("t", 2, false, &[], b"once");
    publisher.send(&publish);
    publisher.expect(PUBREC);
    drop(broker);

    let broker = serve(data.path());
    let mut publisher = Client::connect(broker.addr, &connect);
    assert!(publisher.session_present());
    let mut again = publish;
    again[0] |= 8;
    publisher.send(&again);
    let id = publisher.expect(PUBREC).id();
    publisher.acknowledge(PUBREL, id);
    publisher.expect(PUBCOMP);
    // Its identifier is free now, and stays so.
    drop(broker);
    let broker = serve(data.path());
    let mut publisher = Client::connect(broker.addr, &connect);
    publisher.publish("t", 2, b"another");
    let mut subscriber = Client::connect(broker.addr, &lasting("s"));
    let messages = [subscriber.message(), subscriber.message()];
    assert_eq!(messages.each_ref().map(|message| message.text()), ["once", "another"]);
    for message in messages {
        subscriber.acknowledge(PUBREC, message.id);
        assert_eq!(subscriber.expect(PUBREL).id(), message.id);
        subscriber.acknowledge(PUBCOMP, message.id);
    }
    subscriber.settle();
}

#[test]
fn subscriptions_come_and_go_for_good() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut client = Client::connect(broker.addr, &lasting("c"));
    for filter in ["a", "b/+", "$share/g/c"] {
        assert_eq!(subscribe_persisted(&mut client, filter, 1), "true");
    }
    client.send(&packet(0xA2, &[vec![0, 8, 0], text("a")].concat()));
    client.expect(UNSUBACK);
    drop(broker);
    let broker = serve(data.path());
    let mut publisher = Client::connect(broker.addr, &Connect::v5("p"));
    for topic in ["a", "b/1", "c"] {
        publisher.publish(topic, 1, topic.as_bytes());
    }
    let mut client = Client::connect(broker.addr, &lasting("c"));
    assert_eq!(texts(&mut client, 2), ["b/1", "c"]);
    client.settle();
    // Clean start ends it all.
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    assert!(!client.session_present());
    publisher.publish("b/1", 1, b"x");
    client.settle();
    drop(broker);
    let broker = serve(data.path());
    let client = Client::connect(broker.addr, &lasting("c"));
    assert!(!client.session_present());
}

#[test]
fn who_does_not_last_gets_no_persistence_and_is_told() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut client = Client::connect(broker.addr, &Connect::v5("short"));
    assert_eq!(subscribe_persisted(&mut client, "a", 1), "false");
    let without = Serve::new().start();
    let mut client = Client::connect(without.addr, &lasting("long"));
    let granted = subscribe_persisted(&mut client, "a", 1);
    // A data directory of its own is there, too.
    assert_eq!(granted, "true");
    assert_eq!(broker.metric("forebay_store_sessions", &[]), 0.0);
}

#[test]
fn retained_messages_that_ask_for_it_are_there_after_a_kill() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    for (topic, payload) in [("r/1", "old"), ("r/1", "new"), ("r/2", "gone"), ("r/3", "replaced")] {
        client.publish_with(topic, 1, true, &asks(), payload.as_bytes());
    }
    client.publish_with("r/2", 1, true, &asks(), b"");
    // What takes the place of a persisted one is persisted as well, or that would come back.
    client.retain("r/3", 1, b"another");
    client.retain("r/4", 1, b"in memory");
    let seen = |broker: &Forebay| {
        let mut reader = Client::connect(broker.addr, &Connect::v5("reader"));
        reader.subscribe("r/#", 0);
        let mut found = Vec::new();
        reader.send(&[0xC0, 0]);
        loop {
            let next = reader.packet();
            if next.first == 0xD0 {
                return found;
            }
            let topic = String::from_utf8(next.body[2..5].to_vec()).unwrap();
            found.push((topic, String::from_utf8(next.body[next.body.len() - 3..].to_vec()).unwrap()));
        }
    };
    let all = seen(&broker);
    assert_eq!(all.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>(), ["r/1", "r/3", "r/4"]);
    assert_eq!(all[0].1, "new");
    drop(broker);
    let kept = [("r/1".to_owned(), "new".to_owned()), ("r/3".to_owned(), "her".to_owned())];
    assert_eq!(seen(&serve(data.path())), kept);
}

/// What PUBACK or PUBREC says of persistence.
fn answered(client: &mut Client, topic: &str, qos: u8, properties: &[u8]) -> Option<String> {
    client.send(&client.publish_bytes(topic, qos, true, properties, b"x"));
    let answer = client.expect(if qos == 1 { PUBACK } else { PUBREC });
    if qos == 2 {
        client.acknowledge(PUBREL, 9);
        client.expect(PUBCOMP);
    }
    // Packet identifier, reason, length of the properties.
    let said = user_properties(answer.body.get(4..).unwrap_or_default());
    said.into_iter().find(|(key, _)| key.ends_with("ersistence")).map(|(_, value)| value)
}

#[test]
fn who_asks_for_a_retained_message_to_be_persisted_is_told_whether_it_is() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    assert_eq!(answered(&mut client, "r/1", 1, &asks()).as_deref(), Some("true"));
    assert_eq!(answered(&mut client, "r/2", 2, &asks()).as_deref(), Some("true"));
    assert_eq!(answered(&mut client, "r/1", 1, &[]), None);
    assert_eq!(answered(&mut client, "r/1", 1, &user_property("aio-persistence", "false")), None);
    // Retained messages are not to be persisted, whoever asks.
    let resource = data.path().join("broker.yaml");
    let yaml = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata:\n  name: default\nspec:\n  persistence:\n    \
         maxSize: 1GiB\n    retain: {mode: None}\n";
    std::fs::write(&resource, yaml).unwrap();
    let memory = Serve::new().data_dir(data.path().join("other")).file(resource).start();
    let mut client = Client::connect(memory.addr, &Connect::v5("c"));
    assert_eq!(answered(&mut client, "r/1", 1, &asks()).as_deref(), Some("false"));
}

#[test]
fn the_property_that_asks_is_the_one_that_the_broker_resource_says() {
    let data = TempDir::new().unwrap();
    let resource = data.path().join("broker.yaml");
    let yaml = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata:\n  name: default\nspec:\n  persistence:\n    \
         maxSize: 1GiB\n    dynamicSettings: {userPropertyKey: persistence, userPropertyValue: please}\n";
    std::fs::write(&resource, yaml).unwrap();
    let broker = Serve::new().data_dir(data.path().join("data")).file(resource).start();
    let mut client = Client::connect(broker.addr, &Connect::v5("c"));
    assert_eq!(answered(&mut client, "r/1", 1, &asks()), None);
    let asks = user_property("persistence", "please");
    assert_eq!(answered(&mut client, "r/1", 1, &asks).as_deref(), Some("true"));
}

#[test]
fn a_will_that_was_not_due_is_published_after_a_kill() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut away = Client::connect(broker.addr, &lasting("away"));
    subscribe_persisted(&mut away, "wills", 1);
    drop(away);
    let will = Will { topic: "wills", payload: b"it is gone", qos: 1, retain: false };
    let connect = lasting("dying").property(&asks()).will(will).will_properties(&[0x18, 0, 0, 0, 1]);
    let _dying = Client::connect(broker.addr, &connect);
    drop(broker);
    // Nobody comes back in its name within the delay.
    let broker = serve(data.path());
    let mut away = Client::connect(broker.addr, &lasting("away"));
    assert_eq!(away.receive().text(), "it is gone");
}

#[test]
fn sessions_and_messages_expire_while_no_broker_runs() {
    let data = TempDir::new().unwrap();
    let mut broker = serve(data.path());
    let short = Connect::v5("short").resume().session_expiry(1);
    subscribe_persisted(&mut Client::connect(broker.addr, &short), "a", 1);
    subscribe_persisted(&mut Client::connect(broker.addr, &lasting("long")), "a", 1);
    // What was sent to one that is still there does not expire any more.
    broker.wait_metric_is("forebay_connections_open", &[], 0.0);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let expires = |seconds: u8| vec![0x02, 0, 0, 0, seconds];
    publisher.publish_with("a", 1, false, &expires(1), b"short");
    publisher.publish_with("a", 1, false, &expires(200), b"long");
    broker.terminate();
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let broker = serve(data.path());
    assert!(!Client::connect(broker.addr, &short).session_present());
    let mut long = Client::connect(broker.addr, &lasting("long"));
    let message = long.receive();
    assert_eq!(message.text(), "long");
    let [0x02, 0, 0, 0, left] = message.properties[..] else { panic!("{:02x?}", message.properties) };
    assert!((100..=198).contains(&left), "{left} seconds are left");
    long.settle();
}

/// Asks the state store; the answer's payload and user properties.
fn ask(client: &mut Client, properties: &[(&str, &str)], words: &[&str]) -> (String, Vec<(String, String)>) {
    let mut payload = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| payload += &format!("${}\r\n{word}\r\n", word.len()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let mut bytes = [[0x08].as_slice(), &text("answers"), &[0x09], &text("c-1")].concat();
    bytes.extend(user_property("__ts", &format!("{now}:0:test")));
    properties.iter().for_each(|(key, value)| bytes.extend(user_property(key, value)));
    let topic = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";
    client.publish_with(topic, 0, false, &bytes, payload.as_bytes());
    let answer = client.receive();
    (answer.text(), answer.user_properties())
}

#[test]
fn keys_that_ask_for_it_are_there_after_a_kill_with_version_fence_and_expiry() {
    let data = TempDir::new().unwrap();
    let asker = |broker: &Forebay| {
        let mut client = Client::connect(broker.addr, &Connect::v5("asker"));
        client.subscribe("answers", 0);
        client
    };
    let persist = ("aio-persistence", "true");
    let property = |properties: &[(String, String)], key: &str| {
        properties.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let broker = serve(data.path());
    let mut client = asker(&broker);
    let (answer, said) = ask(&mut client, &[persist, ("__ft", "5:0:f")], &["SET", "kept", "old"]);
    assert_eq!((answer.as_str(), property(&said, "aio-persistence").as_str()), ("+OK\r\n", "true"));
    // It stays one of those that are kept.
    let (_, said) = ask(&mut client, &[("__ft", "6:0:f")], &["SET", "kept", "new"]);
    let version = property(&said, "__ts");
    ask(&mut client, &[], &["SET", "memory", "x"]);
    ask(&mut client, &[persist], &["SET", "gone", "x"]);
    ask(&mut client, &[], &["DEL", "gone"]);
    ask(&mut client, &[persist], &["SET", "short", "x", "PX", "1"]);
    drop(broker);

    let broker = serve(data.path());
    let mut client = asker(&broker);
    let (answer, said) = ask(&mut client, &[], &["GET", "kept"]);
    assert_eq!((answer.as_str(), property(&said, "__ts")), ("$3\r\nnew\r\n", version.clone()));
    for key in ["memory", "gone", "short"] {
        assert_eq!(ask(&mut client, &[], &["GET", key]).0, "$-1\r\n", "{key}");
    }
    let (answer, _) = ask(&mut client, &[("__ft", "5:9:f")], &["SET", "kept", "x"]);
    assert!(answer.contains("lower version"), "{answer}");
    let (_, said) = ask(&mut client, &[("__ft", "7:0:f")], &["SET", "kept", "x"]);
    assert!(property(&said, "__ts") > version, "versions go on from there");
}

#[test]
fn what_was_granted_is_shown() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let mut client = Client::connect(broker.addr, &lasting("pump"));
    subscribe_persisted(&mut client, "p/#", 2);
    client.subscribe("q", 0);
    drop(client);
    Client::connect(broker.addr, &Connect::v5("publisher")).publish("p/x", 1, b"1");
    let admin = broker.admin.to_string();
    let get =
        |output: &str| forebay_tests::forebay::run(["get", "subscriptions", "--admin", &admin, "-o", output]);
    let (status, table) = get("table");
    assert!(status.success(), "{table}");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["CLIENT", "FILTER", "QOS", "PERSISTED", "QUEUED", "CONNECTION", "KIND"]);
    assert_eq!(rows[1], ["pump", "p/#", "2", "true", "1", "away", "Client"]);
    assert_eq!(rows[2], ["pump", "q", "0", "false", "1", "away", "Client"]);
    let (_, json) = get("json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json[0]["persisted"], &json[1]["filter"]), (&true.into(), &"q".into()));
    drop(broker);
    let (status, said) = get("table");
    assert!(!status.success() && said.contains("forebay serve --admin"), "{said}");
}

#[test]
fn one_data_directory_is_for_one_process() {
    let data = TempDir::new().unwrap();
    let broker = serve(data.path());
    let data_dir = data.path().to_str().unwrap();
    let (status, said) =
        forebay_tests::forebay::run(["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir]);
    assert!(!status.success() && said.contains("another process uses the store"), "{said}");
    drop(broker);
}

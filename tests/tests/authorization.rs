//! Who may do what: rules of a BrokerAuthorization for topics and for keys of the state store.

use std::net::SocketAddr;

use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::mosquitto;
use forebay_tests::mqtt::{self, Client, Connect, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, Will};
use forebay_tests::resources::{Resources, broker_authentication, broker_authorization, broker_listener};
use forebay_tests::wait;

const NOT_AUTHORIZED: u8 = 0x87;

/// A broker with users ada and bob (password `secret`), and what they may do. The plain address may do everything.
fn broker(rules: &str) -> (Forebay, SocketAddr, Resources) {
    let addr = wait::free_addr();
    let resources = Resources::default();
    let passwords = resources.file("passwords").display().to_string();
    for user in ["ada", "bob"] {
        let (status, output) = forebay::run(["passwd", "-b", "-I", "100", &passwords, user, "secret"]);
        assert!(status.success(), "{output}");
    }
    let port = format!("port: {}\nauthenticationRef: users\nauthorizationRef: rules", addr.port());
    let resources = resources
        .with("listener.yaml", &broker_listener(&[port]))
        .with("authentication.yaml", &broker_authentication("users", &[("password-file", "passwords")], &[]))
        .with("authorization.yaml", &broker_authorization("rules", rules));
    (Serve::new().resources(&resources).start(), addr, resources)
}

const RULES: &str = "\
- principals:
    usernames: [ada]
  brokerResources:
    - method: Connect
    - method: Publish
      topics: ['own/{principal.clientId}/#', 'shared/+', 'statestore/#']
    - method: Subscribe
      topics: ['own/{principal.clientId}/#', 'shared/+', 'clients/{principal.clientId}/#']
  stateStoreResources:
    - {method: Read, keyType: Pattern, keys: ['{principal.username}:*']}
    - {method: Write, keyType: String, keys: ['ada:mine']}
- principals:
    clientIds: ['reader-*']
  brokerResources:
    - method: Connect
      clientIds: ['reader-{principal.username}*']
    - method: Subscribe
      topics: ['#']
";

fn v5(id: &str, user: &str) -> Connect {
    Connect::v5(id).login(user, "secret")
}

/// SUBSCRIBE, and the codes of the answer.
fn subscribe(client: &mut Client, level: u8, filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 7];
    if level == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(mqtt::text(filter));
        body.push(1);
    }
    client.send(&mqtt::packet(0x82, &body));
    let suback = client.expect(SUBACK);
    suback.body[if level == 5 { 3 } else { 2 }..].to_vec()
}

#[test]
fn who_may_connect() {
    let (forebay, addr, _resources) = broker(RULES);
    Client::connect(addr, &v5("a", "ada")).disconnect();
    Client::connect(addr, &v5("reader-bob-2", "bob")).disconnect();
    assert_eq!(Client::refused(addr, &v5("b", "bob")), NOT_AUTHORIZED);
    assert_eq!(Client::refused(addr, &v5("reader-eve", "bob")), NOT_AUTHORIZED);
    assert_eq!(Client::refused(addr, &Connect::v4("b").login("bob", "secret")), 5);
    let will = |topic| Will { topic, payload: b"gone", qos: 1, retain: false };
    assert_eq!(Client::refused(addr, &v5("a", "ada").will(will("elsewhere"))), NOT_AUTHORIZED);
    let mut watcher = Client::connect(forebay.addr, &Connect::v5("watcher"));
    watcher.subscribe("own/#", 0);
    drop(Client::connect(addr, &v5("a", "ada").will(will("own/a/will"))));
    assert_eq!(watcher.receive().topic, "own/a/will");
    forebay.wait_metric("aio_broker_authorization_deny", &["category=\"uncategorized\""], 4.0);
    forebay.wait_metric("aio_broker_authorization_allow", &["category=\"uncategorized\""], 3.0);
}

#[test]
fn what_may_not_be_published_is_answered_and_goes_nowhere() {
    let (forebay, addr, _resources) = broker(RULES);
    let mut watcher = Client::connect(forebay.addr, &Connect::v5("watcher"));
    watcher.subscribe("#", 0);
    for level in [4, 5] {
        let connect = if level == 5 { v5("a", "ada") } else { Connect::v4("a").login("ada", "secret") };
        let mut client = Client::connect(addr, &connect);
        for topic in ["own/b/x", "shared/a/b", "other"] {
            client.publish(topic, 0, b"denied");
            client.send(&client.publish_bytes(topic, 1, true, &[], b"denied"));
            // 3.1.1 [MQTT-3.3.5-2]
            let ack = client.expect(PUBACK);
            assert_eq!(ack.body.get(2).copied(), (level == 5).then_some(NOT_AUTHORIZED), "{ack:02x?}");
            client.send(&client.publish_bytes(topic, 2, false, &[], b"denied"));
            let ack = client.expect(PUBREC);
            assert_eq!(ack.body.get(2).copied(), (level == 5).then_some(NOT_AUTHORIZED), "{ack:02x?}");
            if level == 4 {
                client.acknowledge(PUBREL, 9);
                client.expect(PUBCOMP);
            }
        }
        for qos in [0, 1, 2] {
            client.publish("own/a/x", qos, b"allowed");
            client.publish("shared/x", qos, b"allowed");
        }
        for _ in 0..6 {
            assert_eq!(watcher.receive().text(), "allowed");
        }
    }
    watcher.settle();
    forebay.wait_metric("forebay_messages_dropped", &["cause=\"not-authorized\""], 18.0);
    // Nor was it retained.
    let mut late = Client::connect(forebay.addr, &Connect::v5("late"));
    late.subscribe("#", 0);
    late.settle();
}

#[test]
fn what_may_not_be_subscribed_to_is_refused_filter_by_filter() {
    let (forebay, addr, _resources) = broker(RULES);
    let filters = ["own/a/#", "own/+/x", "#", "shared/+", "$share/g/shared/+", "$share/g/other", "shared/#"];
    let mut client = Client::connect(addr, &v5("a", "ada"));
    let no = NOT_AUTHORIZED;
    assert_eq!(subscribe(&mut client, 5, &filters), [1, no, no, 1, 1, no, no]);
    let mut old = Client::connect(addr, &Connect::v4("a4").login("ada", "secret"));
    assert_eq!(subscribe(&mut old, 4, &["own/a4/#", "own/a/#"]), [1, 0x80]);
    let mut reader = Client::connect(addr, &v5("reader-bob", "bob"));
    assert_eq!(subscribe(&mut reader, 5, &["#", "$SYS/#"]), [1, no]);
    let mut publisher = Client::connect(forebay.addr, &Connect::v5("anybody"));
    for topic in ["own/b/x", "own/a/x", "other"] {
        publisher.publish(topic, 1, b"m");
    }
    assert_eq!(client.receive().topic, "own/a/x");
    client.settle();
    old.settle();
    for topic in ["own/b/x", "own/a/x", "other"] {
        assert_eq!(reader.receive().topic, topic);
    }
}

#[test]
fn without_rules_nobody_may_do_anything() {
    let (_forebay, addr, _resources) = broker("[]");
    assert_eq!(Client::refused(addr, &v5("a", "ada")), NOT_AUTHORIZED);
}

const INVOKE: &str = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke";

/// A request to the state store, and the answer's payload; nothing when there is none.
fn request(client: &mut Client, response: &str, arguments: &[&str]) -> Option<String> {
    let mut payload = format!("*{}\r\n", arguments.len());
    for argument in arguments {
        payload += &format!("${}\r\n{argument}\r\n", argument.len());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let properties = [
        [vec![0x08], mqtt::text(response)].concat(),
        vec![0x09, 0, 1, 7],
        mqtt::user_property("__ts", &format!("{now}:0:test")),
    ]
    .concat();
    client.send(&client.publish_bytes(INVOKE, 1, false, &properties, payload.as_bytes()));
    client.send(&[0xC0, 0]);
    let mut answer = None;
    loop {
        let packet = client.packet();
        match packet.kind() {
            PUBLISH => answer = Some(client.read_publish(&packet).text()),
            mqtt::PINGRESP => return answer,
            _ => {}
        }
    }
}

#[test]
fn keys_of_the_state_store_are_looked_at() {
    let (forebay, addr, _resources) = broker(RULES);
    let mut client = Client::connect(addr, &v5("a", "ada"));
    let response = "clients/a/services/statestore/response";
    assert_eq!(subscribe(&mut client, 5, &["clients/a/#"]), [1]);
    let denied = Some("-ERR not authorized\r\n".to_owned());
    let ask = |client: &mut Client, words: &[&str]| request(client, response, words);
    assert_eq!(ask(&mut client, &["SET", "ada:mine", "1"]), Some("+OK\r\n".to_owned()));
    assert_eq!(ask(&mut client, &["GET", "ada:mine"]), Some("$1\r\n1\r\n".to_owned()));
    assert_eq!(ask(&mut client, &["GET", "ada:other"]), Some("$-1\r\n".to_owned()));
    assert_eq!(ask(&mut client, &["KEYNOTIFY", "ada:other"]), Some("+OK\r\n".to_owned()));
    assert_eq!(ask(&mut client, &["SET", "ada:other", "1"]), denied);
    assert_eq!(ask(&mut client, &["DEL", "ada:other"]), denied);
    assert_eq!(ask(&mut client, &["VDEL", "bob:mine", "1"]), denied);
    assert_eq!(ask(&mut client, &["GET", "bob:mine"]), denied);
    assert_eq!(ask(&mut client, &["KEYNOTIFY", "bob:mine"]), denied);
    assert_eq!(ask(&mut client, &["DEL", "ada:mine"]), Some(":1\r\n".to_owned()));
    // The broker publishes nothing for a client where that may not listen.
    let mut watcher = Client::connect(forebay.addr, &Connect::v5("watcher"));
    watcher.subscribe("other/#", 0);
    assert_eq!(request(&mut client, "other/response", &["GET", "ada:mine"]), None);
    watcher.settle();
    // Others have no bounds.
    let mut free = Client::connect(forebay.addr, &Connect::v5("free"));
    free.subscribe("answers", 1);
    assert_eq!(request(&mut free, "answers", &["SET", "bob:mine", "1"]), Some("+OK\r\n".to_owned()));
}

#[test]
fn a_policy_that_changes_sends_clients_away_and_holds_for_those_that_were_away() {
    let everything = "\
- principals: {usernames: [ada, bob]}
  brokerResources:
    - method: Connect
    - {method: Publish, topics: ['#']}
    - {method: Subscribe, topics: ['#']}
";
    let (mut forebay, addr, resources) = broker(everything);
    let session = |id| v5(id, "ada").session_expiry(3600).resume();
    let mut here = Client::connect(addr, &session("here"));
    assert_eq!(subscribe(&mut here, 5, &["a/#", "b/#"]), [1, 1]);
    let mut away = Client::connect(addr, &session("away"));
    assert_eq!(subscribe(&mut away, 5, &["a/#", "b/#"]), [1, 1]);
    away.disconnect();
    // The same with a queue on disk.
    let kept = || session("kept").property(&mqtt::user_property("aio-persistence", "true"));
    let mut client = Client::connect(addr, &kept());
    assert_eq!(subscribe(&mut client, 5, &["a/#", "b/#"]), [1, 1]);
    client.disconnect();
    let mut publisher = Client::connect(forebay.addr, &Connect::v5("publisher"));
    publisher.publish("a/1", 1, b"allowed still");
    assert_eq!(here.receive().topic, "a/1");
    let narrower =
        everything.replace("{method: Subscribe, topics: ['#']}", "{method: Subscribe, topics: ['b/+']}");
    let resources = resources.with("authorization.yaml", &broker_authorization("rules", &narrower));
    let said = here.closed();
    // Administrative action.
    assert_eq!((said[0].kind(), said[0].body[0]), (mqtt::DISCONNECT, 0x98), "{said:02x?}");
    publisher.settle();
    publisher.publish("a/2", 1, b"not any more");
    publisher.publish("b/2", 1, b"allowed still");
    for id in ["here", "away", "kept"] {
        let connect = if id == "kept" { kept() } else { session(id) };
        let mut back = Client::connect(addr, &connect);
        assert!(back.session_present());
        assert_eq!(back.receive().topic, "b/2", "{id}");
        back.settle();
        publisher.publish("a/3", 1, b"not any more");
        publisher.publish("b/3", 0, b"allowed still");
        assert_eq!(back.receive().topic, "b/3", "{id}");
        back.disconnect();
    }
    // The same again changes nothing, and nobody has to go.
    let mut stays = Client::connect(addr, &session("here"));
    let _resources = resources
        .with("authorization.yaml", &format!("# the same\n{}", broker_authorization("rules", &narrower)));
    forebay.process.signal(rustix::process::Signal::HUP);
    forebay.wait_metric("forebay_reloads", &["result=\"applied\""], 2.0);
    stays.settle();
    mosquitto::publish(addr, "mqttv5", "c", "m", 1, &["-u", "ada", "-P", "secret"]);
    forebay.terminate();
}

//! Limits of the broker, each obeyed and violated: those of a Broker resource, and annotations for the rest. What one
//! client does wrong or slowly is not felt by others, and memory stays bounded.

use std::fmt::Write;
use std::path::Path;

use forebay_tests::conversation::carry_out;
use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{
    Client, Connect, PINGRESP, PUBACK, PUBLISH, PUBREC, PUBREL, packet, text, user_property,
};
use forebay_tests::wait;
use tempfile::TempDir;

/// A broker whose resource has these annotations, `forebay.dev/` left out, and this in its spec.
fn broker(annotations: &[(&str, &str)], spec: &str) -> (Forebay, TempDir) {
    let mut yaml = String::from(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata:\n  name: default\n",
    );
    if !annotations.is_empty() {
        yaml.push_str("  annotations:\n");
        for (key, value) in annotations {
            let _ = writeln!(yaml, "    forebay.dev/{key}: \"{value}\"");
        }
    }
    let _ = writeln!(yaml, "spec:{}", if spec.is_empty() { " {}" } else { "" });
    yaml.push_str(spec);
    let folder = TempDir::new().expect("a temporary directory");
    let file = folder.path().join("broker.yaml");
    std::fs::write(&file, yaml).expect("a file in it");
    let broker = Serve::new().file(&file as &Path).start();
    assert!(!broker.output().contains("broker.yaml"), "the resource is taken as it is: {}", broker.output());
    (broker, folder)
}

/// `advanced.clients` with this in it.
fn clients(limits: &str) -> String {
    format!("  advanced:\n    clients:\n      {limits}\n")
}

/// Somebody who has nothing to do with what goes wrong.
struct Neighbour {
    client: Client,
    count: u32,
}

impl Neighbour {
    fn new(broker: &Forebay) -> Self {
        let mut client = Client::connect(broker.addr, &Connect::v5("neighbour"));
        client.subscribe("neighbour", 0);
        Self { client, count: 0 }
    }

    /// A message of its own comes back.
    fn goes_on(&mut self) {
        self.count += 1;
        self.client.publish("neighbour", 0, self.count.to_string().as_bytes());
        assert_eq!(self.client.receive().text(), self.count.to_string());
    }
}

const DROPPED: &str = "forebay_messages_dropped";
const REFUSED: &str = "forebay_packets_refused";

#[test]
fn packets_are_taken_up_to_the_maximum_size() {
    let (broker, _folder) = broker(&[], &clients("maxPacketSizeBytes: 100"));
    let fits = "x".repeat(100 - 2 - 5 - 1);
    carry_out(
        "packet size",
        &format!(
            "a> CONNECT v5 a clean\na< CONNACK 00 mps=100\na> SUBSCRIBE 1 big=0\na< SUBACK 1 00\n\
             a> PUBLISH big {fits}\na< PUBLISH big {fits}\na> PUBLISH big {fits}x\na< DISCONNECT 95\na< closed\n\
             b> CONNECT v4 b clean\nb< CONNACK 00\nb> PUBLISH big {fits}x\nb> PUBLISH big {fits}xx\nb< closed\n"
        ),
        broker.addr,
    );
    broker.wait_metric(REFUSED, &["too-large"], 2.0);
}

#[test]
fn sessions_outlive_their_connections_no_longer_than_allowed() {
    let (broker, _folder) = broker(&[], &clients("maxSessionExpirySeconds: 4"));
    carry_out(
        "session expiry",
        "a> CONNECT v5 a expiry=100\na< CONNACK 00 expiry=4\n\
         b> CONNECT v4 b\nb< CONNACK 00\n\
         c> CONNECT v5 c expiry=1\nc< CONNACK 00\n\
         d> CONNECT v5 d expiry=1\nd< CONNACK 00\n\
         a! gone\nb! gone\nc> DISCONNECT 00 expiry=4294967295\nc< closed\nd! gone\n\
         a> CONNECT v5 a expiry=100\na< CONNACK present 00 expiry=4\n\
         b> CONNECT v4 b\nb< CONNACK present 00\n\
         a! gone\nb! gone\nwait 4.2\n\
         a> CONNECT v5 a\na< CONNACK 00\nb> CONNECT v4 b\nb< CONNACK 00\n\
         c> CONNECT v5 c\nc< CONNACK 00\n",
        broker.addr,
    );
}

#[test]
fn messages_wait_no_longer_than_allowed() {
    let (broker, _folder) = broker(&[], &clients("maxMessageExpirySeconds: 4"));
    carry_out(
        "message expiry",
        "a> CONNECT v5 a expiry=100\na< CONNACK 00\na> SUBSCRIBE 1 waits/#=1\na< SUBACK 1 01\n\
         p> CONNECT v5 p clean\np< CONNACK 00\n\
         p> PUBLISH waits/long x qos=1 id=1 mei=1000\np< PUBACK 1\na< PUBLISH waits/long x qos=1 id=1 mei=4\n\
         a> PUBACK 1\na! gone\n\
         p> PUBLISH waits/long x qos=1 id=1 mei=1000\np< PUBACK 1\n\
         p> PUBLISH waits/ever x qos=1 id=2\np< PUBACK 2\nwait 4.1\n\
         p> PUBLISH waits/new x qos=1 id=2\np< PUBACK 2\n\
         a> CONNECT v5 a\na< CONNACK present 00\na< PUBLISH waits/new x qos=1 id=*\na< nothing\n",
        broker.addr,
    );
    broker.wait_metric(DROPPED, &["expired"], 2.0);
}

/// [MQTT-3.1.2-22], with the keep alive that the server set.
#[test]
fn keep_alives_are_as_short_as_the_broker_wants_them() {
    let (broker, _folder) = broker(&[], &clients("maxKeepAliveSeconds: 1"));
    carry_out(
        "keep alive",
        "a> CONNECT v5 a clean keep=60\na< CONNACK 00 ska=1\n\
         b> CONNECT v5 b clean keep=1\nb< CONNACK 00\n\
         c> CONNECT v5 c clean\nc< CONNACK 00 ska=1\n\
         d> CONNECT v4 d clean keep=60\nd< CONNACK 00\n\
         a< DISCONNECT 8d\na< closed\nb< DISCONNECT 8d\nb< closed\nc< DISCONNECT 8d\nc< closed\nd< nothing\n",
        broker.addr,
    );
}

/// [MQTT-3.3.4-7] towards the server, [MQTT-3.3.4-9] towards clients that would take more.
#[test]
fn no_more_messages_are_under_way_than_allowed() {
    let (broker, _folder) = broker(&[], &clients("maxReceiveMaximum: 2"));
    carry_out(
        "receive maximum",
        "a> CONNECT v5 a clean\na< CONNACK 00 rm=2\na> SUBSCRIBE 1 way=1\na< SUBACK 1 01\n\
         p> CONNECT v5 p clean\np< CONNACK 00\n\
         p> PUBLISH way 1 qos=2 id=1\np< PUBREC 1\np> PUBLISH way 2 qos=2 id=2\np< PUBREC 2\n\
         p> PUBLISH way 2 qos=2 id=2 dup\np< PUBREC 2\n\
         a< PUBLISH way 1 qos=1 id=1\na< PUBLISH way 2 qos=1 id=2\n\
         p> PUBREL 1\np< PUBCOMP 1\np> PUBLISH way 3 qos=2 id=3\np< PUBREC 3\na< nothing\n\
         a> PUBACK 2\na< PUBLISH way 3 qos=1 id=3\n\
         p> PUBLISH way 4 qos=2 id=4\np< DISCONNECT 93\np< closed\n\
         o> CONNECT v4 o clean\no< CONNACK 00\n\
         o> PUBLISH way 1 qos=2 id=1\no< PUBREC 1\no> PUBLISH way 2 qos=2 id=2\no< PUBREC 2\n\
         o> PUBLISH way 3 qos=2 id=3\no< PUBREC 3\n",
        broker.addr,
    );
    broker.wait_metric(REFUSED, &["receive-maximum"], 1.0);
}

#[test]
fn a_full_queue_keeps_the_oldest_or_the_newest() {
    for (strategy, kept) in [("None", [1, 2, 3]), ("DropOldest", [4, 5, 6])] {
        let limit = format!("subscriberQueueLimit: {{length: 3, strategy: {strategy}}}");
        let (broker, _folder) = broker(&[], &clients(&limit));
        let mut text = "a> CONNECT v4 a\na< CONNACK 00\na> SUBSCRIBE 1 queue=1\na< SUBACK 1 01\na! gone\n\
                        p> CONNECT v5 p clean\np< CONNACK 00\n"
            .to_owned();
        for n in 1..=6 {
            let _ = writeln!(text, "p> PUBLISH queue {n} qos=1 id={n}\np< PUBACK {n}");
        }
        text.push_str("a> CONNECT v4 a\na< CONNACK present 00\n");
        for n in kept {
            let _ = writeln!(text, "a< PUBLISH queue {n} qos=1 id=*");
        }
        text.push_str("a< nothing\n");
        carry_out(strategy, &text, broker.addr);
        assert_eq!(broker.metric(DROPPED, &["queue-full"]), 3.0, "{strategy}");
    }
}

#[test]
fn a_queue_has_a_limit_in_bytes() {
    let (broker, _folder) = broker(&[("queue-bytes", "100")], "");
    let (fits, rest) = ("x".repeat(80), "y".repeat(20));
    carry_out(
        "queue bytes",
        &format!(
            "a> CONNECT v4 a\na< CONNACK 00\na> SUBSCRIBE 1 b=1\na< SUBACK 1 01\na! gone\n\
             p> CONNECT v5 p clean\np< CONNACK 00\n\
             p> PUBLISH b {fits} qos=1 id=1\np< PUBACK 1\np> PUBLISH b {rest} qos=1 id=2\np< PUBACK 2\n\
             a> CONNECT v4 a\na< CONNACK present 00\na< PUBLISH b {fits} qos=1 id=1\na< nothing\n"
        ),
        broker.addr,
    );
    assert_eq!(broker.metric(DROPPED, &["queue-full"]), 1.0);
}

#[test]
fn topics_have_no_more_levels_and_packets_no_more_user_properties_than_allowed() {
    let (broker, _folder) =
        broker(&[("topic-levels", "3"), ("user-properties", "2"), ("topic-aliases", "1")], "");
    carry_out(
        "levels and properties",
        "a> CONNECT v5 a clean tam=9\na< CONNACK 00 tam=1\na> SUBSCRIBE 1 +/+/+=1\na< SUBACK 1 01\n\
         a> PUBLISH a/b/c x\na< PUBLISH a/b/c x alias=1\n\
         a> SUBSCRIBE 2 a/b/c/#=1\na< DISCONNECT 8f\na< closed\n\
         b> CONNECT v5 b clean\nb< CONNACK 00\nb> PUBLISH a/b/c/d x\nb< DISCONNECT 90\nb< closed\n\
         b> CONNECT v5 b clean will=a/b/c/d:x\nb< CONNACK 90\nb< closed\n\
         c> CONNECT v5 c clean up=a:1 up=a:2\nc< CONNACK 00\n\
         c> PUBLISH a x qos=1 id=1 up=a:1 up=a:2\nc< PUBACK 1 10\n\
         c> PUBLISH a x up=a:1 up=a:2 up=a:3\nc< DISCONNECT 97\nc< closed\n\
         d> CONNECT v5 d clean\nd< CONNACK 00\nd> SUBSCRIBE 1 a=0 up=a:1 up=a:2 up=a:3\nd< DISCONNECT 97\nd< closed\n\
         e> CONNECT v5 e clean up=a:1 up=a:2 up=a:3\ne< CONNACK 97\ne< closed\n\
         f> CONNECT v5 f clean will=a:x up=a:1 up=a:2 will.up=a:3\nf< CONNACK 97\nf< closed\n\
         g> CONNECT v5 g clean\ng< CONNACK 00\ng> PUBLISH a x alias=2\ng< DISCONNECT 94\ng< closed\n",
        broker.addr,
    );
    broker.wait_metric(REFUSED, &["user-properties"], 2.0);
    broker.wait_metric(REFUSED, &["levels"], 2.0);
}

#[test]
fn a_client_has_no_more_subscriptions_than_allowed() {
    let (broker, _folder) = broker(&[("subscriptions", "2"), ("inflight-messages", "1")], "");
    carry_out(
        "subscriptions",
        "a> CONNECT v5 a clean\na< CONNACK 00\na> SUBSCRIBE 1 a=1 b=1 c=1 a=0\na< SUBACK 1 01 01 97 00\n\
         a> UNSUBSCRIBE 2 a\na< UNSUBACK 2 00\na> SUBSCRIBE 3 c=1\na< SUBACK 3 01\n\
         b> CONNECT v4 b clean\nb< CONNACK 00\nb> SUBSCRIBE 1 a=1 b=1 c=1\nb< SUBACK 1 01 01 80\n\
         a> PUBLISH c 1 qos=1 id=1\na< PUBLISH c 1 qos=1 id=1\na< PUBACK 1\n\
         a> PUBLISH c 2 qos=1 id=2\na< PUBACK 2\na< nothing\na> PUBACK 1\na< PUBLISH c 2 qos=1 id=2\n",
        broker.addr,
    );
    assert_eq!(broker.metric("forebay_subscriptions_refused", &[]), 2.0);
}

#[test]
fn retained_messages_are_kept_up_to_their_number_and_bytes() {
    let (broker, _folder) = broker(&[("retained-messages", "2"), ("sys-interval", "0s")], "");
    carry_out(
        "number of retained messages",
        "p> CONNECT v5 p clean\np< CONNACK 00\n\
         p> PUBLISH keep/1 x qos=1 id=1 retain\np< PUBACK 1 10\np> PUBLISH keep/2 x qos=1 id=2 retain\np< PUBACK 2 10\n\
         s> CONNECT v5 s clean\ns< CONNACK 00\ns> SUBSCRIBE 1 keep/#=0,rap,rh2\ns< SUBACK 1 00\n\
         p> PUBLISH keep/3 x qos=1 id=3 retain\np< PUBACK 3 97\np> PUBLISH keep/3 x qos=2 id=3 retain\np< PUBREC 3 97\n\
         p> PUBLISH keep/3 x retain\ns< PUBLISH keep/3 x\n\
         p> PUBLISH keep/2 y qos=1 id=2 retain\np< PUBACK 2\ns< PUBLISH keep/2 y retain\n\
         p> PUBLISH keep/1 '' qos=1 id=2 retain\np< PUBACK 2\ns< PUBLISH keep/1 '' retain\n\
         p> PUBLISH keep/3 z qos=1 id=2 retain\np< PUBACK 2\ns< PUBLISH keep/3 z retain\n",
        broker.addr,
    );
    assert_eq!(broker.metric("forebay_retained_refused", &[]), 3.0);
    let (broker, _folder) = self::broker(&[("retained-bytes", "20"), ("sys-interval", "0s")], "");
    carry_out(
        "bytes of retained messages",
        "p> CONNECT v5 p clean\np< CONNACK 00\n\
         p> PUBLISH k/1 seven77 qos=1 id=1 retain\np< PUBACK 1 10\np> PUBLISH k/2 eight888 qos=1 id=2 retain\n\
         p< PUBACK 2 97\np> PUBLISH k/2 seven77 qos=1 id=2 retain\np< PUBACK 2 10\n",
        broker.addr,
    );
}

/// A subscription to everything gets everything, however much more that is than may wait for a client.
#[test]
fn retained_messages_come_as_fast_as_they_are_read() {
    const MESSAGES: usize = 4000;
    let limits = [("outbox-bytes", "1MiB"), ("sys-interval", "0s")];
    let (broker, _folder) = broker(&limits, &clients("maxReceiveMaximum: 10"));
    let mut publisher = Client::connect(broker.addr, &Connect::v4("publisher"));
    let payload = [b'x'; 4000];
    for n in 0..MESSAGES {
        let bytes = publisher.publish_bytes(&format!("all/{n:05}"), 1, true, &[], &payload);
        publisher.send(&bytes);
        publisher.expect(PUBACK);
    }
    for (qos, connect) in [(0, Connect::v5("zero")), (1, Connect::v5("one"))] {
        let mut neighbour = Neighbour::new(&broker);
        let mut reader = Client::connect(broker.addr, &connect);
        reader.send(&packet(0x82, &[vec![0, 7, 0], text("all/#"), vec![qos]].concat()));
        // Nothing is read: what is waiting does not grow.
        for _ in 0..20 {
            neighbour.goes_on();
        }
        assert!(broker.metric("forebay_message_memory_bytes", &[]) < 4_000_000.0);
        reader.expect(forebay_tests::mqtt::SUBACK);
        for n in 0..MESSAGES {
            let message = reader.receive();
            assert_eq!((message.topic, message.retain), (format!("all/{n:05}"), true));
        }
        reader.settle();
    }
    assert_eq!(broker.metric(DROPPED, &[]), 0.0);
}

/// AIO.md §9.2: publishers are told 0x97 when the memory for messages is used up, until there is room again. Who cannot
/// be told is disconnected: 3.1.1 [MQTT-4.8.0-2].
#[test]
fn publishers_are_refused_when_the_memory_for_messages_is_used_up() {
    for accept in [true, false] {
        let handling = if accept { "Accept" } else { "Reject" };
        let spec = format!("  highPriorityMessagesBackpressureHandling: {handling}\n");
        let (broker, _folder) = broker(&[("message-memory", "1MiB")], &spec);
        let away = Connect::v5("away").resume().session_expiry(600);
        let mut subscriber = Client::connect(broker.addr, &away);
        subscriber.subscribe("much", 1);
        subscriber.disconnect();
        let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
        let payload = [b'x'; 16 * 1024];
        let mut publish = |properties: &[u8]| {
            publisher.send(&publisher.publish_bytes("much", 1, false, properties, &payload));
            publisher.expect(PUBACK).body.get(2).copied().unwrap_or(0)
        };
        let taken = (0..200).take_while(|_| publish(&[]) == 0).count();
        // 64 of them are a mebibyte; what threads have not accounted for yet comes on top.
        assert!((60..80).contains(&taken), "{taken} were taken");
        let code = publish(&user_property("$high_priority", ""));
        assert_eq!(code, if accept { 0 } else { 0x97 });
        broker.wait_metric("aio_broker_backpressure_packets_rejected", &[], if accept { 1.0 } else { 2.0 });

        // QoS 0 is dropped meanwhile, and who cannot be told is sent away.
        let mut bystander = Client::connect(broker.addr, &Connect::v5("bystander"));
        bystander.subscribe("other", 0);
        bystander.publish("other", 0, b"lost");
        bystander.settle();
        assert!(broker.metric("aio_broker_qos0_messages_dropped", &["incoming"]) >= 1.0);
        let mut old = Client::connect(broker.addr, &Connect::v4("old"));
        old.send(&old.publish_bytes("much", 1, false, &[], b"x"));
        assert_eq!(old.closed(), []);

        // What is taken by its subscriber makes room.
        let mut subscriber = Client::connect(broker.addr, &away);
        for _ in 0..taken + usize::from(accept) {
            assert_eq!(subscriber.receive().payload.len(), payload.len());
        }
        subscriber.settle();
        wait::until("there is room again", || match publish(&[]) {
            0 => Ok(()),
            code => Err(format!("{code:#04x}")),
        });
    }
}

/// Who reads nothing loses QoS 0 messages; nobody else does, and what waits for it is bounded.
#[test]
fn a_slow_consumer_of_an_open_tap_is_felt_by_nobody() {
    let (broker, _folder) = broker(&[("outbox-bytes", "1MiB")], "");
    let mut neighbour = Neighbour::new(&broker);
    let mut slow = Client::connect(broker.addr, &Connect::v5("slow"));
    slow.subscribe("tap", 0);
    let mut tap = Client::connect(broker.addr, &Connect::v5("tap"));
    let drop = tap.publish_bytes("tap", 0, false, &[], &[b'x'; 32 * 1024]);
    for n in 0..2000 {
        tap.send(&drop);
        if n % 100 == 0 {
            neighbour.goes_on();
        }
    }
    tap.settle();
    broker.wait_metric(DROPPED, &["slow"], 1.0);
    broker.wait_metric("aio_broker_qos0_messages_dropped", &["outgoing"], 1.0);
    assert!(broker.metric("forebay_message_memory_bytes", &[]) < 8_000_000.0);
    // What it reads is whole, and the last that there was room for.
    for _ in 0..10 {
        assert_eq!(slow.message().payload.len(), 32 * 1024);
    }
}

/// Who never says the last word of QoS 2 gets as much as may be under way, and no more.
#[test]
fn a_client_that_never_finishes_qos_2_holds_nobody_up() {
    let queue = clients("maxReceiveMaximum: 5\n      subscriberQueueLimit: {length: 10}");
    let (broker, _folder) = broker(&[], &queue);
    let mut neighbour = Neighbour::new(&broker);
    let mut stuck = Client::connect(broker.addr, &Connect::v5("stuck"));
    stuck.subscribe("twice", 2);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for n in 0..100u8 {
        publisher.publish("twice", 2, &[n]);
        if n % 20 == 0 {
            neighbour.goes_on();
        }
    }
    let sent: Vec<_> = (0..5).map(|_| stuck.message()).collect();
    for (n, message) in sent.iter().enumerate() {
        assert_eq!((message.payload.as_slice(), message.qos), (&[n as u8][..], 2));
        stuck.acknowledge(PUBREC, message.id);
        assert_eq!(stuck.expect(PUBREL).id(), message.id);
    }
    stuck.settle();
    assert_eq!(broker.metric(DROPPED, &["queue-full"]), 85.0);
}

/// A QoS 1 message that comes while the socket takes nothing goes out when it takes more again, acknowledged or not.
#[test]
fn what_waited_for_a_full_socket_goes_out_when_there_is_room() {
    let (broker, _folder) = broker(&[("outbox-bytes", "1MiB")], "");
    let mut slow = Client::connect(broker.addr, &Connect::v5("slow"));
    slow.subscribe("pipe/#", 1);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    let plain = publisher.publish_bytes("pipe/zero", 0, false, &[], &[b'x'; 64 * 1024]);
    while broker.metric(DROPPED, &["slow"]) == 0.0 {
        publisher.send(&plain.repeat(16));
        publisher.settle();
    }
    publisher.publish("pipe/one", 1, b"the last");
    loop {
        let packet = slow.expect(PUBLISH);
        let message = slow.read_publish(&packet);
        if message.topic == "pipe/one" {
            assert_eq!(message.text(), "the last");
            return;
        }
    }
}

/// Ten thousand by hand; fewer where every test has to go on.
#[test]
fn idle_connections_cost_little_and_are_all_there() {
    let many = std::env::var("IDLE_CONNECTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let (broker, _folder) = broker(&[], "");
    let resident = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", broker.process.id())).expect("a process");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory").to_owned();
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") * 1024
    };
    let before = resident();
    let mut idle: Vec<Client> = (0..many)
        .map(|n| {
            let mut client = Client::connect(broker.addr, &Connect::v5(&format!("idle-{n}")));
            client.subscribe(&format!("idle/{n}"), 1);
            client
        })
        .collect();
    broker.wait_metric("aio_broker_connected_sessions", &[], many as f64);
    let each = resident().saturating_sub(before) / many;
    assert!(each < 32 * 1024, "an idle connection takes {each} bytes");
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    for (n, client) in idle.iter_mut().enumerate().step_by(7) {
        publisher.publish(&format!("idle/{n}"), 1, b"hello");
        assert_eq!(client.receive().text(), "hello");
        client.send(&[0xC0, 0]);
        client.expect(PINGRESP);
    }
}

/// What `/status` says of the Broker: reason code and message.
fn health(broker: &Forebay) -> (String, String) {
    let text = forebay_tests::http::get(broker.admin, "/status").expect("an answer").text();
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let found = all.iter().find(|it| it["kind"] == "Broker").expect("the Broker");
    let text = |key: &str| found["healthState"][key].as_str().unwrap_or_default().to_owned();
    (text("reasonCode"), text("message"))
}

#[test]
fn the_broker_probes_itself() {
    let (probed, _folder) = broker(&[], "");
    for step in ["connect", "subscribe", "publish", "unsubscribe"] {
        probed.wait_metric_is(&format!("aio_broker_{step}_route_replication_correctness"), &[], 1.0);
        assert!(probed.metric(&format!("aio_broker_{step}_latency_last_value_ms"), &[]) > 0.0, "{step}");
        assert!(probed.metric(&format!("aio_broker_{step}_latency_mu_ms"), &[]) > 0.0, "{step}");
    }
    probed.wait_metric_is("aio_broker_ping_correctness", &[], 1.0);
    probed.wait_metric_is("aio_broker_payload_check_total_messages_received", &[], 1.0);
    assert_eq!(probed.metric("aio_broker_payload_check_total_messages_lost", &[]), 0.0);
    // It is counted for itself, and gone when it is done.
    probed.wait_metric_is("aio_broker_publishes_received", &["category=\"broker_selftest\""], 1.0);
    assert_eq!(probed.metric("aio_broker_publishes_received", &["category=\"uncategorized\""]), 0.0);
    probed.wait_metric_is("aio_broker_total_sessions", &[], 0.0);
    assert_eq!(health(&probed).0, "");

    // One that lets nobody in with a user property, which the probe has.
    let (failing, _folder) = broker(&[("user-properties", "0")], "");
    wait::until("the probe fails", || {
        let (reason, message) = health(&failing);
        let told = reason == "BrokerProbeFailed" && message == "connect: refused, QuotaExceeded";
        told.then_some(()).ok_or_else(|| format!("{reason}: {message}"))
    });
    failing.wait_metric_is("aio_broker_connect_route_replication_correctness", &[], 0.0);

    let (quiet, _folder) = broker(&[], "  diagnostics:\n    selfCheck:\n      mode: Disabled\n");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let text = forebay_tests::http::get(quiet.admin, "/metrics").expect("an answer").text();
    assert!(!text.contains("correctness"), "{text}");
}

//! The broker is killed again and again, at any moment: what it acknowledged is not lost, and at QoS 2 not doubled.
//!
//! `FOREBAY_KILL_ROUNDS` says how often; `FOREBAY_SEED` repeats a run's moments.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use forebay_tests::forebay::Serve;
use forebay_tests::ledger::{Id, Ledger};
use forebay_tests::mqtt::{
    Client, Connect, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, packet, span, text, user_property,
};
use forebay_tests::random::{Random, seed};
use forebay_tests::wait;
use tempfile::TempDir;

/// Messages of one publisher under way at once.
const WINDOW: usize = 8;

fn lasting(id: &str) -> Connect {
    let asks = user_property("aio-persistence", "true");
    Connect::v5(id).resume().session_expiry(u32::MAX).property(&asks)
}

/// A message of ours that is not done.
struct UnderWay {
    id: u16,
    message: Id,
    /// PUBREC came.
    received: bool,
}

/// Publishes as long as it can, and takes up where it was cut off.
struct Publisher {
    number: u32,
    qos: u8,
    next: u32,
    next_id: u16,
    under_way: VecDeque<UnderWay>,
    pad: String,
    was_connected: bool,
}

impl Publisher {
    fn new(number: u32, qos: u8, pad: usize) -> Self {
        let pad = "x".repeat(pad);
        Self { number, qos, next: 0, next_id: 1, under_way: VecDeque::new(), pad, was_connected: false }
    }

    fn publish_bytes(&self, under_way: &UnderWay, dup: bool) -> Vec<u8> {
        let mut body = text(&format!("ledger/{}", self.number));
        body.extend_from_slice(&under_way.id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(format!("{} {}", under_way.message.payload(), self.pad).as_bytes());
        packet(0x30 | (self.qos << 1) | if dup { 8 } else { 0 }, &body)
    }

    fn run(&mut self, addr: SocketAddr, ledger: &Ledger, most: u32) {
        let connect = lasting(&format!("publisher-{}", self.number));
        let Some(mut client) = Client::try_connect(addr, &connect) else { return };
        assert!(
            client.session_present() || !self.was_connected,
            "publisher {} lost its session",
            self.number
        );
        self.was_connected = true;
        for under_way in &self.under_way {
            let again = match under_way.received {
                true => packet(0x62, &under_way.id.to_be_bytes()),
                false => self.publish_bytes(under_way, true),
            };
            client.send_to_the_unwilling(&again);
        }
        loop {
            while self.under_way.len() < WINDOW && self.next < most {
                self.publish_next(&mut client, ledger);
            }
            if self.under_way.is_empty() {
                return;
            }
            let Some(answer) = client.try_packet() else { return };
            self.answered(&mut client, answer.kind(), &answer.body, ledger);
        }
    }

    fn publish_next(&mut self, client: &mut Client, ledger: &Ledger) {
        let message = Id { publisher: self.number, number: self.next };
        ledger.published(message);
        let under_way = UnderWay { id: self.next_id, message, received: false };
        self.next += 1;
        // Every one is used again soon: a broker that forgot what it released would take a new message for an old one.
        self.next_id = self.next_id % (2 * WINDOW as u16) + 1;
        while self.under_way.iter().any(|other| other.id == self.next_id) {
            self.next_id = self.next_id % (2 * WINDOW as u16) + 1;
        }
        client.send_to_the_unwilling(&self.publish_bytes(&under_way, false));
        self.under_way.push_back(under_way);
    }

    fn answered(&mut self, client: &mut Client, kind: u8, body: &[u8], ledger: &Ledger) {
        let id = u16::from_be_bytes([body[0], body[1]]);
        let reason = body.get(2).copied().unwrap_or(0);
        let at = self.under_way.iter().position(|under_way| under_way.id == id);
        let Some(at) = at else { panic!("{kind} for {id}, which is not under way") };
        // The exchange may have been over, and we not have heard of it.
        let is_over = kind == PUBCOMP && reason == 0x92;
        assert!(reason < 0x80 || is_over, "publisher {}: {kind} with {reason:#x}", self.number);
        match kind {
            PUBACK | PUBREC => {
                ledger.acknowledged(self.under_way[at].message);
                if kind == PUBACK {
                    self.under_way.remove(at);
                } else {
                    self.under_way[at].received = true;
                    client.send_to_the_unwilling(&packet(0x62, &id.to_be_bytes()));
                }
            }
            PUBCOMP => drop(self.under_way.remove(at)),
            other => panic!("packet {other}"),
        }
    }
}

/// Receives as long as it can. Its half of the session outlives the broker.
struct Subscriber {
    name: &'static str,
    qos: u8,
    /// QoS 2 messages whose PUBREL has not come.
    received: BTreeSet<u16>,
    subscribed: bool,
}

impl Subscriber {
    fn new(name: &'static str, qos: u8) -> Self {
        Self { name, qos, received: BTreeSet::new(), subscribed: false }
    }

    /// Until the connection ends, or `until` says so between two messages.
    fn run(&mut self, addr: SocketAddr, ledger: &Ledger, until: impl Fn() -> bool) {
        let Some(mut client) = Client::try_connect(addr, &lasting(self.name)) else { return };
        assert!(client.session_present() || !self.subscribed, "{} lost its session", self.name);
        if !self.subscribed {
            client.send(&packet(0x82, &[vec![0, 7], span(&[]), text("ledger/#"), vec![self.qos]].concat()));
            client.expect(SUBACK);
            self.subscribed = true;
        }
        while !until() {
            let Some(packet) = client.try_packet() else { return };
            if packet.kind() == PUBREL {
                self.received.remove(&packet.id());
                client.send_to_the_unwilling(&self::packet(0x70, &packet.id().to_be_bytes()));
                continue;
            }
            assert_eq!(packet.kind(), PUBLISH, "{packet:02x?}");
            let message = client.read_publish(&packet);
            let id = Id::of(&message.text()).expect("a message of the ledger");
            let is_new = message.qos < 2 || self.received.insert(message.id);
            if is_new {
                ledger.received(self.name, id);
            }
            let answer = if message.qos == 2 { PUBREC } else { PUBACK };
            client.send_to_the_unwilling(&self::packet(answer << 4, &message.id.to_be_bytes()));
        }
    }
}

/// A run of the whole: publishers and subscribers through `rounds` lives of the broker, each ended as `life` says.
fn run(rounds: u32, pad: usize, mut life: impl FnMut(u32, Serve) -> (Serve, Duration)) {
    let data = TempDir::new().unwrap();
    let ledger = Ledger::default();
    let mut publishers = [Publisher::new(0, 1, pad), Publisher::new(1, 2, pad), Publisher::new(2, 2, pad)];
    let mut subscribers = [Subscriber::new("at-least-once", 1), Subscriber::new("exactly-once", 2)];
    let mut away = Subscriber::new("away", 2);
    {
        // All subscriptions are there before anything is published.
        let broker = Serve::new().data_dir(data.path()).start();
        for subscriber in subscribers.iter_mut().chain([&mut away]) {
            subscriber.run(broker.addr, &ledger, || true);
        }
    }
    for round in 0..rounds {
        let (serve, lives) = life(round, Serve::new().data_dir(data.path()));
        let mut broker = serve.start_unready();
        let addr = broker.addr;
        thread::scope(|scope| {
            for publisher in &mut publishers {
                scope.spawn(|| publisher.run(addr, &ledger, u32::MAX));
            }
            for subscriber in &mut subscribers {
                scope.spawn(|| subscriber.run(addr, &ledger, || false));
            }
            let died = wait::within(lives, || broker.process.ended().is_some());
            if let Some(status) = broker.process.ended().filter(|_| died) {
                assert!(!status.success(), "{}", broker.output());
            }
            drop(broker);
        });
    }
    let broker = Serve::new().data_dir(data.path()).start();
    let addr = broker.addr;
    thread::scope(|scope| {
        for publisher in &mut publishers {
            let most = publisher.next;
            publisher.run(addr, &ledger, most);
        }
        for subscriber in subscribers.iter_mut().chain([&mut away]) {
            let (ledger, name) = (&ledger, subscriber.name);
            scope.spawn(move || subscriber.run(addr, ledger, || ledger.has_all(name)));
        }
    });
    let mut complaints = ledger.complaints("at-least-once", |_| false);
    for subscriber in ["exactly-once", "away"] {
        complaints.extend(ledger.complaints(subscriber, |publisher| publisher > 0));
    }
    complaints.truncate(20);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    println!("{} messages were acknowledged", ledger.acknowledged_count());
    assert!(ledger.acknowledged_count() as u32 > rounds, "hardly anything happened");
}

#[test]
fn killed_at_any_moment() {
    let rounds = std::env::var("FOREBAY_KILL_ROUNDS").map_or(60, |rounds| rounds.parse().expect("a number"));
    let mut random = Random::new(seed());
    run(rounds, 0, |_, serve| {
        let lives = 20 + random.below(200);
        (serve, Duration::from_millis(lives))
    });
}

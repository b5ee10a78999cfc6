//! Publishers and subscribers whose sessions outlive the broker, through as many of its lives as a test wants, and the
//! ledger of what they see.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::forebay::{Forebay, Serve};
use crate::ledger::{Id, Ledger};
use crate::mqtt::{
    Client, Connect, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, SUBACK, packet, span,
    text, user_property,
};
use crate::wait;

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
    /// A refusal is no defect: the message is done with, and may come or not.
    bears_refusals: bool,
}

impl Publisher {
    fn new(number: u32, qos: u8, pad: usize) -> Self {
        let pad = "x".repeat(pad);
        Self {
            number,
            qos,
            next: 0,
            next_id: 1,
            under_way: VecDeque::new(),
            pad,
            was_connected: false,
            bears_refusals: false,
        }
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
            let Some(answer) = next_packet(&mut client) else { return };
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
        if self.bears_refusals && reason >= 0x80 && matches!(kind, PUBACK | PUBREC) {
            self.under_way.remove(at);
            return;
        }
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

/// The next packet of a broker that may end, in good order or not.
fn next_packet(client: &mut Client) -> Option<Packet> {
    client.try_packet().filter(|packet| packet.kind() != DISCONNECT)
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
            let Some(packet) = next_packet(&mut client) else { return };
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

/// How a life of the broker ends, if it does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL.
    Kill,
    /// By SIGTERM.
    Terminate,
}

/// One life of the broker.
pub struct Life {
    /// What it is started with, but for its data directory.
    pub serve: Serve,
    /// How long it may live.
    pub lives: Duration,
    /// How it ends then.
    pub end: End,
}

/// Lives of one broker, with its clients.
pub struct Lives {
    data: TempDir,
    ledger: Ledger,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Subscribes, and comes back only at the very end.
    away: Option<Subscriber>,
}

impl Lives {
    /// Payloads are `pad` bytes larger than they must be. `away`: there is a subscriber for whom everything is kept until
    /// the end.
    pub fn new(pad: usize, away: bool) -> Self {
        let publishers =
            vec![Publisher::new(0, 1, pad), Publisher::new(1, 2, pad), Publisher::new(2, 2, pad)];
        let subscribers = vec![Subscriber::new("at-least-once", 1), Subscriber::new("exactly-once", 2)];
        let away = away.then(|| Subscriber::new("away", 2));
        let data = TempDir::new().expect("a temporary directory");
        let mut lives = Self { data, ledger: Ledger::default(), publishers, subscribers, away };
        // All subscriptions are there before anything is published.
        let broker = Serve::new().data_dir(lives.data.path()).start();
        for subscriber in lives.subscribers.iter_mut().chain(&mut lives.away) {
            subscriber.run(broker.addr, &lives.ledger, || true);
        }
        lives
    }

    /// The broker's data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// How many messages were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.ledger.acknowledged_count()
    }

    /// Lets the broker live once, with all clients at work; how it ended, and what it said.
    pub fn live(&mut self, life: Life) -> (ExitStatus, String) {
        let mut broker = match life.serve.data_dir(self.data.path()).try_start() {
            Ok(broker) => broker,
            Err(ended) => return ended,
        };
        let (addr, ledger) = (broker.addr, &self.ledger);
        thread::scope(|scope| {
            for publisher in &mut self.publishers {
                scope.spawn(|| publisher.run(addr, ledger, u32::MAX));
            }
            for subscriber in &mut self.subscribers {
                scope.spawn(|| subscriber.run(addr, ledger, || false));
            }
            if !wait::within(life.lives, || broker.process.ended().is_some()) {
                return end(&mut broker, life.end);
            }
            (broker.process.wait(), broker.process.drained_output())
        })
    }

    /// The same, where messages may be refused.
    pub fn live_with_refusals(&mut self, life: Life) -> (ExitStatus, String) {
        self.publishers.iter_mut().for_each(|publisher| publisher.bears_refusals = true);
        let ended = self.live(life);
        self.publishers.iter_mut().for_each(|publisher| publisher.bears_refusals = false);
        ended
    }

    /// A last life, in which everybody comes back and gets what is left; and nothing may be missing, doubled or in
    /// disorder.
    pub fn settle(&mut self) {
        let broker = Serve::new().data_dir(self.data.path()).start();
        let (addr, ledger) = (broker.addr, &self.ledger);
        thread::scope(|scope| {
            for publisher in &mut self.publishers {
                let most = publisher.next;
                publisher.run(addr, ledger, most);
            }
            for subscriber in self.subscribers.iter_mut().chain(&mut self.away) {
                scope.spawn(|| {
                    let name = subscriber.name;
                    subscriber.run(addr, ledger, || ledger.has_all(name));
                });
            }
        });
        let mut complaints = ledger.complaints("at-least-once", |_| false);
        for subscriber in ["exactly-once"].into_iter().chain(self.away.as_ref().map(|away| away.name)) {
            complaints.extend(ledger.complaints(subscriber, |publisher| publisher > 0));
        }
        complaints.truncate(20);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        println!("{} messages were acknowledged", ledger.acknowledged_count());
    }
}

fn end(broker: &mut Forebay, how: End) -> (ExitStatus, String) {
    let signal = match how {
        End::Kill => rustix::process::Signal::KILL,
        End::Terminate => rustix::process::Signal::TERM,
    };
    broker.process.signal(signal);
    (broker.process.wait(), broker.process.drained_output())
}

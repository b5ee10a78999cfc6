//! One run: a broker's lives on one disk, and the clients that outlive it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;

use broker_store::sim::{Fault, Op, Random, SimDisk};
use broker_store::{FAILPOINTS, Options};
use forebay_tests::ledger::Ledger;
use forebay_tests::mqtt::{Connect, PUBLISH, Packet, Publish, packet, span, text};

use super::graph;
use super::keeper::{Keeper, TOPIC};
use super::life::Life;
use super::publisher::Publisher;
use super::subscriber::Subscriber;
use super::wire::Wire;
use crate::clock;

/// Steps after which everything must have come to rest.
const REST_MAX: usize = 200_000;

/// A store of this size is never full.
const BYTES_ENOUGH: u64 = 8 << 20;

/// What happened, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    lives: u64,
    kills: u64,
    power_cuts: u64,
    planned_ends: u64,
    failed_begins: u64,
    orderly_ends: u64,
    lost_connections: u64,
    acknowledged: u64,
    refused: u64,
    torn: u64,
    /// Of all packets that clients got, in their order, and of all files at the end.
    digest: u64,
}

impl Sum {
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.planned_ends += other.planned_ends;
        self.failed_begins += other.failed_begins;
        self.orderly_ends += other.orderly_ends;
        self.lost_connections += other.lost_connections;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.torn += other.torn;
    }

    /// A simulation in which something never comes up proves nothing about it.
    pub fn assert_all_happened(&self) {
        let happened = [
            self.kills,
            self.power_cuts,
            self.planned_ends,
            self.failed_begins,
            self.orderly_ends,
            self.lost_connections,
            self.acknowledged,
            self.refused,
            self.torn,
        ];
        assert!(happened.iter().all(|&count| count > 0), "{self:#?}");
    }
}

pub struct World {
    random: Random,
    disk: SimDisk,
    options: Options,
    ledger: Ledger,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    keeper: Keeper,
    /// Milliseconds since the broker began, and of the wall clock.
    moment: u64,
    wall: u64,
    with_graph: bool,
    /// Whether the disk may fail.
    fails: bool,
    /// Whether messages may be refused: the disk may fail, or the store be full.
    refuses: bool,
    sum: Sum,
    seen: DefaultHasher,
}

impl World {
    /// Publishers, subscribers and a retained message.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let options = Options {
            segment_bytes: 4 << 10,
            checkpoint_bytes: (4 << 10) << random.below(4),
            max_bytes: [128 << 10, 512 << 10, BYTES_ENOUGH][random.below_len(3)],
            lazy_ms: 50,
            retry_ms: 1000,
        };
        let fails = random.once_in(2);
        Self {
            disk: SimDisk::new(random.number()),
            ledger: Ledger::default(),
            publishers: vec![Publisher::new(0, 1), Publisher::new(1, 2), Publisher::new(2, 2)],
            subscribers: vec![
                Subscriber::new("at-least-once", &["ledger/#"], 1, true),
                Subscriber::new("exactly-once", &["ledger/#"], 2, true),
                Subscriber::new("passing", &["ledger/#"], 1, false),
            ],
            keeper: Keeper::default(),
            moment: 0,
            wall: 1_700_000_000_000,
            with_graph: false,
            fails,
            refuses: fails || options.max_bytes < BYTES_ENOUGH,
            sum: Sum::default(),
            seen: DefaultHasher::new(),
            options,
            random,
        }
    }

    /// With a persisted graph and who takes what it derives, and a share, besides.
    pub fn with_graph(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.subscribers.extend([
            Subscriber::new("one-by-one", &[graph::EACH], 2, true),
            Subscriber::new("together", &[graph::TOGETHER, graph::LATE], 2, true),
            Subscriber::new("left", &["$share/both/ledger/#"], 2, true).counts_as("share"),
            Subscriber::new("right", &["$share/both/ledger/#"], 2, true).counts_as("share"),
        ]);
        ["together", "share"].iter().for_each(|name| world.ledger.unordered(name));
        world.with_graph = true;
        world
    }

    pub fn carry_out(mut self) -> Sum {
        let mut life = self.begin();
        // All subscriptions are there before anything is published.
        self.rest(&mut life, |world| world.subscribers.iter().all(|it| it.is_subscribed));
        for _ in 0..2 + self.random.below(5) {
            life = self.live(life);
        }
        self.disk.heal();
        self.disk.spare();
        self.disk.set_capacity(u64::MAX);
        self.rest(&mut life, Self::is_done);
        self.check();
        // What is told last is there once more.
        self.end(life);
        let life = self.begin();
        self.check_retained(&life);
        drop(life);
        self.sum.acknowledged = self.ledger.acknowledged_count() as u64;
        self.sum.refused = self.keeper.refused + self.publishers.iter().map(|it| it.refused).sum::<u64>();
        assert!(self.refuses || self.sum.refused == 0, "nothing was full or failed");
        for name in self.disk.files() {
            (&name, self.disk.contents(&name)).hash(&mut self.seen);
        }
        self.sum.digest = self.seen.finish();
        self.sum
    }

    /// A new life, with ends on the way to it.
    fn begin(&mut self) -> Life {
        for attempt in 0.. {
            self.disk.spare();
            self.disk.heal();
            if attempt < 3 && self.random.once_in(5) {
                self.disk.cut_power_after(self.random.below(40));
            }
            self.moment = 0;
            self.pass(0, None);
            match Life::begin(&self.disk, self.options.clone(), self.with_graph) {
                Ok((life, recovery)) if self.disk.is_on() => {
                    assert_eq!(recovery.quarantined, [], "nothing was damaged");
                    self.sum.torn += u64::from(recovery.torn.is_some());
                    self.sum.lives += 1;
                    self.disk.spare();
                    return life;
                }
                Ok(_) => self.sum.failed_begins += 1,
                Err(error) => {
                    assert!(!self.disk.is_on(), "{error}");
                    self.sum.failed_begins += 1;
                }
            }
        }
        unreachable!()
    }

    /// The broker runs until it ends, in whatever way; the next life.
    fn live(&mut self, mut life: Life) -> Life {
        if self.random.once_in(2) {
            let step = FAILPOINTS[self.random.below_len(FAILPOINTS.len())];
            let nth = 1 + self.random.below(20);
            match self.random.once_in(2) {
                true => self.disk.kill_at(step, nth),
                false => self.disk.cut_power_at(step, nth),
            }
        }
        for _ in 0..self.random.below(4000) {
            self.step(&mut life);
            if !self.disk.is_on() {
                self.sum.planned_ends += 1;
                break;
            }
        }
        self.end(life);
        self.begin()
    }

    /// The broker ends; its clients lose their connections.
    fn end(&mut self, life: Life) {
        match self.random.below(5) {
            0 if self.disk.is_on() => {
                self.disk.heal();
                self.disk.spare();
                life.close();
                self.disk.kill();
                self.sum.orderly_ends += 1;
            }
            1 | 2 => {
                self.sum.kills += u64::from(self.disk.is_on());
                self.disk.kill();
                drop(life);
            }
            _ => {
                self.sum.power_cuts += u64::from(self.disk.is_on());
                self.disk.cut_power();
                drop(life);
            }
        }
        self.wires().for_each(Wire::lose);
    }

    /// One thing happens.
    fn step(&mut self, life: &mut Life) {
        match self.random.below(200) {
            0..70 => self.act(life),
            70..115 => {
                let at = self.random.below_len(self.clients());
                let mut random = self.random.clone();
                if let Some(wire) = self.wires().nth(at) {
                    wire.arrive(Some(&mut random));
                }
                self.random = random;
            }
            115..150 => life.serve(1 + self.random.below_len(4)),
            150..168 if self.with_graph && self.random.once_in(4) => {
                life.start_graph();
                life.pass_time();
            }
            150..168 => drop(life.write()),
            168..185 => drop(life.deliver()),
            185..192 => {
                let ms = 1 + self.random.below(80);
                self.pass(ms, Some(life));
            }
            192 => {
                let at = self.random.below_len(self.clients());
                self.wires().skip(at).take(1).for_each(Wire::lose);
                self.sum.lost_connections += 1;
            }
            193 if self.fails => self.fault(),
            194..197 => {
                self.disk.heal();
                self.disk.set_capacity(u64::MAX);
            }
            197 => life.checkpoint(),
            // The wall clock steps, forth and back.
            198 => self.wall = self.wall + 10_000 - self.random.below(20_000),
            _ => life.tick(),
        }
    }

    fn fault(&mut self) {
        let op = [Some(Op::Sync), Some(Op::Append), Some(Op::Create), None][self.random.below_len(4)];
        match self.random.below(3) {
            0 => self.disk.set_capacity(self.disk.used() + self.random.below(4000)),
            _ => self.disk.fail(Fault {
                op,
                after: self.random.below(4),
                times: 1 + self.random.below(4),
                kind: ErrorKind::Other,
            }),
        }
    }

    /// Somebody does something.
    fn act(&mut self, life: &Life) {
        let mut random = self.random.clone();
        let keeper = self.clients() - 1;
        match random.below_len(self.clients()) {
            at @ 0..3 => {
                let publisher = &mut self.publishers[at];
                match random.below(3) {
                    _ if !publisher.wire.is_up() => publisher.connect(life, &mut random),
                    0 => publisher.publish(&self.ledger),
                    _ => {
                        if let Some(packet) = publisher.wire.receive(Some(&mut random)) {
                            note(&mut self.seen, at, &packet);
                            publisher.take(&packet, &self.ledger, self.refuses);
                        }
                    }
                }
            }
            at if at < keeper => {
                let subscriber = &mut self.subscribers[at - 3];
                match random.below(2) {
                    _ if !subscriber.wire.is_up() => subscriber.connect(life, &mut random),
                    0 => subscriber.go_on(),
                    _ => {
                        if let Some(packet) = subscriber.wire.receive(Some(&mut random)) {
                            note(&mut self.seen, at, &packet);
                            subscriber.take(&packet, &self.ledger);
                        }
                    }
                }
            }
            at => {
                let keeper = &mut self.keeper;
                match random.below(3) {
                    _ if !keeper.wire.is_up() => keeper.connect(life, &mut random),
                    0 => keeper.publish(&mut random),
                    _ => {
                        if let Some(packet) = keeper.wire.receive(Some(&mut random)) {
                            note(&mut self.seen, at, &packet);
                            keeper.take(&packet);
                        }
                    }
                }
            }
        }
        self.random = random;
    }

    /// Time passes.
    fn pass(&mut self, ms: u64, life: Option<&Life>) {
        self.moment += ms;
        self.wall += ms;
        clock::by_hand::set(self.moment, self.wall);
        if let Some(life) = life {
            life.advance(ms);
        }
    }

    /// Everybody gets their turns, nothing new is published and nothing fails, until it is so.
    fn rest(&mut self, life: &mut Life, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..REST_MAX {
            if is_so(self) {
                return;
            }
            let mut random = self.random.clone();
            for publisher in &mut self.publishers {
                if !publisher.wire.is_up() {
                    publisher.connect(life, &mut random);
                }
                while let Some(packet) = publisher.wire.receive(None) {
                    publisher.take(&packet, &self.ledger, self.refuses);
                }
            }
            for subscriber in &mut self.subscribers {
                if !subscriber.wire.is_up() {
                    subscriber.connect(life, &mut random);
                }
                while let Some(packet) = subscriber.wire.receive(None) {
                    subscriber.take(&packet, &self.ledger);
                    subscriber.go_on();
                }
            }
            if !self.keeper.wire.is_up() {
                self.keeper.connect(life, &mut random);
            }
            while let Some(packet) = self.keeper.wire.receive(None) {
                self.keeper.take(&packet);
            }
            self.random = random;
            self.wires().for_each(|wire| wire.arrive(None));
            life.serve(10);
            life.start_graph();
            life.pass_time();
            while life.write() {}
            while life.deliver() {}
            self.pass(20, Some(life));
        }
        panic!("it does not come to rest: {}", self.complaints().join("\n"));
    }

    fn is_done(&self) -> bool {
        self.publishers.iter().all(Publisher::is_done)
            && self.keeper.is_done()
            && self.exact().all(|name| self.ledger.has_all(name))
            && self.ledger.has_all("at-least-once")
    }

    /// Those whom messages of QoS 2 reach exactly once.
    fn exact(&self) -> impl Iterator<Item = &'static str> {
        let of_graph = ["one-by-one", "together", "share"].into_iter().filter(|_| self.with_graph);
        of_graph.chain(["exactly-once"])
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.ledger.complaints("at-least-once", |_| false);
        for name in self.exact() {
            complaints.extend(self.ledger.complaints(name, |publisher| publisher > 0));
        }
        complaints.truncate(20);
        complaints
    }

    fn check(&self) {
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    /// Somebody new asks for what is retained.
    fn check_retained(&mut self, life: &Life) {
        let mut wire = Wire::default();
        let mut random = self.random.clone();
        wire.connect(life, &Connect::v5("reader"), &mut random);
        let (mut found, mut is_subscribed) = (None, false);
        for _ in 0..1000 {
            wire.arrive(None);
            life.serve(5);
            while let Some(packet) = wire.receive(None) {
                if !wire.is_accepted() {
                    wire.opened(&packet);
                    let body = [vec![0, 7], span(&[]), text(TOPIC), vec![0]].concat();
                    wire.send(&self::packet(0x82, &body));
                } else if packet.kind() == PUBLISH {
                    found = Publish::of(&packet, 5).text().parse().ok();
                } else {
                    is_subscribed = true;
                }
            }
        }
        assert!(is_subscribed);
        assert!(self.keeper.allows(found), "{found:?} is retained, and the keeper is {:?}", self.keeper);
    }

    /// Publishers, subscribers and the keeper.
    fn clients(&self) -> usize {
        self.publishers.len() + self.subscribers.len() + 1
    }

    fn wires(&mut self) -> impl Iterator<Item = &mut Wire> {
        let publishers = self.publishers.iter_mut().map(|it| &mut it.wire);
        let subscribers = self.subscribers.iter_mut().map(|it| &mut it.wire);
        publishers.chain(subscribers).chain([&mut self.keeper.wire])
    }
}

fn note(seen: &mut DefaultHasher, who: usize, packet: &Packet) {
    (who, packet.first, &packet.body).hash(seen);
}

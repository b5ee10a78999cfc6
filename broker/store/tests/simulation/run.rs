//! One run: several lives of a store on one disk.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::sync::Arc;

use broker_store::sim::{ByHand, Fault, Op, Random, SimDisk};
use broker_store::{FAILPOINTS, OnFailure, Options, Recovery, Refused, Store};

use crate::history::{History, Listener};
use crate::model::Model;
use crate::workload;

/// Turns after which a store must be at rest.
const TURNS_MAX: usize = 10_000;

/// What happened, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    lives: u64,
    records: u64,
    committed: u64,
    refused_full: u64,
    refused_failing: u64,
    failed_opens: u64,
    torn: u64,
    checkpoints: u64,
    segments_deleted: u64,
    moved_bytes: u64,
    failures: u64,
    recoveries: u64,
    disk_ops: u64,
    /// Of what is allowed, in thousandths.
    bytes_max: u64,
    /// Of all files at the end.
    digest: u64,
    /// Steps at which the power was cut or the process killed.
    ended_at: BTreeSet<&'static str>,
}

impl Sum {
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.records += other.records;
        self.committed += other.committed;
        self.refused_full += other.refused_full;
        self.refused_failing += other.refused_failing;
        self.failed_opens += other.failed_opens;
        self.torn += other.torn;
        self.checkpoints += other.checkpoints;
        self.segments_deleted += other.segments_deleted;
        self.moved_bytes += other.moved_bytes;
        self.failures += other.failures;
        self.recoveries += other.recoveries;
        self.disk_ops += other.disk_ops;
        self.bytes_max = self.bytes_max.max(other.bytes_max);
        self.ended_at.extend(&other.ended_at);
    }

    /// A simulation in which something never comes up proves nothing about it.
    pub fn assert_all_happened(&self) {
        let happened = [
            self.committed,
            self.refused_full,
            self.refused_failing,
            self.failed_opens,
            self.torn,
            self.checkpoints,
            self.segments_deleted,
            self.moved_bytes,
            self.failures,
            self.recoveries,
        ];
        assert!(happened.iter().all(|&count| count > 0), "{self:#?}");
        // There is no older version to migrate from.
        let steps = FAILPOINTS.iter().filter(|step| !step.starts_with("store.migration"));
        let missed: Vec<_> = steps.filter(|&&step| !self.ended_at.contains(step)).collect();
        assert!(missed.is_empty(), "no life ended at {missed:?}");
    }
}

pub struct Run {
    random: Random,
    disk: SimDisk,
    options: Options,
    payload_max: usize,
    /// How many of ten records somebody waits for.
    urgent_in_ten: u64,
    history: History,
    /// Where this life is to end.
    step: Option<&'static str>,
    sum: Sum,
}

struct Life {
    store: Store,
    hand: ByHand,
    listener: Arc<Listener>,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let max_bytes = [96 << 10, 256 << 10, 1 << 20][random.below_len(3)];
        let options = Options {
            segment_bytes: 4 << 10,
            checkpoint_bytes: (2 << 10) << random.below(5),
            max_bytes,
            lazy_ms: 50,
            retry_ms: 1000,
        };
        let payload_max = [30, 300, 1500][random.below_len(3)];
        let urgent_in_ten = [1, 4, 7, 10][random.below_len(4)];
        let disk = SimDisk::new(random.number());
        let history = History::default();
        Self { random, disk, options, payload_max, urgent_in_ten, history, step: None, sum: Sum::default() }
    }

    pub fn carry_out(mut self) -> Sum {
        for _ in 0..2 + self.random.below(6) {
            let life = self.open();
            self.live(life);
            self.sum.lives += 1;
        }
        self.disk.set_capacity(u64::MAX);
        let life = self.open();
        drop(life);
        self.sum.disk_ops = self.disk.ops();
        let mut hasher = std::hash::DefaultHasher::new();
        for name in self.disk.files() {
            (&name, self.disk.contents(&name)).hash(&mut hasher);
        }
        self.sum.digest = hasher.finish();
        self.sum
    }

    /// Opens the store, with crashes on the way; what it holds must be allowed.
    fn open(&mut self) -> Life {
        for attempt in 0.. {
            self.disk.spare();
            self.disk.heal();
            if attempt < 3 && self.random.once_in(4) {
                self.disk.cut_power_after(self.random.below(40));
            }
            match ByHand::open(&self.disk.process(), self.options.clone()) {
                Ok((store, hand, recovery)) if self.disk.is_on() => {
                    self.disk.spare();
                    return self.begin(store, hand, &recovery);
                }
                Ok(_) => self.sum.failed_opens += 1,
                Err(error) => {
                    assert!(!self.disk.is_on(), "{error}");
                    self.sum.failed_opens += 1;
                }
            }
        }
        unreachable!()
    }

    fn begin(&mut self, store: Store, hand: ByHand, recovery: &Recovery) -> Life {
        assert_eq!(recovery.quarantined, [], "nothing was damaged");
        assert_eq!((recovery.lost_entries, recovery.lost_retained), (0, 0));
        self.sum.torn += u64::from(recovery.torn.is_some());
        let found = Model::of(&store);
        assert!(self.history.allows(&found), "{recovery:?}\n{found:#?}\nafter\n{}", self.history.outline());
        hand.audit().unwrap();
        self.history = History::new(found);
        let listener = Listener::new(&self.disk);
        store.observe(listener.clone());
        Life { store, hand, listener }
    }

    fn live(&mut self, mut life: Life) {
        self.plan();
        for _ in 0..self.random.below(300) {
            if !self.disk.is_on() {
                self.sum.ended_at.extend(self.step);
                break;
            }
            self.act(&mut life);
            self.history.told(std::mem::take(&mut *life.listener.told.lock()));
            self.check_size();
        }
        if self.disk.is_on() && self.random.once_in(2) {
            self.recover(&mut life);
        }
        self.end(life);
        self.disk.set_capacity(u64::MAX);
    }

    /// What is going to happen in this life.
    fn plan(&mut self) {
        self.plan_faults();
        let random = &mut self.random;
        let step = FAILPOINTS[random.below_len(FAILPOINTS.len())];
        self.step = None;
        if step.ends_with("-truncate") {
            // Only a segment that failed is cut.
            let op = Some([Op::Append, Op::Sync][random.below_len(2)]);
            self.disk.fail(Fault { op, after: random.below(30), times: 1, kind: ErrorKind::Other });
        }
        match random.below(6) {
            0 => self.disk.cut_power_after(random.below(700)),
            1 | 2 => {
                self.disk.cut_power_at(step, 1 + random.below(6));
                self.step = Some(step);
            }
            3 => {
                self.disk.kill_at(step, 1 + random.below(6));
                self.step = Some(step);
            }
            _ => {}
        }
    }

    fn plan_faults(&mut self) {
        let random = &mut self.random;
        match random.below(8) {
            0 => self.disk.fail_at_random(random.below(50_000)),
            1 => self.disk.fail_at_random(random.below(200_000)),
            2 => {
                let ops = [Op::Append, Op::Sync, Op::Rename, Op::SyncDir, Op::Create, Op::Remove];
                let op = Some(ops[random.below_len(ops.len())]);
                let times = [1, 3, 1000][random.below_len(3)];
                self.disk.fail(Fault { op, after: random.below(60), times, kind: ErrorKind::Other });
            }
            3 => self.disk.set_capacity(self.disk.used() + random.below(self.options.max_bytes / 2)),
            _ => {}
        }
    }

    fn act(&mut self, life: &mut Life) {
        match self.random.below(100) {
            0..55 => self.append(life),
            55..90 => drop(life.hand.step()),
            90..94 => life.hand.advance(self.random.below(1200)),
            94 => life.hand.ask_checkpoint(),
            95 => self.read(life),
            96 => {
                life.hand.settle(TURNS_MAX);
                if self.disk.is_on() {
                    life.hand.audit().unwrap();
                }
            }
            97 => self.disk.heal(),
            98 => self.disk.set_capacity(self.disk.used() + self.random.below(self.options.max_bytes)),
            _ => drop(life.store.stats()),
        }
    }

    fn append(&mut self, life: &Life) {
        let events = workload::events(&mut self.random, self.history.view(), self.payload_max);
        let urgent = self.random.below(10) < self.urgent_in_ten;
        // Who cannot be refused looks first whether it is crowded.
        let on_failure = match self.random.below(6) {
            0 if !life.store.is_crowded() => OnFailure::Insist,
            1 => OnFailure::Retry,
            2 => OnFailure::Keep,
            _ => OnFailure::Refuse,
        };
        match life.store.append(events.clone(), on_failure, urgent, self.history.next()) {
            Ok(first) => {
                self.history.appended(first.0, events, urgent);
                self.sum.records += 1;
            }
            Err(Refused::Full) => self.sum.refused_full += 1,
            Err(Refused::Failing) => self.sum.refused_failing += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whatever is held can be read at any time.
    fn read(&mut self, life: &Life) {
        let held: Vec<_> = life.store.state().retained().map(|(_, message)| message).collect();
        if let Some(&message) = held.get(self.random.below_len(held.len())) {
            let read = life.store.read(message);
            assert!(read.is_ok() || !self.disk.is_on(), "{read:?}");
        }
    }

    /// All files together stay within bounds. What cannot be refused is looked at before it is appended, and several of them
    /// may be under way then: in so small a store they are more than is kept back for them.
    fn check_size(&mut self) {
        let used = self.disk.used();
        self.sum.bytes_max = self.sum.bytes_max.max(used * 1000 / self.options.max_bytes);
        let bound = self.options.max_bytes + self.options.max_bytes / 16;
        assert!(used <= bound, "{used} bytes of {}", self.options.max_bytes);
    }

    /// When the disk works again, so does the store, by itself.
    fn recover(&mut self, life: &mut Life) {
        self.disk.spare();
        self.disk.heal();
        self.disk.set_capacity(u64::MAX);
        for _ in 0..3 {
            life.hand.advance(self.options.retry_ms + 1);
            assert!(life.hand.settle(TURNS_MAX), "the writer does not come to rest");
        }
        self.history.told(std::mem::take(&mut *life.listener.told.lock()));
        assert_eq!(self.history.waiting(), 0);
        let stats = life.store.stats();
        assert!(!stats.failing && !stats.short, "{stats:?}");
        let (found, committed) = (Model::of(&life.store), self.history.committed());
        assert!(committed.is(&found), "found {found:#?}\nnot {committed:#?}");
        life.hand.audit().unwrap();
    }

    fn end(&mut self, life: Life) {
        let Life { store, hand, listener } = life;
        let stats = store.stats();
        self.sum.checkpoints += stats.checkpoints;
        self.sum.segments_deleted += stats.segments_deleted;
        self.sum.moved_bytes += stats.moved_bytes;
        self.sum.failures += stats.failures;
        self.sum.recoveries += stats.recoveries;
        self.sum.committed += stats.records;
        let crash = self.random.below(3);
        match crash {
            0 if self.disk.is_on() => hand.close(),
            1 => self.disk.kill(),
            _ => self.disk.cut_power(),
        }
        self.history.told(std::mem::take(&mut *listener.told.lock()));
        if self.disk.is_on() {
            assert_eq!(self.history.waiting(), 0, "whoever waits is told before the end");
            self.disk.kill();
        }
        drop(store);
    }
}

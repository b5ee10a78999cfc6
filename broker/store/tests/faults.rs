//! Faults one by one: what is refused, what is kept, and how the store comes back by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, ErrorKind};
use std::sync::Arc;

use broker_store::sim::{ByHand, Fault, Op, SimDisk};
use broker_store::{
    Committed, Event, Failed, Lsn, Message, Observer, OnFailure, Options, Refused, Store, Taker,
};
use parking_lot::Mutex;

const TURNS: usize = 1000;

/// What the observer was told, by token.
#[derive(Default)]
struct Told {
    committed: Mutex<Vec<u64>>,
    failed: Mutex<Vec<(u64, bool)>>,
    recovered: Mutex<u32>,
}

impl Observer for Told {
    fn committed(&self, records: Vec<Committed>) {
        self.committed.lock().extend(records.into_iter().map(|record| record.token));
    }

    fn failed(&self, records: Vec<Failed>, _kept: Option<Lsn>, _why: &io::Error) {
        self.failed.lock().extend(records.into_iter().map(|record| (record.token, record.settled)));
    }

    fn recovered(&self) {
        *self.recovered.lock() += 1;
    }
}

struct Rig {
    disk: SimDisk,
    options: Options,
    store: Store,
    hand: ByHand,
    told: Arc<Told>,
    token: u64,
}

impl Rig {
    fn new(options: Options) -> Self {
        Self::on(SimDisk::new(3), options)
    }

    fn on(disk: SimDisk, options: Options) -> Self {
        let (store, mut hand, recovery) = ByHand::open(&disk.process(), options.clone()).unwrap();
        assert_eq!(recovery.quarantined, []);
        let told = Arc::new(Told::default());
        store.observe(told.clone());
        assert!(hand.settle(TURNS));
        Self { disk, options, store, hand, told, token: 0 }
    }

    /// What is there after the power is cut and comes back.
    fn after_power_cut(self) -> Self {
        self.disk.heal();
        self.disk.cut_power();
        Self::on(self.disk, self.options)
    }

    fn append(&mut self, event: Event, on_failure: OnFailure, urgent: bool) -> Result<u64, Refused> {
        let token = self.token;
        self.store.append(vec![event], on_failure, urgent, token)?;
        self.token += 1;
        Ok(token)
    }

    fn settle(&mut self) {
        assert!(self.hand.settle(TURNS), "the writer does not come to rest");
    }

    /// What nobody waits for is written.
    fn let_lazy_come(&mut self) {
        self.settle();
        self.hand.advance(self.options.lazy_ms);
        self.settle();
    }

    fn wait_a_second(&mut self) {
        self.hand.advance(self.options.retry_ms + 1);
        self.settle();
    }

    fn has(&self, key: &str) -> bool {
        self.store.state().get(key.as_bytes()).is_some()
    }
}

fn key(name: &str) -> Event {
    Event::KeySet { key: name.to_owned().into(), value: "value".into() }
}

fn session() -> Event {
    Event::SessionOpened { session: 1, client_id: "c".into(), expiry: 1, will: None }
}

fn message(len: usize) -> Event {
    let message = Message { topic: "t".into(), payload: vec![9; len].into(), ..Message::default() };
    let takers = vec![Taker { session: 1, qos: 1, ..Taker::default() }];
    Event::Stored { message: Arc::new(message), takers, retained: false, from: None }
}

fn broken(op: Op, times: u64) -> Fault {
    Fault { op: Some(op), after: 0, times, kind: ErrorKind::Other }
}

#[test]
fn a_failed_sync_refuses_and_retries_and_the_store_comes_back_without_being_asked() {
    for op in [Op::Sync, Op::Append] {
        let mut rig = Rig::new(Options::default());
        let before = rig.append(key("before"), OnFailure::Refuse, true).unwrap();
        rig.settle();
        rig.disk.fail(broken(op, 3));
        let refused = rig.append(key("refused"), OnFailure::Refuse, true).unwrap();
        let kept = rig.append(key("kept"), OnFailure::Retry, true).unwrap();
        rig.settle();
        assert_eq!(*rig.told.committed.lock(), [before]);
        assert_eq!(rig.told.failed.lock()[0].0, refused);
        // While it fails nothing new is taken, but for what must not be given up.
        assert_eq!(rig.append(key("no"), OnFailure::Refuse, true), Err(Refused::Failing));
        assert!(rig.store.stats().failing);
        (0..3).for_each(|_| rig.wait_a_second());
        assert!(!rig.store.stats().failing);
        assert_eq!((&*rig.told.committed.lock(), *rig.told.recovered.lock()), (&vec![before, kept], 1));
        let rig = rig.after_power_cut();
        assert_eq!(["before", "refused", "kept", "no"].map(|key| rig.has(key)), [true, false, true, false]);
    }
}

#[test]
fn the_disk_is_tried_again_even_if_nobody_has_anything_to_write() {
    let mut rig = Rig::new(Options::default());
    rig.disk.fail(broken(Op::Sync, 4));
    let refused = rig.append(key("refused"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    assert_eq!(rig.told.failed.lock()[0].0, refused);
    (0..4).for_each(|_| rig.wait_a_second());
    assert!(!rig.store.stats().failing);
    assert_eq!(*rig.told.recovered.lock(), 1);
    rig.append(key("after"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    assert!(rig.after_power_cut().has("after"));
}

#[test]
fn what_nobody_waited_for_outlives_its_abandoned_segment() {
    let mut rig = Rig::new(Options::default());
    rig.append(key("first"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    rig.append(Event::KeyDeleted { key: "first".into() }, OnFailure::Retry, false).unwrap();
    rig.let_lazy_come();
    assert!(!rig.has("first"), "it is written, but not synced");
    // Its segment is given up, and for a while neither another nor the checkpoint can be begun that somebody wants.
    rig.disk.fail(broken(Op::Sync, 1));
    rig.disk.fail(broken(Op::Create, 10));
    rig.append(key("refused"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    rig.hand.ask_checkpoint();
    (0..12).for_each(|_| rig.wait_a_second());
    rig.append(key("second"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    let rig = rig.after_power_cut();
    assert_eq!(["first", "second"].map(|key| rig.has(key)), [false, true]);
}

#[test]
fn refusals_at_the_end_say_whether_they_hold() {
    let mut rig = Rig::new(Options::default());
    rig.append(key("first"), OnFailure::Refuse, true).unwrap();
    rig.settle();
    rig.disk.fail(broken(Op::Sync, u64::MAX));
    let kept = rig.append(key("kept"), OnFailure::Retry, true).unwrap();
    rig.settle();
    let Rig { hand, told, .. } = rig;
    hand.close();
    assert_eq!(*told.failed.lock(), [(kept, false)], "it was written once, and may be found again");
}

#[test]
fn on_a_full_device_the_reserve_serves_first_and_room_is_found_again() {
    let mut rig = Rig::new(Options { max_bytes: 32 << 20, ..Options::default() });
    rig.append(session(), OnFailure::Refuse, true).unwrap();
    rig.settle();
    rig.disk.set_capacity(rig.disk.used() + (100 << 10));
    let mut taken = Vec::new();
    let refusal = loop {
        match rig.append(message(10 << 10), OnFailure::Refuse, true) {
            Ok(token) => taken.push(token),
            Err(refused) => break refused,
        }
        rig.settle();
        assert!(taken.len() < 50);
    };
    assert_eq!(refusal, Refused::Full);
    assert!(rig.told.failed.lock().is_empty(), "what was taken is kept: the reserve has made room");
    assert!(rig.store.stats().short && taken.len() >= 9);
    // What makes it smaller is always taken, and gives the room back.
    let messages: Vec<Lsn> = {
        let state = rig.store.state();
        state.session(1).unwrap().queue.iter().map(|entry| entry.message).collect()
    };
    for message in messages {
        rig.append(Event::Done { session: 1, message }, OnFailure::Retry, true).unwrap();
        rig.settle();
    }
    rig.disk.set_capacity(rig.disk.used() + (3 << 20));
    (0..2).for_each(|_| rig.wait_a_second());
    assert!(!rig.store.stats().short, "{:?}", rig.store.stats());
    rig.append(message(10 << 10), OnFailure::Refuse, true).unwrap();
    rig.settle();
    assert_eq!(rig.after_power_cut().store.state().queued(), 1);
}

#[test]
fn what_lives_long_is_moved_out_of_segments_that_are_dead_otherwise() {
    let options = Options {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 8 << 10,
        max_bytes: 128 << 10,
        ..Options::default()
    };
    let mut rig = Rig::new(options);
    rig.append(session(), OnFailure::Refuse, true).unwrap();
    // One in ten stays.
    for number in 0..600 {
        rig.append(message(300), OnFailure::Refuse, true).unwrap();
        rig.settle();
        let message = rig.store.committed();
        if number % 10 > 0 || number >= 100 {
            rig.append(Event::Done { session: 1, message }, OnFailure::Retry, false).unwrap();
        }
        assert!(rig.disk.used() <= rig.options.max_bytes);
    }
    rig.let_lazy_come();
    let stats = rig.store.stats();
    assert!(stats.moved_bytes > 0 && stats.segments_deleted > 20, "{stats:?}");
    assert_eq!(stats.queued, 10);
    rig.hand.audit().unwrap();
    let rig = rig.after_power_cut();
    let held: Vec<Lsn> = {
        let state = rig.store.state();
        state.session(1).unwrap().queue.iter().map(|entry| entry.message).take(10).collect()
    };
    assert!(held.len() == 10 && held.iter().all(|&message| rig.store.read(message).is_ok()));
}

#[test]
fn a_store_that_is_full_refuses_and_never_drops() {
    let mut rig = Rig::new(Options { max_bytes: 256 << 10, ..Options::default() });
    rig.append(session(), OnFailure::Refuse, true).unwrap();
    let mut taken = 0;
    while rig.append(message(1000), OnFailure::Refuse, true).is_ok() {
        rig.settle();
        taken += 1;
    }
    assert_eq!(rig.append(message(1000), OnFailure::Refuse, true), Err(Refused::Full));
    assert!(taken > 100 && rig.store.stats().queued == taken, "{taken}");
    assert!(rig.disk.used() <= 256 << 10);
    // The ends of things find room all the same.
    rig.append(Event::SessionClosed { session: 1, at: 5 }, OnFailure::Retry, true).unwrap();
    rig.settle();
    let mut rig = rig.after_power_cut();
    assert_eq!(rig.store.state().queued(), taken);
    rig.append(Event::SessionEnded { session: 1 }, OnFailure::Retry, true).unwrap();
    rig.settle();
    rig.append(session(), OnFailure::Refuse, true).unwrap();
    rig.append(message(1000), OnFailure::Refuse, true).unwrap();
    rig.settle();
    assert_eq!(rig.store.state().queued(), 1);
}

//! Stores that older versions wrote, kept as they were: each must open, and hold what it held.
//!
//! `fixtures/version-N` was written by the program when N was its version. A new version adds a directory and leaves the
//! others alone; `FOREBAY_WRITE_FIXTURE` in the environment of this test makes the one of the present version anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_store::{
    Event, Inspection, Lsn, Message, OnFailure, Options, RealDisk, Store, Taker, VERSION, Will,
};
use tempfile::TempDir;

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/version-{version}"))
}

fn message(topic: &'static str, payload: &'static str) -> Arc<Message> {
    let message = Message {
        topic: topic.into(),
        properties: vec![0x02, 0, 0, 0, 60].into(),
        payload: payload.into(),
        expiry_offset: Some(1),
        expiry: Some(60),
        qos: 1,
        retain: false,
        received: 1_700_000_000_123,
        hops: 2,
    };
    Arc::new(message)
}

fn stored(topic: &'static str, payload: &'static str, takers: &[u64], retained: bool) -> Event {
    let taker =
        |&session: &u64| Taker { session, qos: 2, packet_id: 7, identifiers: [3, 300].into(), retain: true };
    let takers = takers.iter().map(taker).collect();
    Event::Stored { message: message(topic, payload), takers, retained, from: Some((2, 77)) }
}

/// One of every kind of event, on both sides of a checkpoint.
fn write(directory: &Path) {
    let disk = RealDisk::new(directory).unwrap();
    let (store, _) =
        Store::open(Arc::new(disk), Options { max_bytes: 64 << 10, ..Options::default() }).unwrap();
    let append = |events| store.append(events, OnFailure::Retry, true, 0).unwrap();
    let will = Will { message: Message::clone(&message("will", "gone")), delay: 5 };
    let open = |session: u64, will: Option<Will>| Event::SessionOpened {
        session,
        client_id: format!("client-{session}").into(),
        expiry: 3600,
        will: will.map(Box::new),
    };
    append(vec![open(1, Some(will)), open(2, None), open(3, None)]);
    append(vec![
        stored("a", "one", &[1, 2], false),
        stored("b", "two", &[1], true),
        stored("c", "x", &[], true),
    ]);
    let subscribed = |filter: &str| Event::Subscribed {
        session: 1,
        filter: filter.into(),
        options: vec![1, 2].into(),
        persisted: true,
    };
    append(vec![subscribed("a/#"), subscribed("b")]);
    append(vec![Event::KeySet { key: "k".into(), value: "v".into() }]);
    store.checkpoint().unwrap();
    append(vec![stored("a", "three", &[1, 2, 3], false), stored("a", "four", &[1], false)]);
    append(vec![Event::Sent { session: 1, message: Lsn(5), packet_id: 9 }]);
    append(vec![
        Event::Received { session: 1, message: Lsn(5) },
        Event::Done { session: 1, message: Lsn(4) },
    ]);
    append(vec![Event::Unsubscribed { session: 1, filter: "b".into() }, Event::SessionEnded { session: 3 }]);
    append(vec![Event::SessionClosed { session: 2, at: 1_700_000_000_999 }]);
    append(vec![Event::Released { session: 2, packet_id: 77 }, Event::RetainedCleared { topic: "c".into() }]);
    append(vec![Event::KeySet { key: "l".into(), value: "w".into() }, Event::KeyDeleted { key: "k".into() }]);
    // A message from before the last checkpoint and one from behind it.
    drop(store);
    let _ = fs::remove_file(directory.join("reserve"));
    let _ = fs::remove_dir(directory.join("quarantine"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn what_older_versions_wrote_is_there() {
    if std::env::var_os("FOREBAY_WRITE_FIXTURE").is_some() {
        let _ = fs::remove_dir_all(fixture(VERSION));
        write(&fixture(VERSION));
    }
    for version in 1..=VERSION {
        let directory = TempDir::new().unwrap();
        copy(&fixture(version), directory.path());
        let inspection = Inspection::open(Arc::new(RealDisk::existing(directory.path()).unwrap())).unwrap();
        assert_eq!(inspection.version(), version);
        let report = inspection.verify().unwrap();
        assert!(report.is_whole() && report.records > 5, "{report:?}");
        drop(inspection);
        let disk = RealDisk::new(directory.path()).unwrap();
        let (store, recovery) = Store::open(Arc::new(disk), Options::default()).unwrap();
        assert_eq!(recovery.quarantined, []);
        assert!(recovery.checkpoint.is_some() && recovery.records > 3, "{recovery:?}");
        assert_eq!(recovery.migrated_from, (version < VERSION).then_some(version));
        check(&store);
    }
}

fn check(store: &Store) {
    let state = store.state();
    let session = state.session(1).unwrap();
    assert_eq!((&*session.client_id, session.expiry, session.closed), ("client-1", 3600, None));
    let will = session.will.as_ref().unwrap();
    assert_eq!((&will.message, will.delay), (&*message("will", "gone"), 5));
    let filters: Vec<_> =
        session.subscriptions.iter().map(|(filter, (options, _))| (&**filter, &options[..])).collect();
    assert_eq!(filters, [("a/#", &[1, 2][..])]);
    let entries: Vec<_> = session.queue.iter().map(|it| (it.message.0, it.packet_id, it.received)).collect();
    assert_eq!(entries, [(5, 9, true), (10, 7, false), (11, 7, false)]);
    let first = session.queue.iter().next().unwrap();
    assert_eq!((first.qos, first.retain, first.identifiers), (2, true, &[3, 300][..]));
    let other = state.session(2).unwrap();
    assert_eq!((other.closed, other.incoming.len(), other.queue.len()), (Some(1_700_000_000_999), 0, 2));
    assert!(state.session(3).is_none());
    assert_eq!(state.retained().collect::<Vec<_>>(), [("b", Lsn(5))]);
    let keys: Vec<_> = state.keys().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(keys, [(&b"l"[..], &b"w"[..])]);
    drop(state);
    for (number, topic, payload) in [(4, "a", "one"), (5, "b", "two"), (10, "a", "three"), (11, "a", "four")]
    {
        assert_eq!(*store.read(Lsn(number)).unwrap(), *message(topic, payload));
    }
}

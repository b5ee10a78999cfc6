//! Topics and filters: the trie, the retained messages and the plain comparison agree.

use std::sync::Arc;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::retained::Retained;
use broker_core::router::{Options, Router};
use broker_core::topic::{self, SharedFilter};
use bytes::Bytes;

/// Each line is a filter, or a topic where it can be one.
pub fn topics(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').take(32).collect();
    let filters: Vec<&str> =
        lines.iter().copied().filter(|line| topic::validate_filter(line).is_ok()).collect();
    let names: Vec<&str> = lines.iter().copied().filter(|line| topic::validate_name(line).is_ok()).collect();
    let mut router: Router<()> = Router::default();
    for (id, filter) in (0u64..).zip(&filters) {
        router.subscribe(filter, None, id, (), Options::everything());
    }
    let mut retained = Retained::default();
    for name in &names {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        retained.set(Arc::new(Message::new(bytes(name), Bytes::new(), bytes("x"), Millis(0))));
    }
    for name in &names {
        let mut found = Vec::new();
        router.matches(name, &mut |m| found.push(m.id));
        found.sort_unstable();
        let wanted: Vec<u64> = (0u64..)
            .zip(&filters)
            .filter(|(_, filter)| topic::matches(filter, name))
            .map(|(id, _)| id)
            .collect();
        assert_eq!(found, wanted, "{name:?} among {filters:?}");
    }
    for filter in &filters {
        let mut found = Vec::new();
        let mut after = None;
        // In steps of one: the same as at once.
        loop {
            let before = found.len();
            retained.matching_after(filter, after.as_deref(), Millis(0), &mut |message| {
                found.push(message.topic().to_owned());
                false
            });
            if found.len() == before {
                break;
            }
            after = found.last().cloned();
        }
        let mut wanted: Vec<&str> =
            names.iter().copied().filter(|name| topic::matches(filter, name)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        found.sort_unstable();
        assert_eq!(found, wanted, "{filter:?}");
        if let Ok(Some(shared)) = SharedFilter::parse(filter) {
            assert!(!shared.group.is_empty() && topic::validate_filter(shared.filter).is_ok());
        }
    }
    for (id, filter) in (0u64..).zip(&filters) {
        assert!(router.unsubscribe(filter, None, id));
    }
    assert!(router.is_empty());
    for name in names {
        retained.remove(name);
    }
    assert!(retained.is_empty() && retained.bytes() == 0);
}

//! Retained messages: the last one of each topic, found by filter.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::Millis;
use crate::message::Message;

/// The retained messages of the broker, as a tree of topic levels. They belong to no session: 3.1.1 [MQTT-3.1.2-7].
#[derive(Debug, Default)]
pub struct Retained {
    root: Node,
    count: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    message: Option<Arc<Message>>,
    children: BTreeMap<Box<str>, Node>,
}

impl Retained {
    /// Messages held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of topics, properties and payloads held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The retained message of exactly this topic.
    pub fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut node = &self.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.message.as_ref()
    }

    /// Keeps `message` in place of what its topic had [MQTT-3.3.1-5], 3.1.1 [MQTT-3.3.1-7]. An empty payload removes it
    /// [MQTT-3.3.1-6] and is not kept itself [MQTT-3.3.1-7].
    pub fn set(&mut self, message: Arc<Message>) {
        if message.payload().is_empty() {
            self.remove(message.topic());
            return;
        }
        let mut node = &mut self.root;
        for level in message.topic().split('/') {
            // Most topics exist already: look first, allocate only for a new level.
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            let Some(child) = node.children.get_mut(level) else { return };
            node = child;
        }
        self.bytes += message.size();
        match node.message.replace(message) {
            Some(old) => self.bytes -= old.size(),
            None => self.count += 1,
        }
    }

    /// Forgets the message of this topic, and the levels that only it needed.
    pub fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        let levels: Vec<&str> = topic.split('/').collect();
        let removed = remove_below(&mut self.root, &levels)?;
        self.count -= 1;
        self.bytes -= removed.size();
        Some(removed)
    }

    /// Calls `each` with every message whose topic matches `filter` and that has not expired by `now`, in
    /// topic order. `each` says whether to go on.
    pub fn matching(&self, filter: &str, now: Millis, each: &mut dyn FnMut(&Arc<Message>) -> bool) {
        self.matching_after(filter, None, now, each);
    }

    /// The same for those behind the topic `after`, where an earlier walk ended: a walk in steps sees each topic once,
    /// however many there are and whatever changes in between.
    pub fn matching_after(
        &self,
        filter: &str,
        after: Option<&str>,
        now: Millis,
        each: &mut dyn FnMut(&Arc<Message>) -> bool,
    ) {
        let levels: Vec<&str> = filter.split('/').collect();
        let after: Option<Vec<&str>> = after.map(|topic| topic.split('/').collect());
        visit(&self.root, &levels, after.as_deref(), true, now, each);
    }

    /// Drops what has expired; returns how many.
    pub fn expire(&mut self, now: Millis) -> usize {
        let mut gone = Vec::new();
        collect_expired(&self.root, now, &mut gone);
        for topic in &gone {
            self.remove(topic);
        }
        gone.len()
    }
}

fn live(message: &Message, now: Millis) -> bool {
    message.expiry_left(now) != Some(0)
}

fn remove_below(node: &mut Node, levels: &[&str]) -> Option<Arc<Message>> {
    let Some((first, rest)) = levels.split_first() else {
        return node.message.take();
    };
    let child = node.children.get_mut(*first)?;
    let removed = remove_below(child, rest)?;
    if child.message.is_none() && child.children.is_empty() {
        node.children.remove(*first);
    }
    Some(removed)
}

/// Walks the part of the tree that `levels` match and that is behind `after`; false as soon as `each` has had enough.
fn visit(
    node: &Node,
    levels: &[&str],
    after: Option<&[&str]>,
    root: bool,
    now: Millis,
    each: &mut dyn FnMut(&Arc<Message>) -> bool,
) -> bool {
    let Some((level, rest)) = levels.split_first() else { return give(node, after, now, each) };
    match *level {
        // `#` includes its parent level.
        "#" => give(node, after, now, each) && visit_children(node, levels, after, root, now, each),
        "+" => visit_children(node, rest, after, root, now, each),
        name => {
            let Some(child) = node.children.get(name) else { return true };
            match after.and_then(<[&str]>::split_first) {
                Some((first, _)) if name < *first => true,
                Some((first, after)) if name == *first => visit(child, rest, Some(after), false, now, each),
                _ => visit(child, rest, None, false, now, each),
            }
        }
    }
}

/// The node's own message, unless it was had: a node comes before what is below it.
fn give(
    node: &Node,
    after: Option<&[&str]>,
    now: Millis,
    each: &mut dyn FnMut(&Arc<Message>) -> bool,
) -> bool {
    after.is_some() || node.message.as_ref().filter(|m| live(m, now)).is_none_or(&mut *each)
}

/// Walks below every child that a wildcard reaches.
fn visit_children(
    node: &Node,
    levels: &[&str],
    after: Option<&[&str]>,
    root: bool,
    now: Millis,
    each: &mut dyn FnMut(&Arc<Message>) -> bool,
) -> bool {
    // A filter that begins with a wildcard does not see topics that begin with `$` [MQTT-4.7.2-1].
    let visible = |name: &str| !(root && name.starts_with('$'));
    let (first, after) = match after.and_then(<[&str]>::split_first) {
        Some((first, after)) => (Bound::Included(*first), Some((*first, after))),
        None => (Bound::Unbounded, None),
    };
    let children = node.children.range::<str, _>((first, Bound::Unbounded));
    children.filter(|(name, _)| visible(name)).all(|(name, child)| {
        let after = after.filter(|(first, _)| **name == **first).map(|(_, after)| after);
        visit(child, levels, after, false, now, each)
    })
}

fn collect_expired(node: &Node, now: Millis, gone: &mut Vec<String>) {
    if let Some(message) = node.message.as_ref().filter(|m| !live(m, now)) {
        gone.push(message.topic().to_owned());
    }
    for child in node.children.values() {
        collect_expired(child, now, gone);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(topic: &str, payload: &str, expiry: Option<u32>) -> Arc<Message> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let mut message = Message::new(bytes(topic), Bytes::new(), bytes(payload), Millis(0));
        message.expiry = expiry;
        message.retain = true;
        Arc::new(message)
    }

    fn found(retained: &Retained, filter: &str) -> Vec<String> {
        let mut topics = Vec::new();
        retained.matching(filter, Millis(0), &mut |m| {
            topics.push(m.topic().to_owned());
            true
        });
        topics
    }

    #[test]
    fn filters_find_what_they_match() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "b/b", "$SYS/b", "/b"] {
            retained.set(message(topic, "x", None));
        }
        assert_eq!(found(&retained, "#"), ["/b", "a", "a/b", "a/b/c", "b/b"]);
        assert_eq!(found(&retained, "+/b"), ["/b", "a/b", "b/b"]);
        assert_eq!(found(&retained, "a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(found(&retained, "$SYS/#"), ["$SYS/b"]);
        assert_eq!(found(&retained, "a/b"), ["a/b"]);
        assert_eq!(found(&retained, "a/+/x"), Vec::<String>::new());
    }

    /// Whatever the step, each topic is seen once and in order.
    #[test]
    fn a_walk_in_steps_sees_what_a_walk_at_once_sees() {
        let mut retained = Retained::default();
        let names = ["", "$x", "a", "a!", "b"];
        for first in names {
            retained.set(message(&format!("x{first}"), "x", None));
            for second in names {
                retained.set(message(&format!("{first}/{second}"), "x", None));
                retained.set(message(&format!("{first}/{second}/c"), "x", None));
            }
        }
        for filter in ["#", "+/a/#", "a/#", "+/+", "a/+/c", "a/a", "$x/#", "+/#", "/+/c"] {
            let whole = found(&retained, filter);
            assert!(!whole.is_empty(), "{filter}");
            for step in 1..5 {
                let mut seen: Vec<String> = Vec::new();
                loop {
                    let (before, after) = (seen.len(), seen.last().cloned());
                    retained.matching_after(filter, after.as_deref(), Millis(0), &mut |m| {
                        seen.push(m.topic().to_owned());
                        seen.len() < before + step
                    });
                    if seen.len() == before {
                        break;
                    }
                }
                assert_eq!(seen, whole, "{filter} in steps of {step}");
            }
            let middle = &whole[whole.len() / 2];
            let kept = retained.remove(middle).unwrap();
            let mut rest = Vec::new();
            retained.matching_after(filter, Some(middle), Millis(0), &mut |m| {
                rest.push(m.topic().to_owned());
                true
            });
            assert_eq!(rest, whole[whole.len() / 2 + 1..], "{filter} behind a topic that is gone");
            retained.set(kept);
        }
    }

    #[test]
    fn an_empty_payload_removes_and_leaves_no_empty_levels() {
        let mut retained = Retained::default();
        retained.set(message("a/b/c", "one", None));
        retained.set(message("a/b/c", "two!", None));
        assert_eq!((retained.len(), retained.bytes()), (1, 9));
        retained.set(message("a/b/c", "", None));
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        assert!(retained.root.children.is_empty());
    }

    #[test]
    fn what_has_expired_is_not_found_and_goes() {
        let mut retained = Retained::default();
        retained.set(message("a", "x", Some(2)));
        retained.set(message("b", "x", None));
        let mut seen = 0;
        retained.matching("#", Millis(2000), &mut |_| {
            seen += 1;
            true
        });
        assert_eq!(seen, 1);
        assert_eq!(retained.expire(Millis(2000)), 1);
        assert!(retained.get("a").is_none() && retained.get("b").is_some());
    }
}

//! Topic filters and who subscribed to them: a trie, in front of which the caller keeps routes per topic.

use foldhash::HashMap;

use crate::packet::QoS;
use crate::reorder::Order;
use crate::small_map::SmallMap;

/// Who subscribes: a session or a graph.
pub type SubscriberId = u64;

/// What a subscription asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The highest QoS it takes.
    pub qos: QoS,
    /// Not what its own session published [MQTT-3.8.3-3].
    pub no_local: bool,
    /// Keep the retain flag as published [MQTT-3.3.1-12, -13].
    pub retain_as_published: bool,
    /// The identifier it wants to see on each message.
    pub identifier: Option<u32>,
    /// It is fed in the order of `__ts`.
    pub order: Option<Order>,
    /// Its messages are persisted.
    pub persisted: bool,
}

impl Options {
    /// Every message as it was published: what the broker's own parts subscribe with.
    pub const fn everything() -> Self {
        Self {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            identifier: None,
            order: None,
            persisted: false,
        }
    }
}

/// One subscription that matches a topic.
#[derive(Debug)]
pub struct Match<'a, S> {
    /// Whose it is.
    pub id: SubscriberId,
    /// The handle given at subscription.
    pub subscriber: &'a S,
    /// What it asked for.
    pub options: Options,
    /// The share it belongs to, as `group/filter`: one member gets the message.
    pub share: Option<&'a str>,
}

#[derive(Debug)]
struct Entry<S> {
    subscriber: S,
    options: Options,
}

type Entries<S> = SmallMap<SubscriberId, Entry<S>>;

type Shares<S> = Vec<(End, Share<S>)>;

#[derive(Debug)]
struct Share<S> {
    name: Box<str>,
    members: Entries<S>,
}

#[derive(Debug)]
struct Node<S> {
    children: HashMap<Box<str>, Node<S>>,
    plus: Option<Box<Node<S>>>,
    /// Subscriptions that end here.
    here: Entries<S>,
    /// Subscriptions that end here with `/#`.
    below: Entries<S>,
    /// Shares of either kind; rare, so a node without any holds a pointer only.
    shares: Option<Box<Shares<S>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Here,
    Below,
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self {
            children: HashMap::default(),
            plus: None,
            here: SmallMap::new(),
            below: SmallMap::new(),
            shares: None,
        }
    }
}

impl<S> Node<S> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
            && self.shares.is_none()
    }

    fn entries(&mut self, end: End, share: Option<&str>) -> &mut Entries<S> {
        match (share, end) {
            (None, End::Here) => &mut self.here,
            (None, End::Below) => &mut self.below,
            (Some(name), _) => {
                let shares = self.shares.get_or_insert_default();
                let at =
                    shares.iter().position(|(e, s)| *e == end && &*s.name == name).unwrap_or_else(|| {
                        shares.push((end, Share { name: name.into(), members: SmallMap::new() }));
                        shares.len() - 1
                    });
                &mut shares[at].1.members
            }
        }
    }
}

/// All subscriptions of the broker.
#[derive(Debug)]
pub struct Router<S> {
    root: Node<S>,
    count: usize,
    shared: usize,
    generation: u64,
}

impl<S> Default for Router<S> {
    fn default() -> Self {
        Self { root: Node::default(), count: 0, shared: 0, generation: 0 }
    }
}

impl<S> Router<S> {
    /// Subscriptions held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Those of them that are shared.
    pub fn shared(&self) -> usize {
        self.shared
    }

    /// None is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Changes whenever a subscription does: a route computed under another generation is stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds or replaces [MQTT-3.8.4-3] a subscription. `filter` is without its share prefix; `share` is the
    /// group's name. True when it is new.
    pub fn subscribe(
        &mut self,
        filter: &str,
        share: Option<&str>,
        id: SubscriberId,
        subscriber: S,
        options: Options,
    ) -> bool {
        let (levels, end) = levels(filter);
        let mut node = &mut self.root;
        for level in levels {
            node = match level {
                "+" => node.plus.get_or_insert_default(),
                name => node.children.entry(name.into()).or_default(),
            };
        }
        let name = share.map(|group| format!("{group}/{filter}"));
        let new = node.entries(end, name.as_deref()).insert(id, Entry { subscriber, options }).is_none();
        self.count += usize::from(new);
        self.shared += usize::from(new && share.is_some());
        self.generation += 1;
        new
    }

    /// Removes the subscription with exactly this filter [MQTT-3.10.4-1] [MQTT-4.7.3-4]. False when there was none.
    pub fn unsubscribe(&mut self, filter: &str, share: Option<&str>, id: SubscriberId) -> bool {
        let (levels, end) = levels(filter);
        let levels: Vec<&str> = levels.collect();
        let name = share.map(|group| format!("{group}/{filter}"));
        let removed = remove_below(&mut self.root, &levels, end, name.as_deref(), id);
        self.count -= usize::from(removed);
        self.shared -= usize::from(removed && share.is_some());
        self.generation += u64::from(removed);
        removed
    }

    /// Every subscription that matches `topic` [MQTT-3.3.2-3], in no particular order; one subscriber may come several
    /// times, once for each of its filters that match.
    pub fn matches<'a>(&'a self, topic: &str, each: &mut dyn FnMut(Match<'a, S>)) {
        // A filter that begins with a wildcard does not see topics that begin with `$` [MQTT-4.7.2-1].
        let hidden = topic.starts_with('$');
        visit(&self.root, Some(topic), hidden, each);
    }
}

/// The levels of a filter, and whether it ends with `#`.
fn levels(filter: &str) -> (impl Iterator<Item = &str>, End) {
    let (rest, end) = match filter.strip_suffix('#') {
        Some("") => (None, End::Below),
        Some(rest) => (Some(rest.trim_end_matches_one('/')), End::Below),
        None => (Some(filter), End::Here),
    };
    (rest.into_iter().flat_map(|rest| rest.split('/')), end)
}

trait TrimOne {
    fn trim_end_matches_one(&self, c: char) -> &str;
}

impl TrimOne for str {
    fn trim_end_matches_one(&self, c: char) -> &str {
        self.strip_suffix(c).unwrap_or(self)
    }
}

fn remove_below<S>(
    node: &mut Node<S>,
    levels: &[&str],
    end: End,
    share: Option<&str>,
    id: SubscriberId,
) -> bool {
    let Some((first, rest)) = levels.split_first() else {
        let removed = node.entries(end, share).remove(&id).is_some();
        if let Some(shares) = &mut node.shares {
            shares.retain(|(_, s)| !s.members.is_empty());
            if shares.is_empty() {
                node.shares = None;
            }
        }
        return removed;
    };
    if *first == "+" {
        let Some(child) = &mut node.plus else { return false };
        let removed = remove_below(child, rest, end, share, id);
        if child.is_empty() {
            node.plus = None;
        }
        return removed;
    }
    let Some(child) = node.children.get_mut(*first) else { return false };
    let removed = remove_below(child, rest, end, share, id);
    if child.is_empty() {
        node.children.remove(*first);
    }
    removed
}

fn visit<'a, S>(node: &'a Node<S>, topic: Option<&str>, hidden: bool, each: &mut dyn FnMut(Match<'a, S>)) {
    if !hidden {
        give(&node.below, None, each);
    }
    if let Some(shares) = &node.shares {
        for (end, share) in shares.iter() {
            if (*end == End::Below && !hidden) || (*end == End::Here && topic.is_none()) {
                give(&share.members, Some(&share.name), each);
            }
        }
    }
    let Some(topic) = topic else {
        give(&node.here, None, each);
        return;
    };
    let (level, rest) = match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    };
    if let Some(child) = node.children.get(level) {
        visit(child, rest, false, each);
    }
    if !hidden && let Some(child) = &node.plus {
        visit(child, rest, false, each);
    }
}

fn give<'a, S>(entries: &'a Entries<S>, share: Option<&'a str>, each: &mut dyn FnMut(Match<'a, S>)) {
    for (id, entry) in entries {
        each(Match { id: *id, subscriber: &entry.subscriber, options: entry.options, share });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        order: None,
        persisted: false,
    };

    fn matching(router: &Router<()>, topic: &str) -> Vec<SubscriberId> {
        let mut ids = Vec::new();
        router.matches(topic, &mut |m| ids.push(m.id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_trie_agrees_with_matching_one_by_one() {
        let filters = [
            "#", "+", "a", "a/b", "a/+", "+/b", "a/#", "a/b/#", "+/+/c", "/", "/+", "+/", "$SYS/#", "$SYS/+",
            "a//b", "a/+/b", "+/#",
        ];
        let topics =
            ["a", "b", "a/b", "a/b/c", "/", "/b", "a/", "$SYS", "$SYS/x", "a//b", "$SYS/x/y", "x/y/c"];
        let mut router = Router::default();
        for (id, filter) in filters.iter().enumerate() {
            assert!(router.subscribe(filter, None, id as u64, (), OPTIONS));
        }
        for topic in topics {
            let expected: Vec<u64> = (0..filters.len() as u64)
                .filter(|id| crate::topic::matches(filters[*id as usize], topic))
                .collect();
            assert_eq!(matching(&router, topic), expected, "{topic}");
        }
        for (id, filter) in filters.iter().enumerate() {
            assert!(router.unsubscribe(filter, None, id as u64), "{filter}");
            assert!(!router.unsubscribe(filter, None, id as u64), "{filter}");
        }
        assert!(router.is_empty() && router.root.is_empty(), "nothing is left behind");
    }

    #[test]
    fn the_same_filter_again_replaces_and_changes_the_generation() {
        let mut router = Router::default();
        assert!(router.subscribe("a", None, 1, (), OPTIONS));
        let before = router.generation();
        assert!(!router.subscribe("a", None, 1, (), Options { qos: QoS::ExactlyOnce, ..OPTIONS }));
        assert_ne!(router.generation(), before);
        let mut qos = Vec::new();
        router.matches("a", &mut |m| qos.push(m.options.qos));
        assert_eq!(qos, [QoS::ExactlyOnce]);
    }

    #[test]
    fn shares_are_told_apart_by_group_and_filter() {
        let mut router = Router::default();
        router.subscribe("a/#", Some("g"), 1, (), OPTIONS);
        router.subscribe("a/+", Some("g"), 2, (), OPTIONS);
        router.subscribe("a/#", Some("h"), 3, (), OPTIONS);
        let mut shares = Vec::new();
        router.matches("a/b", &mut |m| shares.push((m.id, m.share.unwrap_or("none").to_owned())));
        shares.sort();
        assert_eq!(shares, [(1, "g/a/#".into()), (2, "g/a/+".into()), (3, "h/a/#".into())]);
        assert!(router.unsubscribe("a/#", Some("g"), 1));
        assert_eq!(matching(&router, "a/b"), [2, 3]);
    }
}

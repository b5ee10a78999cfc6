//! What is persisted: as a Broker resource says, or as clients ask (AIO.md §6).

use base64::Engine;
use config::resource::broker::Dynamic;
use config::resource::common::{KeyType, OperationalMode, PersistenceMode};

use super::asking::Asking;

/// Which part of some state is persisted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// All of it.
    pub all: bool,
    /// These client ids (with `*` at the end for any) or topic filters.
    pub listed: Vec<String>,
    /// What clients ask for.
    pub dynamic: bool,
}

/// What is persisted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// How clients ask.
    pub asking: Asking,
    /// Sessions: subscriptions and the queues behind them.
    pub sessions: Part,
    /// Retained messages.
    pub retained: Part,
    /// Keys of the state store; `listed` is not used.
    pub keys: Part,
    /// The keys of the state store that are persisted whoever sets them.
    pub listed_keys: Vec<KeyPattern>,
}

/// Which keys of the state store (AIO.md §5.9, §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPattern {
    /// Those with these bytes.
    Exactly(Vec<u8>),
    /// Those that are like this, where `*` stands for any bytes.
    Like(String),
}

impl KeyPattern {
    fn of(keys: &config::resource::broker::StateKeys) -> Vec<Self> {
        let one = |text: &String| match keys.key_type {
            KeyType::Pattern => Some(Self::Like(text.clone())),
            KeyType::String => Some(Self::Exactly(text.clone().into_bytes())),
            KeyType::Binary => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => Some(Self::Exactly(bytes)),
                Err(error) => {
                    tracing::error!(
                        "persistence.stateStore: `{text}` is no key in base64 ({error}); none is persisted for it"
                    );
                    None
                }
            },
        };
        keys.keys.iter().filter_map(one).collect()
    }

    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Exactly(bytes) => bytes == key,
            Self::Like(pattern) => is_like(key, pattern.as_bytes()),
        }
    }
}

/// Whether `*` in the pattern can stand for something that makes it the text.
fn is_like(text: &[u8], pattern: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let found = match part.is_empty() {
            true => Some(0),
            false => rest.windows(part.len()).position(|window| window == part),
        };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

impl Policy {
    /// What clients ask for, and nothing else.
    pub fn dynamic() -> Self {
        let part = Part { dynamic: true, ..Part::default() };
        Self { sessions: part.clone(), retained: part.clone(), keys: part, ..Self::default() }
    }

    /// What a Broker resource says.
    pub fn of(persistence: &config::resource::broker::Persistence) -> Self {
        let part = |mode: Option<PersistenceMode>, listed: &[String], dynamic: Option<&Dynamic>| match mode {
            Some(PersistenceMode::None) => Part::default(),
            Some(PersistenceMode::All) => Part { all: true, ..Part::default() },
            // Where nothing is said, clients may ask.
            Some(PersistenceMode::Custom) | None => Part {
                all: false,
                listed: listed.to_vec(),
                dynamic: dynamic.is_none_or(|dynamic| dynamic.mode == OperationalMode::Enabled),
            },
        };
        let queue = persistence.subscriber_queue.as_ref();
        let clients = queue.and_then(|queue| queue.subscriber_queue_settings.as_ref());
        let retain = persistence.retain.as_ref();
        let topics = retain.and_then(|retain| retain.retain_settings.as_ref());
        let state = persistence.state_store.as_ref();
        let keys = state.and_then(|state| state.state_store_settings.as_ref());
        // Only `Custom` looks at a list, as for the others.
        let custom = state.filter(|state| state.mode == PersistenceMode::Custom).and(keys);
        Self {
            asking: Asking::of(persistence.dynamic_settings.as_ref()),
            keys: part(state.map(|state| state.mode), &[], keys.and_then(|it| it.dynamic.as_ref())),
            listed_keys: custom
                .into_iter()
                .flat_map(|it| &it.state_store_resources)
                .flat_map(KeyPattern::of)
                .collect(),
            sessions: part(
                queue.map(|queue| queue.mode),
                clients.map_or(&[], |it| &it.subscriber_client_ids),
                clients.and_then(|it| it.dynamic.as_ref()),
            ),
            retained: part(
                retain.map(|retain| retain.mode),
                topics.map_or(&[], |it| &it.topics),
                topics.and_then(|it| it.dynamic.as_ref()),
            ),
        }
    }

    /// Whether all subscriptions of a session are persisted, whose CONNECT asked for it or not.
    pub fn session(&self, client_id: &str, asked: bool) -> bool {
        let listed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => client_id.starts_with(start),
            None => client_id == pattern,
        };
        self.sessions.all || (self.sessions.dynamic && asked) || self.sessions.listed.iter().any(listed)
    }

    /// Whether a subscription is persisted that asked for it or not.
    pub fn subscription(&self, asked: bool) -> bool {
        self.sessions.all || (self.sessions.dynamic && asked)
    }

    /// Whether the retained message of a topic is persisted that asked for it or not.
    pub fn retained(&self, topic: &str, asked: impl FnOnce() -> bool) -> bool {
        let listed = |filter: &String| broker_core::topic::matches(filter, topic);
        self.retained.all || self.retained.listed.iter().any(listed) || (self.retained.dynamic && asked())
    }

    /// Whether a key of the state store is persisted that asked for it or not.
    pub fn key(&self, key: &[u8], asked: bool) -> bool {
        self.keys.all || (self.keys.dynamic && asked) || self.listed_keys.iter().any(|it| it.matches(key))
    }

    /// Whether any retained message is persisted.
    pub fn retains(&self) -> bool {
        self.retained != Part::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_the_rest_for_itself() {
        for (pattern, key, is) in [
            ("*", "", true),
            ("*", "any", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*b*c", "a-b--c", true),
            ("a*b*c", "a-c-b", false),
            ("a**c", "abc", true),
            ("ab*b", "ab", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(is_like(key.as_bytes(), pattern.as_bytes()), is, "{pattern} {key}");
        }
    }
}

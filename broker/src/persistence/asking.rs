//! The user property by which a client asks for persistence, and is told whether it was granted (AIO.md §6).

use std::sync::LazyLock;

use broker_core::packet::{PropertiesBuilder, Property};
use config::resource::broker::DynamicSettings;

/// The user property that asks for persistence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    key: Box<str>,
    value: Box<str>,
}

/// `aio-persistence` = `true`.
pub static USUAL: LazyLock<Asking> = LazyLock::new(Asking::default);

impl Default for Asking {
    fn default() -> Self {
        Self { key: "aio-persistence".into(), value: "true".into() }
    }
}

impl Asking {
    /// With the key and value that a Broker resource says.
    pub fn of(settings: Option<&DynamicSettings>) -> Self {
        settings.map_or_else(Self::default, |settings| Self {
            key: settings.user_property_key.as_str().into(),
            value: settings.user_property_value.as_str().into(),
        })
    }

    /// Whether these user properties ask for it.
    pub fn asked<'a>(&self, properties: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        properties.into_iter().any(|(key, value)| *key == *self.key && *value == *self.value)
    }

    /// What is said of whether it was granted: the same key, and `true` or `false`.
    pub fn answer(&self, persisted: bool) -> (&str, &'static str) {
        (&self.key, if persisted { "true" } else { "false" })
    }

    /// Says whether it was granted.
    pub fn granted(&self, persisted: bool, out: &mut PropertiesBuilder) {
        // Only a text over 65,535 bytes could fail, and a key of that length cannot be asked with.
        let _ = out.put(Property::UserProperty(self.answer(persisted)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_key_and_value_are_as_configured() {
        let asking = Asking { key: "keep".into(), value: "yes".into() };
        assert!(asking.asked([("a", "b"), ("keep", "yes")]));
        for other in [("keep", "true"), ("aio-persistence", "true"), ("Keep", "yes")] {
            assert!(!asking.asked([other]), "{other:?}");
        }
        assert_eq!(asking.answer(false), ("keep", "false"));
    }
}

//! Topic names and filters: what is well-formed, what matches, and shared subscriptions (v5 §4.7, §4.8).
//!
//! Knows nothing of packets, sessions or tries; works on borrowed strings and allocates nothing.

use crate::packet::wire::{has_nul, has_nul_or_wildcard};

/// Longest topic name or filter in bytes of UTF-8 `[MQTT-4.7.3-3]`.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Default for the most levels a topic may have: a filter becomes one trie node a level, so it is bounded.
pub const LEVELS_MAX_DEFAULT: usize = 128;

/// Why a string is no topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// `[MQTT-4.7.3-1]`
    Empty,
    /// `[MQTT-4.7.3-3]`
    TooLong,
    /// `[MQTT-4.7.3-2]`, or `[MQTT-4.7.0-1]`: `+` or `#`.
    ForbiddenCharacter,
}

/// Why a string is no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// `[MQTT-4.7.3-1]`
    Empty,
    /// `[MQTT-4.7.3-3]`
    TooLong,
    /// `[MQTT-4.7.3-2]`
    Nul,
    /// `[MQTT-4.7.1-1]`
    MultiLevelWildcard,
    /// `[MQTT-4.7.1-2]`
    SingleLevelWildcard,
    /// `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`
    ShareGroup,
    /// `[MQTT-4.8.2-2]`
    ShareWithoutFilter,
}

impl NameError {
    /// The error as a sentence.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Empty => "a topic name is empty",
            Self::TooLong => "a topic name is longer than 65,535 bytes",
            Self::ForbiddenCharacter => "a topic name holds a wildcard or the character U+0000",
        }
    }
}

impl FilterError {
    /// The error as a sentence.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Empty => "a topic filter is empty",
            Self::TooLong => "a topic filter is longer than 65,535 bytes",
            Self::Nul => "a topic filter holds the character U+0000",
            Self::MultiLevelWildcard => "a topic filter has a # that is not its last level on its own",
            Self::SingleLevelWildcard => "a topic filter has a + that is not a level on its own",
            Self::ShareGroup => "a shared subscription has an empty group or one with a wildcard",
            Self::ShareWithoutFilter => "a shared subscription has no topic filter",
        }
    }
}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what())
    }
}

impl std::fmt::Display for FilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what())
    }
}

impl std::error::Error for NameError {}
impl std::error::Error for FilterError {}

/// Whether `name` may be published to.
///
/// # Errors
/// Says what the standard has against it.
#[inline]
pub fn validate_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty); // [MQTT-4.7.3-1]
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(NameError::TooLong); // [MQTT-4.7.3-3]
    }
    if has_nul_or_wildcard(name.as_bytes()) {
        return Err(NameError::ForbiddenCharacter); // [MQTT-4.7.0-1], [MQTT-4.7.3-2]
    }
    Ok(())
}

/// Whether `filter` may be subscribed to; a `$share/` in front is a level like any other here, see
/// [`SharedFilter::parse`].
///
/// # Errors
/// Says what the standard has against it.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty); // [MQTT-4.7.3-1]
    }
    if filter.len() > TOPIC_BYTES_MAX {
        return Err(FilterError::TooLong); // [MQTT-4.7.3-3]
    }
    if has_nul(filter.as_bytes()) {
        return Err(FilterError::Nul); // [MQTT-4.7.3-2]
    }
    if !has_nul_or_wildcard(filter.as_bytes()) {
        return Ok(());
    }
    let mut levels = filter.split('/');
    while let Some(level) = levels.next() {
        // [MQTT-4.7.1-1]: # stands alone in its level, and that is the last.
        if level.contains('#') && (level != "#" || levels.next().is_some()) {
            return Err(FilterError::MultiLevelWildcard);
        }
        // [MQTT-4.7.1-2]: + stands alone in its level.
        if level.contains('+') && level != "+" {
            return Err(FilterError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// Whether `filter` holds `+` or `#`.
#[inline]
pub fn has_wildcards(filter: &str) -> bool {
    has_nul_or_wildcard(filter.as_bytes())
}

/// Whether `topic`, a name or a filter, has at most `max` levels.
#[inline]
pub fn within_levels(topic: &str, max: usize) -> bool {
    // Most topics have fewer bytes than they may have levels, so nothing is counted.
    topic.len() < max || topic.bytes().filter(|&byte| byte == b'/').count() < max
}

/// Whether the topic name `topic` is one that the well-formed `filter` asks for (v5 §4.7.1), character by character
/// [MQTT-4.7.3-4]. Group prefixes
/// of shared subscriptions are to be taken off first.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]: a wildcard at the front does not reach topics that begin with $.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = filter.split('/');
    let mut given = topic.split('/');
    loop {
        match (wanted.next(), given.next()) {
            // # takes the rest, and the parent level too (v5 §4.7.1.2).
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter_level), Some(level)) if filter_level == level => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// A subscription that a group of sessions shares: `$share/<group>/<filter>` as the standard spells it, or
/// `$shared/<group>/<filter>` as AIO's data flows do (AIO.md §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// Name of the group, without `/`, `+` and `#`.
    pub group: &'a str,
    /// The topic filter that the group subscribes to.
    pub filter: &'a str,
}

impl<'a> SharedFilter<'a> {
    /// Takes a filter apart; `None` when it is not shared.
    ///
    /// # Errors
    /// A prefix without a group, a group with a wildcard, or a missing or ill-formed filter behind it.
    pub fn parse(filter: &'a str) -> Result<Option<Self>, FilterError> {
        let Some(rest) = filter.strip_prefix("$share/").or_else(|| filter.strip_prefix("$shared/")) else {
            return Ok(None);
        };
        let (group, filter) = match rest.split_once('/') {
            Some(parts) => parts,
            None if rest.is_empty() => return Err(FilterError::ShareGroup),
            None => return Err(FilterError::ShareWithoutFilter), // [MQTT-4.8.2-2]
        };
        if group.is_empty() || group.contains(['+', '#']) {
            return Err(FilterError::ShareGroup); // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        }
        if filter.is_empty() {
            return Err(FilterError::ShareWithoutFilter); // [MQTT-4.8.2-2]
        }
        validate_filter(filter)?;
        Ok(Some(Self { group, filter }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_wildcards_wherever_those_stand() {
        for name in ["a", "/", "//", "a b", "$SYS/x", "Ünïcode/温度", "a/very/long/name/without/wildcards"]
        {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
        let long = "twelve bytes and some more of them";
        for at in 0..=long.len() {
            for character in ['+', '#', '\0'] {
                let mut name = long.to_owned();
                name.insert(at, character);
                assert_eq!(validate_name(&name), Err(NameError::ForbiddenCharacter), "{name:?}");
            }
        }
        // What differs from a wildcard by one bit is none.
        assert_eq!(validate_name("*/;/o/k\u{1}!\"c"), Ok(()));
        assert_eq!(validate_name(""), Err(NameError::Empty));
        assert_eq!(validate_name(&"x".repeat(65_535)), Ok(()));
        assert_eq!(validate_name(&"x".repeat(65_536)), Err(NameError::TooLong));
    }

    #[test]
    fn filters_hold_wildcards_only_as_whole_levels() {
        for filter in ["#", "+", "/", "a/#", "+/+/#", "/+", "a//#", "sport/+/player1", "$SYS/#"] {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["a#", "#/a", "a/#/b", "##", "#/", "a/b#"] {
            assert_eq!(validate_filter(filter), Err(FilterError::MultiLevelWildcard), "{filter}");
        }
        for filter in ["a+", "+a", "a/+b/c", "++"] {
            assert_eq!(validate_filter(filter), Err(FilterError::SingleLevelWildcard), "{filter}");
        }
        assert_eq!(validate_filter(""), Err(FilterError::Empty));
        assert_eq!(validate_filter("a/\0"), Err(FilterError::Nul));
        assert_eq!(validate_filter(&"x".repeat(65_536)), Err(FilterError::TooLong));
    }

    /// The examples of v5 §4.7.1.2, §4.7.1.3 and §4.7.2.
    #[test]
    fn filters_match_what_the_standard_says_they_match() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "anything/at/all"),
            ("sport/tennis/+", "sport/tennis/player2"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+/tennis/#", "sport/tennis"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a//b", "a//b"),
            ("a/+/b", "a//b"),
        ] {
            assert!(matches(filter, topic), "{filter} matches {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/monitor/Clients"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("+", "$SYS"),
            ("ACCOUNTS", "Accounts"),
            ("/a", "a"),
            ("a", "a/"),
            ("a/b", "a"),
            ("a/+/c", "a/c"),
        ] {
            assert!(!matches(filter, topic), "{filter} does not match {topic}");
        }
    }

    #[test]
    fn a_shared_filter_is_taken_apart_in_either_spelling() {
        let shared = |group, filter| Ok(Some(SharedFilter { group, filter }));
        assert_eq!(SharedFilter::parse("$share/g/a/+/#"), shared("g", "a/+/#"));
        assert_eq!(SharedFilter::parse("$shared/g/a"), shared("g", "a"));
        assert_eq!(SharedFilter::parse("$share/g//a"), shared("g", "/a"));
        for filter in ["a", "$share", "$shared", "$sharegroup/a", "$SYS/#", "x/$share/g/a"] {
            assert_eq!(SharedFilter::parse(filter), Ok(None), "{filter}");
        }
        for filter in ["$share/", "$share//a", "$share/+/a", "$shared/#/a", "$share/g+/a"] {
            assert_eq!(SharedFilter::parse(filter), Err(FilterError::ShareGroup), "{filter}");
        }
        for filter in ["$share/g", "$share/g/", "$shared/g"] {
            assert_eq!(SharedFilter::parse(filter), Err(FilterError::ShareWithoutFilter), "{filter}");
        }
        assert_eq!(SharedFilter::parse("$share/g/a#"), Err(FilterError::MultiLevelWildcard));
    }

    #[test]
    fn levels_are_counted_when_there_may_be_too_many() {
        assert!(within_levels("a/b/c", 3));
        assert!(!within_levels("a/b/c", 2));
        assert!(within_levels("//", 3));
        assert!(!within_levels("//", 2));
        assert!(within_levels(&"long".repeat(100), 1));
    }
}

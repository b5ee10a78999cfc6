//! Rules of a BrokerAuthorization (AIO.md §5.9), and what they come to for one client.

use std::collections::BTreeMap;

use broker_core::topic;

/// Who a client is, as rules see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal {
    /// Its user name.
    pub username: Option<String>,
    /// Its client identifier.
    pub client_id: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

/// All rules of one resource. What none allows is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether decisions are remembered.
    pub cache: bool,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Those with all attributes of one entry.
    pub attributes: Vec<BTreeMap<String, String>>,
    /// Those with one of these client ids; a `*` at the end stands for anything.
    pub client_ids: Vec<String>,
    /// Those with one of these user names.
    pub usernames: Vec<String>,
    /// As which client ids they may connect; any when a list is empty.
    pub connect: Vec<Vec<String>>,
    /// Where they may publish.
    pub publish: Vec<String>,
    /// What they may subscribe to.
    pub subscribe: Vec<String>,
    /// Keys of the state store that they may read.
    pub read: Vec<KeyPattern>,
    /// Keys of the state store that they may write.
    pub write: Vec<KeyPattern>,
}

/// Which keys are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPattern {
    /// `*` stands for anything, `?` for one byte.
    Pattern(String),
    /// Exactly this one.
    String(String),
    /// Exactly these bytes.
    Binary(Vec<u8>),
}

/// What a policy allows one client: patterns with everything filled in.
#[derive(Debug, Default)]
pub struct Granted {
    /// It may connect.
    pub connect: bool,
    publish: Vec<String>,
    subscribe: Vec<String>,
    read: Vec<KeyPattern>,
    write: Vec<KeyPattern>,
}

impl Rule {
    /// Whether the rule is about this client: by any of the three.
    fn is_about(&self, principal: &Principal) -> bool {
        let has_all = |wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| principal.attributes.get(name) == Some(value))
        };
        self.attributes.iter().any(|wanted| !wanted.is_empty() && has_all(wanted))
            || self.client_ids.iter().any(|pattern| is_id(pattern, &principal.client_id, Some))
            || principal.username.as_ref().is_some_and(|name| self.usernames.contains(name))
    }
}

impl Policy {
    /// What it allows this client.
    pub fn grant(&self, principal: &Principal) -> Granted {
        let mut granted = Granted::default();
        let fill = |template: &String| principal.fill(template);
        let fill_key = |pattern: &KeyPattern| match pattern {
            KeyPattern::Pattern(text) => principal.fill(text).map(KeyPattern::Pattern),
            KeyPattern::String(text) => principal.fill(text).map(KeyPattern::String),
            KeyPattern::Binary(_) => Some(pattern.clone()),
        };
        for rule in self.rules.iter().filter(|rule| rule.is_about(principal)) {
            granted.connect |= rule.connect.iter().any(|ids| principal.may_be(ids));
            granted.publish.extend(rule.publish.iter().filter_map(fill));
            granted.subscribe.extend(rule.subscribe.iter().filter_map(fill));
            granted.read.extend(rule.read.iter().filter_map(fill_key));
            granted.write.extend(rule.write.iter().filter_map(fill_key));
        }
        granted
    }
}

impl Principal {
    fn may_be(&self, ids: &[String]) -> bool {
        ids.is_empty() || ids.iter().any(|pattern| is_id(pattern, &self.client_id, |t| self.fill(&t)))
    }

    /// A template with `{principal.…}` filled in; nothing when a value is missing or would change what the pattern
    /// means: clients choose their identifiers, and some their names.
    fn fill(&self, template: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{principal.") {
            let (name, after) = after.split_once('}')?;
            let (value, own_choice) = match name {
                "clientId" => (Some(&self.client_id), true),
                "username" => (self.username.as_ref(), true),
                _ => (self.attributes.get(name.strip_prefix("attributes.")?), false),
            };
            let harmful = |c: char| matches!(c, '+' | '#' | '*' | '?') || (own_choice && c == '/');
            let value = value.filter(|value| !value.is_empty() && !value.contains(harmful))?;
            out.push_str(before);
            out.push_str(value);
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// Whether an id is the one, or begins as a pattern with `*` at its end has it.
fn is_id(pattern: &str, id: &str, fill: impl Fn(String) -> Option<String>) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => fill(prefix.to_owned()).is_some_and(|prefix| id.starts_with(&prefix)),
        None => fill(pattern.to_owned()).is_some_and(|pattern| id == pattern),
    }
}

impl Granted {
    /// Whether it may publish to a topic.
    pub fn may_publish(&self, name: &str) -> bool {
        self.publish.iter().any(|pattern| topic::matches(pattern, name))
    }

    /// Whether it may subscribe to everything that a filter asks for.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|pattern| covers(pattern, filter))
    }

    /// Whether it may get messages of a topic.
    pub fn may_receive(&self, name: &str) -> bool {
        self.subscribe.iter().any(|pattern| topic::matches(pattern, name))
    }

    /// Whether it may read a key of the state store.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.read.iter().any(|pattern| pattern.matches(key))
    }

    /// Whether it may write a key of the state store.
    pub fn may_write(&self, key: &[u8]) -> bool {
        self.write.iter().any(|pattern| pattern.matches(key))
    }
}

impl KeyPattern {
    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Pattern(pattern) => glob(pattern.as_bytes(), key),
            Self::String(text) => text.as_bytes() == key,
            Self::Binary(bytes) => bytes == key,
        }
    }
}

/// `*` stands for any bytes and `?` for one. Takes no more than pattern times text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    (p, t) = (*at + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Whether every topic that `filter` asks for is one of `pattern`'s.
fn covers(pattern: &str, filter: &str) -> bool {
    // [MQTT-4.7.2-1]: a wildcard at the front does not reach topics that begin with $.
    if filter.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let (mut patterns, mut filters) = (pattern.split('/'), filter.split('/'));
    loop {
        match (patterns.next(), filters.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(wanted), Some(level)) if wanted == level && level != "+" && level != "#" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal {
            username: Some("ada".to_owned()),
            client_id: "pump-7".to_owned(),
            attributes: [("site", "north/hall1"), ("role", "pump"), ("odd", "a#")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn of_everyone(rule: Rule) -> Granted {
        let rule = Rule { client_ids: vec!["*".to_owned()], ..rule };
        Policy { cache: true, rules: vec![rule] }.grant(&principal())
    }

    #[test]
    fn a_rule_is_about_whoever_any_of_the_three_names() {
        let entry = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let cases = [
            (Rule { client_ids: vec!["pump-7".into()], ..Rule::default() }, true),
            (Rule { client_ids: vec!["pump-*".into()], ..Rule::default() }, true),
            (Rule { client_ids: vec!["pump".into(), "valve*".into()], ..Rule::default() }, false),
            (Rule { usernames: vec!["bob".into(), "ada".into()], ..Rule::default() }, true),
            (Rule { usernames: vec!["a*".into()], ..Rule::default() }, false),
            (Rule { attributes: vec![entry(&[("role", "pump"), ("odd", "a#")])], ..Rule::default() }, true),
            (Rule { attributes: vec![entry(&[("role", "pump"), ("site", "x")])], ..Rule::default() }, false),
            (Rule { attributes: vec![entry(&[])], ..Rule::default() }, false),
            (
                Rule {
                    attributes: vec![entry(&[("role", "x")])],
                    usernames: vec!["ada".into()],
                    ..Rule::default()
                },
                true,
            ),
            (Rule::default(), false),
        ];
        for (rule, expected) in cases {
            assert_eq!(rule.is_about(&principal()), expected, "{rule:?}");
        }
    }

    #[test]
    fn without_rules_nobody_may_do_anything() {
        let granted = Policy::default().grant(&principal());
        assert!(!granted.connect && !granted.may_publish("a") && !granted.may_subscribe("a"));
        assert!(!granted.may_read(b"a") && !granted.may_write(b"a") && !granted.may_receive("a"));
    }

    #[test]
    fn what_clients_choose_cannot_widen_a_pattern() {
        let rule = Rule {
            publish: [
                "a/{principal.clientId}/x",
                "b/{principal.attributes.site}/#",
                "c/{principal.attributes.odd}",
                "d/{principal.attributes.none}",
            ]
            .map(str::to_owned)
            .into(),
            ..Rule::default()
        };
        let granted = of_everyone(rule.clone());
        assert!(granted.may_publish("a/pump-7/x") && granted.may_publish("b/north/hall1/t"));
        assert!(
            !granted.may_publish("a/other/x") && !granted.may_publish("c/a#") && !granted.may_publish("c/a")
        );
        assert!(!granted.may_publish("d/") && !granted.may_publish("d/{principal.attributes.none}"));
        for id in ["+", "#", "a/b", "*", ""] {
            let principal = Principal { client_id: id.to_owned(), ..principal() };
            let rule = Rule { client_ids: vec!["*".into()], ..rule.clone() };
            let granted = Policy { cache: true, rules: vec![rule] }.grant(&principal);
            assert!(!granted.may_publish("a/other/x") && !granted.may_publish("a/b/x"), "{id}");
        }
    }

    #[test]
    fn client_ids_to_connect_as() {
        let as_ids = |ids: &[&str]| {
            of_everyone(Rule {
                connect: vec![ids.iter().map(|id| (*id).to_owned()).collect()],
                ..Rule::default()
            })
            .connect
        };
        assert!(
            as_ids(&[]) && as_ids(&["pump-7"]) && as_ids(&["{principal.attributes.role}*"]) && as_ids(&["*"])
        );
        assert!(
            !as_ids(&["pump"])
                && !as_ids(&["{principal.username}*"])
                && !as_ids(&["{principal.attributes.no}*"])
        );
        assert!(!of_everyone(Rule::default()).connect);
    }

    #[test]
    fn a_filter_is_covered_when_everything_it_asks_for_is_allowed() {
        let cases = [
            ("a/b", "a/b", true),
            ("a/#", "a/#", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+/c", "a/b/c", true),
            ("a/b", "a/+", false),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("#", "#", true),
            ("#", "$SYS/#", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("+", "#", false),
        ];
        for (pattern, filter, expected) in cases {
            assert_eq!(covers(pattern, filter), expected, "{pattern} covers {filter}");
        }
    }

    #[test]
    fn keys() {
        let granted = of_everyone(Rule {
            read: vec![
                KeyPattern::Pattern("{principal.clientId}:*".into()),
                KeyPattern::Binary(vec![0, 255]),
            ],
            write: vec![KeyPattern::String("a*".into()), KeyPattern::Pattern("x?z*".into())],
            ..Rule::default()
        });
        assert!(
            granted.may_read(b"pump-7:x") && granted.may_read(&[0, 255]) && !granted.may_read(b"pump-8:x")
        );
        assert!(granted.may_write(b"a*") && !granted.may_write(b"ab"));
        assert!(granted.may_write(b"xyz") && granted.may_write(b"x.zzz") && !granted.may_write(b"xz"));
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b", "abc", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}

//! From the tree to types: strict, with every fault named by its full key path.
//!
//! A field that nobody asked for is an error, so nothing in a file is silently ignored. Reading goes
//! on after a fault, so that one run shows all of them.

use crate::finding::{Position, Report, Severity, quoted};
use crate::suggest::nearest;
use crate::yaml::{Key, Node, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, RangeInclusive};

/// A value and where it stood in its file.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stood.
    pub position: Position,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Two values are equal wherever they stood.
impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

/// The way from the document to a value. Prints as `spec.nodes[0].name`.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Item(usize),
}

impl Path<'_> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(crate) fn key<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(name) }
    }

    pub(crate) fn item(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Item(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let nested = self.parent.is_some_and(|parent| !matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Key(name) if is_plain(name) => write!(f, "{}{name}", if nested { "." } else { "" }),
            Step::Key(name) => write!(f, "[{name:?}]"),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// Whether a key can stand in a path without quotes.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'))
}

/// What can be read from a node.
pub(crate) trait Decode: Sized {
    /// Reads the value, or reports why not.
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self>;

    /// The value of an empty node (`key:`), where that has a meaning.
    fn empty() -> Option<Self> {
        None
    }
}

/// The fields of one mapping. Whoever opens it must [`close`](Self::close) it.
pub(crate) struct Fields<'a> {
    entries: &'a [(Key, Node)],
    known: Vec<&'static str>,
    position: Position,
    path: &'a Path<'a>,
    pub(crate) report: &'a mut Report,
}

impl<'a> Fields<'a> {
    pub(crate) fn open(node: &'a Node, path: &'a Path<'a>, report: &'a mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => {
                Some(Self { entries, known: Vec::new(), position: node.position, path, report })
            }
            _ => {
                mismatch(node, path, report, "a mapping");
                None
            }
        }
    }

    /// Where the mapping begins.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    pub(crate) fn path(&self) -> &'a Path<'a> {
        self.path
    }

    /// The node of a field, if the mapping has it and it is not empty. The field counts as known.
    pub(crate) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node).filter(|node| !matches!(node.value, Value::Null))
    }

    fn entry(&mut self, key: &'static str) -> Option<&'a (Key, Node)> {
        self.known.push(key);
        self.entries.iter().find(|(name, _)| name.name == key)
    }

    /// Accepts fields without reading them.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend_from_slice(keys);
    }

    pub(crate) fn required<T: Decode>(&mut self, key: &'static str) -> Option<T> {
        let path = self.path.key(key);
        match self.entry(key) {
            Some((_, node)) if !matches!(node.value, Value::Null) => T::decode(node, &path, self.report),
            Some((_, node)) => T::empty().or_else(|| {
                self.report.error(node.position, path, format!("`{path}` is empty"));
                None
            }),
            None => {
                self.report.error(self.position, path, format!("missing field `{path}`"));
                None
            }
        }
    }

    /// `Some(None)` when the field is absent or empty, `None` when it is wrong.
    pub(crate) fn optional<T: Decode>(&mut self, key: &'static str) -> Option<Option<T>> {
        let path = self.path.key(key);
        match self.node(key) {
            Some(node) => T::decode(node, &path, self.report).map(Some),
            None => Some(None),
        }
    }

    pub(crate) fn or<T: Decode>(&mut self, key: &'static str, default: T) -> Option<T> {
        Some(self.optional(key)?.unwrap_or(default))
    }

    pub(crate) fn required_in<T: Whole>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T> {
        let (_, node) = match self.entry(key) {
            Some(entry) => entry,
            None => return self.required(key),
        };
        whole(node, &self.path.key(key), self.report, range)
    }

    pub(crate) fn optional_in<T: Whole>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<Option<T>> {
        match self.node(key) {
            Some(node) => whole(node, &self.path.key(key), self.report, range).map(Some),
            None => Some(None),
        }
    }

    pub(crate) fn or_in<T: Whole>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        Some(self.optional_in(key, range)?.unwrap_or(default))
    }

    /// Reports fields that are set although another choice rules them out.
    pub(crate) fn forbid(&mut self, key: &'static str, reason: &str) -> Option<()> {
        self.known.push(key);
        let (name, _) = match self.entries.iter().find(|(name, _)| name.name == key) {
            Some((name, node)) if !matches!(node.value, Value::Null) => (name, node),
            _ => return Some(()),
        };
        let path = self.path.key(key);
        self.report.error(name.position, path, format!("`{path}` must not be set: {reason}"));
        None
    }

    /// Reports every field that was not asked for. `None` when there was one.
    pub(crate) fn close(self) -> Option<()> {
        self.unknown(Severity::Error)
    }

    /// As [`close`](Self::close), where other fields are allowed but mean nothing.
    pub(crate) fn close_open(self) -> Option<()> {
        self.unknown(Severity::Warning).or(Some(()))
    }

    fn unknown(self, severity: Severity) -> Option<()> {
        let mut clean = Some(());
        for (key, _) in self.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            clean = None;
            let path = self.path.key(&key.name);
            let hint = match nearest(&key.name, self.known.iter().copied()) {
                Some(known) => format!(", did you mean `{known}`?"),
                None => String::new(),
            };
            let message = match severity {
                Severity::Error => format!("unknown field {}{hint}", quoted(&path.to_string())),
                _ => format!("the field {} has no meaning{hint}", quoted(&path.to_string())),
            };
            self.report.add(severity, key.position, path, message);
        }
        clean
    }
}

/// Reports that a node is not what it must be.
pub(crate) fn mismatch(node: &Node, path: &Path<'_>, report: &mut Report, wanted: &str) {
    let found = match &node.value {
        Value::Null => "empty",
        Value::Bool(..) => "a boolean",
        Value::Int(..) | Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    };
    let subject = subject(path);
    report.error(node.position, path, format!("{subject} must be {wanted}, but is {found}"));
}

/// How a message names the value at `path`.
pub(crate) fn subject(path: &Path<'_>) -> String {
    match path.step {
        Step::Root => "the document".to_owned(),
        _ => quoted(&path.to_string()),
    }
}

impl Decode for String {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let (found, spelling) = match &node.value {
            Value::String(text) => return Some(text.clone()),
            Value::Bool(_, spelling) => ("boolean", spelling),
            Value::Int(_, spelling) | Value::Float(spelling) => ("number", spelling),
            _ => {
                mismatch(node, path, report, "a string");
                return None;
            }
        };
        let spelling = quoted(spelling).trim_matches('`').to_owned();
        let message = format!(
            "{} must be a string, but `{spelling}` is a {found} in YAML; quote it: \"{spelling}\"",
            subject(path)
        );
        report.error(node.position, path, message);
        None
    }
}

impl Decode for bool {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Bool(value, _) => Some(value),
            _ => {
                mismatch(node, path, report, "true or false");
                None
            }
        }
    }
}

/// Whole numbers that fields hold.
pub(crate) trait Whole: Decode + Copy + TryFrom<i128> + Into<i128> {}

macro_rules! whole {
    ($($type:ty),*) => { $(
        impl Whole for $type {}
        impl Decode for $type {
            fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
                whole(node, path, report, <$type>::MIN..=<$type>::MAX)
            }
        }
    )* };
}
whole!(u8, u16, u32, u64);

fn whole<T: Whole>(node: &Node, path: &Path<'_>, report: &mut Report, range: RangeInclusive<T>) -> Option<T> {
    let (low, high): (i128, i128) = ((*range.start()).into(), (*range.end()).into());
    let wanted = format!("a whole number from {low} to {high}");
    let Value::Int(number, _) = node.value else {
        mismatch(node, path, report, &wanted);
        return None;
    };
    if !(low..=high).contains(&number) {
        let message = format!("{} must be {wanted}, but is {number}", subject(path));
        report.error(node.position, path, message);
        return None;
    }
    T::try_from(number).ok()
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let Value::List(items) = &node.value else {
            mismatch(node, path, report, "a list");
            return None;
        };
        let items: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| T::decode(item, &path.item(index), report))
            .collect();
        items.into_iter().collect()
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            mismatch(node, path, report, "a mapping");
            return None;
        };
        let entries: Vec<Option<(String, T)>> = entries
            .iter()
            .map(|(key, value)| Some((key.name.clone(), T::decode(value, &path.key(&key.name), report)?)))
            .collect();
        entries.into_iter().collect()
    }
}

impl<T: Decode> Decode for Located<T> {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        T::decode(node, path, report).map(|value| Self { value, position: node.position })
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        T::decode(node, path, report).map(Box::new)
    }
}

/// A part that Kubernetes defines and this product has no use for: accepted whatever it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread;

impl Decode for Unread {
    fn decode(_: &Node, _: &Path<'_>, _: &mut Report) -> Option<Self> {
        Some(Self)
    }
}

/// Defines a struct together with how it is read: each field names its key and how it is asked for,
/// by a method of [`Fields`].
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal $how:ident($($arg:expr),*), )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::read::Decode for $name {
            fn decode(
                node: &$crate::yaml::Node,
                path: &$crate::read::Path<'_>,
                report: &mut $crate::finding::Report,
            ) -> Option<Self> {
                let mut fields = $crate::read::Fields::open(node, path, report)?;
                $( let $field: Option<$type> = fields.$how($key $(, $arg)*); )*
                fields.close()?;
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
}
pub(crate) use record;

/// Defines an enum of exact names.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $crate::read::Decode for $name {
            fn decode(
                node: &$crate::yaml::Node,
                path: &$crate::read::Path<'_>,
                report: &mut $crate::finding::Report,
            ) -> Option<Self> {
                let text = <String as $crate::read::Decode>::decode(node, path, report)?;
                match text.as_str() {
                    $( $text => Some(Self::$variant), )*
                    _ => $crate::read::no_choice(node, path, report, &text, &[$($text),*]),
                }
            }
        }
    };
}
pub(crate) use choice;

/// Defines an enum whose variant is named by a field beside it (such as `method`) and whose content
/// is a field of its own for each variant (such as `anonymousSettings`). Fields of the other variants
/// must not be set.
macro_rules! tagged {
    (
        $(#[$meta:meta])*
        pub enum $name:ident by $tag:literal {
            $( $(#[$variant_meta:meta])* $variant:ident($type:ty) = $text:literal,
                $key:literal $how:ident($($arg:expr),*), )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($type), )*
        }

        impl $name {
            /// Reads the variant from among the fields of a mapping.
            pub(crate) fn from_fields(fields: &mut $crate::read::Fields<'_>) -> Option<Self> {
                let tag_node = fields.node($tag);
                let tag: Option<String> = fields.required($tag);
                let keys: &[(&str, &'static str)] = &[$(($text, $key)),*];
                let Some(tag) = tag else {
                    fields.ignore(&[$($key),*]);
                    return None;
                };
                let Some((_, chosen)) = keys.iter().find(|(text, _)| *text == tag) else {
                    fields.ignore(&[$($key),*]);
                    let path = fields.path().key($tag);
                    return $crate::read::no_choice(tag_node?, &path, fields.report, &tag, &[$($text),*]);
                };
                let mut clean = Some(());
                for (text, key) in keys.iter().filter(|(_, key)| key != chosen) {
                    let reason = format!("it belongs to {} `{text}`, and {} is `{tag}`", $tag, $tag);
                    clean = clean.and(fields.forbid(key, &reason));
                }
                let value = match tag.as_str() {
                    $( $text => fields.$how($key $(, $arg)*).map(Self::$variant), )*
                    _ => None,
                };
                clean.and(value)
            }
        }

        impl $crate::read::Decode for $name {
            fn decode(
                node: &$crate::yaml::Node,
                path: &$crate::read::Path<'_>,
                report: &mut $crate::finding::Report,
            ) -> Option<Self> {
                let mut fields = $crate::read::Fields::open(node, path, report)?;
                let value = Self::from_fields(&mut fields);
                fields.close()?;
                value
            }
        }
    };
}
pub(crate) use tagged;

/// Reports a name that is none of those allowed.
pub(crate) fn no_choice<T>(
    node: &Node,
    path: &Path<'_>,
    report: &mut Report,
    text: &str,
    choices: &[&str],
) -> Option<T> {
    let choices_text = choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    let hint = match nearest(text, choices.iter().copied()) {
        Some(choice) => format!("; did you mean `{choice}`?"),
        None => String::new(),
    };
    let message = format!("{} is {}, but must be one of {choices_text}{hint}", subject(path), quoted(text));
    report.error(node.position, path, message);
    None
}

//! YAML text to a tree that knows where everything stood.
//!
//! [`documents`] is the only function of the crate that touches the YAML library. It does not know
//! what the text means: types come from `read`. What a text may cost is bounded here, before anything
//! is built: size, documents, depth, nodes, aliases and what they expand to.

use crate::finding::{Position, quoted};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, NonFiniteFloatPolicy, Spanned};
use std::fmt;

/// The largest text that is read, in bytes. Real resources stay below a hundredth of it.
pub(crate) const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// The most documents in one text.
const DOCUMENTS_MAX: usize = 1024;
/// The deepest nesting of lists and mappings. AIO resources reach about twelve.
const DEPTH_MAX: usize = 48;
/// The most scalars, lists and mappings in one text, aliases expanded.
const NODES_MAX: usize = 100_000;
/// The most aliases in one text.
const ALIASES_MAX: usize = 1000;
/// The most parser events that aliases may expand to.
const ALIAS_EVENTS_MAX: usize = 10_000;

/// A value and where it stood. No `Debug`: it may hold what a Secret holds.
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// What a node holds.
pub(crate) enum Value {
    Null,
    /// A plain `true` or `false` (YAML 1.2 spellings only) and how it was written.
    Bool(bool, String),
    /// A plain whole number and how it was written.
    Int(i128, String),
    /// A plain fraction, and how it was written.
    Float(String),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping. Keys of one mapping differ from each other.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) position: Position,
}

/// Why a text is no YAML that can be read.
pub(crate) struct Fault {
    pub(crate) position: Position,
    pub(crate) message: String,
}

/// Reads a YAML text of any number of documents. Documents that are empty are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the text is larger than {TEXT_BYTES_MAX} bytes");
        return Err(Fault { position: Position::START, message });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: 4 * TEXT_BYTES_MAX,
            max_total_scalar_bytes: 4 * TEXT_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_EVENTS_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        // A snippet would repeat the text, and the text may hold secrets.
        with_snippet: false,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_saphyr::from_multiple_with_options::<Raw>(text, options) {
        Ok(documents) => Ok(documents.into_iter().map(|raw| raw.into_node(text)).collect()),
        Err(error) => Err(fault(&error)),
    }
}

/// A node as the library hands it over.
struct Raw(Spanned<RawValue>);

enum RawValue {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    String(String),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    /// `text` is where the spelling of plain scalars is taken from: `1.10` must not become `1.1`.
    fn into_node(self, text: &str) -> Node {
        // Of a value that came by an alias: where it is written, since that is what must be mended.
        let place = self.0.defined;
        let value = match self.0.value {
            RawValue::Null => Value::Null,
            RawValue::Bool(value) => Value::Bool(value, spelling(text, place)),
            RawValue::Int(value) => Value::Int(value, spelling(text, place)),
            RawValue::Float => Value::Float(spelling(text, place)),
            RawValue::String(value) => Value::String(value),
            RawValue::List(items) => {
                Value::List(items.into_iter().map(|item| item.into_node(text)).collect())
            }
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = Key { position: position(key.defined), name: key.value };
                        (key, value.into_node(text))
                    })
                    .collect(),
            ),
        };
        Node { position: position(place), value }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawValue, E> {
        Ok(RawValue::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawValue, E> {
        Ok(i128::try_from(value).map_or(RawValue::Float, RawValue::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawValue, E> {
        Ok(RawValue::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

fn position(location: Location) -> Position {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    Position { line: narrow(location.line()), column: narrow(location.column()) }
}

/// How a plain scalar was written.
fn spelling(text: &str, location: Location) -> String {
    let span = location.span();
    let start = span.byte_offset().and_then(|offset| usize::try_from(offset).ok());
    let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
    let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
    range.and_then(|range| text.get(range)).unwrap_or_default().to_owned()
}

fn fault(error: &Error) -> Fault {
    // Of a fault inside what an alias stands for: where the alias is.
    let place = error.location().map_or(Position::START, position);
    Fault { position: place, message: explain(innermost(error)) }
}

/// The error inside the wrappings for snippets and aliases.
fn innermost(error: &Error) -> &Error {
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    error
}

fn explain(error: &Error) -> String {
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {} stands twice in one mapping", quoted(key))
        }
        Error::DuplicateMappingKey { key: None, .. } => "a key stands twice in one mapping".to_owned(),
        Error::Budget { breach, .. } => exceeded(breach),
        Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            format!("the aliases of the text expand to more than {ALIAS_EVENTS_MAX} parts")
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an anchor contains an alias of itself".to_owned()
        }
        Error::NullIntoString { .. } => "a key is empty; quote it if it is meant".to_owned(),
        other => {
            let text = other.to_string();
            // The scanner counts brackets by itself, before the budget sees them.
            if text.starts_with("recursion limit exceeded") {
                return too_deep();
            }
            // The library puts the place at the end; ours stands at the front of the line.
            let end = text.find(" at line ").unwrap_or(text.len());
            format!("no valid YAML: {}", &text[..end])
        }
    }
}

fn too_deep() -> String {
    format!("lists and mappings are nested more than {DEPTH_MAX} deep")
}

fn exceeded(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => too_deep(),
        BudgetBreach::Documents { .. } => format!("the text has more than {DOCUMENTS_MAX} documents"),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            format!("the text has more than {NODES_MAX} values")
        }
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } | BudgetBreach::MergeKeys { .. } => {
            format!("the text has more than {ALIASES_MAX} anchors, aliases or merge keys")
        }
        _ => "the text costs more to read than a configuration may".to_owned(),
    }
}

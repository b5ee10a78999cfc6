//! What reading the files turned up: one [`Finding`] is one line for whoever wrote the file.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The resource (or, without a resource, the file) cannot be used.
    Error,
    /// It can be used, but probably not as meant.
    Warning,
    /// A field that is accepted but does nothing yet. Prints as `note`.
    NotInEffect,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::NotInEffect => "note",
        })
    }
}

/// A place in a text: line and column, both from 1, the column counted in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// The beginning of a text, for what concerns the whole file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Which resource is meant: kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// The Kubernetes kind, such as `DataflowGraph`.
    pub kind: String,
    /// The namespace; [`crate::DEFAULT_NAMESPACE`] when the file names none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ResourceId {
    /// What the instance of this number of a graph is called: the first has the name of its resource, others one that no
    /// resource can have.
    #[must_use]
    pub fn instance(&self, number: u8) -> Self {
        let name = if number <= 1 { self.name.clone() } else { format!("{}.{number}", self.name) };
        Self { name, ..self.clone() }
    }

    /// The resource that this is an instance of, or is.
    #[must_use]
    pub fn resource(&self) -> Self {
        let name = self.name.split('.').next().unwrap_or_default().to_owned();
        Self { name, ..self.clone() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, quoted(&self.name))
    }
}

/// One thing to tell about one place. Prints as `file:line:column: severity: message`, on one line.
///
/// A finding never holds the value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as it was named when loading.
    pub file: Arc<Path>,
    /// Where in the file.
    pub position: Position,
    /// The resource it belongs to, where one is known.
    pub resource: Option<ResourceId>,
    /// The full key path, such as `spec.nodes[0].name`; empty when no key is meant.
    pub key: String,
    /// What is wrong and, where possible, what to do.
    pub message: String,
}

impl Finding {
    /// Whether the resource or file it is about cannot be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The order in which findings are shown: by file, then by place, the worse first.
    pub fn order(&self, other: &Self) -> Ordering {
        (&self.file, self.position, self.severity).cmp(&(&other.file, other.position, other.severity))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        let file = self.file.display().to_string();
        write!(f, "{}:{line}:{column}: {}: ", OneLine(&file), self.severity)?;
        write!(f, "{}", OneLine(&self.message))
    }
}

impl std::error::Error for Finding {}

/// Collects findings while one file is read.
pub(crate) struct Report {
    pub(crate) file: Arc<Path>,
    pub(crate) resource: Option<ResourceId>,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: Arc::from(file.into()), resource: None, findings: Vec::new() }
    }

    pub(crate) fn error(&mut self, position: Position, key: impl fmt::Display, message: impl Into<String>) {
        self.add(Severity::Error, position, key, message);
    }

    pub(crate) fn warning(&mut self, position: Position, key: impl fmt::Display, message: impl Into<String>) {
        self.add(Severity::Warning, position, key, message);
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        position: Position,
        key: impl fmt::Display,
        message: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            file: self.file.clone(),
            position,
            resource: self.resource.clone(),
            key: key.to_string(),
            message: message.into(),
        });
    }
}

/// The longest part of a value that a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// `text` between backquotes, shortened where it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

/// The most names that a message lists.
const LISTED_MAX: usize = 16;

/// Names between backquotes, joined with commas; of very many only the first.
pub(crate) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let mut listed: Vec<_> = names.by_ref().take(LISTED_MAX).map(|name| quoted(name.as_ref())).collect();
    match names.count() {
        0 => {}
        more => listed.push(format!("and {more} more")),
    }
    listed.join(", ")
}

/// Prints control characters escaped, so that no text from a file can break out of its line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(char::is_control) {
            let mut chars = piece.chars();
            match chars.next_back() {
                Some(last) if last.is_control() => write!(f, "{}{}", chars.as_str(), last.escape_default())?,
                _ => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

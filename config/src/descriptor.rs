//! The test descriptor, `*.test.yaml` (AIO.md §3.1): which messages go into a graph, and what must come out.
//!
//! Its shape is read here; the files it names are opened by whoever carries the test out.

use crate::definition::single_document;
use crate::finding::{Finding, Report};
use crate::read::{Decode, Located, Path, mismatch, record};
use crate::resource::graph::Parameter;
use crate::yaml::{Node, Value};
use std::collections::BTreeMap;

/// How long a test may take unless it says so, milliseconds.
const TIMEOUT_MS: u64 = 60_000;
/// The longest that it may say.
const TIMEOUT_MS_MAX: u64 = 3_600_000;

record! {
    /// What a test descriptor says. Its paths are relative to the descriptor's own folder.
    pub struct TestDescriptor {
        /// What the test shows, for whoever reads the report.
        name: String = "name" required(),
        /// The graph definition.
        graph: Located<String> = "graph" required(),
        /// A folder with a message a file, or one file.
        input: Located<String> = "input" required(),
        /// A file with what must come out.
        expected: Located<String> = "expected" required(),
        /// How long the work may take, milliseconds.
        timeout_ms: u64 = "timeout" or_in(TIMEOUT_MS, 1..=TIMEOUT_MS_MAX),
        /// Dotted paths to compare; everything, when there is none.
        select: Vec<Located<String>> = "select" or(Vec::new()),
        /// Dotted paths to leave out of the comparison.
        ignores: Vec<Located<String>> = "ignores" or(Vec::new()),
        /// Values for the operators' parameters, as a DataflowGraph gives them (not in AIO).
        configuration: Vec<Parameter> = "configuration" or(Vec::new()),
        /// What the state store holds at first (not in AIO, which takes it from its command line).
        state_store: Option<Located<StateStoreFixture>> = "stateStore" optional(),
        /// A file with the JSON schema that operators get at `init` (not in AIO, which takes it from the
        /// environment).
        schema: Option<Located<String>> = "schema" optional(),
    }
}

/// What the state store of a test holds at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateStoreFixture {
    /// Keys and values.
    Entries(BTreeMap<String, String>),
    /// A JSON file with an object of keys and values, or a list of such objects.
    File(String),
}

impl Decode for StateStoreFixture {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(_) => BTreeMap::decode(node, path, report).map(Self::Entries),
            Value::String(file) => Some(Self::File(file.clone())),
            _ => {
                mismatch(node, path, report, "a mapping of keys to values, or the path of a JSON file");
                None
            }
        }
    }
}

/// Reads a test descriptor; `name` stands for the file in findings.
///
/// # Errors
/// Every finding, when one is an error.
pub fn test_descriptor(name: &str, text: &str) -> Result<TestDescriptor, Vec<Finding>> {
    let mut report = Report::new(name);
    let read = single_document(text, "test descriptor", &mut report)
        .and_then(|node| TestDescriptor::decode(&node, &Path::ROOT, &mut report));
    let mut findings = report.findings;
    findings.sort_by(Finding::order);
    read.ok_or(findings)
}

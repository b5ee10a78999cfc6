//! A test descriptor with the files that it names.

use std::path::Path;
use std::sync::Arc;

use config::descriptor::StateStoreFixture;
use config::{Finding, Located, Position, Severity, TestDescriptor};
use processing_core::graph::Graph;

use super::expected::{Expected, Parts, Selection};
use super::fixture;
use super::input::Messages;
use super::trial::Setup;

/// Why a test failed: lines for whoever reads them.
pub type Failure = String;

/// A test with all its files read.
pub struct Prepared {
    /// What the graph is started with.
    pub setup: Setup,
    /// What goes in.
    pub messages: Messages,
    /// What must come out.
    pub expected: Expected,
    /// Which parts of it count.
    pub selection: Selection,
}

impl Prepared {
    /// Reads the files that the descriptor in `file` names. `set` is what the command line configures.
    ///
    /// # Errors
    /// What is wrong with one of them, and where it is named.
    pub fn new(file: &Path, descriptor: &TestDescriptor, set: &[(String, String)]) -> Result<Self, Failure> {
        let place = Place { file, folder: file.parent().unwrap_or(Path::new("")) };
        let graph_file = place.folder.join(descriptor.graph.as_str());
        let graph = place.opened(&descriptor.graph, graph(&graph_file))?;
        let settings = settings(descriptor, &graph, set, &place)?;
        let input = place.folder.join(descriptor.input.as_str());
        let messages = place.opened(&descriptor.input, Messages::open(&input, None))?;
        let expected = place.folder.join(descriptor.expected.as_str());
        let expected = place.opened(&descriptor.expected, Expected::read(&expected))?;
        let selection = selection(descriptor, &expected, &place)?;
        let state = state(descriptor.state_store.as_ref(), &place)?;
        let schema = descriptor.schema.as_ref();
        let schemas =
            schema.map(|file| place.opened(file, fixture::schema(&place.folder.join(file.as_str()))));
        let schemas = schemas.transpose()?.into_iter().collect();
        Ok(Self {
            setup: Setup { file: graph_file, graph, settings, state, schemas },
            messages,
            expected,
            selection,
        })
    }

    /// Whether an operation of the graph has a parameter of this id or name.
    pub fn has_parameter(&self, key: &str) -> bool {
        self.setup.graph.unused(&[(key.to_owned(), String::new())]).is_empty()
    }
}

fn graph(file: &Path) -> Result<Graph, String> {
    let text = config::load_text(file).map_err(|findings| lines(&findings))?;
    let checked = config::graph_definition(&file.display().to_string(), &text);
    let checked = checked.map_err(|findings| lines(&findings))?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    Ok(checked.graph)
}

/// What operators are configured with; the command line's values come first, and the first counts.
fn settings(
    descriptor: &TestDescriptor,
    graph: &Graph,
    set: &[(String, String)],
    place: &Place<'_>,
) -> Result<Vec<(String, String)>, Failure> {
    let own = descriptor.configuration.iter().map(|entry| (entry.key.value.clone(), entry.value.clone()));
    let own: Vec<(String, String)> = own.collect();
    for unused in graph.unused(&own) {
        if let Some(entry) = descriptor.configuration.iter().find(|entry| entry.key.as_str() == unused) {
            let why = format!("no operation of the graph has a parameter `{unused}`");
            return Err(place.finding(&entry.key, &why));
        }
    }
    Ok(set.iter().cloned().chain(own).collect())
}

fn selection(
    descriptor: &TestDescriptor,
    expected: &Expected,
    place: &Place<'_>,
) -> Result<Selection, Failure> {
    let parts = |paths: &[Located<String>]| paths.iter().map(|path| Parts::parse(path)).collect();
    let selection = Selection { select: parts(&descriptor.select), ignores: parts(&descriptor.ignores) };
    match selection.vacuous(expected).and_then(|at| descriptor.select.get(at)) {
        None => Ok(selection),
        Some(path) => {
            let why = format!("`select` names `{}`, which nothing that is expected has", path.value);
            Err(place.finding(path, &why))
        }
    }
}

/// The state store's keys and values.
fn state(
    fixture: Option<&Located<StateStoreFixture>>,
    place: &Place<'_>,
) -> Result<Vec<(String, String)>, Failure> {
    match fixture.map(|fixture| (fixture, &fixture.value)) {
        None => Ok(Vec::new()),
        Some((_, StateStoreFixture::Entries(entries))) => Ok(entries.clone().into_iter().collect()),
        Some((fixture, StateStoreFixture::File(file))) => {
            place.opened(fixture, fixture::state(&place.folder.join(file)))
        }
    }
}

/// Where a descriptor lies.
struct Place<'a> {
    file: &'a Path,
    folder: &'a Path,
}

impl Place<'_> {
    /// A finding about something in the descriptor.
    fn finding<T>(&self, about: &Located<T>, why: &str) -> Failure {
        let finding = Finding {
            severity: Severity::Error,
            file: Arc::from(self.file),
            position: about.position,
            resource: None,
            key: String::new(),
            message: why.to_owned(),
        };
        format!("{finding}\n")
    }

    /// What was read from a file that the descriptor names; or else who named it, and what is wrong with it.
    fn opened<T, V>(&self, named: &Located<T>, result: Result<V, String>) -> Result<V, Failure> {
        result.map_err(|why| {
            let Position { line, column } = named.position;
            format!("{}:{line}:{column}: named here:\n{}\n", self.file.display(), why.trim_end())
        })
    }
}

/// A line each.
pub fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

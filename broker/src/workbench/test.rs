//! `forebay test`: test descriptors, carried out one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::descriptor::StateStoreFixture;
use config::{Finding, Located, Position, Severity, TestDescriptor};
use processing::instance::ModuleSchema;
use processing_core::graph::Graph;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::envelope::Outgoing;
use super::expected::{Expected, Parts, Selection, compare};
use super::input::{self, Messages};
use super::operators::Operators;
use super::report::{Paint, count, indent};
use super::run::describe;
use super::trial::{End, Observer, Origin, Setup, Trial, Workshop};
use crate::cli;

/// What the name of a descriptor ends with.
const ENDINGS: [&str; 2] = [".test.yaml", ".test.yml"];
/// How deep folders are followed.
const DEPTH_MAX: usize = 16;
/// How many lines about messages that did not come out a failed test shows.
const ENDS_MAX: usize = 10;

/// Carries out all tests and says how each went. Fails when one does, and when there is none.
pub fn test(options: &cli::Test) -> ExitCode {
    match try_test(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("forebay: {why}");
            ExitCode::FAILURE
        }
    }
}

fn try_test(options: &cli::Test) -> Result<bool, String> {
    let begun = Instant::now();
    let mut files = Vec::new();
    for path in &options.paths {
        find(path, &mut files)?;
    }
    if files.is_empty() {
        let places: Vec<String> = options.paths.iter().map(|path| path.display().to_string()).collect();
        return Err(format!("no test descriptor (*.test.yaml) in {}", places.join(", ")));
    }
    let workshop = Workshop::new().map_err(|error| error.to_string())?;
    let bench = Bench {
        workshop,
        operators: Operators::new(&options.operators)?,
        set: &options.set,
        paint: Paint::for_stdout(),
    };
    let failed = files.iter().filter(|file| !bench.test(file)).count();
    let passed = files.len() - failed;
    let seconds = begun.elapsed().as_secs_f64();
    println!("\n{} passed, {failed} failed, in {seconds:.2} s", count(passed as u64, "test"));
    Ok(failed == 0)
}

/// Adds the descriptors in `path`, in the order of their names; a file that was named itself is one whatever it is
/// called. Hidden folders and those that Cargo builds in are left out.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let fail = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if fs::metadata(path).map_err(|error| fail(path, error))?.is_dir() {
        return find_in(path, files, 0).map_err(|error| fail(path, error));
    }
    files.push(path.to_owned());
    Ok(())
}

fn find_in(folder: &Path, files: &mut Vec<PathBuf>, depth: usize) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let built = name == "target" || name == "node_modules";
            if !name.starts_with('.') && !built && depth < DEPTH_MAX {
                find_in(&entry.path(), files, depth + 1)?;
            }
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What all tests share.
struct Bench<'a> {
    workshop: Workshop,
    operators: Operators,
    set: &'a [(String, String)],
    paint: Paint,
}

/// Why a test failed: lines for whoever reads them.
type Failure = String;

impl Bench<'_> {
    /// Carries out one test and says how it went.
    fn test(&self, file: &Path) -> bool {
        let shown = file.display().to_string();
        let descriptor = config::load_text(file).and_then(|text| config::test_descriptor(&shown, &text));
        let (name, result) = match &descriptor {
            Ok(descriptor) => (descriptor.name.as_str(), self.carry_out(file, descriptor)),
            Err(findings) => (shown.as_str(), Err(lines(findings))),
        };
        match &result {
            Ok(Passed { took, dropped }) => {
                let dropped = match dropped {
                    0 => String::new(),
                    n => format!(", {} dropped", count(*n, "message")),
                };
                let beside = self.paint.faint(&format!("({} ms{dropped})", took.as_millis()));
                println!("{} {name} {beside}", self.paint.good("ok  "));
            }
            Err(why) => {
                println!("{} {name} {}", self.paint.bad("FAIL"), self.paint.faint(&shown));
                print!("{}", indent(why, 5));
            }
        }
        result.is_ok()
    }

    fn carry_out(&self, file: &Path, descriptor: &TestDescriptor) -> Result<Passed, Failure> {
        let test = Prepared::new(file, descriptor, self.set)?;
        let mut trial = Trial::start(&self.workshop, &self.operators, test.setup)?;
        let mut results = Results::default();
        let begun = Instant::now();
        let timeout = Duration::from_millis(descriptor.timeout_ms);
        let overdue = || (begun.elapsed() > timeout).then(|| format!("it took longer than {timeout:?}\n"));
        for message in test.messages {
            trial.push(message?, &mut results);
            overdue().map_or(Ok(()), Err)?;
        }
        while trial.advance(&mut results) {
            overdue().map_or(Ok(()), Err)?;
        }
        let took = begun.elapsed();
        compare(&test.expected, &results.came_out, &test.selection, self.paint)
            .map_err(|differs| differs + &results.summary(trial.count()))?;
        Ok(Passed { took, dropped: results.dropped })
    }
}

/// How a test went well.
struct Passed {
    took: Duration,
    dropped: u64,
}

/// A test with all its files read.
struct Prepared {
    setup: Setup,
    messages: Messages,
    expected: Expected,
    selection: Selection,
}

impl Prepared {
    fn new(file: &Path, descriptor: &TestDescriptor, set: &[(String, String)]) -> Result<Self, Failure> {
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
        let schemas = schema.map(|file| place.opened(file, schema_file(&place.folder.join(file.as_str()))));
        let schemas = schemas.transpose()?.into_iter().collect();
        Ok(Self {
            setup: Setup { file: graph_file, graph, settings, state, schemas },
            messages,
            expected,
            selection,
        })
    }
}

fn graph(file: &Path) -> Result<Graph, String> {
    let text = config::load_text(file).map_err(|findings| lines(&findings))?;
    let checked = config::graph_definition(&file.display().to_string(), &text);
    Ok(checked.map_err(|findings| lines(&findings))?.graph)
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
            place.opened(fixture, state_file(&place.folder.join(file)))
        }
    }
}

/// An object of keys and values, or a list of such objects, as AIO's tools have it.
fn state_file(path: &Path) -> Result<Vec<(String, String)>, String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let bytes = input::read(path).map_err(fail)?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| fail(format!("this is no JSON: {error}")))?;
    let objects = match value {
        Value::Array(objects) => objects,
        value => vec![value],
    };
    let mut entries = Vec::new();
    for object in objects {
        let Value::Object(fields) = object else {
            return Err(fail("keys and values stand in an object, or in a list of objects".to_owned()));
        };
        for (key, value) in fields {
            let Value::String(value) = value else {
                return Err(fail(format!("the value of `{key}` is no string")));
            };
            entries.push((key, value));
        }
    }
    Ok(entries)
}

/// What kind of schema operators are told it is.
const SCHEMA_TYPE: &str = "JsonSchema/draft-07";

/// A JSON schema, called as its file without the ending.
fn schema_file(path: &Path) -> Result<ModuleSchema, String> {
    let fail = |why: String| format!("{}: {why}", path.display());
    let content = String::from_utf8(input::read(path).map_err(fail)?);
    let content = content.map_err(|_| fail("the file is not UTF-8 text".to_owned()))?;
    serde_json::from_str::<IgnoredAny>(&content)
        .map_err(|error| fail(format!("this is no JSON: {error}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ModuleSchema { name, content_type: SCHEMA_TYPE.to_owned(), content })
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

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

/// What became of a test's messages.
#[derive(Default)]
struct Results {
    came_out: Vec<Outgoing>,
    filtered: u64,
    dropped: u64,
    ends: Vec<String>,
}

impl Results {
    /// For the one who wonders why something did not come out.
    fn summary(&self, went_in: u64) -> String {
        let out = self.came_out.len();
        let mut text = format!(
            "{} in, {out} out, {} filtered, {} dropped\n",
            count(went_in, "message"),
            self.filtered,
            self.dropped
        );
        for end in self.ends.iter().take(ENDS_MAX) {
            text += &format!("{end}\n");
        }
        if self.ends.len() > ENDS_MAX {
            text += &format!("and {} more\n", self.ends.len() - ENDS_MAX);
        }
        text
    }
}

impl Observer for Results {
    fn came_out(&mut self, message: Outgoing) {
        self.came_out.push(message);
    }

    fn ended(&mut self, origin: &Origin, operation: Option<&str>, end: &End) {
        match end {
            End::Filtered => self.filtered += 1,
            End::Dropped(_) => self.dropped += 1,
        }
        self.ends.push(describe(origin, operation, end));
    }
}

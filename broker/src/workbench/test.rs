//! `forebay test`: test descriptors, carried out one after the other.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use config::TestDescriptor;

use super::envelope::Outgoing;
use super::expected::compare;
use super::operators::Operators;
use super::prepared::{Failure, Prepared, lines};
use super::report::{Paint, clean, count, indent, say};
use super::run::describe;
use super::trial::{End, Observer, Origin, Trial, Workshop};
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
        unused: RefCell::new(options.set.iter().map(|(key, _)| key.clone()).collect()),
        paint: Paint::for_stdout(),
    };
    let failed = files.iter().filter(|file| !bench.test(file)).count();
    let passed = files.len() - failed;
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!("\n{} passed, {failed} failed, in {seconds:.2} s", count(passed as u64, "test")));
    match bench.unused.borrow().first() {
        Some(key) => Err(format!("--set {key}: no graph that was tested has a parameter of that name")),
        None => Ok(failed == 0),
    }
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
    /// Keys that no graph so far had a parameter for.
    unused: RefCell<BTreeSet<String>>,
    paint: Paint,
}

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
                say(&format!("{} {} {beside}", self.paint.good("ok  "), clean(name)));
            }
            Err(why) => {
                say(&format!("{} {} {}", self.paint.bad("FAIL"), clean(name), self.paint.faint(&shown)));
                say(indent(why, 5).trim_end());
            }
        }
        result.is_ok()
    }

    fn carry_out(&self, file: &Path, descriptor: &TestDescriptor) -> Result<Passed, Failure> {
        let test = Prepared::new(file, descriptor, self.set)?;
        self.unused.borrow_mut().retain(|key| !test.has_parameter(key));
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
        results.held = trial.held();
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

/// What became of a test's messages.
#[derive(Default)]
struct Results {
    came_out: Vec<Outgoing>,
    filtered: u64,
    dropped: u64,
    /// Waiting for a time that never comes.
    held: usize,
    /// How the first of them ended.
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
        if self.held > 0 {
            text += &format!("{} still waiting, for a time that no clock comes to\n", self.held);
        }
        for end in &self.ends {
            text += &format!("{end}\n");
        }
        let more = self.filtered + self.dropped - self.ends.len() as u64;
        if more > 0 {
            text += &format!("and {more} more\n");
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
        if self.ends.len() < ENDS_MAX {
            self.ends.push(describe(origin, operation, end));
        }
    }
}

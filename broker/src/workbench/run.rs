//! `forebay run`: messages through a graph, and what comes out.

use std::io::{self, Write};
use std::process::ExitCode;

use processing_core::graph::Graph;

use super::envelope::Outgoing;
use super::fixture;
use super::input::Messages;
use super::operators::Operators;
use super::report::{clean, count};
use super::trial::{End, Observer, Origin, Setup, Trial, Workshop};
use crate::cli;

/// Prints what comes out, and on standard error what does not. Fails when the graph does not start, when the input
/// cannot be read, or when a message could not be processed.
pub fn run(options: &cli::Run) -> ExitCode {
    match try_run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("forebay: {why}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(options: &cli::Run) -> Result<bool, String> {
    let operators = Operators::new(&options.operators)?;
    let graph = graph(options, &operators)?;
    let messages = Messages::open(&options.input, options.topic.as_deref())?;
    let workshop = Workshop::new().map_err(|error| error.to_string())?;
    let schemas = options.schema.as_deref().map(fixture::schema).transpose()?;
    let setup = Setup {
        file: options.graph.clone(),
        graph,
        settings: options.set.clone(),
        state: options.state.clone(),
        schemas: schemas.into_iter().collect(),
    };
    let mut trial = Trial::start(&workshop, &operators, setup)?;
    let mut printer = Printer { payload_only: options.payload, ..Printer::default() };
    for message in messages {
        trial.push(message?, &mut printer);
        if printer.is_gone()? {
            return Ok(true);
        }
    }
    while trial.advance(&mut printer) && !printer.is_gone()? {}
    if trial.held() > 0 {
        eprintln!("{} still waiting, for a time that no clock comes to", trial.held());
    }
    eprintln!(
        "forebay: {} in, {} out, {} filtered, {} dropped",
        count(trial.count(), "message"),
        printer.out,
        printer.filtered,
        printer.dropped
    );
    Ok(printer.dropped == 0)
}

/// The graph: a file, or else an artifact of the registry.
fn graph(options: &cli::Run, operators: &Operators) -> Result<Graph, String> {
    let lines = |findings: Vec<config::Finding>| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        format!("{} is no graph that can run:\n{}", options.graph.display(), lines.join("\n"))
    };
    let name = options.graph.display().to_string();
    let artifact = if options.graph.exists() { None } else { operators.graph(&name) };
    let text = artifact.unwrap_or_else(|| config::load_text(&options.graph).map_err(lines))?;
    let checked = config::graph_definition(&name, &text).map_err(lines)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    match checked.graph.unused(&options.set).first() {
        Some(key) => Err(format!("--set {key}: no operation of {name} has a parameter of that name")),
        None => Ok(checked.graph),
    }
}

/// Prints each message as it comes.
#[derive(Default)]
struct Printer {
    payload_only: bool,
    out: u64,
    filtered: u64,
    dropped: u64,
    failure: Option<io::Error>,
}

impl Printer {
    fn print(&mut self, message: &Outgoing) -> io::Result<()> {
        let mut line = match self.payload_only {
            true => message.payload_line(),
            false => message.line().into_bytes(),
        };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }

    /// Whether nobody reads any more.
    fn is_gone(&mut self) -> Result<bool, String> {
        match self.failure.take() {
            None => Ok(false),
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
            Some(error) => Err(format!("standard output: {error}")),
        }
    }
}

impl Observer for Printer {
    fn came_out(&mut self, message: Outgoing) {
        self.out += 1;
        if let Err(error) = self.print(&message) {
            self.failure.get_or_insert(error);
        }
    }

    fn ended(&mut self, origin: &Origin, operation: Option<&str>, end: &End) {
        match end {
            End::Filtered => self.filtered += 1,
            End::Dropped(_) => self.dropped += 1,
        }
        eprintln!("{}", describe(origin, operation, end));
    }
}

/// A line about a message that did not come out.
pub fn describe(origin: &Origin, operation: Option<&str>, end: &End) -> String {
    let Origin { number, topic } = origin;
    let place = operation.map_or(String::new(), |operation| format!(" at {operation}"));
    clean(&match end {
        End::Filtered => format!("message {number} ({topic}) filtered{place}"),
        End::Dropped(why) => format!("message {number} ({topic}) dropped{place}: {why}"),
    })
}

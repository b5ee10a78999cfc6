//! Whether the parts of a definition make a graph.

use super::{Arm, Definition, Kind};
use std::collections::{HashMap, HashSet};

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Finding {
    /// What sort of thing.
    pub problem: Problem,
    /// Which part of the definition to look at.
    pub element: Element,
    /// The sentence for whoever wrote it.
    pub message: String,
}

/// A part of a definition, by its place in the list it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// The whole graph.
    Graph,
    /// One of the operations.
    Operation(usize),
    /// One of the connections.
    Connection(usize),
    /// One of the module configurations.
    ModuleConfiguration(usize),
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A name of no operation.
    Unknown,
    /// A name that stands twice.
    Duplicate,
    /// A connection that stands twice.
    Repeated,
    /// Operations that lead back to themselves.
    Cycle,
    /// An output of a branch that leads nowhere.
    MissingArm,
    /// An arm on an operation that is no branch, or none on a branch.
    Arm,
    /// More than one input where only concatenate may have them.
    Inputs,
    /// Into a source, or out of a sink.
    Direction,
    /// No way from a source, or none to a sink.
    Unreachable,
    /// No source or no sink.
    Ends,
    /// A module missing, or one too many.
    Module,
}

pub(super) fn check(definition: &Definition) -> Result<(), Vec<Finding>> {
    let mut check = Check {
        definition,
        index: HashMap::new(),
        next: vec![Vec::new(); definition.operations.len()],
        inputs: vec![Vec::new(); definition.operations.len()],
        findings: Vec::new(),
    };
    check.operations();
    check.connections();
    check.arms();
    check.configurations();
    let order = check.order();
    // Where connections are wrong already, what they fail to reach is no news.
    if check.findings.is_empty() {
        check.reachability(&order);
    }
    if check.findings.is_empty() { Ok(()) } else { Err(check.findings) }
}

struct Check<'a> {
    definition: &'a Definition,
    index: HashMap<&'a str, usize>,
    next: Vec<Vec<usize>>,
    inputs: Vec<Vec<usize>>,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn find(&mut self, problem: Problem, element: Element, message: String) {
        self.findings.push(Finding { problem, element, message });
    }

    fn name(&self, at: usize) -> &'a str {
        &self.definition.operations[at].name
    }

    fn kind(&self, at: usize) -> Kind {
        self.definition.operations[at].kind
    }

    fn operations(&mut self) {
        for (at, operation) in self.definition.operations.iter().enumerate() {
            let (name, kind, element) = (&operation.name, operation.kind.as_str(), Element::Operation(at));
            if self.index.contains_key(name.as_str()) {
                let message = format!(
                    "two operations are named `{name}`; to use one module twice, give two operations the same \
                     module and different names"
                );
                self.find(Problem::Duplicate, element, message);
            } else {
                self.index.insert(name, at);
            }
            let module = operation.module.as_deref().filter(|module| !module.is_empty());
            match (operation.kind.has_module(), module) {
                (true, None) => {
                    let message = format!("the operation `{name}` is a {kind} and needs a `module`");
                    self.find(Problem::Module, element, message);
                }
                (false, Some(module)) => {
                    let message =
                        format!("the operation `{name}` is a {kind}, which has no `module` (`{module}`)");
                    self.find(Problem::Module, element, message);
                }
                _ => {}
            }
        }
        for kind in [Kind::Source, Kind::Sink] {
            if !self.definition.operations.iter().any(|operation| operation.kind == kind) {
                self.find(Problem::Ends, Element::Graph, format!("the graph has no {}", kind.as_str()));
            }
        }
    }

    fn connections(&mut self) {
        let mut seen = HashSet::new();
        for (at, connection) in self.definition.connections.iter().enumerate() {
            let from = self.end(at, "from", &connection.from);
            let to = self.end(at, "to", &connection.to);
            let (Some(from), Some(to)) = (from, to) else { continue };
            if !seen.insert((from, connection.arm, to)) {
                let message = format!("`{}` is connected to `{}` twice", connection.from, connection.to);
                self.find(Problem::Repeated, Element::Connection(at), message);
                continue;
            }
            if self.may_connect(at, from, to) {
                self.next[from].push(to);
                self.inputs[to].push(from);
            }
        }
    }

    fn end(&mut self, at: usize, end: &str, name: &str) -> Option<usize> {
        let found = self.index.get(name).copied();
        if found.is_none() {
            let message =
                format!("connection {} `{end}` names the operation `{name}`, which does not exist", at + 1);
            self.find(Problem::Unknown, Element::Connection(at), message);
        }
        found
    }

    fn may_connect(&mut self, at: usize, from: usize, to: usize) -> bool {
        let element = Element::Connection(at);
        let before = self.findings.len();
        if self.kind(from) == Kind::Sink {
            let message = format!("`{}` is a sink, nothing can lead on from it", self.name(from));
            self.find(Problem::Direction, element, message);
        }
        if self.kind(to) == Kind::Source {
            let message = format!("`{}` is a source, nothing can lead to it", self.name(to));
            self.find(Problem::Direction, element, message);
        }
        match (self.kind(from), self.definition.connections[at].arm) {
            (Kind::Branch, Some(_)) => {}
            (Kind::Branch, None) => {
                let message =
                    format!("`{}` is a branch: say which `arm`, \"False\" or \"True\"", self.name(from));
                self.find(Problem::Arm, element, message);
            }
            (kind, Some(arm)) => {
                let message = format!(
                    "`{}` is a {} and has one output; only a branch has the arm \"{}\"",
                    self.name(from),
                    kind.as_str(),
                    arm.as_str()
                );
                self.find(Problem::Arm, element, message);
            }
            (_, None) => {}
        }
        let sound = self.findings.len() == before;
        // A sink is no exception: what leaves through it is one stream, and merging is what concatenate says.
        if self.kind(to) != Kind::Concatenate && !self.inputs[to].is_empty() {
            let message = format!(
                "`{}` is a {} and has one input, this would be another; merge them with a concatenate first",
                self.name(to),
                self.kind(to).as_str()
            );
            self.find(Problem::Inputs, element, message);
        }
        // One input too many may well be what closes a cycle, which is the better news.
        sound
    }

    fn arms(&mut self) {
        for (at, operation) in self.definition.operations.iter().enumerate() {
            if operation.kind != Kind::Branch {
                continue;
            }
            for arm in [Arm::False, Arm::True] {
                // A connection that does not say which arm is a finding of its own.
                let leads =
                    |c: &super::Connection| c.from == operation.name && c.arm.is_none_or(|a| a == arm);
                if !self.definition.connections.iter().any(leads) {
                    let message = format!(
                        "the arm \"{}\" of the branch `{}` leads nowhere",
                        arm.as_str(),
                        operation.name
                    );
                    self.find(Problem::MissingArm, Element::Operation(at), message);
                }
            }
        }
    }

    fn configurations(&mut self) {
        let mut seen = HashSet::new();
        for (at, configuration) in self.definition.module_configurations.iter().enumerate() {
            let (name, element) = (&configuration.name, Element::ModuleConfiguration(at));
            if !self.index.contains_key(name.as_str()) {
                let message =
                    format!("a module configuration names the operation `{name}`, which does not exist");
                self.find(Problem::Unknown, element, message);
            } else if !seen.insert(name) {
                self.find(Problem::Duplicate, element, format!("`{name}` is configured twice"));
            }
        }
    }

    /// Every operation after all those that lead to it; those of cycles are reported and left out.
    fn order(&mut self) -> Vec<usize> {
        let mut waiting: Vec<usize> = self.inputs.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..waiting.len()).filter(|&at| waiting[at] == 0).collect();
        let mut done = 0;
        while let Some(&at) = order.get(done) {
            done += 1;
            for &to in &self.next[at] {
                waiting[to] -= 1;
                if waiting[to] == 0 {
                    order.push(to);
                }
            }
        }
        if let Some(start) = waiting.iter().position(|&inputs| inputs > 0) {
            let cycle = self.cycle(start, &waiting);
            let names: Vec<&str> = cycle.iter().map(|&at| self.name(at)).collect();
            let element = Element::Operation(cycle.first().copied().unwrap_or(start));
            let message = format!("the connections make a cycle: {}", names.join(" → "));
            self.find(Problem::Cycle, element, message);
        }
        order
    }

    /// A cycle, its first operation again at the end. Whoever still waits has an input that waits, so walking
    /// backwards meets itself; it is then told from the operation that was written first.
    fn cycle(&self, start: usize, waiting: &[usize]) -> Vec<usize> {
        let mut path = vec![start];
        let mut at = start;
        while let Some(&from) = self.inputs[at].iter().find(|&&from| waiting[from] > 0) {
            if let Some(met) = path.iter().position(|&seen| seen == from) {
                path.drain(..met);
                break;
            }
            path.push(from);
            at = from;
        }
        path.reverse();
        let first = path.iter().enumerate().min_by_key(|&(_, &at)| at).map_or(0, |(place, _)| place);
        path.rotate_left(first);
        path.extend(path.first().copied());
        path
    }

    fn reachability(&mut self, order: &[usize]) {
        let count = self.definition.operations.len();
        let mut reached = vec![false; count];
        for &at in order {
            reached[at] |= self.kind(at) == Kind::Source;
            if reached[at] {
                self.next[at].iter().for_each(|&to| reached[to] = true);
            }
        }
        let mut leads_out = vec![false; count];
        for &at in order.iter().rev() {
            leads_out[at] = self.kind(at) == Kind::Sink || self.next[at].iter().any(|&to| leads_out[to]);
        }
        for at in 0..count {
            let (name, element) = (self.name(at), Element::Operation(at));
            if !reached[at] {
                self.find(
                    Problem::Unreachable,
                    element,
                    format!("no source leads to the operation `{name}`"),
                );
            } else if !leads_out[at] {
                self.find(Problem::Unreachable, element, format!("the operation `{name}` leads to no sink"));
            }
        }
    }
}

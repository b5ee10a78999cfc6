//! The shape of a graph: operations and how they are connected, checked before anything runs.

mod check;
mod join;
mod parameters;

pub use check::{Element, Finding, Problem};
pub use join::{End, JoinError, Joined, Link, Origin, Part, Start, Wiring};
pub use parameters::{ParameterError, Parameters};

/// What an operation does (AIO.md §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Where items come in.
    Source,
    /// One item into another.
    Map,
    /// Drops items.
    Filter,
    /// Sends items down one of two arms.
    Branch,
    /// Merges streams.
    Concatenate,
    /// Reduces the items of one time to one.
    Accumulate,
    /// Moves items to a later time.
    Delay,
    /// Where items go out.
    Sink,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Source,
        Self::Map,
        Self::Filter,
        Self::Branch,
        Self::Concatenate,
        Self::Accumulate,
        Self::Delay,
        Self::Sink,
    ];

    /// The word in a graph definition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Map => "map",
            Self::Filter => "filter",
            Self::Branch => "branch",
            Self::Concatenate => "concatenate",
            Self::Accumulate => "accumulate",
            Self::Delay => "delay",
            Self::Sink => "sink",
        }
    }

    /// The kind of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether a module does the work.
    pub fn has_module(self) -> bool {
        !matches!(self, Self::Source | Self::Sink | Self::Concatenate)
    }
}

/// One arm of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    /// The operator said false.
    False,
    /// The operator said true.
    True,
}

impl Arm {
    /// The word in a graph definition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "False",
            Self::True => "True",
        }
    }
}

/// A graph as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// `metadata.name`; empty in the preview generation.
    pub name: String,
    /// The operations.
    pub operations: Vec<Operation>,
    /// How they are connected.
    pub connections: Vec<Connection>,
    /// What modules can be configured with.
    pub module_configurations: Vec<ModuleConfiguration>,
    /// The features of the host that its modules need (`moduleRequirements.features`).
    pub features: Vec<String>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Unique in its graph.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Reference of the module that does it, relative to the registry.
    pub module: Option<String>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// An operation's name.
    pub from: String,
    /// Which arm, when `from` is a branch.
    pub arm: Option<Arm>,
    /// An operation's name.
    pub to: String,
}

/// The parameters of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleConfiguration {
    /// The operation's name.
    pub name: String,
    /// By id.
    pub parameters: Vec<(String, Parameter)>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The key that the module sees.
    pub name: String,
    /// It has to be given.
    pub required: bool,
    /// What it is when it is not given.
    pub default: Option<String>,
}

/// A graph that can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    module_configurations: Vec<ModuleConfiguration>,
    features: Vec<String>,
}

/// One operation with where its output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The operation.
    pub operation: Operation,
    /// Indices of the nodes that get its output; for a branch the arm "False".
    pub next: Vec<usize>,
    /// For a branch, the arm "True".
    pub next_true: Vec<usize>,
}

impl Graph {
    /// Checks a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn check(definition: Definition) -> Result<Self, Vec<Finding>> {
        check::check(&definition)?;
        let at = |name: &str| definition.operations.iter().position(|o| o.name == name);
        let mut nodes: Vec<Node> = definition
            .operations
            .iter()
            .map(|operation| Node { operation: operation.clone(), next: Vec::new(), next_true: Vec::new() })
            .collect();
        for connection in &definition.connections {
            let (Some(from), Some(to)) = (at(&connection.from), at(&connection.to)) else { continue };
            match connection.arm {
                Some(Arm::True) => nodes[from].next_true.push(to),
                Some(Arm::False) | None => nodes[from].next.push(to),
            }
        }
        let Definition { name, module_configurations, features, .. } = definition;
        Ok(Self { name, nodes, module_configurations, features })
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its definition says that its modules need this feature of the host.
    pub fn declares(&self, feature: &str) -> bool {
        self.features.iter().any(|declared| declared == feature)
    }

    /// The operations, in the order they were written.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The places of all nodes, each after all those that lead to it.
    pub fn order(&self) -> Vec<usize> {
        let next = |at: usize| self.nodes[at].next.iter().chain(&self.nodes[at].next_true);
        let mut inputs = vec![0_usize; self.nodes.len()];
        (0..self.nodes.len()).for_each(|at| next(at).for_each(|&to| inputs[to] += 1));
        let mut order: Vec<usize> = (0..inputs.len()).filter(|&at| inputs[at] == 0).collect();
        let mut done = 0;
        while let Some(&at) = order.get(done) {
            done += 1;
            for &to in next(at) {
                inputs[to] -= 1;
                if inputs[to] == 0 {
                    order.push(to);
                }
            }
        }
        order
    }

    /// Whether items wait inside for time to pass: such a graph must be told the time, and stay in one piece.
    pub fn keeps_items(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.operation.kind, Kind::Accumulate | Kind::Delay))
    }

    /// The module references, each once.
    pub fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> =
            self.nodes.iter().filter_map(|node| node.operation.module.as_deref()).collect();
        modules.sort_unstable();
        modules.dedup();
        modules
    }
}

#[cfg(test)]
mod tests;

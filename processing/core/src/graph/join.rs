//! Several graphs wired into one, so that time and order hold across all of them and passing from one to the next
//! costs nothing.
//!
//! A DataflowGraph (AIO.md §5.1) has sources, graphs and destinations. Each graph brings sources and sinks of its own,
//! which are only where it is joined to the others: they are gone afterwards.

use super::{Arm, Graph, Kind, Node, Operation};

/// What is to be joined.
#[derive(Debug, Clone, Default)]
pub struct Wiring {
    /// The names of the sources of the whole.
    pub sources: Vec<String>,
    /// The graphs.
    pub parts: Vec<Part>,
    /// The names of the sinks of the whole.
    pub sinks: Vec<String>,
    /// How all these are connected.
    pub links: Vec<Link>,
}

/// One graph among others.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name, unique among the parts.
    pub name: String,
    /// The graph.
    pub graph: Graph,
}

/// A connection between graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Where it begins.
    pub from: Start,
    /// Where it ends.
    pub to: End,
    /// Whether an operation of its own checks what passes: [`Origin::Check`].
    pub checked: bool,
}

/// Where a link begins; places in the lists of the [`Wiring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// A source of the whole.
    Source(usize),
    /// All sinks of a part, or the one that is its output "True" or "False".
    Part(usize, Option<Arm>),
}

/// Where a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// All sources of a part.
    Part(usize),
    /// A sink of the whole.
    Sink(usize),
}

/// Graphs joined into one.
#[derive(Debug)]
pub struct Joined {
    /// The one graph. Its sources and sinks stand in the order of the wiring.
    pub graph: Graph,
    /// Where each of its nodes comes from.
    pub origins: Vec<Origin>,
}

/// Where a node of a joined graph comes from; places in the lists of the [`Wiring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A source of the whole.
    Source(usize),
    /// A sink of the whole.
    Sink(usize),
    /// An operation of a part: the part, and the node's place in its graph.
    Part(usize, usize),
    /// What checks the items of a link.
    Check(usize),
}

/// Graphs cannot be joined as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A connection names an output that the graph does not have.
    #[error(
        "the graph of `{part}` has no output \"{}\": that is a sink which only the arm \"{}\" of a branch leads to",
        arm.as_str().to_lowercase(), arm.as_str()
    )]
    NoOutput {
        /// The part.
        part: String,
        /// The output.
        arm: Arm,
    },
}

impl Wiring {
    /// Joins everything into one graph. The wiring must be without cycles.
    ///
    /// # Errors
    /// A connection from an output that a part does not have.
    pub fn join(&self) -> Result<Joined, JoinError> {
        let mut join = Join { nodes: Vec::new(), origins: Vec::new() };
        for (at, name) in self.sources.iter().enumerate() {
            join.add(name.clone(), Kind::Source, Some(Origin::Source(at)));
        }
        let firsts: Vec<usize> = self
            .parts
            .iter()
            .enumerate()
            .map(|(at, part)| join.add_part(at, part, self.parts.len() > 1))
            .collect();
        let sinks = join.nodes.len();
        for (at, name) in self.sinks.iter().enumerate() {
            join.add(name.clone(), Kind::Sink, Some(Origin::Sink(at)));
        }
        for (at, link) in self.links.iter().enumerate() {
            let from = match link.from {
                Start::Source(source) => vec![source],
                Start::Part(part, arm) => {
                    let inner = self.parts[part].outputs(arm)?;
                    inner.into_iter().map(|node| firsts[part] + node).collect()
                }
            };
            let to = match link.to {
                End::Sink(sink) => vec![sinks + sink],
                End::Part(part) => {
                    let inner = of_kind(&self.parts[part].graph, Kind::Source);
                    inner.map(|node| firsts[part] + node).collect()
                }
            };
            match link.checked {
                false => join.connect(&from, &to),
                true => {
                    let check = join.add(self.check_name(link), Kind::Filter, Some(Origin::Check(at)));
                    join.connect(&from, &[check]);
                    join.connect(&[check], &to);
                }
            }
        }
        Ok(join.splice())
    }

    fn check_name(&self, link: &Link) -> String {
        let from = match link.from {
            Start::Source(at) => &self.sources[at],
            Start::Part(at, _) => &self.parts[at].name,
        };
        let to = match link.to {
            End::Part(at) => &self.parts[at].name,
            End::Sink(at) => &self.sinks[at],
        };
        format!("schema {from} → {to}")
    }
}

impl Part {
    /// The places of the sinks that make an output.
    fn outputs(&self, arm: Option<Arm>) -> Result<Vec<usize>, JoinError> {
        let sinks = of_kind(&self.graph, Kind::Sink);
        let Some(arm) = arm else { return Ok(sinks.collect()) };
        let found: Vec<usize> = sinks.filter(|&sink| arm_of(&self.graph, sink) == Some(arm)).collect();
        if found.is_empty() {
            return Err(JoinError::NoOutput { part: self.name.clone(), arm });
        }
        Ok(found)
    }
}

fn of_kind(graph: &Graph, kind: Kind) -> impl Iterator<Item = usize> {
    let is = move |(at, node): (usize, &Node)| (node.operation.kind == kind).then_some(at);
    graph.nodes().iter().enumerate().filter_map(is)
}

/// The arm of the last branch on the one way that leads to `at`.
fn arm_of(graph: &Graph, mut at: usize) -> Option<Arm> {
    loop {
        let mut inputs = graph.nodes().iter().enumerate().flat_map(|(from, node)| {
            let arm = (node.operation.kind == Kind::Branch).then_some(Arm::False);
            let by_false = node.next.iter().filter(move |&&to| to == at).map(move |_| (from, arm));
            let by_true =
                node.next_true.iter().filter(move |&&to| to == at).map(move |_| (from, Some(Arm::True)));
            by_false.chain(by_true)
        });
        match (inputs.next(), inputs.next()) {
            (Some((_, Some(arm))), None) => return Some(arm),
            (Some((from, None)), None) => at = from,
            _ => return None,
        }
    }
}

struct Join {
    nodes: Vec<Node>,
    /// `None` for what is spliced out in the end.
    origins: Vec<Option<Origin>>,
}

impl Join {
    fn add(&mut self, name: String, kind: Kind, origin: Option<Origin>) -> usize {
        let operation = Operation { name, kind, module: None };
        self.nodes.push(Node { operation, next: Vec::new(), next_true: Vec::new() });
        self.origins.push(origin);
        self.nodes.len() - 1
    }

    /// Adds a part's nodes, in their order. Returns the place of the first.
    fn add_part(&mut self, at: usize, part: &Part, among_others: bool) -> usize {
        let first = self.nodes.len();
        for (place, node) in part.graph.nodes().iter().enumerate() {
            let mut node = node.clone();
            node.next.iter_mut().chain(&mut node.next_true).for_each(|to| *to += first);
            if among_others {
                node.operation.name = format!("{}/{}", part.name, node.operation.name);
            }
            let is_end = matches!(node.operation.kind, Kind::Source | Kind::Sink);
            self.origins.push((!is_end).then_some(Origin::Part(at, place)));
            self.nodes.push(node);
        }
        first
    }

    fn connect(&mut self, from: &[usize], to: &[usize]) {
        from.iter().for_each(|&from| self.nodes[from].next.extend(to));
    }

    /// Takes out what was only there to be joined at: whoever led to it leads to where it led.
    fn splice(self) -> Joined {
        let mut place = 0;
        let places: Vec<usize> = self
            .origins
            .iter()
            .map(|origin| {
                let here = place;
                place += usize::from(origin.is_some());
                here
            })
            .collect();
        let through = |targets: &[usize]| {
            let mut reached = Vec::new();
            let mut open: Vec<usize> = targets.iter().rev().copied().collect();
            while let Some(at) = open.pop() {
                match self.origins[at] {
                    Some(_) => reached.push(places[at]),
                    None => open.extend(self.nodes[at].next.iter().rev()),
                }
            }
            reached
        };
        let kept =
            || self.nodes.iter().zip(&self.origins).filter_map(|(node, origin)| origin.map(|o| (node, o)));
        let nodes = kept().map(|(node, _)| Node {
            operation: node.operation.clone(),
            next: through(&node.next),
            next_true: through(&node.next_true),
        });
        let graph = Graph {
            name: String::new(),
            nodes: nodes.collect(),
            module_configurations: Vec::new(),
            features: Vec::new(),
        };
        Joined { graph, origins: kept().map(|(_, origin)| origin).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Definition};
    use super::*;

    fn part(name: &str, operations: &[(&str, Kind)], connections: &[(&str, Option<Arm>, &str)]) -> Part {
        let operations = operations.iter().map(|(name, kind)| Operation {
            name: (*name).to_owned(),
            kind: *kind,
            module: kind.has_module().then(|| "m:1".to_owned()),
        });
        let connections = connections.iter().map(|(from, arm, to)| Connection {
            from: (*from).to_owned(),
            arm: *arm,
            to: (*to).to_owned(),
        });
        let definition = Definition {
            operations: operations.collect(),
            connections: connections.collect(),
            ..Definition::default()
        };
        Part { name: name.to_owned(), graph: Graph::check(definition).unwrap() }
    }

    fn map(name: &str) -> Part {
        let operations = [("source", Kind::Source), ("map", Kind::Map), ("sink", Kind::Sink)];
        part(name, &operations, &[("source", None, "map"), ("map", None, "sink")])
    }

    fn branch(name: &str) -> Part {
        let operations = [
            ("in", Kind::Source),
            ("branch", Kind::Branch),
            ("map", Kind::Map),
            ("yes", Kind::Sink),
            ("no", Kind::Sink),
        ];
        let connections = [
            ("in", None, "branch"),
            ("branch", Some(Arm::False), "no"),
            ("branch", Some(Arm::True), "map"),
            ("map", None, "yes"),
        ];
        part(name, &operations, &connections)
    }

    fn link(from: Start, to: End) -> Link {
        Link { from, to, checked: false }
    }

    /// Each node with where it leads, as text.
    fn shape(graph: &Graph) -> Vec<String> {
        let name = |at: &usize| graph.nodes()[*at].operation.name.clone();
        let names = |list: &[usize]| list.iter().map(name).collect::<Vec<_>>().join(" ");
        let line = |node: &Node| {
            let more = if node.next_true.is_empty() {
                String::new()
            } else {
                format!(" / {}", names(&node.next_true))
            };
            format!("{} > {}{more}", node.operation.name, names(&node.next))
        };
        graph.nodes().iter().map(line).collect()
    }

    #[test]
    fn one_graph_keeps_its_names_and_loses_its_own_ends() {
        let wiring = Wiring {
            sources: vec!["temperature".to_owned(), "humidity".to_owned()],
            parts: vec![map("convert")],
            sinks: vec!["out".to_owned()],
            links: vec![
                link(Start::Source(0), End::Part(0)),
                link(Start::Source(1), End::Part(0)),
                link(Start::Part(0, None), End::Sink(0)),
            ],
        };
        let joined = wiring.join().unwrap();
        assert_eq!(shape(&joined.graph), ["temperature > map", "humidity > map", "map > out", "out > "]);
        assert_eq!(
            joined.origins,
            [Origin::Source(0), Origin::Source(1), Origin::Part(0, 1), Origin::Sink(0)]
        );
    }

    #[test]
    fn chains_branches_and_checks_are_wired_through() {
        let wiring = Wiring {
            sources: vec!["s".to_owned()],
            parts: vec![
                branch("b"),
                map("hot"),
                part("same", &[("i", Kind::Source), ("o", Kind::Sink)], &[("i", None, "o")]),
            ],
            sinks: vec!["k".to_owned(), "cold".to_owned()],
            links: vec![
                Link { from: Start::Source(0), to: End::Part(0), checked: true },
                link(Start::Part(0, Some(Arm::True)), End::Part(1)),
                link(Start::Part(0, Some(Arm::False)), End::Part(2)),
                link(Start::Part(1, None), End::Sink(0)),
                link(Start::Part(2, None), End::Sink(0)),
                link(Start::Part(2, None), End::Sink(1)),
            ],
        };
        let joined = wiring.join().unwrap();
        assert_eq!(
            shape(&joined.graph),
            [
                "s > schema s → b",
                "b/branch > k cold / b/map",
                "b/map > hot/map",
                "hot/map > k",
                "k > ",
                "cold > ",
                "schema s → b > b/branch",
            ]
        );
        assert_eq!(joined.origins[6], Origin::Check(0));
    }

    #[test]
    fn an_output_that_a_graph_does_not_have_is_told_by_name() {
        let wiring = Wiring {
            sources: vec!["s".to_owned()],
            parts: vec![map("m")],
            sinks: vec!["k".to_owned()],
            links: vec![
                link(Start::Source(0), End::Part(0)),
                link(Start::Part(0, Some(Arm::True)), End::Sink(0)),
            ],
        };
        assert_eq!(
            wiring.join().unwrap_err().to_string(),
            "the graph of `m` has no output \"true\": that is a sink which only the arm \"True\" of a branch leads to"
        );
    }
}

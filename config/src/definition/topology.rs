//! From a file to a graph: the parts handed to `processing_core`, and its findings back on their lines.

use super::{Arm, GraphDefinition, OperationType};
use crate::finding::{Position, Report};
use processing_core::graph::{self, Definition, Element, Graph, Kind};

/// More than this is no graph that somebody wrote; the text comes from a registry.
const OPERATIONS_MAX: usize = 1000;
const CONNECTIONS_MAX: usize = 10_000;

/// Checks that the operations make a graph; what is wrong is reported where it stands.
pub(super) fn check(file: &GraphDefinition, report: &mut Report) -> Option<Graph> {
    if file.operations.len() > OPERATIONS_MAX || file.connections.len() > CONNECTIONS_MAX {
        let message =
            format!("a graph may have at most {OPERATIONS_MAX} operations and {CONNECTIONS_MAX} connections");
        report.error(Position::START, "operations", message);
        return None;
    }
    let findings = match Graph::check(file.parts()) {
        Ok(graph) => return Some(graph),
        Err(findings) => findings,
    };
    for finding in findings {
        let (position, key) = file.place(finding.element);
        report.error(position, key, finding.message);
    }
    None
}

impl GraphDefinition {
    /// The parts of the graph, without their places.
    pub fn parts(&self) -> Definition {
        Definition {
            name: self.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default(),
            operations: self.operations.iter().map(|operation| operation.part()).collect(),
            connections: self.connections.iter().map(|connection| connection.part()).collect(),
            module_configurations: self
                .configurations
                .iter()
                .map(|configuration| configuration.part())
                .collect(),
            features: self.requirements.features.iter().map(|feature| feature.name.to_string()).collect(),
        }
    }

    /// Where an element of the graph stands in the file, and its key.
    pub fn place(&self, element: Element) -> (Position, String) {
        let (position, key) = match element {
            Element::Graph => (None, String::new()),
            Element::Operation(at) => {
                (self.operations.get(at).map(|part| part.name.position), format!("operations[{at}].name"))
            }
            Element::Connection(at) => {
                (self.connections.get(at).map(|part| part.position), format!("connections[{at}]"))
            }
            Element::ModuleConfiguration(at) => (
                self.configurations.get(at).map(|part| part.name.position),
                format!("moduleConfigurations[{at}].name"),
            ),
        };
        (position.unwrap_or(Position::START), key)
    }
}

impl super::Operation {
    fn part(&self) -> graph::Operation {
        let kind = match self.operation_type {
            OperationType::Source => Kind::Source,
            OperationType::Map => Kind::Map,
            OperationType::Filter => Kind::Filter,
            OperationType::Branch => Kind::Branch,
            OperationType::Concatenate => Kind::Concatenate,
            OperationType::Accumulate => Kind::Accumulate,
            OperationType::Delay => Kind::Delay,
            OperationType::Sink => Kind::Sink,
        };
        let module = self.module.as_ref().map(|module| module.value.clone());
        graph::Operation { name: self.name.value.clone(), kind, module }
    }
}

impl super::Connection {
    fn part(&self) -> graph::Connection {
        let arm = self.from.arm.map(|arm| match arm {
            Arm::False => graph::Arm::False,
            Arm::True => graph::Arm::True,
        });
        graph::Connection { from: self.from.name.value.clone(), arm, to: self.to.name.value.clone() }
    }
}

impl super::ModuleConfiguration {
    fn part(&self) -> graph::ModuleConfiguration {
        let parameters = self.parameters.iter().map(|(id, parameter)| {
            let super::ConfigParameter { name, required, default, .. } = parameter.clone();
            (id.clone(), graph::Parameter { name, required, default })
        });
        graph::ModuleConfiguration { name: self.name.value.clone(), parameters: parameters.collect() }
    }
}

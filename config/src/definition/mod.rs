//! The graph definition file (AIO.md §2.1), in both of its generations.
//!
//! Its shape is read here and its versions are checked; whether the operations make a graph is for
//! `processing_core` to say, and `topology` finds the lines for what it says.

mod topology;
mod version;

pub use version::Contract;

use crate::finding::{Finding, Position, Report, Severity, list, quoted};
use crate::read::{Decode, Fields, Located, Path, Unread, choice, mismatch, no_choice, record};
use crate::suggest::nearest;
use crate::yaml::{Node, Value, documents};
use processing_core::graph::Graph;
use std::collections::{BTreeMap, BTreeSet};

/// The one feature that a graph can ask for.
const FEATURES: [&str; 1] = ["wasi-nn"];

/// What a graph definition file says.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphDefinition {
    /// The contract that its modules are built against.
    pub contract: Contract,
    /// Name and version; only the files of the second generation have them.
    pub metadata: Option<GraphMetadata>,
    /// What the modules need.
    pub requirements: ModuleRequirements,
    /// Which parameters each operation takes.
    pub configurations: Vec<Located<ModuleConfiguration>>,
    /// The operations.
    pub operations: Vec<Located<Operation>>,
    /// How the operations are connected.
    pub connections: Vec<Located<Connection>>,
    /// Schemas that operations are given.
    pub schemas: Vec<Located<Schema>>,
}

record! {
    /// Name and version of a graph.
    pub struct GraphMetadata {
        /// The address of the file format's own schema.
        schema: String = "$schema" required(),
        /// The name.
        name: String = "name" required(),
        /// The version.
        version: String = "version" required(),
        /// What the graph does.
        description: Option<String> = "description" optional(),
        /// Who made it.
        vendor: Option<String> = "vendor" optional(),
    }
}

/// What the modules of a graph need.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleRequirements {
    /// The version of the contract.
    pub api_version: Located<String>,
    /// `runtimeVersion`, or `hostlibVersion` in the first generation.
    pub runtime_version: Located<String>,
    /// Features of the host.
    pub features: Vec<Feature>,
}

record! {
    /// A feature of the host.
    pub struct Feature {
        /// The name.
        name: Located<String> = "name" required(),
        /// A value, for features that take one.
        value: Option<String> = "value" optional(),
    }
}

/// Which parameters one operation takes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleConfiguration {
    /// The name of the operation.
    pub name: Located<String>,
    /// The parameters by id.
    pub parameters: BTreeMap<String, ConfigParameter>,
}

impl Decode for ModuleConfiguration {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        fields.ignore(&["description"]);
        let name = fields.required("name");
        let parameters = fields.required("parameters");
        fields.close_open()?;
        Some(Self { name: name?, parameters: parameters? })
    }
}

/// One parameter of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigParameter {
    /// The key under which the operation gets it.
    pub name: String,
    /// What it means.
    pub description: Option<String>,
    /// Whether a value must be given.
    pub required: bool,
    /// The value when none is given.
    pub default: Option<String>,
}

impl Decode for ConfigParameter {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        let name = fields.required("name");
        let description = fields.optional("description");
        let required = fields.or("required", false);
        let default = fields.optional("default");
        fields.close_open()?;
        Some(Self { name: name?, description: description?, required: required?, default: default? })
    }
}

record! {
    /// One operation.
    pub struct Operation {
        /// What it does.
        operation_type: OperationType = "operationType" required(),
        /// Its name; connections and configurations use it.
        name: Located<String> = "name" required(),
        /// The artifact with its code.
        module: Option<Located<String>> = "module" optional(),
    }
}

choice! {
    /// What an operation does.
    pub enum OperationType {
        /// Where messages come in.
        Source = "source",
        /// One out for each in.
        Map = "map",
        /// Some are dropped.
        Filter = "filter",
        /// To one of two arms.
        Branch = "branch",
        /// Several streams become one.
        Concatenate = "concatenate",
        /// All of one time become one.
        Accumulate = "accumulate",
        /// To a later time.
        Delay = "delay",
        /// Where messages go out.
        Sink = "sink",
    }
}

record! {
    /// A connection from one operation to another.
    pub struct Connection {
        /// Where it begins.
        from: ConnectionFrom = "from" required(),
        /// Where it ends.
        to: ConnectionTo = "to" required(),
    }
}

record! {
    /// The beginning of a connection.
    pub struct ConnectionFrom {
        /// The name of the operation.
        name: Located<String> = "name" required(),
        /// Which of the two outputs of a branch.
        arm: Option<Arm> = "arm" optional(),
        /// The schema of what flows.
        schema_name: Option<Located<String>> = "schemaName" optional(),
    }
}

record! {
    /// The end of a connection.
    pub struct ConnectionTo {
        /// The name of the operation.
        name: Located<String> = "name" required(),
    }
}

/// One of the two outputs of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// Where messages go for which the branch says false.
    False,
    /// Where messages go for which the branch says true.
    True,
}

impl Decode for Arm {
    /// The format wants the strings `"False"` and `"True"`. Without quotes YAML makes a boolean of
    /// them, and of `true` in any case; what is meant is plain, so both are taken.
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Bool(true, _) => Some(Self::True),
            Value::Bool(false, _) => Some(Self::False),
            Value::String(text) => match text.as_str() {
                "True" => Some(Self::True),
                "False" => Some(Self::False),
                text => no_choice(node, path, report, text, &["False", "True"]),
            },
            _ => {
                mismatch(node, path, report, "\"False\" or \"True\"");
                None
            }
        }
    }
}

/// A schema that operations are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The name.
    pub name: Located<String>,
    /// The language of the schema.
    pub format: String,
    /// The schema.
    pub schema: String,
}

impl Decode for Schema {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = Fields::open(node, path, report)?;
        let name = fields.required("name");
        let format = fields.required("format");
        let schema = fields.required("schema");
        fields.close_open()?;
        Some(Self { name: name?, format: format?, schema: schema? })
    }
}

/// A graph definition file that was read and whose operations make a graph.
#[derive(Clone, Debug)]
pub struct CheckedDefinition {
    /// What the file says.
    pub definition: GraphDefinition,
    /// The graph that its operations make.
    pub graph: Graph,
    /// What there is to tell although nothing is wrong.
    pub warnings: Vec<Finding>,
}

/// Reads a graph definition file and checks that its operations make a graph; `name` stands for the
/// file in findings.
///
/// # Errors
/// Every finding, warnings among them, when one is an error.
pub fn graph_definition(name: &str, text: &str) -> Result<CheckedDefinition, Vec<Finding>> {
    let mut report = Report::new(name);
    let checked = single_document(text, "graph definition", &mut report)
        .and_then(|node| decode(&node, &mut report))
        .and_then(|definition| {
            let clean = !report.findings.iter().any(Finding::is_error);
            let graph = clean.then(|| topology::check(&definition, &mut report))??;
            Some((definition, graph))
        });
    let mut findings = report.findings;
    findings.sort_by(Finding::order);
    match checked {
        Some((definition, graph)) => Ok(CheckedDefinition { definition, graph, warnings: findings }),
        None => Err(findings),
    }
}

/// The one document of a text that is a `what`.
pub(crate) fn single_document(text: &str, what: &str, report: &mut Report) -> Option<Node> {
    let mut documents = match documents(text) {
        Ok(documents) => documents.into_iter(),
        Err(fault) => {
            report.error(fault.position, "", fault.message);
            return None;
        }
    };
    let Some(first) = documents.next() else {
        report.error(Position::START, "", format!("the {what} is empty"));
        return None;
    };
    if let Some(second) = documents.next() {
        let message = format!("a {what} is one document, and here a second one begins");
        report.error(second.position, "", message);
        return None;
    }
    Some(first)
}

fn decode(node: &Node, report: &mut Report) -> Option<GraphDefinition> {
    let mut fields = Fields::open(node, &Path::ROOT, report)?;
    let has_metadata = fields.node("metadata").is_some();
    let requirements = match fields.node("moduleRequirements") {
        Some(node) => {
            requirements(node, &fields.path().key("moduleRequirements"), has_metadata, fields.report)
        }
        None => fields.required::<Unread>("moduleRequirements").and(None),
    };
    // Which rules hold for the rest; where that is unclear, those that allow more.
    let metadata = match requirements.as_ref().map(|(_, contract)| *contract) {
        Some(Contract::Preview) => {
            fields.forbid("metadata", "graph definitions with `hostlibVersion` have none").map(|()| None)
        }
        Some(Contract::Ga) => fields.required("metadata").map(Some),
        None => fields.optional("metadata"),
    };
    let configurations: Option<Vec<Located<ModuleConfiguration>>> =
        fields.or("moduleConfigurations", Vec::new());
    let operations: Option<Vec<Located<Operation>>> = fields.required("operations");
    let connections = fields.required("connections");
    let schemas = fields.or("schemas", Vec::new());
    fields.close()?;
    let (requirements, contract) = requirements?;
    let definition = GraphDefinition {
        contract,
        metadata: metadata?,
        requirements,
        configurations: configurations?,
        operations: operations?,
        connections: connections?,
        schemas: schemas?,
    };
    check_schemas(&definition, report);
    Some(definition)
}

/// Reads `moduleRequirements` and tells by its keys of which generation the file is.
fn requirements(
    node: &Node,
    path: &Path<'_>,
    has_metadata: bool,
    report: &mut Report,
) -> Option<(ModuleRequirements, Contract)> {
    let mut fields = Fields::open(node, path, report)?;
    let api_version: Option<Located<String>> = fields.required("apiVersion");
    let has_runtime = fields.node("runtimeVersion").is_some();
    let has_hostlib = fields.node("hostlibVersion").is_some();
    let (contract, key) = match (has_runtime, has_hostlib) {
        (true, _) => (Contract::Ga, "runtimeVersion"),
        (false, true) => (Contract::Preview, "hostlibVersion"),
        (false, false) if has_metadata => (Contract::Ga, "runtimeVersion"),
        (false, false) => {
            let position = fields.position();
            let message = format!("missing field `{path}.runtimeVersion` (or `hostlibVersion`, in preview)");
            fields.report.error(position, path.key("runtimeVersion"), message);
            return None;
        }
    };
    let excluded = match contract {
        Contract::Ga => fields.forbid("hostlibVersion", "`runtimeVersion` stands in its place since 1.1"),
        Contract::Preview => Some(()),
    };
    let runtime_version: Option<Located<String>> = fields.required(key);
    let features: Option<Vec<Feature>> = fields.or("features", Vec::new());
    if let Some(api_version) = &api_version {
        version::check_api(contract, api_version, &path.key("apiVersion"), fields.report);
    }
    if let Some(runtime_version) = &runtime_version {
        version::check_runtime(contract, runtime_version, &path.key(key), fields.report);
    }
    for (index, feature) in features.iter().flatten().enumerate() {
        check_feature(feature, &path.key("features").item(index), fields.report);
    }
    fields.close()?;
    excluded?;
    let requirements = ModuleRequirements {
        api_version: api_version?,
        runtime_version: runtime_version?,
        features: features?,
    };
    Some((requirements, contract))
}

fn check_feature(feature: &Feature, path: &Path<'_>, report: &mut Report) {
    if FEATURES.contains(&feature.name.as_str()) {
        return;
    }
    let hint = match nearest(&feature.name, FEATURES) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known are {}", list(FEATURES)),
    };
    let message = format!("the feature {} is not known and has no effect; {hint}", quoted(&feature.name));
    report.add(Severity::Warning, feature.name.position, path.key("name"), message);
}

fn check_schemas(definition: &GraphDefinition, report: &mut Report) {
    let mut known = BTreeSet::new();
    for (index, schema) in definition.schemas.iter().enumerate() {
        if !known.insert(schema.name.as_str()) {
            let message = format!("the schema {} stands twice", quoted(&schema.name));
            report.error(schema.name.position, format!("schemas[{index}].name"), message);
        }
    }
    for (index, connection) in definition.connections.iter().enumerate() {
        let Some(name) = &connection.from.schema_name else { continue };
        if !known.contains(name.as_str()) {
            let key = format!("connections[{index}].from.schemaName");
            let known = match known.is_empty() {
                true => "there is none".to_owned(),
                false => format!("known are {}", list(&known)),
            };
            let message = format!("`{key}` names the schema {}, which does not exist; {known}", quoted(name));
            report.error(name.position, key, message);
        }
    }
}

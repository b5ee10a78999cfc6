//! Text in, checked values out.
//!
//! This crate reads the configuration of forebay: the resources of Azure IoT Operations and the
//! Kubernetes Secrets and ConfigMaps they refer to, in YAML ([`load`], [`load_str`]), and the graph
//! definition files that registries serve ([`graph_definition`]), and the descriptors of their tests
//! ([`test_descriptor`]). Whatever is wrong or unusual becomes a
//! [`Finding`] with file, line, column and key; nothing in a file is silently ignored, and text that
//! nobody vouches for can neither crash the reader nor make it grow without bound.
//!
//! ```
//! let loaded = forebay_config::load_str("broker.yaml", "kind: DataFlowGraph\napiVersion: v1\n");
//! let lines: Vec<_> = loaded.findings.iter().map(ToString::to_string).collect();
//! let expected = "broker.yaml:1:7: error: the kind `DataFlowGraph` is not known; did you mean `DataflowGraph`?";
//! assert_eq!(lines, [expected]);
//! assert!(loaded.plans().is_empty());
//! ```
//!
//! It does not know how anything is carried out: no sockets, no WebAssembly, no broker. It opens
//! files only in [`load`] and [`load_text`] (and lists them in [`files`]), and it does not watch them.

mod arm;
mod check;
pub mod definition;
pub mod descriptor;
mod finding;
mod load;
pub mod manifest;
mod pending;
mod plan;
mod read;
pub mod resource;
mod suggest;
mod topic;
mod yaml;

pub use definition::{CheckedDefinition, GraphDefinition, graph_definition};
pub use descriptor::{TestDescriptor, test_descriptor};
pub use finding::{Finding, Position, ResourceId, Severity};
pub use load::{Loaded, files, load, load_str, load_text, watched};
pub use plan::{
    DestinationPlan, GraphPlan, LinkPlan, RegistryPlan, RemoteEndpoint, SamplesPlan, SourcePlan, StagePlan,
    System,
};
pub use read::{Located, Unread};
pub use resource::{DEFAULT_NAMESPACE, Metadata, Resource, Resources, Settings, TokenKeys};
pub use topic::{Template, TopicFilter};

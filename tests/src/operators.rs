//! Operators and graphs built from their sources in `processing/operators`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use crate::artifact::{Artifact, Shape};
use crate::registry::Registry;
use crate::{process, repository};

/// The component `name`, without its extension, such as `temperature`.
pub fn component(name: &str) -> Vec<u8> {
    let path = directory().join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of the sample graph definition `name`, such as `graph-simple`.
pub fn graph(name: &str) -> String {
    let path = repository().join("config/samples/graphs").join(format!("{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A registry with the sample graph `graph-simple` and the component it names, as AIO's documents push them.
pub fn sample_registry() -> Registry {
    let registry = Registry::start();
    push_samples(&registry, "");
    registry
}

/// The sample graph `graph-simple` and the component it names.
pub fn samples() -> [(&'static str, Artifact); 2] {
    let graph = Artifact::new(Shape::Graph, "graph-simple.yaml", graph("graph-simple"));
    let module = Artifact::new(Shape::Module, "temperature.wasm", component("temperature"));
    [("graph-simple", graph), ("temperature", module)]
}

/// Pushes the same under a prefix (`""`, or one that ends with a slash).
pub fn push_samples(registry: &Registry, prefix: &str) {
    for (name, artifact) in samples() {
        registry.push(&format!("{prefix}{name}"), "1.0.0", &artifact);
    }
}

/// The folder with the components. Builds once a process; a second build of unchanged sources takes a moment.
pub fn directory() -> &'static PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(given) = env::var_os("FOREBAY_OPERATORS") {
            return PathBuf::from(given);
        }
        let script = repository().join("processing/operators/build");
        let (status, output) = process::run(Command::new(&script));
        assert!(status.success(), "{}: {status}\n{output}", script.display());
        repository().join("processing/operators/target/components")
    })
}

//! Where a graph's operators are found: in folders by name, or in a registry by reference.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use processing::registry::{Endpoint, Location, Registry};
use processing_core::graph::Graph;

use super::input;
use crate::cli;

/// Where operators are looked for.
pub struct Operators {
    folders: Vec<PathBuf>,
    registry: Option<Remote>,
}

struct Remote {
    endpoint: Endpoint,
    registry: Registry,
    runtime: tokio::runtime::Runtime,
}

impl Operators {
    /// As the command line says.
    ///
    /// # Errors
    /// A registry's name that is none.
    pub fn new(options: &cli::Operators) -> Result<Self, String> {
        let registry = options.registry.as_deref().map(Remote::new).transpose()?;
        Ok(Self { folders: options.operators.clone(), registry })
    }

    /// The bytes of all modules of `graph`, whose definition lies in `file`, by reference.
    ///
    /// # Errors
    /// The first that is not found, and where it was looked for.
    pub fn of(&self, graph: &Graph, file: &Path) -> Result<HashMap<String, Bytes>, String> {
        let mut found = HashMap::new();
        for reference in graph.modules() {
            let bytes = self.find(reference, file).map_err(|why| {
                let users = graph.nodes().iter().filter(|n| n.operation.module.as_deref() == Some(reference));
                let users: Vec<String> = users.map(|node| format!("`{}`", node.operation.name)).collect();
                format!("module `{reference}` of operation {}: {why}", users.join(", "))
            })?;
            found.insert(reference.to_owned(), bytes);
        }
        Ok(found)
    }

    /// An artifact of the registry as text: a graph definition. `None` without a registry.
    ///
    /// # Errors
    /// Why it cannot be pulled.
    pub fn graph(&self, reference: &str) -> Option<Result<String, String>> {
        let remote = self.registry.as_ref()?;
        Some(remote.pull(reference).and_then(|bytes| {
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("{reference} is not UTF-8 text"))
        }))
    }

    fn find(&self, reference: &str, file: &Path) -> Result<Bytes, String> {
        let names = file_names(reference);
        let folders = match (self.folders.is_empty(), &self.registry) {
            (false, _) => self.folders.clone(),
            (true, Some(_)) => Vec::new(),
            (true, None) => default_folders(file),
        };
        for path in folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))) {
            if path.is_file() {
                return input::read(&path)
                    .map(Bytes::from)
                    .map_err(|why| format!("{}: {why}", path.display()));
            }
        }
        match &self.registry {
            Some(remote) => remote.pull(reference),
            None => Err(absent(&names, &folders)),
        }
    }
}

fn absent(names: &[String], folders: &[PathBuf]) -> String {
    let there: Vec<String> = folders.iter().map(|folder| format!("  {}", folder.display())).collect();
    format!(
        "no `{}` in any of\n{}\nbuild it with `cargo build --release --target wasm32-wasip2`, or say where it is \
         with --operators DIR or --registry HOST",
        names.join("` or `"),
        there.join("\n")
    )
}

/// The file names that `path/name:tag`, `path/name@digest` or `name` may have. Cargo writes `_` for `-`, and the
/// preview's documents put the tag into the name.
fn file_names(reference: &str) -> Vec<String> {
    let reference = reference.split('@').next().unwrap_or_default();
    let last = reference.rsplit('/').next().unwrap_or_default();
    let (name, tag) = last.split_once(':').map_or((last, None), |(name, tag)| (name, Some(tag)));
    let mut names = vec![format!("{name}.wasm"), format!("{}.wasm", name.replace('-', "_"))];
    names.extend(tag.map(|tag| format!("{name}-{tag}.wasm")));
    names.dedup();
    names
}

/// Where Cargo puts what it builds.
const RELEASE: &str = "wasm32-wasip2/release";
/// Where this project's own operators are.
const SAMPLES: &str = "processing/operators/target/components";

/// Beside the graph; then where Cargo builds, in the graph's folder and those above it; then the same from here.
fn default_folders(file: &Path) -> Vec<PathBuf> {
    let here = env::current_dir().unwrap_or_default();
    let beside = here.join(file).parent().map(Path::to_owned).unwrap_or_default();
    let beside = beside.canonicalize().unwrap_or(beside);
    let mut folders = vec![beside.clone()];
    folders.extend(env::var_os("CARGO_TARGET_DIR").map(|target| here.join(target).join(RELEASE)));
    for folder in beside.ancestors().chain(here.ancestors()) {
        for built in [folder.join("target").join(RELEASE), folder.join(SAMPLES)] {
            if built.is_dir() && !folders.contains(&built) {
                folders.push(built);
            }
        }
    }
    folders
}

impl Remote {
    fn new(host: &str) -> Result<Self, String> {
        let host = match host.strip_prefix("oci:") {
            Some(layout) => format!("oci-layout:{layout}"),
            None => host.to_owned(),
        };
        let location: Location = host.parse().map_err(|error| format!("--registry: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the registry cannot be asked: {error}"))?;
        Ok(Self { endpoint: Endpoint::new(location), registry: Registry::new(None), runtime })
    }

    fn pull(&self, reference: &str) -> Result<Bytes, String> {
        let pulled = self.runtime.block_on(self.registry.pull(&self.endpoint, reference));
        pulled.map(|artifact| artifact.bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_file_by_its_last_name() {
        assert_eq!(file_names("temperature"), ["temperature.wasm"]);
        assert_eq!(file_names("a/b/temperature:1.0.0"), ["temperature.wasm", "temperature-1.0.0.wasm"]);
        assert_eq!(file_names("host:5000/a/opc-ua:1"), ["opc-ua.wasm", "opc_ua.wasm", "opc-ua-1.wasm"]);
        assert_eq!(file_names("a/b@sha256:00"), ["b.wasm"]);
    }
}

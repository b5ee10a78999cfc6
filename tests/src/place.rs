//! A forebay with resources and the sample operators, and what its graphs do.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forebay::{Forebay, Serve};
use crate::registry::Registry;
use crate::resources::{Resources, documents, registry_endpoint};
use crate::{http, operators, wait};

/// Where a forebay lives.
pub struct Place {
    resources: Resources,
    data: TempDir,
    _registry: Registry,
}

impl Place {
    /// One with these resources, and the RegistryEndpoint `registry` with the sample operators.
    pub fn new(parts: &[String]) -> Self {
        Self::with(operators::sample_registry(), parts)
    }

    /// The same with a registry that has more in it.
    pub fn with(registry: Registry, parts: &[String]) -> Self {
        let mut all = vec![registry_endpoint("registry", registry.addr)];
        all.extend_from_slice(parts);
        let resources = Resources::default().with("all.yaml", &documents(&all));
        Self { resources, data: TempDir::new().expect("a directory"), _registry: registry }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// A broker here; with the data directory that it had before, if it had one.
    pub fn serve(&self) -> Serve {
        Serve::new().data_dir(self.data.path()).resources(&self.resources)
    }
}

/// A reading that the graph `graph-simple` passes on as it is.
pub fn celsius(value: u32) -> Vec<u8> {
    json!({"temperature": {"value": f64::from(value), "unit": "C"}}).to_string().into_bytes()
}

/// The value of a reading.
pub fn value(payload: &[u8]) -> u32 {
    let json: Value = serde_json::from_slice(payload).expect("JSON");
    json["temperature"]["value"].as_f64().expect("a number") as u32
}

/// Waits until a graph has this reason code, and gives the message that goes with it.
pub fn wait_reason(broker: &Forebay, graph: &str, code: &str) -> String {
    wait::until(code, || {
        let text = http::get(broker.admin, "/status")?.text();
        let all: Vec<Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let found = all.iter().find(|it| it["kind"] == "DataflowGraph" && it["name"] == graph);
        let health = &found.ok_or_else(|| text.clone())?["healthState"];
        match health["reasonCode"] == code {
            true => Ok(health["message"].as_str().unwrap_or_default().to_owned()),
            false => Err(text),
        }
    })
}

/// Waits until the bridge of a node is connected.
pub fn wait_connected(broker: &Forebay, node: &str) {
    broker.wait_metric_is("forebay_bridge_connected", &[&format!("node=\"{node}\"")], 1.0);
}

//! OCI artifacts in every shape that AIO's documents push them in (AIO.md §2.4).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How an artifact is described; the content is one layer in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `oras push --artifact-type application/vnd.module.wasm.content.layer.v1+wasm FILE:application/wasm`.
    Module,
    /// `oras push --config /dev/null:application/vnd.microsoft.aio.graph.v1+yaml FILE:application/yaml`.
    Graph,
    /// `oras push FILE` of ORAS 1.2: an artifact type of its own, an empty config, a layer of no particular type.
    Oras12,
    /// Older ORAS: no artifact type, config `application/vnd.unknown.config.v1+json`.
    OrasOld,
    /// The preview's graphs: config `application/vnd.oci.image.config.v1+json`.
    Preview,
    /// Issue 0623 of August 2025: `application/vnd.wasm.config.v1+json` with a `vnd.wasm.content.layer` layer.
    WasmConfig,
    /// As `Module`, in a manifest that does not name its own media type.
    Untyped,
}

/// Every shape.
pub const SHAPES: [Shape; 7] = [
    Shape::Module,
    Shape::Graph,
    Shape::Oras12,
    Shape::OrasOld,
    Shape::Preview,
    Shape::WasmConfig,
    Shape::Untyped,
];

/// One file, ready to be pushed.
pub struct Artifact {
    shape: Shape,
    title: String,
    /// The config blob.
    pub config: Vec<u8>,
    /// The one layer.
    pub layer: Vec<u8>,
}

impl Artifact {
    /// `content` under the file name `title`.
    pub fn new(shape: Shape, title: &str, content: impl Into<Vec<u8>>) -> Self {
        let config = match shape {
            Shape::Graph => Vec::new(),
            _ => b"{}".to_vec(),
        };
        Self { shape, title: title.to_owned(), config, layer: content.into() }
    }

    /// The manifest's text.
    pub fn manifest(&self) -> String {
        const EMPTY: &str = "application/vnd.oci.empty.v1+json";
        const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
        let (artifact_type, config, layer) = match self.shape {
            Shape::Module | Shape::Untyped => (Some(MODULE), EMPTY, "application/wasm"),
            Shape::Graph => (None, "application/vnd.microsoft.aio.graph.v1+yaml", "application/yaml"),
            Shape::Oras12 => {
                (Some("application/vnd.unknown.artifact.v1"), EMPTY, "application/vnd.oci.image.layer.v1.tar")
            }
            Shape::OrasOld => {
                (None, "application/vnd.unknown.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
            }
            Shape::Preview => {
                (None, "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
            }
            Shape::WasmConfig => {
                (None, "application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm")
            }
        };
        let mut layer = descriptor(layer, &self.layer);
        layer["annotations"] = json!({ "org.opencontainers.image.title": self.title });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config, &self.config),
            "layers": [layer],
            "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
        });
        if let Some(artifact_type) = artifact_type {
            manifest["artifactType"] = json!(artifact_type);
        }
        if self.shape == Shape::Untyped
            && let Some(fields) = manifest.as_object_mut()
        {
            fields.remove("mediaType");
        }
        manifest.to_string()
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Artifacts as ORAS pushes them, in its several shapes (AIO.md §2.4).

use processing::registry::Digest;
use serde_json::{Value, json};

pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// A manifest and the blobs it names.
pub struct Pushed {
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
    pub blobs: Vec<Vec<u8>>,
}

impl Pushed {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// `oras push R --artifact-type … temperature.wasm:application/wasm`, as ORAS 1.2 does it.
pub fn module(content: &[u8]) -> Pushed {
    let layer = titled(descriptor("application/wasm", content), "temperature.wasm");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": MODULE,
        "config": empty_config(), "layers": [layer],
        "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
    });
    pushed(&manifest, [b"{}".as_slice(), content])
}

/// `oras push R --config /dev/null:application/vnd.microsoft.aio.graph.v1+yaml
/// graph-simple.yaml:application/yaml`.
pub fn graph(content: &[u8]) -> Pushed {
    let layer = titled(descriptor("application/yaml", content), "graph-simple.yaml");
    let config = descriptor("application/vnd.microsoft.aio.graph.v1+yaml", b"");
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
    pushed(&manifest, [b"".as_slice(), content])
}

/// What older ORAS clients push by default: an unknown config, a layer that claims to be a tar, no artifact
/// type.
pub fn old(content: &[u8]) -> Pushed {
    let layer =
        titled(descriptor("application/vnd.oci.image.layer.v1.tar", content), "temperature-1.0.0.wasm");
    let config = descriptor("application/vnd.unknown.config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
    pushed(&manifest, [b"{}".as_slice(), content])
}

/// The old shape as oras-py pushes it: the manifest does not say what it is.
pub fn without_media_type(content: &[u8]) -> Pushed {
    let mut manifest: Value = serde_json::from_slice(&old(content).manifest).unwrap();
    manifest.as_object_mut().unwrap().remove("mediaType");
    pushed(&manifest, [b"{}".as_slice(), content])
}

/// The shape that anonymous pulls once needed: both media types are WebAssembly's.
pub fn wasm_types(content: &[u8]) -> Pushed {
    let layer = descriptor("application/vnd.wasm.content.layer.v1+wasm", content);
    let config = descriptor("application/vnd.wasm.config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer]});
    pushed(&manifest, [b"{}".as_slice(), content])
}

/// An index of images.
pub fn index(images: &[&Pushed]) -> Pushed {
    let entries: Vec<Value> = images.iter().map(|image| descriptor(IMAGE, &image.manifest)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    Pushed { manifest: manifest.to_string().into_bytes(), media_type: INDEX, blobs: Vec::new() }
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()})
}

fn empty_config() -> Value {
    let mut config = descriptor(EMPTY, b"{}");
    config["data"] = json!("e30=");
    config
}

fn titled(mut descriptor: Value, title: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.title": title});
    descriptor
}

fn pushed(manifest: &Value, blobs: [&[u8]; 2]) -> Pushed {
    Pushed {
        manifest: manifest.to_string().into_bytes(),
        media_type: IMAGE,
        blobs: blobs.map(<[u8]>::to_vec).into(),
    }
}

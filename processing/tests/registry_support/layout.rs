//! OCI image layouts, made by hand.

use std::fs;
use std::path::{Path, PathBuf};

use processing::registry::Digest;
use serde_json::{Value, json};

use super::artifact::{self, Pushed};

/// A layout with the artifacts given by their names.
pub fn layout(artifacts: &[(&str, &Pushed)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut entries = Vec::new();
    for (name, pushed) in artifacts {
        for blob in pushed.blobs.iter().chain([&pushed.manifest]) {
            fs::write(blob_file(root, blob), blob).unwrap();
        }
        let mut entry = artifact::descriptor(pushed.media_type, &pushed.manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entries.push(entry);
    }
    write_index(root, &entries);
    directory
}

pub fn write_index(root: &Path, entries: &[Value]) {
    let index = json!({"schemaVersion": 2, "mediaType": artifact::INDEX, "manifests": entries});
    fs::write(root.join("index.json"), index.to_string()).unwrap();
}

pub fn blob_file(root: &Path, content: &[u8]) -> PathBuf {
    root.join("blobs/sha256").join(Digest::of(content).hex())
}

//! Signatures, by signers that others wrote: `tests/clients/sign.py` for the Notary Project's, OpenSSL for cosign's.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use processing::registry::Digest;
use serde_json::json;

use super::artifact::{self, Pushed};
use super::run;

pub const NOTATION: &str = "application/vnd.cncf.notary.signature";
pub const JWS: &str = "application/jose+json";
pub const COSE: &str = "application/cose";

/// An authority, in a directory of its own.
pub struct Authority(tempfile::TempDir);

impl Authority {
    pub fn new() -> Self {
        Authority(tempfile::tempdir().unwrap())
    }

    /// What `sign.py` makes of `digest` with these arguments.
    pub fn sign(&self, digest: &Digest, arguments: &[&str]) -> Vec<u8> {
        let python = repository().join(".tools/clients/bin/python");
        let script = repository().join("tests/clients/sign.py");
        let (script, directory, digest) = (script.to_str().unwrap(), self.0.path(), digest.to_string());
        let all = [&[script, directory.to_str().unwrap(), &digest], arguments].concat();
        run(python.to_str().unwrap(), &all)
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> Vec<u8> {
        let file = self.0.path().join("ca.pem");
        if !file.exists() {
            self.sign(&Digest::of(b""), &[]);
        }
        fs::read(file).unwrap()
    }
}

/// The manifest of a signature, as notation 1.x attaches it: its kind is that of its config.
pub fn attached(subject: &Pushed, envelope: &[u8], media_type: &str) -> Pushed {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": artifact::IMAGE,
        "config": artifact::descriptor(NOTATION, b"{}"),
        "layers": [artifact::descriptor(media_type, envelope)],
        "subject": artifact::descriptor(artifact::IMAGE, &subject.manifest),
        "annotations": {"io.cncf.notary.x509chain.thumbprint#S256": "[]"},
    });
    pushed(manifest.to_string(), vec![b"{}".to_vec(), envelope.to_vec()])
}

/// The index that lists what is attached to a manifest, in the order given.
pub fn referrers(attached: &[&Pushed]) -> Pushed {
    let entry = |attached: &&Pushed| {
        let mut entry = artifact::descriptor(artifact::IMAGE, &attached.manifest);
        entry["artifactType"] = json!(NOTATION);
        entry
    };
    let entries: Vec<_> = attached.iter().map(entry).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": artifact::INDEX, "manifests": entries});
    Pushed { manifest: manifest.to_string().into_bytes(), media_type: artifact::INDEX, blobs: Vec::new() }
}

/// The tag of what is attached, where a registry does not list it itself.
pub fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// A key pair of OpenSSL's, and its public half.
pub struct KeyPair {
    directory: tempfile::TempDir,
    pub public: Vec<u8>,
}

impl KeyPair {
    /// Made by `openssl genpkey` with these arguments.
    pub fn new(kind: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        let key = file.to_str().unwrap();
        run("openssl", &[&["genpkey", "-out", key], kind].concat());
        let public = run("openssl", &["pkey", "-in", key, "-pubout"]);
        KeyPair { directory, public }
    }

    /// `cosign sign --key` of `digest`: the image that holds the payload and its signature.
    pub fn cosign(&self, digest: &Digest) -> Pushed {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": "registry/t"},
                "image": {"docker-manifest-digest": digest.to_string()},
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string()
        .into_bytes();
        let signature = self.sign(&payload);
        let mut layer = artifact::descriptor("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        let config = artifact::descriptor("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest =
            json!({"schemaVersion": 2, "mediaType": artifact::IMAGE, "config": config, "layers": [layer]});
        pushed(manifest.to_string(), vec![b"{}".to_vec(), payload])
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let (key, file) = (self.directory.path().join("key.pem"), self.directory.path().join("payload"));
        fs::write(&file, payload).unwrap();
        let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
        let is_ed25519 = self.public.len() < 120;
        match is_ed25519 {
            true => run("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file]),
            false => run("openssl", &["dgst", "-sha256", "-sign", key, file]),
        }
    }
}

fn pushed(manifest: String, blobs: Vec<Vec<u8>>) -> Pushed {
    Pushed { manifest: manifest.into_bytes(), media_type: artifact::IMAGE, blobs }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

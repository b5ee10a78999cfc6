//! Registries: Debian's docker-registry, and two that do not work.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use serde_json::json;
use tempfile::TempDir;

use crate::artifact::{Artifact, sha256};
use crate::pki::Authority;
use crate::process::Process;
use crate::{http, repository, wait};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SIGNATURE: &str = "application/vnd.cncf.notary.signature";

/// A running docker-registry over plain HTTP on loopback; its content goes when it is dropped.
pub struct Registry {
    /// Where it answers.
    pub addr: SocketAddr,
    /// The process, to be ended to see what happens without it.
    pub process: Process,
    dir: TempDir,
}

impl Registry {
    /// Starts an empty one that anybody may use.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts an empty one that wants this user and password.
    pub fn start_with_password(user: &str, password: &str) -> Self {
        let (status, line) = {
            let mut command = Command::new("htpasswd");
            command.args(["-Bbn", user, password]);
            crate::process::run(command)
        };
        assert!(status.success(), "htpasswd: {line}");
        let dir = TempDir::new().expect("a temporary directory");
        let file = dir.keep().join("htpasswd");
        fs::write(&file, line).expect("a file can be written");
        Self::start_with(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()))
    }

    fn start_with(more: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let addr = wait::free_addr();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {addr}\n{more}",
            dir.path().join("data").display()
        );
        fs::write(&config, text).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        let process = Process::start(command);
        wait::until("docker-registry answers", || match http::get(addr, "/v2/") {
            Ok(answer) if matches!(answer.status, 200 | 401) => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(error) => Err(error),
        });
        Self { addr, process, dir }
    }

    /// Another one with the same content, over TLS on another port; ends with the process that is given back.
    pub fn over_tls(&self, authority: &Authority) -> (Process, SocketAddr) {
        let (certificate, key) = authority.server().write(self.dir.path(), "registry");
        let addr = wait::free_addr();
        let config = self.dir.path().join("tls.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {addr}, tls: {{certificate: '{certificate}', key: '{key}'}}}}\n",
            self.dir.path().join("data").display()
        );
        fs::write(&config, text).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        let process = Process::start(command);
        wait::until("docker-registry listens", || {
            std::net::TcpStream::connect(addr).map(|_| ()).map_err(|error| error.to_string())
        });
        (process, addr)
    }

    /// Pushes an artifact as `name:tag`, the way ORAS does: blobs first, then the manifest.
    pub fn push(&self, name: &str, tag: &str, artifact: &Artifact) {
        self.push_as(name, tag, artifact, None);
    }

    /// As [`Registry::push`], with `Authorization: Basic` of this base64 text.
    pub fn push_as(&self, name: &str, tag: &str, artifact: &Artifact, basic: Option<&str>) {
        let authorization = basic.map(|basic| format!("Basic {basic}"));
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if let Some(value) = &authorization {
            headers.push(("Authorization", value));
        }
        for blob in [&artifact.config, &artifact.layer] {
            self.push_blob(name, blob, &headers);
        }
        self.push_manifest(name, tag, MANIFEST, &artifact.manifest(), headers);
    }

    fn push_manifest(&self, name: &str, tag: &str, media_type: &str, text: &str, headers: Vec<(&str, &str)>) {
        let headers = [headers, vec![("Content-Type", media_type)]].concat();
        let path = format!("/v2/{name}/manifests/{tag}");
        let answer =
            http::send(self.addr, "PUT", &path, &headers, text.as_bytes()).expect("the registry answers");
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    }

    /// Signs a pushed artifact as `notation sign` does, by somebody whom the authority in this directory vouches for.
    pub fn sign(&self, name: &str, artifact: &Artifact, authority: &Path) {
        let manifest = artifact.manifest();
        let digest = sha256(manifest.as_bytes());
        let mut command = Command::new(repository().join(".tools/clients/bin/python"));
        command.arg(repository().join("tests/clients/sign.py")).arg(authority);
        let signed =
            command.arg(format!("sha256:{digest}")).output().expect("python is there: run tests/setup");
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
        let attached = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(SIGNATURE, b"{}"),
            "layers": [descriptor("application/jose+json", &signed.stdout)],
            "subject": descriptor(MANIFEST, manifest.as_bytes()),
        })
        .to_string();
        let mut listed = descriptor(MANIFEST, attached.as_bytes());
        listed["artifactType"] = json!(SIGNATURE);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}).to_string();
        self.push_blob(name, b"{}", &[]);
        self.push_blob(name, &signed.stdout, &[]);
        self.push_manifest(
            name,
            &format!("sha256:{}", sha256(attached.as_bytes())),
            MANIFEST,
            &attached,
            Vec::new(),
        );
        self.push_manifest(name, &format!("sha256-{digest}"), INDEX, &index, Vec::new());
    }

    fn push_blob(&self, name: &str, blob: &[u8], headers: &[(&str, &str)]) {
        let begun = http::send(self.addr, "POST", &format!("/v2/{name}/blobs/uploads/"), headers, &[]);
        let begun = begun.expect("the registry answers");
        assert_eq!(begun.status, 202, "{}", begun.text());
        let location = begun.header("location").expect("an upload has a location");
        let path = &location[location.find("/v2/").expect("a registry path")..];
        let path =
            format!("{path}{}digest=sha256:{}", if path.contains('?') { '&' } else { '?' }, sha256(blob));
        let answer = http::send(self.addr, "PUT", &path, headers, blob).expect("the registry answers");
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    }

    /// Changes the stored bytes of a blob behind the registry's back, so that it serves what the digest does not say.
    pub fn tamper(&self, blob: &[u8]) {
        let digest = sha256(blob);
        let path: PathBuf = self
            .dir
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&digest[..2])
            .join(&digest)
            .join("data");
        let mut bytes = fs::read(&path).expect("the blob is stored there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("a file can be written");
    }

    /// Where it keeps its content.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A registry that takes connections and requests, and never answers.
pub fn stalled() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound port");
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                // Reads until the other side gives up.
                if let Ok(mut stream) = stream {
                    let _ = std::io::copy(&mut stream.by_ref(), &mut std::io::sink());
                }
            });
        }
    });
    addr
}

/// An address where nothing answers.
pub fn unreachable() -> SocketAddr {
    wait::free_addr()
}

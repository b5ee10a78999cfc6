//! Kubernetes `Secret` and `ConfigMap`: what the other resources refer to.
//!
//! No value of a Secret is ever part of a finding.

use super::common::SecretValue;
use crate::finding::{Report, quoted};
use crate::read::{Decode, Fields, Path, mismatch};
use crate::yaml::{Node, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// A Kubernetes Secret: its entries, decoded.
#[derive(Clone, PartialEq)]
pub struct Secret {
    /// The type, such as `Opaque` or `kubernetes.io/dockerconfigjson`.
    pub secret_type: String,
    entries: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.entries.keys().collect();
        f.debug_struct("Secret")
            .field("secret_type", &self.secret_type)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// The type of a Secret with logins for registries.
pub const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";

impl Secret {
    /// The bytes of an entry.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// The text of an entry.
    ///
    /// # Errors
    /// Says what the Secret lacks, in words that follow its name.
    pub fn text(&self, key: &str) -> Result<SecretValue, String> {
        let bytes = self.bytes(key).ok_or_else(|| format!("has no key {}", quoted(key)))?;
        let text = std::str::from_utf8(bytes).map_err(|_| format!("holds no text under {}", quoted(key)))?;
        Ok(SecretValue::new(text))
    }

    /// All entries, one after the other: of certificates or keys, one bundle.
    pub fn joined(&self) -> Vec<u8> {
        let all: Vec<&[u8]> = self.entries.values().map(Vec::as_slice).collect();
        all.join(&b'\n')
    }

    /// Sets an entry.
    pub(crate) fn set(&mut self, key: String, bytes: Vec<u8>) {
        self.entries.insert(key, bytes);
    }

    /// The logins for registries, or nothing when the Secret is of another type.
    pub(crate) fn docker_logins(&self) -> Result<Option<Vec<DockerLogin>>, String> {
        match self.bytes(DOCKER_CONFIG_KEY) {
            Some(json) => docker_logins(json).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the fields of a Secret document.
    pub(crate) fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        fields.ignore(&["immutable"]);
        let secret_type = fields.or("type", "Opaque".to_owned());
        let data = fields.or("data", Encoded(BTreeMap::new()));
        let texts = fields.or("stringData", Plain(BTreeMap::new()));
        let mut entries = data?.0;
        // As Kubernetes does it: `stringData` wins.
        entries.extend(texts?.0);
        let secret = Self { secret_type: secret_type?, entries };
        if secret.secret_type == DOCKER_CONFIG_TYPE {
            let fault = match secret.docker_logins() {
                Ok(Some(_)) => return Some(secret),
                Ok(None) => format!("has no key `{DOCKER_CONFIG_KEY}`"),
                Err(fault) => fault,
            };
            let position = fields.position();
            fields.report.error(position, "data", format!("a Secret of type {DOCKER_CONFIG_TYPE} {fault}"));
            return None;
        }
        Some(secret)
    }
}

/// `data`: bytes in base64.
struct Encoded(BTreeMap<String, Vec<u8>>);

impl Decode for Encoded {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        entries(node, path, report, |text| {
            let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            STANDARD.decode(dense).map_err(|_| "is no valid base64; use `stringData` for plain text")
        })
        .map(Self)
    }
}

/// `stringData`: plain text.
struct Plain(BTreeMap<String, Vec<u8>>);

impl Decode for Plain {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        entries(node, path, report, |text| Ok(text.as_bytes().to_vec())).map(Self)
    }
}

/// Reads the entries of a Secret. Unlike elsewhere, faults do not repeat what was found.
fn entries(
    node: &Node,
    path: &Path<'_>,
    report: &mut Report,
    decode: impl Fn(&str) -> Result<Vec<u8>, &'static str>,
) -> Option<BTreeMap<String, Vec<u8>>> {
    let Value::Map(pairs) = &node.value else {
        mismatch(node, path, report, "a mapping");
        return None;
    };
    let mut clean = true;
    let mut entries = BTreeMap::new();
    for (key, value) in pairs {
        let path = path.key(&key.name);
        let result = match &value.value {
            Value::String(text) => decode(text),
            Value::Null => Ok(Vec::new()),
            _ => Err("must be a string; quote it"),
        };
        match result {
            Ok(bytes) => {
                entries.insert(key.name.clone(), bytes);
            }
            Err(fault) => {
                clean = false;
                report.error(value.position, path, format!("{} {fault}", quoted(&path.to_string())));
            }
        }
    }
    clean.then_some(entries)
}

/// One login of a docker configuration.
pub(crate) struct DockerLogin {
    registry: String,
    pub(crate) username: String,
    pub(crate) password: SecretValue,
}

impl DockerLogin {
    /// Whether the login is for the registry at `authority`. Docker writes hosts with and without a
    /// scheme and a path.
    pub(crate) fn serves(&self, authority: &str) -> bool {
        let (_, rest) = self.registry.split_once("://").unwrap_or(("", &self.registry));
        rest.split('/').next().is_some_and(|host| host.eq_ignore_ascii_case(authority))
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// Reads the JSON that `docker login` writes. Errors follow the name of the Secret.
fn docker_logins(json: &[u8]) -> Result<Vec<DockerLogin>, String> {
    // The reason is left out: it can repeat what was found.
    let config: DockerConfig = serde_json::from_slice(json).map_err(|_| {
        format!("holds no docker configuration (JSON with `auths`) under `{DOCKER_CONFIG_KEY}`")
    })?;
    config.auths.into_iter().map(|(registry, auth)| docker_login(registry, auth)).collect()
}

fn docker_login(registry: String, auth: DockerAuth) -> Result<DockerLogin, String> {
    let pair = match (auth.username, auth.password) {
        (Some(username), Some(password)) => Some((username, password)),
        _ => auth.auth.and_then(|encoded| {
            let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
            decoded.split_once(':').map(|(username, password)| (username.to_owned(), password.to_owned()))
        }),
    };
    match pair {
        Some((username, password)) => {
            Ok(DockerLogin { registry, username, password: SecretValue::new(password) })
        }
        None => {
            Err(format!("has neither `username` and `password` nor a valid `auth` for {}", quoted(&registry)))
        }
    }
}

/// A Kubernetes ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Texts.
    pub data: BTreeMap<String, String>,
    /// Bytes.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

impl ConfigMap {
    /// All entries, one after the other: of certificates or keys, one bundle.
    pub fn joined(&self) -> Vec<u8> {
        let texts = self.data.values().map(String::as_bytes);
        let all: Vec<&[u8]> = texts.chain(self.binary_data.values().map(Vec::as_slice)).collect();
        all.join(&b'\n')
    }

    /// Reads the fields of a ConfigMap document.
    pub(crate) fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        fields.ignore(&["immutable"]);
        let data = fields.or("data", BTreeMap::new());
        let binary_data = fields.or("binaryData", Encoded(BTreeMap::new()));
        Some(Self { data: data?, binary_data: binary_data?.0 })
    }
}

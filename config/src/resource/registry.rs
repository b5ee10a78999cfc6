//! `RegistryEndpoint` (AIO.md §5.5): where graph and module artifacts are pulled from.

use super::common::{Empty, SecretRef, SecretValue, SystemIdentity, UserIdentity, check_authority, parsed};
use super::secret::Secret;
use crate::finding::Report;
use crate::read::{Decode, Located, Path, record, tagged};
use crate::yaml::Node;
use std::fmt;
use std::path::PathBuf;

record! {
    /// Where artifacts are pulled from, and as whom.
    pub struct RegistryEndpoint {
        /// The registry.
        host: RegistryHost = "host" required(),
        /// Who asks.
        authentication: RegistryAuthentication = "authentication" required(),
        /// Whose signatures are trusted (preview).
        trust_settings: Option<TrustSettings> = "trustSettings" optional(),
        /// Whose signatures are trusted.
        code_signing_cas: Vec<TrustedKey> = "codeSigningCas" or(Vec::new()),
    }
}

impl RegistryEndpoint {
    /// The endpoint `default`, which exists without a file: Microsoft's own registry.
    pub(crate) fn microsoft() -> Self {
        Self {
            host: RegistryHost::Remote { authority: "mcr.microsoft.com".to_owned(), prefix: String::new() },
            authentication: RegistryAuthentication::Anonymous(Empty {}),
            trust_settings: None,
            code_signing_cas: Vec::new(),
        }
    }
}

/// What `host` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryHost {
    /// A registry in the network.
    Remote {
        /// `<hostname>[:port]`.
        authority: String,
        /// What stands before every artifact's name, without slashes at the ends; often empty.
        prefix: String,
    },
    /// An OCI image layout in a directory: `oci-layout:<path>`, the path relative to the directory of
    /// the file that names it. Loading makes it a path that can be opened.
    Layout(PathBuf),
}

impl RegistryHost {
    /// Reads the value of `host`.
    ///
    /// # Errors
    /// Says what is wrong with it, in words that follow "`x` is `text`, but".
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("oci-layout:") {
            if path.is_empty() {
                return Err("the directory behind `oci-layout:` is missing".to_owned());
            }
            return Ok(Self::Layout(PathBuf::from(path)));
        }
        if text.contains("://") {
            return Err("must be a host name without `http://` or `https://`".to_owned());
        }
        let (authority, prefix) = text.split_once('/').unwrap_or((text, ""));
        check_authority(authority)?;
        let prefix = prefix.trim_end_matches('/');
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(lower);
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err(
                "the path behind the host may hold lower-case letters, digits, `.`, `_` and `-` only"
                    .to_owned(),
            );
        }
        Ok(Self::Remote { authority: authority.to_owned(), prefix: prefix.to_owned() })
    }

    /// Whether it is this machine, so that plain HTTP endangers nobody.
    pub fn is_loopback(&self) -> bool {
        let Self::Remote { authority, .. } = self else { return true };
        let name = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((address, _)) => address,
            None => authority.split(':').next().unwrap_or_default(),
        };
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { authority, prefix } if prefix.is_empty() => f.write_str(authority),
            Self::Remote { authority, prefix } => write!(f, "{authority}/{prefix}"),
            Self::Layout(path) => write!(f, "oci-layout:{}", path.display()),
        }
    }
}

impl Decode for RegistryHost {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let host = parsed(Self::parse(&text), &text, node.position, path, report)?;
        Some(match host {
            Self::Layout(layout) => Self::Layout(match report.file.parent() {
                Some(directory) => directory.join(layout),
                None => layout,
            }),
            remote => remote,
        })
    }
}

tagged! {
    /// Who asks the registry.
    pub enum RegistryAuthentication by "method" {
        /// A managed identity.
        SystemAssignedManagedIdentity(SystemIdentity) = "SystemAssignedManagedIdentity",
            "systemAssignedManagedIdentitySettings" or(SystemIdentity::unset()),
        /// A managed identity.
        UserAssignedManagedIdentity(UserIdentity) = "UserAssignedManagedIdentity",
            "userAssignedManagedIdentitySettings" required(),
        /// A name and password in a Secret.
        ArtifactPullSecret(SecretRef) = "ArtifactPullSecret", "artifactPullSecretSettings" required(),
        /// Nobody.
        Anonymous(Empty) = "Anonymous", "anonymousSettings" or(Empty {}),
    }
}

impl RegistryAuthentication {
    /// The value of `method`.
    pub fn method(&self) -> &'static str {
        match self {
            Self::SystemAssignedManagedIdentity(_) => "SystemAssignedManagedIdentity",
            Self::UserAssignedManagedIdentity(_) => "UserAssignedManagedIdentity",
            Self::ArtifactPullSecret(_) => "ArtifactPullSecret",
            Self::Anonymous(_) => "Anonymous",
        }
    }
}

record! {
    /// Whose signatures are trusted (preview).
    pub struct TrustSettings {
        /// The keys.
        trusted_signing_keys: TrustedKey = "trustedSigningKeys" required(),
    }
}

/// Where a trusted key or certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKey {
    /// In a Secret.
    Secret(Located<String>),
    /// In a ConfigMap.
    ConfigMap(Located<String>),
}

crate::read::choice! {
    /// In what a trusted key stands.
    pub enum TrustedKeyType {
        /// A Secret.
        Secret = "Secret",
        /// A ConfigMap.
        ConfigMap = "ConfigMap",
    }
}

impl Decode for TrustedKey {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let mut fields = crate::read::Fields::open(node, path, report)?;
        let kind: Option<TrustedKeyType> = fields.required("type");
        let key = match kind {
            Some(TrustedKeyType::Secret) => {
                let clean = fields.forbid("configMapRef", "type is `Secret`");
                clean.and(fields.required("secretRef").map(Self::Secret))
            }
            Some(TrustedKeyType::ConfigMap) => {
                let clean = fields.forbid("secretRef", "type is `ConfigMap`");
                clean.and(fields.required("configMapRef").map(Self::ConfigMap))
            }
            None => {
                fields.ignore(&["secretRef", "configMapRef"]);
                None
            }
        };
        fields.close()?;
        key
    }
}

/// What is shown to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: SecretValue,
    },
    /// This machine, as Azure knows it.
    Identity {
        /// Which of its identities, when it is not its own.
        client_id: Option<String>,
        /// The tenant.
        tenant: Option<String>,
        /// For whom tokens are made, where it is said.
        audience: Option<String>,
    },
}

impl Credentials {
    /// What `secret` holds for the registry at `host`.
    ///
    /// # Errors
    /// Says what the Secret lacks, without repeating any of its values.
    pub fn from_secret(secret: &Secret, host: &RegistryHost) -> Result<Self, String> {
        let RegistryHost::Remote { authority, .. } = host else { return Ok(Self::Anonymous) };
        if let Some(logins) = secret.docker_logins()? {
            let login = logins.iter().find(|login| login.serves(authority));
            let login = login.ok_or_else(|| format!("has no login for the registry {authority}"))?;
            return Ok(Self::Password { username: login.username.clone(), password: login.password.clone() });
        }
        let username = secret.text("username")?;
        let password = secret.text("password")?;
        Ok(Self::Password { username: username.reveal().to_owned(), password })
    }
}

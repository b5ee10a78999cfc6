//! Where artifacts are pulled from, as whom, and within which limits.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::identity::ManagedIdentity;

/// A place that artifacts are pulled from: what a RegistryEndpoint resource (AIO.md §5.5) amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The registry.
    pub location: Location,
    /// Who pulls.
    pub auth: Auth,
    /// Whether HTTP without TLS may be spoken.
    pub plain_http: PlainHttp,
    /// Certificates that vouch for the registry beside the system's own, PEM.
    pub trusted: Vec<u8>,
    /// Certificates and public keys of those whose signatures count, PEM. Where it is given, nothing is pulled that
    /// none of them has signed; see [`signature`](super::signature).
    pub signers: Option<Vec<u8>>,
    /// Registries with the same content that are asked before, in their order, and without credentials.
    pub mirrors: Vec<Location>,
    /// What one pull may take.
    pub limits: Limits,
}

impl Endpoint {
    /// An endpoint with default limits that pulls anonymously.
    #[must_use]
    pub fn new(location: Location) -> Self {
        Endpoint {
            location,
            auth: Auth::Anonymous,
            plain_http: PlainHttp::default(),
            trusted: Vec::new(),
            signers: None,
            mirrors: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// The endpoints to ask, in their order: mirrors, and then this one.
    pub(super) fn all(&self) -> impl Iterator<Item = Endpoint> {
        let mirror = |location: &Location| Endpoint {
            location: location.clone(),
            auth: Auth::Anonymous,
            mirrors: Vec::new(),
            ..self.clone()
        };
        self.mirrors.iter().map(mirror).chain(std::iter::once(self.clone()))
    }

    /// Whether it is on this machine, which no proxy is for.
    pub(super) fn is_here(&self) -> bool {
        matches!(&self.location, Location::Remote { host, .. } if is_loopback(host))
    }

    /// Whether this endpoint is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        match (&self.location, self.plain_http) {
            (Location::Remote { .. }, PlainHttp::Allowed) => true,
            (Location::Remote { host, .. }, PlainHttp::OnLoopback) => is_loopback(host),
            (Location::Remote { .. }, PlainHttp::Never) | (Location::Layout(_), _) => false,
        }
    }
}

/// A registry's address, or a directory that serves as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A registry that speaks the OCI distribution protocol.
    Remote {
        /// `hostname`, `hostname:port`, `1.2.3.4:port` or `[::1]:port`.
        host: String,
        /// Repository path that goes before every reference (`azure-samples/explore-iot-operations`).
        path_prefix: Option<String>,
    },
    /// An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/`.
    Layout(PathBuf),
}

impl FromStr for Location {
    type Err = HostError;

    /// Reads the `host` of a RegistryEndpoint: `hostname[:port][/path/prefix]`, or `oci-layout:<path>`. AIO
    /// took a path prefix at first and a mere hostname later; both are accepted (AIO.md §2.4).
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(path) = text.strip_prefix("oci-layout:") {
            return match path {
                "" => Err(HostError::new(text, "names no directory after `oci-layout:`")),
                path => Ok(Location::Layout(PathBuf::from(path))),
            };
        }
        if text.contains("://") {
            return Err(HostError::new(text, "takes a hostname, not a URL: leave the scheme out"));
        }
        let (host, prefix) = match text.split_once('/') {
            Some((host, prefix)) => (host, prefix.trim_end_matches('/')),
            None => (text, ""),
        };
        check_host(host).map_err(|problem| HostError::new(text, problem))?;
        if !prefix.is_empty() && !super::reference::is_repository(prefix) {
            return Err(HostError::new(text, "has a path that is no repository path (lower-case segments)"));
        }
        let path_prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
        Ok(Location::Remote { host: host.to_owned(), path_prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Remote { host, path_prefix: Some(prefix) } => write!(f, "{host}/{prefix}"),
            Location::Remote { host, path_prefix: None } => f.write_str(host),
            Location::Layout(path) => write!(f, "oci-layout:{}", path.display()),
        }
    }
}

/// A RegistryEndpoint's `host` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry host `{}` {problem}", host.escape_debug())]
pub struct HostError {
    host: String,
    problem: &'static str,
}

impl HostError {
    fn new(host: &str, problem: &'static str) -> Self {
        HostError { host: host.to_owned(), problem }
    }
}

/// Who pulls. Credentials are sent only when the registry asks for them, and never appear in `Debug` or a
/// log.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nobody in particular; a registry that hands tokens to anyone (as ghcr.io does) is served.
    Anonymous,
    /// A user with a password or access token, given to the registry or to the token service it names.
    Basic {
        /// User name.
        user: String,
        /// Password or access token.
        password: String,
    },
    /// This machine, as Azure knows it; anybody at registries that are none of Azure's.
    Identity(ManagedIdentity),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::Anonymous => f.write_str("Anonymous"),
            Auth::Identity(identity) => f.debug_tuple("Identity").field(&identity.client_id).finish(),
            Auth::Basic { user, password: _ } => {
                f.debug_struct("Basic").field("user", user).field("password", &"<redacted>").finish()
            }
        }
    }
}

/// Where HTTP without TLS may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// To registries on this machine (`localhost`, 127.0.0.0/8, `::1`), and only in plain HTTP to those.
    #[default]
    OnLoopback,
    /// To this registry wherever it is: whoever is on the way can read the credentials.
    Allowed,
    /// To none, so that a registry on this machine is spoken to over TLS as well.
    Never,
}

/// What one pull may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest manifest, in bytes.
    pub manifest_bytes_max: u64,
    /// Largest layer, in bytes; it is held in memory.
    pub blob_bytes_max: u64,
    /// Longest wait for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest time without progress once connected.
    pub read_timeout: Duration,
    /// Longest time for the whole pull.
    pub total_timeout: Duration,
}

impl Default for Limits {
    /// 4 MiB of manifest, 256 MiB of layer; 5 s to connect, 15 s without progress, 120 s in all.
    fn default() -> Self {
        Limits {
            manifest_bytes_max: 4 << 20,
            blob_bytes_max: 256 << 20,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            total_timeout: Duration::from_secs(120),
        }
    }
}

/// Checks that `host` is nothing but a host and perhaps a port: it becomes part of a URL.
pub(super) fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = split_port(host);
    if let Some(port) = port
        && port.parse::<u16>().map_or(true, |port| port == 0)
    {
        return Err("has a port that is no number from 1 to 65535");
    }
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or("");
        return match address.parse() {
            Ok(IpAddr::V6(_)) => Ok(()),
            _ => Err("has no IPv6 address between its brackets"),
        };
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
        return Err("is not `hostname[:port][/path]` nor `oci-layout:<path>`");
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let (name, _) = split_port(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(host: &str, prefix: Option<&str>) -> Location {
        Location::Remote { host: host.into(), path_prefix: prefix.map(str::to_owned) }
    }

    #[test]
    fn a_host_may_have_a_port_and_a_path_or_be_a_directory() {
        let cases = [
            ("ghcr.io", remote("ghcr.io", None)),
            ("registry", remote("registry", None)),
            ("localhost:5000", remote("localhost:5000", None)),
            ("[::1]:5000", remote("[::1]:5000", None)),
            ("ghcr.io/azure-samples/iot", remote("ghcr.io", Some("azure-samples/iot"))),
            ("ghcr.io/azure-samples/", remote("ghcr.io", Some("azure-samples"))),
            ("oci-layout:samples/registry", Location::Layout("samples/registry".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Location>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_its_text() {
        let texts = [
            "",
            "/x",
            "https://ghcr.io",
            "ghcr.io:0",
            "ghcr.io:99999",
            "a b",
            "user@ghcr.io",
            "ghcr.io/UPPER",
            "ghcr.io/../x",
            "[::1",
            "[zz]:1",
            "h#f",
            "h?q",
            "oci-layout:",
            "a:b:c",
        ];
        for text in texts {
            let error = text.parse::<Location>().expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn plain_http_is_spoken_on_loopback_or_by_an_explicit_word() {
        let plain = |host: &str, plain_http| {
            Endpoint { plain_http, ..Endpoint::new(host.parse().unwrap()) }.is_plain()
        };
        for host in ["localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "LOCALHOST"] {
            assert!(plain(host, PlainHttp::OnLoopback), "{host}");
            assert!(!plain(host, PlainHttp::Never), "{host}");
        }
        for host in ["ghcr.io", "128.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com"] {
            assert!(!plain(host, PlainHttp::OnLoopback), "{host}");
            assert!(plain(host, PlainHttp::Allowed), "{host}");
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        let auth = Auth::Basic { user: "reader".into(), password: "hunter2".into() };
        let endpoint = Endpoint { auth, ..Endpoint::new("ghcr.io".parse().unwrap()) };
        let text = format!("{endpoint:?}");
        assert!(text.contains("reader") && !text.contains("hunter2"), "{text}");
    }
}

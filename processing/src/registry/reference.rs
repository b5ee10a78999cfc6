//! References: what an artifact is called within a registry, and what that comes to with the endpoint's host
//! and prefix.

use std::fmt;

use oci_client::Reference;

use super::{Cause, Digest, Endpoint, Location, endpoint};

/// A reference resolved against an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The endpoint's host or layout, as its owner wrote it.
    place: String,
    /// Repository path, prefix included.
    pub repository: String,
    /// Which version.
    pub selector: Selector,
}

/// A tag, which may move, or a digest, which cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Tag(String),
    Digest(Digest),
}

impl Target {
    /// Resolves `reference` at `endpoint`: the endpoint's host, its path prefix, and the reference, one after
    /// the other.
    ///
    /// Graphs written for either generation of AIO resolve (AIO.md §2.4): a reference that repeats the
    /// prefix, or host and prefix, does not get them twice. Without tag and digest, the tag is `latest`.
    pub(super) fn resolve(endpoint: &Endpoint, reference: &str) -> Result<Target, Cause> {
        let bad = |problem: &dyn fmt::Display| Cause::BadReference { problem: problem.to_string() };
        let (host, prefix) = match &endpoint.location {
            Location::Remote { host, path_prefix } => {
                endpoint::check_host(host)
                    .map_err(|problem| Cause::BadHost { host: host.clone(), problem })?;
                (Some(host.as_str()), path_prefix.as_deref())
            }
            Location::Layout(_) => (None, None),
        };
        let within =
            host.and_then(|host| reference.strip_prefix(host)?.strip_prefix('/')).unwrap_or(reference);
        let named = match prefix {
            Some(prefix) if !within.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')) => {
                format!("{prefix}/{within}")
            }
            _ => within.to_owned(),
        };
        let registry = if host.is_some_and(is_docker_hub) { "docker.io" } else { ANY_REGISTRY };
        let parsed = Reference::try_from(format!("{registry}/{named}")).map_err(|e| bad(&e))?;
        let selector = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Selector::Digest(digest.parse().map_err(|e: String| bad(&e))?),
            (None, tag) => Selector::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let place = match &endpoint.location {
            Location::Remote { host, .. } => host.clone(),
            layout @ Location::Layout(_) => layout.to_string(),
        };
        Ok(Target { place, repository: parsed.repository().to_owned(), selector })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place, self.repository)?;
        match &self.selector {
            Selector::Tag(tag) => write!(f, ":{tag}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The full reference as far as it can be told, for an error about one that does not resolve.
pub(super) fn describe(endpoint: &Endpoint, reference: &str) -> String {
    let shown: String = reference.chars().take(300).collect();
    format!("{}/{}", endpoint.location, shown.escape_debug())
}

/// Whether `path` can be a repository or the beginning of one: lower-case segments, none empty or made of
/// dots.
pub(super) fn is_repository(path: &str) -> bool {
    Reference::try_from(format!("{ANY_REGISTRY}/{path}"))
        .is_ok_and(|parsed| parsed.repository() == path && parsed.digest().is_none())
}

/// The address behind a host's name, for the one registry whose name is not its address.
pub(super) fn address_of(host: &str) -> &str {
    if is_docker_hub(host) { "registry-1.docker.io" } else { host }
}

/// Stands in for the real host while the repository is parsed, because the parser takes a host without a dot
/// for a path.
const ANY_REGISTRY: &str = "registry.invalid";

fn is_docker_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(host: &str, reference: &str) -> Result<String, String> {
        let endpoint = Endpoint::new(host.parse().unwrap());
        Target::resolve(&endpoint, reference).map(|t| t.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn host_prefix_and_reference_come_together_in_both_generations() {
        let full = "ghcr.io/azure-samples/iot/temperature:1.0.0";
        assert_eq!(resolve("ghcr.io/azure-samples/iot", "temperature:1.0.0").unwrap(), full);
        assert_eq!(resolve("ghcr.io", "azure-samples/iot/temperature:1.0.0").unwrap(), full);
        assert_eq!(
            resolve("ghcr.io/azure-samples/iot", "azure-samples/iot/temperature:1.0.0").unwrap(),
            full
        );
        assert_eq!(resolve("ghcr.io/azure-samples/iot", full).unwrap(), full);
        assert_eq!(resolve("ghcr.io", full).unwrap(), full);
    }

    #[test]
    fn a_prefix_is_recognised_by_whole_segments_only() {
        assert_eq!(resolve("ghcr.io/iot", "iotx/t:1").unwrap(), "ghcr.io/iot/iotx/t:1");
    }

    #[test]
    fn a_host_without_a_dot_is_a_host() {
        assert_eq!(resolve("registry", "temperature:1").unwrap(), "registry/temperature:1");
        assert_eq!(resolve("localhost:5000", "temperature").unwrap(), "localhost:5000/temperature:latest");
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = Digest::of(b"x");
        assert_eq!(resolve("h.io", &format!("t:1@{digest}")).unwrap(), format!("h.io/t@{digest}"));
    }

    #[test]
    fn docker_hub_has_its_own_address_and_library() {
        assert_eq!(resolve("docker.io", "busybox:1").unwrap(), "docker.io/library/busybox:1");
        assert_eq!(address_of("docker.io"), "registry-1.docker.io");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            ":1",
            "a:",
            "UPPER:1",
            "../etc/passwd:1",
            "a/../b:1",
            "a b:1",
            "a:1?x=y",
            "a:1#f",
            "a@sha256:12",
            "a//b:1",
        ] {
            assert!(resolve("ghcr.io", text).is_err(), "{text}");
            assert!(resolve("oci-layout:dir", text).is_err(), "{text}");
        }
    }
}

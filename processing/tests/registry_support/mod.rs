//! What the registry tests run against: Debian's docker-registry, and a server that misbehaves on demand.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod artifact;
pub mod counting;
pub mod docker;
pub mod faulty;
pub mod layout;
pub mod signed;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use processing::registry::{Cause, Endpoint, Limits, Registry, RegistryError};

/// An endpoint with limits that let a test fail soon.
pub fn endpoint(host: &str) -> Endpoint {
    let limits = Limits {
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    Endpoint { limits, ..Endpoint::new(host.parse().unwrap()) }
}

/// A registry client that remembers nothing.
pub fn forgetful() -> Registry {
    Registry::new(None)
}

/// A registry client with a cache in `directory`.
pub fn caching(directory: &Path) -> Registry {
    Registry::new(Some(directory.to_owned()))
}

/// Pulls what must not be pullable.
pub async fn refusal(registry: &Registry, endpoint: &Endpoint, reference: &str) -> RegistryError {
    match registry.pull(endpoint, reference).await {
        Ok(artifact) => panic!("{} was pulled: {artifact:?}", artifact.reference),
        Err(error) => error,
    }
}

/// The cause of an error, checked to be told with the full reference and without line breaks.
pub fn cause_of(error: &RegistryError) -> &Cause {
    let text = error.to_string();
    assert!(text.contains(error.reference()) && !text.contains('\n'), "{text}");
    error.cause()
}

/// Runs a program that the tests need.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}): run tests/setup"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

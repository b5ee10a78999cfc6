//! Counting pulls.

use std::time::Instant;

use super::{Artifact, RegistryError};

const PULLS: &str = "forebay_registry_pulls_total";
const DURATION: &str = "forebay_registry_pull_duration_seconds";
const RECEIVED: &str = "forebay_registry_received_bytes_total";
const CACHE_ERRORS: &str = "forebay_registry_cache_errors_total";

/// Describes this module's metrics to the recorder that is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        PULLS,
        "Artifacts pulled, by outcome: pulled, cached (pulled by digest before), fallback (the registry is away), or what failed."
    );
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "How long a pull took, whatever came of it."
    );
    metrics::describe_counter!(
        RECEIVED,
        metrics::Unit::Bytes,
        "Manifest and layer bytes received from registries."
    );
    metrics::describe_counter!(
        CACHE_ERRORS,
        "Files of the registry cache that could not be written, or were damaged when read."
    );
}

/// One pull, from its beginning.
pub(super) struct Pull {
    started: Instant,
}

impl Pull {
    pub(super) fn begin() -> Self {
        Pull { started: Instant::now() }
    }

    pub(super) fn end(self, result: &Result<Artifact, RegistryError>) {
        let outcome = match result {
            Ok(Artifact { fallback: Some(_), .. }) => "fallback",
            Ok(Artifact { from_cache: true, .. }) => "cached",
            Ok(_) => "pulled",
            Err(error) => error.cause().outcome(),
        };
        metrics::counter!(PULLS, "outcome" => outcome).increment(1);
        metrics::histogram!(DURATION).record(self.started.elapsed().as_secs_f64());
        if let Ok(artifact) = result {
            tracing::debug!(
                reference = %artifact.reference, digest = %artifact.digest, media_type = ?artifact.media_type,
                bytes = artifact.bytes.len(), outcome, "pulled"
            );
        }
    }
}

pub(super) fn received(bytes: usize) {
    metrics::counter!(RECEIVED).increment(bytes as u64);
}

pub(super) fn cache_error() {
    metrics::counter!(CACHE_ERRORS).increment(1);
}

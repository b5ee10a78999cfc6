//! `DataflowProfile` (AIO.md §5.3): how many instances data flows have, and what they tell.

use super::common::{Logs, Metrics};
use crate::read::{Located, choice, record};

record! {
    /// How many instances data flows have, and what they tell.
    pub struct DataflowProfile {
        /// How many instances each data flow has.
        instance_count: u8 = "instanceCount" or_in(1, 1..=20),
        /// Logs, metrics and debugging.
        diagnostics: Option<ProfileDiagnostics> = "diagnostics" optional(),
    }
}

impl Default for DataflowProfile {
    fn default() -> Self {
        Self { instance_count: 1, diagnostics: None }
    }
}

impl DataflowProfile {
    /// Which messages are copied for debugging, and where to; nothing when none are.
    pub fn debugging(&self) -> Option<&DebuggingSettings> {
        self.diagnostics.as_ref()?.debugging_settings.as_ref()
    }
}

impl DebuggingSettings {
    /// The name of the endpoint that copies go to.
    pub fn endpoint(&self) -> &Located<String> {
        &self.destination_settings.endpoint_ref
    }

    /// Every how manyth message is copied.
    pub fn every(&self) -> u32 {
        match self.sampling_policy.method {
            SamplingMethod::Count => self.sampling_policy.count_settings.nth,
        }
    }
}

record! {
    /// What data flows tell about themselves.
    pub struct ProfileDiagnostics {
        /// Logging.
        logs: Logs = "logs" or(Logs::default()),
        /// Metrics.
        metrics: Metrics = "metrics" or(Metrics::default()),
        /// Copies of messages for debugging (2026-11-01-preview).
        debugging_settings: Option<DebuggingSettings> = "debuggingSettings" optional(),
    }
}

record! {
    /// Copies of messages for debugging.
    pub struct DebuggingSettings {
        /// Where the copies go.
        destination_settings: DebuggingDestination = "destinationSettings" required(),
        /// Which messages are copied.
        sampling_policy: SamplingPolicy = "samplingPolicy" required(),
    }
}

record! {
    /// Where copies of messages go.
    pub struct DebuggingDestination {
        /// An MQTT endpoint.
        endpoint_ref: Located<String> = "endpointRef" required(),
    }
}

record! {
    /// Which messages are copied.
    pub struct SamplingPolicy {
        /// How they are chosen.
        method: SamplingMethod = "method" required(),
        /// For `Count`.
        count_settings: CountSettings = "countSettings" required(),
    }
}

choice! {
    /// How messages are chosen for copying.
    pub enum SamplingMethod {
        /// Every n-th.
        Count = "Count",
    }
}

record! {
    /// Every n-th message.
    pub struct CountSettings {
        /// The n.
        nth: u32 = "nth" required_in(1..=u32::MAX),
    }
}

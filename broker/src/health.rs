//! How each resource fares, in AIO's words (AIO.md §5, §9.7).

use std::collections::BTreeMap;
use std::time::SystemTime;

use config::{Loaded, ResourceId};
use parking_lot::Mutex;
use serde::Serialize;

/// How well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum State {
    /// As it should be.
    Available,
    /// It works, but not all of it, or not always.
    Degraded,
    /// It does not work.
    Unavailable,
    /// It is being started.
    Unknown,
}

/// How one resource fares (`status.healthState`).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    status: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    /// RFC 3339.
    last_transition_time: String,
    /// RFC 3339.
    last_update_time: String,
}

/// How all resources fare.
#[derive(Debug, Default)]
pub struct Health {
    statuses: Mutex<BTreeMap<ResourceId, Status>>,
}

/// One resource, as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    #[serde(rename = "healthState")]
    health_state: &'a Status,
}

impl Health {
    /// Of what has been read: what has errors cannot be used, graphs are about to be started.
    pub fn of(loaded: &Loaded) -> Self {
        let health = Self::default();
        for id in loaded.resources.declared() {
            let is_graph = id.kind == "DataflowGraph";
            let findings: Vec<_> = loaded.findings_of(id).collect();
            let told = |findings: Vec<String>| findings.join("\n");
            let errors = findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string);
            let errors: Vec<String> = errors.collect();
            match (errors.is_empty(), is_graph) {
                (false, true) => {
                    health.set(
                        id,
                        State::Unavailable,
                        Some("DataflowGraphConfigurationFailed"),
                        told(errors),
                    );
                }
                (false, false) => health.set(id, State::Unavailable, Some("ConfigError"), told(errors)),
                (true, true) => health.set(id, State::Unknown, None, "it is being started".to_owned()),
                (true, false) => {
                    let notes = findings.iter().map(ToString::to_string).collect();
                    health.set(id, State::Available, None, told(notes));
                }
            }
        }
        health
    }

    /// Notes how a resource fares.
    pub fn set(&self, id: &ResourceId, status: State, reason_code: Option<&'static str>, message: String) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut statuses = self.statuses.lock();
        let before = statuses.get(id).filter(|before| before.status == status);
        let last_transition_time =
            before.map_or_else(|| now.clone(), |before| before.last_transition_time.clone());
        let new = Status { status, reason_code, message, last_transition_time, last_update_time: now };
        statuses.insert(id.clone(), new);
    }

    /// All of it as JSON: a list of resources, each with its `healthState`.
    pub fn to_json(&self) -> String {
        let statuses = self.statuses.lock();
        let shown = statuses.iter().map(|(id, status)| Shown {
            kind: &id.kind,
            namespace: &id.namespace,
            name: &id.name,
            health_state: status,
        });
        serde_json::to_string_pretty(&shown.collect::<Vec<_>>()).unwrap_or_default()
    }
}

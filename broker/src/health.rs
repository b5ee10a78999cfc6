//! How each resource fares, in AIO's words (AIO.md §5, §9.7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use config::resource::common::OperationalMode;
use config::{Finding, Loaded, ResourceId};
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
    /// What was found when resources were read last.
    findings: Mutex<Vec<Finding>>,
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
        health.read(loaded);
        health
    }

    /// Resources were read, for the first time or again. What was found that was not before.
    pub fn read(&self, loaded: &Loaded) -> Vec<Finding> {
        for id in loaded.resources.declared() {
            self.read_one(id, loaded);
        }
        let there: BTreeSet<&ResourceId> = loaded.resources.declared().collect();
        self.statuses.lock().retain(|id, _| there.contains(id));
        let before = std::mem::replace(&mut *self.findings.lock(), loaded.findings.clone());
        let new = loaded.findings.iter().filter(|finding| !before.contains(finding));
        new.cloned().collect()
    }

    fn read_one(&self, id: &ResourceId, loaded: &Loaded) {
        let is_graph = id.kind == "DataflowGraph";
        let findings: Vec<_> = loaded.findings_of(id).collect();
        let told = |findings: Vec<String>| findings.join("\n");
        let errors = findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string);
        let errors: Vec<String> = errors.collect();
        let graph = loaded.resources.graphs.iter().find(|graph| graph.id == *id);
        let disabled = graph.is_some_and(|graph| graph.spec.mode == OperationalMode::Disabled);
        match (errors.is_empty(), is_graph) {
            (false, true) => {
                self.set(id, State::Unavailable, Some("DataflowGraphConfigurationFailed"), told(errors));
            }
            (false, false) => self.set(id, State::Unavailable, Some("ConfigError"), told(errors)),
            (true, true) if disabled => self.set(id, State::Unknown, None, "it is disabled".to_owned()),
            // Who starts graphs says more.
            (true, true) => {
                let known =
                    self.statuses.lock().get(id).is_some_and(|status| status.status != State::Unknown);
                if !known {
                    self.set(id, State::Unknown, None, "it is being started".to_owned());
                }
            }
            (true, false) => {
                let notes = findings.iter().map(ToString::to_string).collect();
                self.set(id, State::Available, None, told(notes));
            }
        }
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

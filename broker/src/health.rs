//! How each resource fares, in AIO's words (AIO.md §5, §9.7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use config::resource::common::OperationalMode;
use config::{Finding, Loaded, ResourceId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

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

/// Something that happened to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339.
    pub time: String,
    /// `Normal` or `Warning`.
    pub severity: String,
    /// AIO's reason code, or what it is now.
    pub reason: String,
    /// The kind of the resource.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What there is to say.
    pub message: String,
}

/// Events that are kept.
const EVENTS_MAX: usize = 1000;

/// How all resources fare.
#[derive(Debug, Default)]
pub struct Health {
    statuses: Mutex<BTreeMap<ResourceId, Status>>,
    /// What was found when resources were read last.
    findings: Mutex<Vec<Finding>>,
    /// What happened, the latest last.
    events: Mutex<VecDeque<Event>>,
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

    /// The reason code of a resource now.
    pub fn reason_code(&self, id: &ResourceId) -> Option<&'static str> {
        self.statuses.lock().get(id)?.reason_code
    }

    /// Notes how a resource fares.
    pub fn set(&self, id: &ResourceId, status: State, reason_code: Option<&'static str>, message: String) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut statuses = self.statuses.lock();
        let before = statuses.get(id).filter(|before| before.status == status);
        let last_transition_time =
            before.map_or_else(|| now.clone(), |before| before.last_transition_time.clone());
        let new = Status { status, reason_code, message, last_transition_time, last_update_time: now };
        let news = statuses.get(id).is_none_or(|old| (old.status, old.reason_code) != (status, reason_code));
        if news {
            self.note(id, &new);
        }
        statuses.insert(id.clone(), new);
    }

    fn note(&self, id: &ResourceId, status: &Status) {
        let severity = match status.status {
            State::Available | State::Unknown => "Normal",
            State::Degraded | State::Unavailable => "Warning",
        };
        let reason = status.reason_code.map_or_else(|| format!("{:?}", status.status), ToOwned::to_owned);
        let ResourceId { kind, namespace, name } = id.clone();
        let (time, message) = (status.last_update_time.clone(), status.message.clone());
        let mut events = self.events.lock();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(Event {
            time,
            severity: severity.to_owned(),
            reason,
            kind,
            namespace,
            name,
            message,
        });
    }

    /// What happened, the latest last.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().iter().cloned().collect()
    }

    /// The `status` of a resource: AIO's `healthState`, and what Kubernetes' tools look for.
    pub fn status(&self, id: &ResourceId) -> Option<serde_json::Value> {
        let statuses = self.statuses.lock();
        let status = statuses.get(id)?;
        let ready = match status.status {
            State::Available => "True",
            State::Unknown => "Unknown",
            State::Degraded | State::Unavailable => "False",
        };
        let reason = status.reason_code.map_or_else(|| format!("{:?}", status.status), ToOwned::to_owned);
        Some(serde_json::json!({
            "healthState": status,
            "conditions": [{
                "type": "Ready",
                "status": ready,
                "reason": reason,
                "message": status.message,
                "lastTransitionTime": status.last_transition_time,
            }],
        }))
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

//! New content under the same tag is noticed and takes its place; the version before can be had back.
//!
//! A registry is asked for the digests behind the tags of graphs that run, now and then and by `forebay refresh`. What is new
//! is begun beside what runs and takes over between two messages; what cannot be begun is told and not tried again. `forebay
//! rollback` has the version before take over again, from memory, and what it took the place of does not come back by itself.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use processing::registry::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graphs::{Graphs, Pulled, RunningGraph};

/// The longest wait after a registry that does not answer.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What became of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The graph.
    pub graph: String,
    /// What was done, in words.
    pub outcome: String,
    /// Whether it was what was asked for.
    pub done: bool,
}

impl Graphs {
    /// Looks for new content every so often, for as long as the broker runs. A registry that does not answer is asked less and
    /// less often.
    pub async fn watch_registries(self: Arc<Self>, every: Duration) {
        let mut wait = every;
        loop {
            // Many brokers that were started together do not ask together.
            let part = u32::from(std::process::id().to_le_bytes()[0] % 16);
            tokio::time::sleep(wait + wait / 64 * part).await;
            let failed = self.refresh(None).await.iter().any(|refreshed| !refreshed.done);
            wait = if failed { (wait * 2).min(WAIT_MAX.max(every)) } else { every };
        }
    }

    /// Looks for new content of one graph, or of all.
    pub async fn refresh(self: &Arc<Self>, name: Option<&str>) -> Vec<Refreshed> {
        let _changing = self.changing.lock().await;
        let running = self.running.lock().clone();
        let mut all = Vec::new();
        for graph in running.iter().filter(|graph| name.is_none_or(|name| graph.id.resource().name == name)) {
            let (outcome, done) = match self.refresh_one(graph, name.is_some()).await {
                Ok(outcome) => (outcome, true),
                Err(why) => (why, false),
            };
            all.push(Refreshed { graph: graph.id.name.clone(), outcome, done });
        }
        all
    }

    async fn refresh_one(&self, graph: &RunningGraph, asked: bool) -> Result<String, String> {
        let mut now = Vec::new();
        for pulled in graph.pulled.iter() {
            let digest = self.registry.look_up(&pulled.endpoint, &pulled.reference).await;
            now.push(digest.map_err(|error| error.to_string())?);
        }
        let runs = digests(&graph.pulled);
        if now == runs {
            return Ok("it is the newest".to_owned());
        }
        // What was given up may have been made of other modules.
        let new = now.iter().zip(&runs).filter(|(now, runs)| now != runs).map(|(now, _)| now);
        if new.clone().all(|digest| graph.refused.contains(digest)) && !asked {
            return Ok("what is new was given up".to_owned());
        }
        let plans = graph.loaded.plans();
        let Some(plan) = plans.iter().find(|plan| plan.id == graph.id) else {
            return Err("its resource is gone".to_owned());
        };
        match self.make_ready(plan, &[]).await {
            Ok(ready) => {
                self.exchange(&graph.loaded, plan, ready, graph).await;
                counter!("forebay_graph_refreshes_total", "dataflow_id" => graph.id.name.clone(), "result" => "exchanged").increment(1);
                Ok("new content has taken its place".to_owned())
            }
            Err(error) => {
                counter!("forebay_graph_refreshes_total", "dataflow_id" => graph.id.name.clone(), "result" => "refused").increment(1);
                let why = format!(
                    "new content cannot be begun, and what ran runs on ({}): {error}",
                    error.reason_code()
                );
                eprintln!("graph {}: {why}", graph.id.name);
                graph.flow.warn(why.clone());
                self.change(graph, |graph| graph.refused = now);
                Err(why)
            }
        }
    }

    /// Has the version before take over again.
    pub async fn roll_back(self: &Arc<Self>, name: &str) -> Refreshed {
        let _changing = self.changing.lock().await;
        let running = self.running.lock().clone();
        let mut last = Err("it does not run".to_owned());
        for graph in running.iter().filter(|graph| graph.id.resource().name == name) {
            last = self.roll_back_one(graph).await;
            if last.is_err() {
                break;
            }
        }
        let done = last.is_ok();
        Refreshed { graph: name.to_owned(), outcome: last.unwrap_or_else(|why| why), done }
    }

    async fn roll_back_one(&self, graph: &RunningGraph) -> Result<String, String> {
        let different = |previous: &Arc<Vec<Pulled>>| digests(previous) != digests(&graph.pulled);
        let Some(previous) = graph.previous.clone().filter(different) else {
            return Err("there is no version before: none has run since the broker was started".to_owned());
        };
        let plans = graph.loaded.plans();
        let plan = plans.iter().find(|plan| plan.id == graph.id).ok_or("its resource is gone")?;
        let ready = self.make_ready(plan, &previous).await.map_err(|error| error.to_string())?;
        self.exchange(&graph.loaded, plan, ready, graph).await;
        let given_up = digests(&graph.pulled);
        self.change(graph, |graph| graph.refused = given_up);
        Ok("the version before has taken its place".to_owned())
    }

    fn change(&self, graph: &RunningGraph, change: impl FnOnce(&mut RunningGraph)) {
        let mut running = self.running.lock();
        if let Some(graph) = running.iter_mut().find(|other| other.id == graph.id) {
            change(graph);
        }
    }

    /// What a graph that runs is made of, for its status.
    pub fn artifacts(&self, id: &config::ResourceId) -> Option<Value> {
        let running = self.running.lock();
        let graph = running.iter().find(|graph| graph.id == *id)?;
        let one = |pulled: &Pulled| json!({"reference": pulled.artifact.reference, "digest": pulled.artifact.manifest_digest.to_string()});
        Some(graph.pulled.iter().map(one).collect())
    }
}

fn digests(pulled: &[Pulled]) -> Vec<Digest> {
    pulled.iter().map(|pulled| pulled.artifact.manifest_digest.clone()).collect()
}

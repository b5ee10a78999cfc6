//! Graphs that run are brought to what the resources say: those that are new start, those that changed are exchanged, those that
//! are gone or disabled stop. What did not change is not touched.
//!
//! What takes a graph's place is fetched, compiled and begun beside it, and takes over between two messages; if it cannot
//! be begun, the one that runs goes on. A persisted graph's messages wait in the log meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::resource::common::OperationalMode;
use config::{GraphPlan, Loaded, ResourceId};
use metrics::{counter, gauge};

use crate::graphs::{Graphs, Ready, RunningGraph, say_running};
use crate::health::State;
use crate::logs;
use crate::pipeline::restore;

/// What becomes of a graph that runs.
enum Fate {
    /// It stays as it is.
    Stays,
    /// Another takes its place.
    Changed,
    /// It stops, and its place in the log is kept.
    Disabled,
    /// It stops, and its place in the log with it.
    Gone,
    /// Its resource has errors: it goes on as it was.
    Broken,
}

impl Graphs {
    /// Brings graphs to what `loaded` says. Returns when each has been tried.
    pub async fn reconcile(self: &Arc<Self>, loaded: Arc<Loaded>) {
        let _changing = self.changing.lock().await;
        logs::follow(loaded.resources.brokers.first());
        self.generation.fetch_add(1, Ordering::AcqRel);
        gauge!("aio_dataflow_graphs").set(loaded.plans().len() as f64);
        let running = self.running.lock().clone();
        for graph in &running {
            match fate(graph, &loaded) {
                Fate::Stays | Fate::Changed => {}
                Fate::Broken => self.say_broken(&graph.id, &loaded),
                Fate::Disabled => self.stop_graph(graph, "disabled; its place is kept").await,
                Fate::Gone => self.stop_graph(graph, "gone").await,
            }
        }
        for line in restore::end_others(&self.broker, &loaded) {
            eprintln!("store: {line}");
        }
        self.forget_prepared(&loaded);
        let mut trying = tokio::task::JoinSet::new();
        for at in 0..loaded.plans().len() {
            let (graphs, loaded) = (Arc::clone(self), Arc::clone(&loaded));
            trying.spawn(async move { graphs.reconcile_one(loaded, at).await });
        }
        while trying.join_next().await.is_some() {}
        gauge!("aio_dataflow_active_dataflow_graphs").set(self.running.lock().len() as f64);
    }

    async fn reconcile_one(self: Arc<Self>, loaded: Arc<Loaded>, at: usize) {
        let plans = loaded.plans();
        let Some(plan) = plans.get(at) else { return };
        let before = self.running.lock().iter().find(|graph| graph.id == plan.id).cloned();
        let Some(before) = before else {
            if self.try_start(&loaded, at).await {
                drop(plans);
                tokio::spawn(self.try_again(loaded, at));
            }
            return;
        };
        if matches!(fate(&before, &loaded), Fate::Stays) {
            // Only its place among the plans may be another.
            let mut running = self.running.lock();
            running
                .iter_mut()
                .filter(|graph| graph.id == plan.id)
                .for_each(|it| it.loaded = Arc::clone(&loaded));
            return;
        }
        match self.make_ready(plan, &[]).await {
            Ok(ready) => self.exchange(&loaded, plan, ready, &before).await,
            Err(error) => {
                let code = error.reason_code();
                counter!("aio_dataflow_reconcile_errors").increment(1);
                eprintln!(
                    "graph {}: goes on as it was; what it is to be cannot run ({code}): {error}",
                    plan.id.name
                );
                before.flow.warn(format!("it runs as it was; what it is to be cannot run ({code}): {error}"));
            }
        }
    }

    /// Another takes a graph's place.
    pub(crate) async fn exchange(
        &self,
        loaded: &Arc<Loaded>,
        plan: &GraphPlan<'_>,
        ready: Ready,
        before: &RunningGraph,
    ) {
        let mut after = match &before.cursor {
            Some(cursor) => {
                // Its messages wait in the log until the other is there.
                cursor.detach();
                before.flow.stop().await;
                before.flow.bridges.stop().await;
                if let Some(persistence) = self.broker.persistence() {
                    persistence.settled().await;
                }
                self.connect(loaded, plan, ready, Some(before))
            }
            None => {
                let after = self.connect(loaded, plan, ready, Some(before));
                before.flow.stop().await;
                before.flow.bridges.stop().await;
                after
            }
        };
        restore::unroute(&self.broker, &before.routes, &after.routes);
        after.flow.bridges.start(&after.flow);
        after.previous = Some(Arc::clone(&before.pulled));
        let mut running = self.running.lock();
        running.retain(|graph| graph.id != plan.id);
        running.push(after);
        drop(running);
        say_running(plan);
    }

    async fn stop_graph(&self, graph: &RunningGraph, why: &str) {
        restore::unroute(&self.broker, &graph.routes, &[]);
        self.running.lock().retain(|other| other.id != graph.id);
        graph.cursor.iter().for_each(|cursor| cursor.detach());
        graph.flow.stop().await;
        graph.flow.bridges.stop().await;
        if let Some(persistence) = self.broker.persistence().filter(|_| graph.cursor.is_some()) {
            persistence.settled().await;
        }
        println!("graph {}: stopped, {why}", graph.id.name);
    }

    fn say_broken(&self, id: &ResourceId, loaded: &Loaded) {
        let errors = loaded.findings_of(id).filter(|finding| finding.is_error()).map(ToString::to_string);
        let errors = errors.collect::<Vec<_>>().join("\n");
        let message = format!("it runs as it was, for its resource has errors:\n{errors}");
        self.health.set(id, State::Degraded, Some("DataflowGraphConfigurationFailed"), message.clone());
        if let Some(graph) = self.running.lock().iter().find(|graph| graph.id == *id) {
            graph.flow.warn(message);
        }
    }

    /// What was made ready for graphs that have not started is made ready anew: they may be others now.
    fn forget_prepared(&self, loaded: &Loaded) {
        let mut prepared = self.prepared.lock();
        for (id, (it, _)) in prepared.drain() {
            restore::unroute(&self.broker, &it.routes, &[]);
            tracing::debug!(graph = %id.name, "is made ready anew");
        }
        for plan in loaded.plans() {
            let runs = self.running.lock().iter().any(|graph| graph.id == plan.id);
            if plan.request_disk_persistence && !runs {
                let (it, why) = restore::prepare(&self.broker, &plan, &[]);
                prepared.insert(plan.id.clone(), (it, why.map(|why| why.to_string()).unwrap_or_default()));
            }
        }
    }
}

/// What becomes of a graph by these resources.
fn fate(graph: &RunningGraph, loaded: &Loaded) -> Fate {
    let (was, is) = (graph.loaded.plans(), loaded.plans());
    let find = |plans: &[GraphPlan<'_>]| plans.iter().position(|plan| plan.id == graph.id);
    if let Some(at) = find(&is) {
        return match find(&was).map(|was_at| was[was_at] == is[at]) {
            Some(true) => Fate::Stays,
            _ => Fate::Changed,
        };
    }
    let id = graph.id.resource();
    let found = loaded.resources.graphs.iter().find(|resource| resource.id == id);
    let disabled = found.is_some_and(|resource| resource.spec.mode == OperationalMode::Disabled);
    // Of one that is there, there are to be fewer instances.
    let is_surplus = id != graph.id && is.iter().any(|plan| plan.id == id);
    let declared = !is_surplus && loaded.resources.declared().any(|declared| *declared == id);
    match (disabled, declared || is_unreadable(graph, loaded)) {
        (true, _) => Fate::Disabled,
        (false, true) => Fate::Broken,
        (false, false) => Fate::Gone,
    }
}

/// Whether the file that the graph's resource stood in cannot be read: it may stand there still.
fn is_unreadable(graph: &RunningGraph, loaded: &Loaded) -> bool {
    let resource = graph.loaded.resources.graphs.iter().find(|resource| resource.id == graph.id);
    let unreadable = |file: &std::path::Path| {
        let mut errors = loaded.findings.iter().filter(|finding| finding.is_error());
        errors.any(|finding| finding.resource.is_none() && *finding.file == *file)
    };
    resource.is_some_and(|resource| unreadable(&resource.file))
}

//! Graphs whose messages are persisted (`requestDiskPersistence`, AIO.md §6): their places in the log are there, and their
//! topics routed, before anybody connects and before the graphs themselves run.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::router::Options;
use broker_store::{Event, SessionKey, SessionState};
use bytes::Bytes;
use config::{GraphPlan, Loaded, ResourceId};

use super::Source;
use super::cursor::{Cursor, sources_bytes};
use crate::broker::Broker;
use crate::persistence::Persistence;

/// The sources of a graph, routed to and not yet running.
pub struct Prepared {
    /// In the order of the plan.
    pub sources: Vec<Arc<Source>>,
    /// Its place in the log, when its messages are persisted.
    pub cursor: Option<Arc<Cursor>>,
    /// It had no place in the log before, or has none: it is due the retained messages of its topics.
    pub is_new: bool,
    /// The topics that lead to them already.
    pub routes: Vec<Routed>,
}

/// A topic filter that leads to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The source's place among those of its graph.
    pub place: usize,
    /// The filter.
    pub filter: String,
    /// What the router knows the subscription by.
    pub id: u64,
}

/// Why a graph's messages are not persisted, although it asks for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPersisted {
    /// Nothing is.
    #[error(
        "its messages are kept in memory only: requestDiskPersistence needs a place, which --data-dir gives"
    )]
    NoStore,
    /// The Broker says so.
    #[error(
        "its messages are kept in memory only: requestDiskPersistence needs the Broker's persistence.subscriberQueue to allow it"
    )]
    NotAllowed,
}

/// Routes the topics of a graph to its sources, and finds its place in the log, if it asks for one. `before` are the routes of
/// the one whose place it takes.
pub fn prepare(
    broker: &Arc<Broker>,
    plan: &GraphPlan<'_>,
    before: &[Routed],
) -> (Prepared, Option<NotPersisted>) {
    let place = match (plan.request_disk_persistence, broker.persistence()) {
        (false, _) => Ok(None),
        (true, None) => Err(NotPersisted::NoStore),
        (true, Some(persistence)) if !persistence.policy.subscription(true) => Err(NotPersisted::NotAllowed),
        (true, Some(persistence)) => Ok(Some(find(broker, persistence, plan))),
    };
    let (place, why) = place.map_or_else(|why| (None, Some(why)), |place| (place, None));
    let is_new = place.as_ref().is_none_or(|(_, is_new)| *is_new);
    let cursor = place.map(|(cursor, _)| cursor);
    let sources: Vec<_> = (0..plan.sources.len()).map(|place| Source::new(place, cursor.clone())).collect();
    let routes = match cursor {
        Some(_) => route(broker, plan, &sources, before),
        None => Vec::new(),
    };
    (Prepared { sources, cursor, is_new, routes }, why)
}

/// Leads the topics of a graph to its sources. A route that was there before leads there from one message to the next.
pub fn route(
    broker: &Broker,
    plan: &GraphPlan<'_>,
    sources: &[Arc<Source>],
    before: &[Routed],
) -> Vec<Routed> {
    let mut routes = Vec::new();
    for (place, (from, source)) in plan.sources.iter().zip(sources).enumerate() {
        let known = before.iter().find(|route| route.place == place).map(|route| route.id);
        let id = known.unwrap_or_else(|| broker.number());
        for filter in &from.filters {
            let filter = filter.to_string();
            broker.subscribe_graph(&filter, id, source, Options::everything());
            routes.push(Routed { place, filter, id });
        }
    }
    routes
}

/// Takes away routes that are not among `kept`.
pub fn unroute(broker: &Broker, routes: &[Routed], kept: &[Routed]) {
    let gone =
        |route: &&Routed| !kept.iter().any(|kept| (&kept.filter, kept.id) == (&route.filter, route.id));
    for route in routes.iter().filter(gone) {
        broker.unsubscribe(&route.filter, route.id);
    }
}

/// The place of a graph in the log, and whether it is new.
fn find(broker: &Broker, persistence: &Persistence, plan: &GraphPlan<'_>) -> (Arc<Cursor>, bool) {
    let name = Cursor::name_of(&plan.id.namespace, &plan.id.name);
    let wanted = filters(plan);
    let state = persistence.store.state();
    let client_id = Cursor::client_id(&name);
    let known = state.sessions().find(|(_, session)| *session.client_id == *client_id);
    let (session, is_new) = known.map_or_else(|| (broker.number(), true), |(session, _)| (session, false));
    let mut events = Vec::new();
    if is_new {
        let client_id = client_id.into();
        events.push(Event::SessionOpened { session, client_id, expiry: u32::MAX, will: None });
    }
    let state_of = known.map(|(_, state)| state);
    events.extend(changes(session, state_of, &wanted));
    let (cursor, useless) = Cursor::new(&name, session, state_of.map(|state| &state.queue), state.keys());
    events.extend(useless);
    drop(state);
    if !events.is_empty() {
        // What is published from now on comes after this in the log.
        persistence.note(events);
    }
    persistence.add_cursor(&cursor);
    (cursor, is_new)
}

/// The filters of a graph, and the sources that each leads to.
fn filters(plan: &GraphPlan<'_>) -> BTreeMap<Box<str>, Bytes> {
    let mut sources: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
    for (place, source) in plan.sources.iter().enumerate() {
        for filter in &source.filters {
            sources.entry(filter.to_string().into()).or_default().push(place);
        }
    }
    sources.into_iter().map(|(filter, places)| (filter, sources_bytes(&places))).collect()
}

/// What to write down for the log to know these filters, and no others.
fn changes(
    session: SessionKey,
    known: Option<&SessionState>,
    wanted: &BTreeMap<Box<str>, Bytes>,
) -> Vec<Event> {
    let known = known.map(|state| &state.subscriptions);
    let there = |filter: &str| known.and_then(|known| known.get(filter)).map(|(options, _)| options);
    let gone =
        known.into_iter().flat_map(|known| known.keys()).filter(|filter| !wanted.contains_key(*filter));
    let gone = gone.map(|filter| Event::Unsubscribed { session, filter: filter.clone() });
    let new = wanted.iter().filter(|(filter, options)| there(filter) != Some(options));
    let new = new.map(|(filter, options)| Event::Subscribed {
        session,
        filter: filter.clone(),
        options: options.clone(),
        persisted: true,
    });
    gone.chain(new).collect()
}

/// Ends the places of graphs that are gone; those of graphs that are there, but do not run, are kept as they are, and all of
/// them while a file cannot be read. What is lost by that is told, a line each.
pub fn end_others(broker: &Broker, loaded: &Loaded) -> Vec<String> {
    let Some(persistence) = broker.persistence() else { return Vec::new() };
    let name = |id: &ResourceId| Cursor::name_of(&id.namespace, &id.name);
    // In a file that cannot be read, any of them may stand.
    if loaded.findings.iter().any(|finding| finding.is_error() && finding.resource.is_none()) {
        return Vec::new();
    }
    let there: Vec<String> = loaded.resources.declared().map(name).collect();
    let (mut events, mut lines) = (Vec::new(), Vec::new());
    {
        let state = persistence.store.state();
        for (session, kept) in state.sessions() {
            let Some(graph) = Cursor::graph_of(&kept.client_id) else { continue };
            if there.iter().any(|name| name == graph) {
                continue;
            }
            events.extend(Cursor::end(graph, session, state.keys().map(|(key, _)| key.clone())));
            if !kept.queue.is_empty() {
                lines
                    .push(format!("graph {graph} is gone, and {} messages for it with it", kept.queue.len()));
            }
        }
    }
    if !events.is_empty() {
        persistence.note(events);
    }
    lines
}

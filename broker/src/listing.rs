//! What there is to see of subscriptions: as the admin address shows it, and as `forebay get` prints it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::pipeline::cursor::Cursor;

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Whose: a client identifier, or a graph.
    pub client_id: String,
    /// `Client`, or `Graph` for a graph whose messages are persisted.
    pub kind: Kind,
    /// The filter, as it was asked for.
    pub filter: String,
    /// The highest QoS.
    pub qos: u8,
    /// Its messages are on disk before they are acknowledged.
    pub persisted: bool,
    /// Whether the client is connected, or the graph runs.
    pub connected: bool,
    /// Messages that wait for the whole session.
    pub queued: usize,
}

/// Whatever subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A session.
    Client,
    /// A graph.
    Graph,
}

/// All subscriptions of clients and of persisted graphs, by client and filter.
pub fn subscriptions(broker: &Broker) -> Vec<Subscription> {
    let mut all = Vec::new();
    for client in broker.clients() {
        let (id, mut subscriptions) = {
            let state = client.lock();
            let connected = state.connection.is_some();
            let one = |filter: &str, options: &broker_core::router::Options| Subscription {
                client_id: state.session.client_id().to_string(),
                kind: Kind::Client,
                filter: filter.to_owned(),
                qos: options.qos as u8,
                persisted: options.persisted,
                connected,
                queued: state.session.queued(),
            };
            let all = state.session.subscriptions().iter().map(|(filter, options)| one(filter, options));
            (client.id(), all.collect::<Vec<_>>())
        };
        let stored = broker.persistence().map_or(0, |persistence| persistence.queued(id));
        subscriptions.iter_mut().for_each(|subscription| subscription.queued += stored);
        all.append(&mut subscriptions);
    }
    if let Some(persistence) = broker.persistence() {
        let state = persistence.store.state();
        for (number, session) in state.sessions() {
            let Some(graph) = Cursor::graph_of(&session.client_id) else { continue };
            let runs = persistence.cursor(number).is_some_and(|cursor| cursor.runs());
            all.extend(session.subscriptions.keys().map(|filter| Subscription {
                client_id: graph.to_owned(),
                kind: Kind::Graph,
                filter: filter.to_string(),
                qos: 1,
                persisted: true,
                connected: runs,
                queued: session.queue.len(),
            }));
        }
    }
    all.sort_by(|a, b| (&a.client_id, &a.filter).cmp(&(&b.client_id, &b.filter)));
    all
}

/// A table for people.
pub fn table(subscriptions: &[Subscription]) -> String {
    let width = |of: fn(&Subscription) -> &str, title: &str| {
        let longest = subscriptions.iter().map(|subscription| of(subscription).chars().count()).max();
        longest.unwrap_or(0).max(title.len())
    };
    let ids = width(|subscription| &subscription.client_id, "CLIENT");
    let filters = width(|subscription| &subscription.filter, "FILTER");
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{:ids$}  {:filters$}  QOS  PERSISTED  {:>7}  {:12}  KIND",
        "CLIENT", "FILTER", "QUEUED", "CONNECTION"
    );
    for subscription in subscriptions {
        let Subscription { client_id, kind, filter, qos, persisted, connected, queued } = subscription;
        let persisted = if *persisted { "true" } else { "false" };
        let connection = match (kind, connected) {
            (Kind::Client, true) => "connected",
            (Kind::Client, false) => "away",
            (Kind::Graph, true) => "running",
            (Kind::Graph, false) => "not running",
        };
        let _ = writeln!(
            out,
            "{client_id:ids$}  {filter:filters$}  {qos:3}  {persisted:9}  {queued:7}  {connection:12}  {kind:?}"
        );
    }
    out
}

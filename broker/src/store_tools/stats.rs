//! `forebay store stats`: how much there is of what.

use std::io::{self, Write};

use broker_store::{Inspection, SessionKey, SessionState, Sizes};
use serde_json::{Value, json};

use super::{bytes, count};
use crate::cli::Output;

/// Queues that are listed.
const QUEUES_MAX: usize = 10;

/// Prints it.
pub fn print(store: &Inspection, output: Output, out: &mut impl Write) -> io::Result<()> {
    let sizes = store.sizes()?;
    match output {
        Output::Table => table(store, &sizes, out),
        Output::Json => writeln!(out, "{}", value(store, &sizes)),
    }
}

fn table(store: &Inspection, sizes: &Sizes, out: &mut impl Write) -> io::Result<()> {
    let state = store.state();
    let total = sizes.log + sizes.checkpoint + sizes.quarantine + sizes.other;
    let alive = format!("{}, {} of it alive", count(sizes.segments, "segment"), bytes(sizes.live));
    let rows = [
        ("files", bytes(total), format!("version {}", store.version())),
        ("  log", bytes(sizes.log), alive),
        ("  checkpoints", bytes(sizes.checkpoint), sizes.checkpoints.to_string()),
        ("  quarantine", bytes(sizes.quarantine), count(sizes.quarantined, "damaged piece")),
        ("  other", bytes(sizes.other), "reserve for a full device, format".to_owned()),
        ("sessions", state.sessions().count().to_string(), format!("{} connected", connected(store))),
        ("subscriptions", subscriptions(store).to_string(), String::new()),
        ("queued", state.queued().to_string(), format!("{} messages held in all", state.messages())),
        ("retained", state.retained().count().to_string(), String::new()),
        ("keys", state.keys().count().to_string(), bytes(key_bytes(store))),
        ("last event", state.last().to_string(), String::new()),
    ];
    for (name, value, more) in rows {
        writeln!(out, "{}", format!("{name:<16}{value:>12}  {more}").trim_end())?;
    }
    let queues = longest_queues(store);
    if !queues.is_empty() {
        writeln!(out, "\nlongest queues")?;
    }
    for (_, session) in queues {
        writeln!(out, "  {:>12}  {}", session.queue.len(), session.client_id)?;
    }
    Ok(())
}

fn value(store: &Inspection, sizes: &Sizes) -> Value {
    let state = store.state();
    let queues = longest_queues(store).into_iter();
    let queues = queues.map(|(key, session)| {
        json!({"session": key, "clientId": session.client_id, "queued": session.queue.len()})
    });
    json!({
        "version": store.version(),
        "bytes": {
            "log": sizes.log,
            "live": sizes.live,
            "checkpoints": sizes.checkpoint,
            "quarantine": sizes.quarantine,
            "other": sizes.other,
        },
        "segments": sizes.segments,
        "checkpoints": sizes.checkpoints,
        "quarantined": sizes.quarantined,
        "sessions": state.sessions().count(),
        "connected": connected(store),
        "subscriptions": subscriptions(store),
        "queued": state.queued(),
        "messages": state.messages(),
        "retained": state.retained().count(),
        "keys": state.keys().count(),
        "keyBytes": key_bytes(store),
        "lastEvent": state.last().0,
        "longestQueues": queues.collect::<Vec<_>>(),
    })
}

/// Sessions that were connected when the store last heard of them.
fn connected(store: &Inspection) -> usize {
    store.state().sessions().filter(|(_, session)| session.closed.is_none()).count()
}

fn subscriptions(store: &Inspection) -> usize {
    store.state().sessions().map(|(_, session)| session.subscriptions.len()).sum()
}

fn key_bytes(store: &Inspection) -> u64 {
    store.state().keys().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

fn longest_queues(store: &Inspection) -> Vec<(SessionKey, &SessionState)> {
    let mut queues: Vec<_> =
        store.state().sessions().filter(|(_, session)| !session.queue.is_empty()).collect();
    queues.sort_by(|(_, a), (_, b)| {
        b.queue.len().cmp(&a.queue.len()).then_with(|| a.client_id.cmp(&b.client_id))
    });
    queues.truncate(QUEUES_MAX);
    queues
}

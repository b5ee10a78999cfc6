//! What happens as time goes by: silent clients, sessions and messages that expire, wills that fall due.

use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::{Message, Publication};
use broker_core::packet::ReasonCode;
use broker_core::session::Orphan;
use metrics::counter;

use crate::broker::Broker;
use crate::client::Client;
use crate::metrics::Metrics;
use crate::turn::Turn;
use crate::{clock, persistence};

/// Looks after the broker once a second, for ever.
pub async fn run(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0u64;
    let mut rates = Rates::default();
    loop {
        ticks.tick().await;
        count += 1;
        let now = clock::monotonic();
        tick(&broker, now);
        rates.show(&broker.metrics, now);
        // A walk over all retained messages is not for every second.
        if count.is_multiple_of(10) {
            broker.expire_retained(now);
        }
    }
}

/// What is due once a second.
pub fn tick(broker: &Broker, now: Millis) {
    look(broker, now);
    if let Some(persistence) = broker.persistence() {
        persistence.show();
        persistence.feed_graphs();
        broker.note_clock();
    }
}

/// PUBLISH packets a second.
#[derive(Default)]
struct Rates {
    last: Millis,
    received: u64,
    sent: u64,
}

impl Rates {
    fn show(&mut self, metrics: &Metrics, now: Millis) {
        let (received, sent) = (metrics.sum(|all| &all.received), metrics.sum(|all| &all.sent));
        let seconds = now.since(self.last).max(1) as f64 / 1000.0;
        metrics.received_per_second.set((received - self.received) as f64 / seconds);
        metrics.sent_per_second.set((sent - self.sent) as f64 / seconds);
        *self = Self { last: now, received, sent };
    }
}

fn look(broker: &Broker, now: Millis) {
    let mut found = Found::default();
    for client in broker.clients() {
        look_at(broker, &client, now, &mut found);
    }
    let metrics = &broker.metrics;
    found.show(metrics);
    let used = broker.memory_bytes() as f64;
    metrics.memory_bytes.set(used);
    metrics.memory_used.set(100.0 * used / broker.limits.memory_bytes_max as f64);
    if found.wills.is_empty() && found.orphans.is_empty() {
        return;
    }
    let mut turn = Turn::begin(broker, now);
    for will in &found.wills {
        turn.publish(&mut Publication::of(will));
    }
    turn.pass_on(&found.orphans);
    turn.finish();
}

/// What a look at all sessions finds.
#[derive(Default)]
struct Found {
    /// Wills that are due.
    wills: Vec<Arc<Message>>,
    /// What sessions that are over leave to others.
    orphans: Vec<Orphan>,
    /// Wills that are not due.
    wills_kept: usize,
    will_bytes: usize,
    /// Sessions before v5, and of it.
    versions: [usize; 2],
    /// Sessions in memory only, and on disk.
    kept: [usize; 2],
}

impl Found {
    fn show(&self, metrics: &Metrics) {
        metrics.will_messages.set(self.wills_kept as f64);
        metrics.will_bytes.set(self.will_bytes as f64);
        for (gauge, sessions) in metrics.sessions_by_version.iter().zip(self.versions) {
            gauge.set(sessions as f64);
        }
        for (gauge, sessions) in metrics.sessions_by_persistence.iter().zip(self.kept) {
            gauge.set(sessions as f64);
        }
    }
}

fn look_at(broker: &Broker, client: &Arc<Client>, now: Millis, found: &mut Found) {
    let mut state = client.lock();
    if !state.congested(now) {
        state.release();
    }
    found.versions[usize::from(state.session.version().is_v5())] += 1;
    found.kept[usize::from(state.session.is_durable())] += 1;
    if let Some(will) = &state.session.will {
        found.wills_kept += 1;
        found.will_bytes += will.message.size();
    }
    if let Some(connection) = &state.connection {
        let silent = now.since(connection.heard) > connection.silence_ms_max;
        if connection.silence_ms_max > 0 && silent {
            state.kick(ReasonCode::KeepAliveTimeout); // [MQTT-3.1.2-22]
        } else if connection.expires.is_some_and(|expires| expires <= clock::wall()) {
            counter!("forebay_credentials_expired_total").increment(1);
            state.kick(ReasonCode::NotAuthorized);
        }
        return;
    }
    let Some(closed) = state.session.closed else { return };
    let over = state.session.expired(now);
    let due = |delay: u32| now.since(closed) >= u64::from(delay) * 1000;
    if state.session.will.as_ref().is_some_and(|will| over || due(will.delay))
        && let Some(will) = state.session.will.take()
    {
        if state.may_publish(&will) {
            found.wills.push(will.message(now));
        }
        if let Some(persistence) = broker.persistence().filter(|_| state.session.is_durable()) {
            persistence.note(persistence::closed(&state.session));
        }
    }
    drop(state);
    if over {
        broker.metrics.sessions_expired.increment(1);
        found.orphans.extend(broker.end(client, now));
    }
}

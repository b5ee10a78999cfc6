//! What happens as time goes by: silent clients, sessions and messages that expire, wills that fall due.

use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::{Message, Publication};
use broker_core::packet::ReasonCode;
use metrics::counter;

use crate::broker::Broker;
use crate::client::Client;
use crate::turn::Turn;
use crate::{clock, persistence};

/// Looks after the broker once a second, for ever.
pub async fn run(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0u64;
    loop {
        ticks.tick().await;
        count += 1;
        let now = clock::monotonic();
        look(&broker, now);
        if let Some(persistence) = broker.persistence() {
            persistence.show();
            persistence.feed_graphs();
            broker.note_clock();
        }
        // A walk over all retained messages is not for every second.
        if count.is_multiple_of(10) {
            broker.expire_retained(now);
        }
    }
}

fn look(broker: &Broker, now: Millis) {
    let mut wills = Vec::new();
    for client in broker.clients() {
        look_at(broker, &client, now, &mut wills);
    }
    if wills.is_empty() {
        return;
    }
    let mut turn = Turn::begin(broker, now);
    for will in &wills {
        turn.publish(&mut Publication::of(will));
    }
    turn.finish();
}

fn look_at(broker: &Broker, client: &Arc<Client>, now: Millis, wills: &mut Vec<Arc<Message>>) {
    let mut state = client.lock();
    if !state.congested(now) {
        state.release();
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
            wills.push(will.message(now));
        }
        if let Some(persistence) = broker.persistence().filter(|_| state.session.is_durable()) {
            persistence.note(persistence::closed(&state.session));
        }
    }
    drop(state);
    if over {
        broker.end(client, now);
    }
}

//! SUBSCRIBE and UNSUBSCRIBE of a client.

use broker_core::durable::Durable;
use broker_core::packet::{
    self, Properties, PropertiesBuilder, Property, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    Subscription, UnsubAck, Unsubscribe,
};
use broker_core::reorder::Order;
use broker_core::router::Options;
use broker_store::Event;

use super::{Peer, check_user_properties};
use crate::broker::split_share;
use crate::client::Answer;
use crate::connection::End;
use crate::ordered;
use crate::persistence;
use crate::replay::Replay;
use crate::turn::Turn;

impl Peer {
    pub(super) fn subscribe(&self, subscribe: &Subscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        check_user_properties(&subscribe.properties, turn)?;
        let mut said = PropertiesBuilder::new();
        let order = match ordered::asked(subscribe.properties) {
            Ok(order) => order,
            Err(why) => return self.refuse_subscriptions(subscribe, &why, turn),
        };
        if let Some(order) = order {
            ordered::granted(order, &mut said);
        }
        let asking = turn.broker().asking();
        let asked = asking.asked(subscribe.properties.user_properties());
        let grant = match self.persist_subscriptions(subscribe, asked && order.is_none(), turn) {
            Ok(grant) => grant,
            Err(reason) => {
                let codes: Vec<u8> = subscribe.subscriptions().map(|_| reason.code()).collect();
                return self.suback(subscribe, &said, &codes, 0, turn);
            }
        };
        if asked {
            asking.granted(grant.persisted, &mut said);
        }
        let identifier = subscribe.properties.subscription_identifier();
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        // One after the other [MQTT-3.8.4-5], with a reason for each [MQTT-3.8.4-6].
        for subscription in subscribe.subscriptions() {
            let persisted = grant.persisted && order.is_none();
            let (code, wants) = self.subscribe_one(&subscription, identifier, order, persisted, turn);
            codes.push(code.code());
            retained.extend(wants);
        }
        self.suback(subscribe, &said, &codes, grant.wait, turn)?;
        if !retained.is_empty() {
            let mut state = self.client.lock();
            retained.into_iter().for_each(|due| state.replay(due));
            drop(state);
            turn.replay(&self.client);
        }
        Ok(())
    }

    /// Has subscriptions written down, if the session is one of those that are, or becomes one by this.
    fn persist_subscriptions(
        &self,
        subscribe: &Subscribe<'_>,
        asked: bool,
        turn: &Turn<'_>,
    ) -> Result<Grant, ReasonCode> {
        let nothing = Ok(Grant { persisted: false, wait: 0 });
        let Some(persistence) = turn.broker().persistence() else { return nothing };
        let mut state = self.client.lock();
        // Whose session ends with the connection has nothing that could be restored.
        if state.session.expiry == 0 {
            return nothing;
        }
        let all = state.session.durable().is_some_and(|durable| durable.all);
        let persisted = all || persistence.policy.subscription(asked);
        let is_new = !state.session.is_durable();
        if is_new && !persisted {
            return nothing;
        }
        let session = self.client.id();
        let mut events = Vec::new();
        if is_new {
            events.push(persistence::opened(&state.session));
            events.extend(persistence::subscriptions(&state.session));
        }
        let identifier = subscribe.properties.subscription_identifier();
        for subscription in subscribe.subscriptions() {
            let filter = split_share(subscription.filter).1;
            if self.access.as_ref().is_some_and(|access| !access.covers(filter)) {
                continue;
            }
            let options = options_of(&subscription, identifier, None);
            let known = state.session.subscriptions().get(subscription.filter);
            events.push(Event::Subscribed {
                session,
                filter: subscription.filter.into(),
                options: persistence::options_bytes(&options),
                persisted: persisted || known.is_some_and(|known| known.persisted),
            });
        }
        let wait = persistence.append(events, session)?;
        if is_new {
            state.session.persist(Durable::default());
        }
        Ok(Grant { persisted, wait })
    }

    /// Grants nothing, and says why.
    fn refuse_subscriptions(
        &self,
        subscribe: &Subscribe<'_>,
        why: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        tracing::info!(client = &**self.client.lock().session.client_id(), "a SUBSCRIBE is refused: {why}");
        let mut said = PropertiesBuilder::new();
        // A text that does not fit is left out.
        let _ = said.put(Property::ReasonString(why));
        let code = ReasonCode::ImplementationSpecificError.code();
        let codes: Vec<u8> = subscribe.subscriptions().map(|_| code).collect();
        self.suback(subscribe, &said, &codes, 0, turn)
    }

    /// Answers a SUBSCRIBE [MQTT-3.8.4-1].
    fn suback(
        &self,
        subscribe: &Subscribe<'_>,
        said: &PropertiesBuilder,
        codes: &[u8],
        wait: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        let bare = SubAck { packet_id: subscribe.packet_id, properties: Properties::EMPTY, codes };
        // [MQTT-3.1.2-29]: a client may not want to hear more than codes.
        let full = match self.problem_information {
            true => SubAck { properties: said.properties(), ..bare },
            false => bare,
        };
        let size_max = self.client.lock().session.link().map_or(usize::MAX, |link| link.packet_size_max);
        let no = vec![ReasonCode::UnspecifiedError.code(); codes.len()];
        let refused = SubAck { codes: &no, ..bare };
        self.answer(
            wait,
            turn,
            |out| refused.encode(self.version, out),
            |out| {
                let start = out.len();
                full.encode(self.version, out)?;
                if out.len() - start > size_max {
                    // [MQTT-3.9.2-1] [MQTT-3.9.2-2]
                    out.truncate(start);
                    bare.encode(self.version, out)?;
                }
                Ok(())
            },
        )
    }

    /// Answers with a packet, once the record `wait` is written; or with another, when it is not.
    fn answer(
        &self,
        wait: u64,
        turn: &mut Turn<'_>,
        refused: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>,
        written: impl FnOnce(&mut Vec<u8>) -> Result<(), packet::EncodeError>,
    ) -> Result<(), End> {
        if wait == 0 {
            return self.write(turn, written);
        }
        let (mut yes, mut no) = (Vec::new(), Vec::new());
        let too_large = |error: packet::EncodeError| End::Refused {
            reason: ReasonCode::PacketTooLarge,
            what: error.what,
        };
        written(&mut yes).and_then(|()| refused(&mut no)).map_err(too_large)?;
        let mut state = self.client.lock();
        if state.own(self.number).is_none() {
            return Err(End::TakenOver);
        }
        let answer = Answer::Packet { written: yes.into(), refused: no.into() };
        state.answer(wait, answer, turn.broker().persistence());
        turn.count_answer();
        turn.touch(&self.client, &mut state);
        Ok(())
    }

    /// Makes one subscription. Says what it was granted, and whether retained messages are due.
    fn subscribe_one(
        &self,
        subscription: &Subscription<'_>,
        identifier: Option<u32>,
        order: Option<Order>,
        persisted: bool,
        turn: &mut Turn<'_>,
    ) -> (ReasonCode, Option<Replay>) {
        let Subscription { filter, options } = *subscription;
        let broker = turn.broker();
        if let Some(access) = &self.access
            && !access.may_subscribe(split_share(filter).1)
        {
            return (ReasonCode::NotAuthorized, None); // [MQTT-3.8.4-6]
        }
        let mut wanted = options_of(subscription, identifier, order);
        let new = {
            let mut state = self.client.lock();
            let known = state.session.subscriptions();
            if known.len() >= broker.limits.subscriptions_max && !known.contains_key(filter) {
                broker.metrics.subscriptions_refused.increment(1);
                return (ReasonCode::QuotaExceeded, None);
            }
            // Switched on, it stays on as long as the session lives (AIO.md §6).
            let before = known.get(filter).is_some_and(|known| known.persisted);
            wanted.persisted = order.is_none() && (persisted || before);
            state.session.subscribe(filter, wanted)
        };
        let ordered = broker.subscribe(filter, &self.client, wanted);
        // [MQTT-3.8.4-7]
        let granted = match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        let due = match options.retain_handling {
            RetainHandling::SendAlways => true, // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            RetainHandling::SendIfNew => new,   // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
        };
        let due = due && split_share(filter).0.is_none(); // v5 §4.8.2
        (granted, due.then(|| Replay::new(filter, wanted, ordered)))
    }

    pub(super) fn unsubscribe(&self, unsubscribe: &Unsubscribe<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        check_user_properties(&unsubscribe.properties, turn)?;
        let mut codes = Vec::new();
        let mut gone = Vec::new();
        let session = self.client.id();
        // One after the other [MQTT-3.10.4-6]; nothing more comes for it [MQTT-3.10.4-2], what is under way is left to the
        // session [MQTT-3.10.4-3].
        for filter in unsubscribe.filters() {
            let mut state = self.client.lock();
            let existed = state.session.unsubscribe(filter);
            state.order(filter, None);
            state.replay_no_more(filter);
            let durable = state.session.is_durable();
            drop(state);
            if existed {
                turn.broker().unsubscribe(filter, session);
            }
            if existed && durable {
                gone.push(Event::Unsubscribed { session, filter: filter.into() });
            }
            let code = if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
            codes.push(code.code());
        }
        let wait = match turn.broker().persistence() {
            Some(persistence) if !gone.is_empty() => persistence.insist(gone, session).unwrap_or(u64::MAX),
            _ => 0,
        };
        // Without properties [MQTT-3.11.2-1] [MQTT-3.11.2-2].
        let unsuback =
            UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::EMPTY, codes: &codes };
        let encode = |out: &mut Vec<u8>| unsuback.encode(self.version, out);
        self.answer(wait, turn, encode, encode) // [MQTT-3.10.4-4]
    }
}

/// What is granted to a SUBSCRIBE that may be persisted.
struct Grant {
    persisted: bool,
    /// The record that the answer waits for; 0 for none.
    wait: u64,
}

fn options_of(subscription: &Subscription<'_>, identifier: Option<u32>, order: Option<Order>) -> Options {
    let options = subscription.options;
    Options {
        qos: options.qos,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier,
        order,
        persisted: false,
    }
}

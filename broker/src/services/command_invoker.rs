//! Remote calls of operators over this broker (AIO.md §8): a request is published as any client would, and the answer
//! found by its correlation data.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use broker_core::hlc::Timestamp;
use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, PublishProperties, QoS, Role};
use metrics::counter;
use parking_lot::Mutex;
use processing::rpc::{Answer, Call, CallError, Invoker};

use crate::broker::Broker;
use crate::clock;
use crate::services::Service;
use crate::translate::{TIMESTAMP, hlc};
use crate::turn::Turn;

/// The client identifier in response topics.
const CLIENT_ID: &str = "forebay-graphs";
/// Response topics that are listened on at once: each stays subscribed, since the next call will want it again.
const TOPICS_MAX: usize = 1000;

/// Carries the calls of all operators.
pub struct CommandInvokers {
    broker: Weak<Broker>,
    answers: Arc<Answers>,
    topics: Mutex<HashSet<String>>,
}

type CorrelationData = [u8; 16];

/// Calls that wait for their answer.
#[derive(Default)]
struct Answers {
    waiting: Mutex<HashMap<CorrelationData, (String, SyncSender<Answer>)>>,
}

impl CommandInvokers {
    /// Carries calls over `broker`.
    pub fn new(broker: &Arc<Broker>) -> Arc<Self> {
        let (answers, topics) = (Arc::default(), Mutex::default());
        Arc::new(Self { broker: Arc::downgrade(broker), answers, topics })
    }

    fn listen(&self, topic: &str, broker: &Broker) -> Result<(), CallError> {
        let mut topics = self.topics.lock();
        if topics.contains(topic) {
            return Ok(());
        }
        if topics.len() >= TOPICS_MAX {
            return Err(CallError::Refused);
        }
        topics.insert(topic.to_owned());
        broker.serve(topic, Arc::clone(&self.answers) as Arc<dyn Service>);
        Ok(())
    }
}

impl Invoker for CommandInvokers {
    fn client_id(&self) -> &str {
        CLIENT_ID
    }

    fn invoke(&self, call: Call) -> Result<Answer, CallError> {
        let broker = self.broker.upgrade().ok_or(CallError::Cancelled)?;
        self.listen(&call.response_topic, &broker)?;
        let correlation_data = correlation_data(&broker);
        let request = request(&call, &correlation_data, &broker).ok_or(CallError::Refused)?;
        let (answered, answer) = sync_channel(1);
        self.answers.waiting.lock().insert(correlation_data, (call.response_topic, answered));
        let mut turn = Turn::begin(&broker, clock::monotonic());
        turn.publish_derived(Arc::new(request));
        turn.finish();
        let result = answer.recv_timeout(call.timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => CallError::Timeout,
            RecvTimeoutError::Disconnected => CallError::Cancelled,
        });
        self.answers.waiting.lock().remove(&correlation_data);
        let outcome = if result.is_ok() { "answered" } else { "failed" };
        counter!("forebay_operator_calls_total", "outcome" => outcome).increment(1);
        result
    }
}

impl Service for Answers {
    fn answer(&self, message: &Arc<Message>, _: &Broker, _: &mut dyn FnMut(Arc<Message>)) {
        let properties = PublishProperties::parse(message.properties(), Role::Client).unwrap_or_default();
        let Some(Ok(correlation_data)) = properties.correlation_data.map(CorrelationData::try_from) else {
            return;
        };
        let mut waiting = self.waiting.lock();
        // Whoever knows a call's correlation data must also answer where the call said.
        if waiting.get(&correlation_data).is_none_or(|(topic, _)| topic != message.topic()) {
            return;
        }
        let Some((_, answered)) = waiting.remove(&correlation_data) else { return };
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let timestamp = properties.user_property(TIMESTAMP).and_then(|text| Timestamp::parse(text).ok());
        let _ = answered.send(Answer {
            payload: message.shared_payload(),
            user_properties: properties.user_properties().map(owned).collect(),
            timestamp: timestamp.map(|timestamp| hlc(&timestamp)),
        });
    }
}

/// Not to be guessed: whoever knows it can answer.
fn correlation_data(broker: &Broker) -> CorrelationData {
    let mut data = [0; 16];
    let (first, second) = data.split_at_mut(8);
    first.copy_from_slice(&RandomState::new().hash_one(broker.number()).to_ne_bytes());
    second.copy_from_slice(&RandomState::new().hash_one(broker.number()).to_ne_bytes());
    data
}

/// The call as a message; `None` when its properties do not fit one.
fn request(call: &Call, correlation_data: &[u8], broker: &Broker) -> Option<Message> {
    let stamp = broker.timestamp(clock::wall()).to_string();
    let expiry = u32::try_from(call.timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let mut properties = PropertiesBuilder::new();
    let mut put = |property| properties.put(property).map(|_| ()).ok();
    put(Property::ContentType("application/octet-stream"))?;
    put(Property::ResponseTopic(&call.response_topic))?;
    put(Property::CorrelationData(correlation_data))?;
    for (key, value) in [(TIMESTAMP, stamp.as_str()), ("__srcId", CLIENT_ID), ("__protVer", "1.0")] {
        put(Property::UserProperty((key, value)))?;
    }
    for (key, value) in &call.user_properties {
        put(Property::UserProperty((key, value)))?;
    }
    put(Property::MessageExpiryInterval(expiry))?; // last: its place is noted below
    let properties = properties.into_bytes();
    let expiry_offset = Some(properties.len() - 4);
    let topic = call.topic.clone().into();
    let mut message = Message::new(topic, properties.into(), call.payload.clone(), clock::monotonic());
    (message.expiry, message.expiry_offset) = (Some(expiry), expiry_offset);
    message.qos = QoS::AtLeastOnce;
    message.hops = 1;
    Some(message)
}

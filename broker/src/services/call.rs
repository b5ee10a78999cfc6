//! What requests and answers of the broker's own services have in common (AIO.md §8, common RPC).

use broker_core::message::Message;
use broker_core::packet::{PropertiesBuilder, Property, PublishProperties, QoS, Role};
use broker_core::topic;
use bytes::Bytes;

use crate::clock;

/// What a request says beside its payload.
pub struct Call<'a> {
    /// Where the answer goes.
    pub response_topic: &'a str,
    correlation_data: &'a [u8],
    /// All properties.
    pub properties: PublishProperties<'a>,
}

/// What is answered.
pub struct Reply<'a> {
    /// `__stat`, as in HTTP.
    pub status: u16,
    /// Content type of the payload.
    pub content_type: &'a str,
    /// User properties beside those of every answer.
    pub user_properties: &'a [(&'a str, &'a str)],
    /// The payload.
    pub payload: Bytes,
}

impl<'a> Call<'a> {
    /// Reads a request; `None` when there is nowhere to answer.
    pub fn of(request: &'a Message) -> Option<Self> {
        let properties = PublishProperties::parse(request.properties(), Role::Client).ok()?;
        let (response_topic, correlation_data) = (properties.response_topic?, properties.correlation_data?);
        topic::validate_name(response_topic).ok()?;
        Some(Self { response_topic, correlation_data, properties })
    }

    /// The answer as a message; `None` when it does not fit one.
    pub fn answer(&self, reply: Reply<'_>) -> Option<Message> {
        let status = reply.status.to_string();
        let mut properties = PropertiesBuilder::new();
        let mut put = |property| properties.put(property).map(|_| ()).ok();
        put(Property::ContentType(reply.content_type))?;
        put(Property::CorrelationData(self.correlation_data))?;
        for pair in [("__protVer", "1.0"), ("__stat", &status)].iter().chain(reply.user_properties) {
            put(Property::UserProperty(*pair))?;
        }
        let topic = self.response_topic.to_owned().into();
        let properties = properties.into_bytes().into();
        let mut message = Message::new(topic, properties, reply.payload, clock::monotonic());
        message.qos = QoS::AtLeastOnce;
        Some(message)
    }
}

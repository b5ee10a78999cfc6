//! Messages to a remote broker: in their order, each kept until PUBACK.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker_core::packet::{
    Packet, PacketId, PropertiesBuilder, Property, Publish, PublishProperties, QoS, ReasonCode, Role, Version,
};
use config::resource::endpoint::Retain;

use super::session::{Identifiers, Lost, Session, Wish};
use super::settings::Settings;
use super::{HOPS, HOPS_MAX, ORIGIN};
use crate::{
    Backoff, Destination, Outward, Parcel, Receiver, Rejection, Report, Running, Shipment, Unusable,
    cloud_events,
};

const CONFIGURATION: &str = "DataflowMqttTargetConfigurationError";
const CONNECTION: &str = "DataflowMqttTargetConnectionFailed";
/// How often a message is tried that the broker answers with a reason that may pass.
const TRIES_MAX: u32 = 10;
/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// A remote broker as a destination.
pub struct MqttDestination {
    settings: Settings,
}

impl MqttDestination {
    /// The destination that `outward` names.
    ///
    /// # Errors
    /// The endpoint cannot be used as it is.
    pub fn new(outward: &Outward) -> Result<Self, Unusable> {
        Settings::of(&outward.endpoint, &outward.instance, CONFIGURATION).map(|settings| Self { settings })
    }
}

impl Destination for MqttDestination {
    fn run(self: Box<Self>, shipments: Receiver, report: Report) -> Running {
        let mut sending = Sending {
            settings: self.settings,
            report,
            shipments,
            under_way: VecDeque::new(),
            identifiers: Identifiers::default(),
            ended: false,
            version: Version::V5,
            short_id: false,
        };
        Box::pin(async move { sending.run().await })
    }
}

/// A message that is not acknowledged.
struct UnderWay {
    shipment: Shipment,
    id: Option<PacketId>,
    tries: u32,
}

struct Sending {
    settings: Settings,
    report: Report,
    shipments: Receiver,
    /// In the order in which they came; those with an identifier were sent over this connection.
    under_way: VecDeque<UnderWay>,
    identifiers: Identifiers,
    /// Nothing more comes.
    ended: bool,
    version: Version,
    short_id: bool,
}

impl Sending {
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        while !(self.ended && self.under_way.is_empty()) {
            let begun = Instant::now();
            match self.serve().await {
                Ok(()) => return,
                Err(Lost::Version(Version::V5)) => {
                    self.version = Version::V311;
                    continue;
                }
                Err(Lost::Refused(ReasonCode::ClientIdentifierNotValid, _)) if !self.short_id => {
                    self.short_id = true;
                    continue;
                }
                Err(lost) => self.report.unavailable(CONNECTION, lost.to_string()),
            }
            self.under_way.iter_mut().for_each(|waiting| waiting.id = None);
            if begun.elapsed() >= GOOD {
                backoff.reset();
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// One connection; ends well when everything is delivered and nothing more comes.
    async fn serve(&mut self) -> Result<(), Lost> {
        let (version, short_id) = (self.version, self.short_id);
        // Nothing is left in a session of the broker's: what is not acknowledged is here.
        let wish = Wish { version, clean: true, expiry: 0, receive_maximum: u16::MAX, short_id };
        let mut session = Session::open(&self.settings, wish).await?;
        self.report.available();
        let window =
            usize::from(self.settings.mqtt.max_inflight_messages.max(1).min(session.receive_maximum));
        loop {
            self.send(&mut session, window);
            if self.ended && self.under_way.is_empty() && session.is_written() {
                session.close().await;
                return Ok(());
            }
            let room = !self.ended && self.under_way.len() < window && session.has_room();
            tokio::select! {
                turned = session.turn() => turned?,
                next = self.shipments.next(), if room => match next {
                    Some(shipment) => self.under_way.push_back(UnderWay { shipment, id: None, tries: 0 }),
                    None => self.ended = true,
                },
            }
            self.take_answers(&mut session)?;
        }
    }

    /// Puts in line what waits and may be sent.
    fn send(&mut self, session: &mut Session, window: usize) {
        while self.under_way.len() < window
            && let Some(shipment) = self.shipments.try_next()
        {
            self.under_way.push_back(UnderWay { shipment, id: None, tries: 0 });
        }
        let mut at = 0;
        while at < self.under_way.len() && session.has_room() {
            if self.under_way[at].id.is_some() {
                at += 1;
                continue;
            }
            let Some(UnderWay { shipment, tries, .. }) = self.under_way.remove(at) else { return };
            let Some(shipment) = self.report.unless_expired(shipment) else { continue };
            let in_use = |id| self.under_way.iter().any(|other| other.id == Some(id));
            let id = self.identifiers.next(in_use);
            match self.encode(&shipment.parcel, id, tries > 0, session) {
                Ok(()) if self.qos(session) == QoS::AtMostOnce => self.report.delivered(shipment),
                Ok(()) => {
                    self.under_way.insert(at, UnderWay { shipment, id: Some(id), tries });
                    at += 1;
                }
                Err(rejection) => self.report.rejected(shipment, &rejection),
            }
        }
    }

    fn qos(&self, session: &Session) -> QoS {
        QoS::from_bits(self.settings.qos().min(session.qos_max)).unwrap_or(QoS::AtLeastOnce)
    }

    fn encode(
        &self,
        parcel: &Parcel,
        id: PacketId,
        dup: bool,
        session: &mut Session,
    ) -> Result<(), Rejection> {
        let (version, qos) = (session.version, self.qos(session));
        let properties = match version.is_v5() {
            true => self.properties(parcel)?,
            false => PropertiesBuilder::new(),
        };
        let span = properties.properties();
        let properties =
            PublishProperties::parse(span.as_bytes(), Role::Client).map_err(|error| unfit(&error))?;
        let publish = Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain: parcel.retain && session.retains && self.settings.mqtt.retain == Retain::Keep,
            topic: &parcel.topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            properties,
            payload: &parcel.payload,
        };
        let mut bytes = Vec::new();
        publish.encode(version, &mut bytes).map_err(|error| unfit(&error.what))?;
        if bytes.len() > session.packet_max {
            let why = format!(
                "it takes {} bytes, and the broker takes packets of {}",
                bytes.len(),
                session.packet_max
            );
            return Err(Rejection { reason: "too-large", why });
        }
        session.push(|out| {
            out.extend_from_slice(&bytes);
            Ok(())
        });
        Ok(())
    }

    /// What MQTT 5 says beside topic and payload, with what keeps messages from going round in circles.
    fn properties(&self, parcel: &Parcel) -> Result<PropertiesBuilder, Rejection> {
        let mut parcel = parcel.clone();
        if let Some(attributes) = self.settings.mqtt.cloud_event_attributes {
            let topic = parcel.topic.clone();
            cloud_events::apply(&mut parcel, attributes, &self.settings.endpoint, &topic);
        }
        let hops = 1 + parcel.user_property(HOPS).and_then(|text| text.parse().ok()).unwrap_or(0_u32);
        if hops > HOPS_MAX {
            let why = format!("it came over {HOPS_MAX} bridges already, and goes round in circles");
            return Err(Rejection { reason: "loop", why });
        }
        let origin = parcel.user_property(ORIGIN).unwrap_or(&self.settings.process).to_owned();
        parcel.user_properties.retain(|(key, _)| key != HOPS && key != ORIGIN);
        let hops = hops.to_string();
        let mut out = PropertiesBuilder::new();
        let fixed = [
            parcel.utf8.map(Property::PayloadFormatIndicator),
            parcel.expiry_left(Instant::now()).map(Property::MessageExpiryInterval),
            parcel.content_type.as_deref().map(Property::ContentType),
            parcel.response_topic.as_deref().map(Property::ResponseTopic),
            parcel.correlation_data.as_deref().map(Property::CorrelationData),
        ];
        let own = [(ORIGIN, origin.as_str()), (HOPS, hops.as_str())];
        let user = parcel.user_properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let user = user.chain(own).map(Property::UserProperty);
        for property in fixed.into_iter().flatten().chain(user) {
            out.put(property).map_err(|error| unfit(&error.what))?;
        }
        Ok(out)
    }

    fn take_answers(&mut self, session: &mut Session) -> Result<(), Lost> {
        let Self { under_way, report, .. } = self;
        session.packets(|packet| {
            let Packet::PubAck(ack) = packet else {
                return Err(Lost::Garbage("a packet that nobody asked for".to_owned()));
            };
            let at = under_way.iter().position(|waiting| waiting.id == Some(ack.packet_id));
            let Some(at) = at else {
                return Err(Lost::Garbage(format!(
                    "PUBACK for {}, which is not under way",
                    ack.packet_id.get()
                )));
            };
            let Some(mut waiting) = under_way.remove(at) else { return Ok(true) };
            if !ack.reason.is_error() {
                report.delivered(waiting.shipment);
                return Ok(true);
            }
            waiting.tries += 1;
            if waiting.tries < TRIES_MAX && may_pass(ack.reason) {
                // The order is kept: it goes first when the broker has had some time.
                report.retried();
                waiting.id = None;
                under_way.insert(at, waiting);
                return Err(Lost::Link(format!("the broker does not take a message now: {}", ack.reason)));
            }
            let why = format!("the broker refuses it: {}", ack.reason);
            report.rejected(waiting.shipment, &Rejection { reason: "refused", why });
            Ok(true)
        })
    }
}

/// Whether a broker that refuses a message for this reason may take it later.
fn may_pass(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::QuotaExceeded
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::NotAuthorized
            | ReasonCode::PacketIdentifierInUse
    )
}

fn unfit(what: &dyn std::fmt::Display) -> Rejection {
    Rejection { reason: "property", why: format!("it does not fit MQTT: {what}") }
}

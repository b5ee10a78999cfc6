//! Messages from a remote broker: acknowledged when what was derived is delivered, in the order in which they came
//! [MQTT-4.6.0-2].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker_core::packet::{
    Packet, PacketId, Properties, PubAck, Publish, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions, SubscriptionList, Version,
};
use bytes::Bytes;
use config::resource::endpoint::Retain;

use super::session::{Lost, Session, Wish};
use super::settings::Settings;
use super::{HOPS, HOPS_MAX, ORIGIN};
use crate::{Backoff, Intake, Inward, Parcel, Report, Running, Source, Ticket, Tickets, Unusable};

const CONFIGURATION: &str = "DataflowMqttSourceConfigurationError";
const CONNECTION: &str = "DataflowMqttSourceConnectionFailed";
const SUBSCRIPTION: &str = "DataflowMqttSourceSubscriptionFailed";
/// With more than this in front of the data flow, nothing more is read.
const WAITING_MAX: usize = 1024;
/// How long what is under way may take when the data flow stops.
const LAST: Duration = Duration::from_secs(2);
/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(5);
/// How long the broker may take to answer SUBSCRIBE.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A remote broker as a source.
pub struct MqttSource {
    settings: Settings,
    filters: Vec<String>,
}

impl MqttSource {
    /// The source that `inward` names.
    ///
    /// # Errors
    /// The endpoint cannot be used as it is.
    pub fn new(inward: &Inward) -> Result<Self, Unusable> {
        let settings = Settings::of(&inward.endpoint, &inward.instance, CONFIGURATION)?;
        // AIO's spelling and MQTT's (AIO.md §7.1).
        let standard = |filter: &String| match filter.strip_prefix("$shared/") {
            Some(rest) => format!("$share/{rest}"),
            None => filter.clone(),
        };
        Ok(Self { settings, filters: inward.data_sources.iter().map(standard).collect() })
    }
}

impl Source for MqttSource {
    fn run(self: Box<Self>, intake: Intake, report: Report) -> Running {
        let mut receiving = Receiving {
            settings: self.settings,
            filters: self.filters,
            report,
            intake,
            tickets: Tickets::new(),
            next: 0,
            waiting: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            version: Version::V5,
            short_id: false,
        };
        Box::pin(async move { receiving.run().await })
    }
}

/// A message that is not acknowledged to the broker.
struct Unacknowledged {
    number: u64,
    id: PacketId,
    done: bool,
}

struct Receiving {
    settings: Settings,
    filters: Vec<String>,
    report: Report,
    intake: Intake,
    tickets: Tickets,
    /// The number of the next message, over all connections.
    next: u64,
    /// In front of the data flow.
    waiting: VecDeque<(Parcel, Ticket)>,
    /// Of this connection, in the order in which they came.
    unacknowledged: VecDeque<Unacknowledged>,
    version: Version,
    short_id: bool,
}

impl Receiving {
    async fn run(&mut self) {
        let mut backoff = Backoff::default();
        let intake = self.intake.clone();
        loop {
            let begun = Instant::now();
            match self.serve().await {
                Ok(()) => return,
                Err((_, Lost::Version(Version::V5))) => {
                    self.version = Version::V311;
                    continue;
                }
                Err((_, Lost::Refused(ReasonCode::ClientIdentifierNotValid, _))) if !self.short_id => {
                    self.short_id = true;
                    continue;
                }
                Err((code, lost)) => self.report.unavailable(code, lost.to_string()),
            }
            // The broker sends again what it has no acknowledgement of.
            self.unacknowledged.clear();
            if begun.elapsed() >= GOOD {
                backoff.reset();
            }
            tokio::select! {
                () = intake.stopped() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    /// One connection; ends well when the data flow stops.
    async fn serve(&mut self) -> Result<(), (&'static str, Lost)> {
        let at = |code: &'static str| move |lost: Lost| (code, lost);
        let (version, short_id) = (self.version, self.short_id);
        let mqtt = &self.settings.mqtt;
        let (expiry, receive_maximum) = (mqtt.session_expiry_seconds, mqtt.max_inflight_messages);
        let wish = Wish { version, clean: false, expiry, receive_maximum, short_id };
        let intake = self.intake.clone();
        let mut session = tokio::select! {
            () = intake.stopped() => return Ok(()),
            session = Session::open(&self.settings, wish) => session.map_err(at(CONNECTION))?,
        };
        self.subscribe(&mut session).await.map_err(at(SUBSCRIPTION))?;
        self.report.available();
        loop {
            self.take(&mut session).map_err(at(CONNECTION))?;
            tokio::select! {
                () = intake.stopped() => break,
                turned = session.turn(), if self.waiting.len() < WAITING_MAX => turned.map_err(at(CONNECTION))?,
                room = intake.room(), if !self.waiting.is_empty() => {
                    let Ok(room) = room else { break };
                    if let Some((parcel, ticket)) = self.waiting.pop_front() {
                        room.push(parcel, ticket);
                    }
                }
                done = self.tickets.next() => self.acknowledge(&done, &mut session),
            }
        }
        self.finish(session).await;
        Ok(())
    }

    async fn subscribe(&mut self, session: &mut Session) -> Result<(), Lost> {
        let options = SubscribeOptions {
            qos: QoS::from_bits(self.settings.qos()).unwrap_or(QoS::AtLeastOnce),
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        };
        let mut list = SubscriptionList::default();
        for filter in &self.filters {
            list.push(filter, options).map_err(|error| Lost::Link(format!("{filter}: {}", error.what)))?;
        }
        let (Some(id), version) = (PacketId::new(u16::MAX), session.version) else { return Ok(()) };
        session.push(|out| Subscribe::new(id, Properties::EMPTY, &list).encode(version, out));
        let answered = tokio::time::timeout(ANSWER_MAX, self.subscribed(session)).await;
        answered.unwrap_or_else(|_| Err(Lost::Link("no answer to SUBSCRIBE".to_owned())))
    }

    async fn subscribed(&mut self, session: &mut Session) -> Result<(), Lost> {
        let mut answer = None;
        loop {
            session.turn().await?;
            let mut early = Vec::new();
            let filters = &self.filters;
            session.packets(|packet| match packet {
                Packet::SubAck(suback) => {
                    let refused = filters.iter().zip(suback.reasons()).find(|(_, reason)| reason.is_error());
                    answer = Some(refused.map(|(filter, reason)| format!("{filter}: {reason}")));
                    Ok(false)
                }
                Packet::Publish(publish) => {
                    early.push(Arrived::of(publish)); // what waited in the session
                    Ok(true)
                }
                _ => Err(Lost::Garbage("a packet that nobody asked for".to_owned())),
            })?;
            early.into_iter().for_each(|arrived| self.arrive(arrived, session));
            match answer.take() {
                Some(None) => return Ok(()),
                Some(Some(refused)) => {
                    return Err(Lost::Link(format!("the broker refuses the subscription {refused}")));
                }
                None => {}
            }
        }
    }

    /// Takes what has come.
    fn take(&mut self, session: &mut Session) -> Result<(), Lost> {
        let mut arrived = Vec::new();
        session.packets(|packet| match packet {
            Packet::Publish(publish) => {
                arrived.push(Arrived::of(publish));
                Ok(true)
            }
            _ => Err(Lost::Garbage("a packet that nobody asked for".to_owned())),
        })?;
        arrived.into_iter().for_each(|arrived| self.arrive(arrived, session));
        Ok(())
    }

    fn arrive(&mut self, Arrived { id, mut parcel }: Arrived, session: &mut Session) {
        self.report.received();
        let number = self.next;
        self.next += 1;
        let ours = parcel.user_property(ORIGIN) == Some(&self.settings.process);
        let hops = parcel.user_property(HOPS).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        if self.settings.mqtt.retain == Retain::Never {
            parcel.retain = false;
        }
        let ticket = self.tickets.issue(number);
        self.unacknowledged.extend(id.map(|id| Unacknowledged { number, id, done: false }));
        match ours || hops >= HOPS_MAX {
            // It went round in a circle: it is done with.
            true => {
                drop(ticket);
                let done = self.tickets.take();
                self.acknowledge(&done, session);
            }
            false => self.waiting.push_back((parcel, ticket)),
        }
    }

    /// These are done with: what is in front is acknowledged.
    fn acknowledge(&mut self, done: &[u64], session: &mut Session) {
        for number in done {
            // The numbers grow; those of a connection before are not there.
            if let Ok(at) = self.unacknowledged.binary_search_by_key(number, |waiting| waiting.number) {
                self.unacknowledged[at].done = true;
            }
        }
        while self.unacknowledged.front().is_some_and(|front| front.done) {
            let Some(front) = self.unacknowledged.pop_front() else { return };
            let version = session.version;
            session.push(|out| PubAck::new(front.id).encode(version, out));
        }
    }

    /// The data flow stops: what it has in it is acknowledged if that is soon done.
    async fn finish(&mut self, mut session: Session) {
        // Not given to the data flow: the broker sends it again, to whom it may concern.
        let given = self.waiting.front().map(|(_, ticket)| ticket.number());
        self.unacknowledged.retain(|it| given.is_none_or(|given| it.number < given));
        let last = async {
            while !self.unacknowledged.is_empty() || !session.is_written() {
                tokio::select! {
                    turned = session.turn() => {
                        if turned.is_err() || session.packets(|_| Ok(true)).is_err() {
                            return;
                        }
                    }
                    done = self.tickets.next() => self.acknowledge(&done, &mut session),
                }
            }
        };
        let _ = tokio::time::timeout(LAST, last).await;
        session.close().await;
    }
}

/// A PUBLISH, out of the bytes it came in.
struct Arrived {
    id: Option<PacketId>,
    parcel: Parcel,
}

impl Arrived {
    fn of(publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        let expires =
            properties.message_expiry.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        let parcel = Parcel {
            topic: publish.topic.to_owned(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos as u8,
            retain: publish.retain,
            utf8: properties.payload_format,
            content_type: text(properties.content_type),
            response_topic: text(properties.response_topic),
            correlation_data: properties.correlation_data.map(Bytes::copy_from_slice),
            expires,
            user_properties: properties
                .user_properties()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        };
        Self { id: publish.packet_id, parcel }
    }
}

//! Messages to a topic of Kafka: each kept until the cluster says that it has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use config::resource::common::OperationalMode;
use config::resource::endpoint::{KafkaSettings, PartitionStrategy};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use tokio::sync::mpsc;

use super::trouble::Trouble;
use super::{headers, settings};
use crate::{
    Backoff, Destination, Health, Outward, Receiver, Rejection, Report, Running, Shipment, Unusable,
    cloud_events,
};

const CONFIGURATION: &str = "DataflowKafkaTargetConfigurationError";
const CONNECTION: &str = "DataflowKafkaTargetConnectionFailed";
const UNREACHABLE: &str = "DataflowKafkaTargetEndpointUnreachable";
const SEND: &str = "DataflowKafkaTargetSendFailed";
/// Messages that librdkafka has at once.
const UNDER_WAY_MAX: usize = 10_000;
/// How often a message is tried that the cluster refuses for a reason that may pass.
const TRIES_MAX: u32 = 10;
/// How often a cluster that was away is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long the cluster may take to say what it is.
const METADATA_MAX: Duration = Duration::from_secs(10);

/// A topic of Kafka as a destination.
pub struct KafkaDestination {
    config: ClientConfig,
    settings: KafkaSettings,
    topic: String,
    process: String,
    endpoint: String,
}

impl KafkaDestination {
    /// The destination that `outward` names.
    ///
    /// # Errors
    /// The endpoint cannot be used as it is.
    pub fn new(outward: &Outward) -> Result<Self, Unusable> {
        let unusable =
            |why: String| Unusable { code: CONFIGURATION, why: format!("{}: {why}", outward.endpoint.id) };
        let kafka =
            settings::of(&outward.endpoint).ok_or_else(|| unusable("it is no Kafka endpoint".to_owned()))?;
        if kafka.partition_strategy == PartitionStrategy::Property && kafka.partition_key_property.is_none() {
            return Err(unusable("`partitionStrategy: Property` needs `partitionKeyProperty`".to_owned()));
        }
        let mut config = settings::common(&outward.endpoint, kafka, &outward.instance, CONFIGURATION)?;
        settings::producing(kafka, &mut config);
        Ok(Self {
            config,
            settings: kafka.clone(),
            topic: outward.target.clone(),
            process: outward.instance.process.clone(),
            endpoint: outward.endpoint.id.name.clone(),
        })
    }
}

impl Destination for KafkaDestination {
    fn run(self: Box<Self>, shipments: Receiver, report: Report) -> Running {
        Box::pin(async move {
            let mut backoff = Backoff::default();
            let mut sending = Sending { own: *self, shipments, report, again: Vec::new(), ended: false };
            while !sending.is_over() {
                match sending.serve().await {
                    Ok(()) => return,
                    Err((code, why)) => sending.report.unavailable(code, why),
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        })
    }
}

/// A message that librdkafka has.
struct UnderWay {
    number: u64,
    shipment: Shipment,
    tries: u32,
}

/// What librdkafka's thread tells.
struct Context {
    report: Report,
    /// What failed, and why.
    failed: mpsc::UnboundedSender<(UnderWay, RDKafkaErrorCode)>,
    under_way: Arc<AtomicUsize>,
    trouble: Arc<Trouble>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        let code = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve) => UNREACHABLE,
            _ => CONNECTION,
        };
        self.report.unavailable(code, self.trouble.explain(&error, reason));
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<UnderWay>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        match result {
            Ok(_) => {
                self.report.available();
                self.report.delivered(opaque.shipment);
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                // Only when nobody waits for it any more; the message is not done with then.
                if let Err(lost) = self.failed.send((*opaque, code)) {
                    std::mem::forget(lost.0.0.shipment);
                }
            }
        }
    }
}

struct Sending {
    own: KafkaDestination,
    shipments: Receiver,
    report: Report,
    /// To be sent again, in their order.
    again: Vec<UnderWay>,
    ended: bool,
}

/// A producer, and what it tells.
struct Line {
    producer: ThreadedProducer<Context>,
    failed: mpsc::UnboundedReceiver<(UnderWay, RDKafkaErrorCode)>,
    under_way: Arc<AtomicUsize>,
    next: u64,
}

impl Sending {
    fn is_over(&self) -> bool {
        self.ended && self.again.is_empty()
    }

    /// One producer's life; ends well when everything is delivered and nothing more comes.
    async fn serve(&mut self) -> Result<(), (&'static str, String)> {
        let mut line = self.connect().await?;
        let mut failures: Vec<(UnderWay, RDKafkaErrorCode)> = Vec::new();
        let mut probes = tokio::time::interval(PROBE_EVERY);
        for waiting in std::mem::take(&mut self.again) {
            self.send(&mut line, waiting.shipment, waiting.tries);
        }
        loop {
            let under_way = line.under_way.load(Ordering::Acquire);
            if under_way == 0 && !failures.is_empty() {
                return self.after_failure(failures);
            }
            if self.ended && under_way == 0 && self.again.is_empty() {
                return Ok(());
            }
            let room = failures.is_empty() && !self.ended && under_way < UNDER_WAY_MAX;
            tokio::select! {
                biased;
                failed = line.failed.recv() => failures.extend(failed),
                next = self.shipments.next(), if room => match next {
                    Some(shipment) => self.send(&mut line, shipment, 0),
                    None => self.ended = true,
                },
                _ = probes.tick() => self.probe(&line.producer),
                // Room is made in another thread.
                () = tokio::time::sleep(Duration::from_millis(5)), if !room => {}
            }
            if let Some((error, why)) = line.producer.client().fatal_error() {
                tracing::debug!(?error, "the producer is begun anew");
                failures.extend(std::iter::from_fn(|| line.failed.try_recv().ok()));
                self.report.unavailable(SEND, why);
            }
        }
    }

    /// A cluster that is there again is noticed, although nothing goes there.
    fn probe(&self, producer: &ThreadedProducer<Context>) {
        if !matches!(self.report.health(), Health::Unavailable { .. }) {
            return;
        }
        let (producer, report) = (producer.clone(), self.report.clone());
        tokio::task::spawn_blocking(move || {
            if producer.client().fetch_metadata(None, PROBE_MAX).is_ok() {
                report.available();
            }
        });
    }

    async fn connect(&self) -> Result<Line, (&'static str, String)> {
        let (failed, receiver) = mpsc::unbounded_channel();
        let (under_way, trouble) = (Arc::new(AtomicUsize::new(0)), Arc::new(Trouble::default()));
        let context = Context {
            report: self.report.clone(),
            failed,
            under_way: Arc::clone(&under_way),
            trouble: Arc::clone(&trouble),
        };
        let (config, topic) = (self.own.config.clone(), self.own.topic.clone());
        // Looking the cluster up holds a thread up.
        let made = tokio::task::spawn_blocking(move || {
            let producer = ThreadedProducer::from_config_and_context(&config, context)
                .map_err(|error| (CONFIGURATION, error.to_string()))?;
            let found = producer.client().fetch_metadata(Some(&topic), METADATA_MAX);
            found.map_err(|error| (CONNECTION, trouble.last().unwrap_or_else(|| error.to_string())))?;
            Ok(producer)
        });
        let producer = made.await.map_err(|error| (CONNECTION, error.to_string()))??;
        self.report.available();
        Ok(Line { producer, failed: receiver, under_way, next: 0 })
    }

    /// Gives a message to librdkafka; or says why it never can be.
    fn send(&mut self, line: &mut Line, shipment: Shipment, tries: u32) {
        let Some(mut shipment) = self.report.unless_expired(shipment) else { return };
        if tries == 0
            && let Some(attributes) = self.own.settings.cloud_event_attributes
        {
            cloud_events::apply(&mut shipment.parcel, attributes, &self.own.endpoint, &self.own.topic);
        }
        let key = self.key(&shipment);
        let parcel = &shipment.parcel;
        let said = (self.own.settings.copy_mqtt_properties == OperationalMode::Enabled)
            .then(|| headers::of(parcel, Instant::now()));
        let payload = parcel.payload.clone();
        let number = line.next;
        line.next += 1;
        let waiting = Box::new(UnderWay { number, shipment, tries });
        let mut record = BaseRecord::with_opaque_to(&self.own.topic, waiting).payload(&payload[..]);
        record.headers = said;
        if let Some(key) = &key {
            record = record.key(key.as_bytes());
        }
        line.under_way.fetch_add(1, Ordering::AcqRel);
        if let Err((error, record)) = line.producer.send(record) {
            line.under_way.fetch_sub(1, Ordering::AcqRel);
            let waiting = *record.delivery_opaque;
            match error.rdkafka_error_code() {
                Some(code) if never(code) => self.reject(waiting.shipment, code),
                _ => self.again.push(waiting),
            }
        }
    }

    /// What decides about the partition; nothing for any.
    fn key(&self, shipment: &Shipment) -> Option<String> {
        let parcel = &shipment.parcel;
        match self.own.settings.partition_strategy {
            PartitionStrategy::Default => None,
            PartitionStrategy::Static => Some(self.own.process.clone()),
            PartitionStrategy::Topic => Some(parcel.topic.clone()),
            PartitionStrategy::Property => {
                let name = self.own.settings.partition_key_property.as_deref()?;
                parcel.user_property(name).map(ToOwned::to_owned)
            }
        }
    }

    fn reject(&self, shipment: Shipment, code: RDKafkaErrorCode) {
        let reason = if code == RDKafkaErrorCode::MessageSizeTooLarge { "too-large" } else { "refused" };
        self.report.rejected(shipment, &Rejection { reason, why: format!("Kafka refuses it: {code}") });
    }

    /// All that failed goes out again in its order, but for what never can.
    fn after_failure(
        &mut self,
        mut failures: Vec<(UnderWay, RDKafkaErrorCode)>,
    ) -> Result<(), (&'static str, String)> {
        failures.sort_by_key(|(waiting, _)| waiting.number);
        let mut last = None;
        for (mut waiting, code) in failures {
            waiting.tries += 1;
            if never(code) || waiting.tries >= TRIES_MAX {
                self.reject(waiting.shipment, code);
                continue;
            }
            self.report.retried();
            last = Some(code);
            self.again.push(waiting);
        }
        match last {
            Some(code) => Err((SEND, format!("Kafka does not take messages now: {code}"))),
            None => Err((SEND, "Kafka refused messages".to_owned())),
        }
    }
}

/// Whether a message that fails so always will.
fn never(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

//! Messages from topics of Kafka, as a member of a consumer group: offsets are committed when what was derived is delivered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::resource::common::OperationalMode;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::offsets::{Offsets, Partition};
use super::trouble::{Trouble, is_told};
use super::{headers, settings};
use crate::{Backoff, Health, Intake, Inward, Parcel, Report, Running, Source, Ticket, Tickets, Unusable};

const CONNECTION: &str = "DataflowKafkaSourceConnectionFailed";
/// With more than this in front of the data flow, partitions are paused.
const WAITING_HIGH: usize = 1024;
/// With less, they go on.
const WAITING_LOW: usize = 256;
/// How often offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// How often a cluster that was away is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// How long it may take to answer.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long what is under way may take when partitions go to somebody else, or the data flow stops.
const LAST: Duration = Duration::from_secs(2);

/// Topics of Kafka as a source.
pub struct KafkaSource {
    config: ClientConfig,
    topics: Vec<String>,
    reads_headers: bool,
}

impl KafkaSource {
    /// The source that `inward` names.
    ///
    /// # Errors
    /// The endpoint cannot be used as it is.
    pub fn new(inward: &Inward) -> Result<Self, Unusable> {
        let unusable =
            |why: &str| Unusable { code: CONNECTION, why: format!("{}: {why}", inward.endpoint.id) };
        let kafka = settings::of(&inward.endpoint).ok_or_else(|| unusable("it is no Kafka endpoint"))?;
        let missing = "Kafka type source endpoints must have a consumerGroupId defined";
        let group = kafka.consumer_group_id.as_deref().ok_or_else(|| unusable(missing))?;
        let mut config = settings::common(&inward.endpoint, kafka, &inward.instance, CONNECTION)?;
        settings::consuming(group, &inward.instance, &mut config);
        let reads_headers = kafka.copy_mqtt_properties == OperationalMode::Enabled;
        Ok(Self { config, topics: inward.data_sources.clone(), reads_headers })
    }
}

impl Source for KafkaSource {
    fn run(self: Box<Self>, intake: Intake, report: Report) -> Running {
        Box::pin(async move {
            let mut backoff = Backoff::default();
            loop {
                let receiving = Receiving::new(&self, intake.clone(), report.clone());
                match receiving {
                    Ok(mut receiving) => match receiving.run().await {
                        Ok(()) => return,
                        Err(error) => report.unavailable(CONNECTION, error.to_string()),
                    },
                    Err(error) => report.unavailable(CONNECTION, error.to_string()),
                }
                tokio::select! {
                    () = intake.stopped() => return,
                    () = tokio::time::sleep(backoff.wait()) => {}
                }
            }
        })
    }
}

/// What is shared with librdkafka's callbacks.
struct Shared {
    offsets: Mutex<Offsets>,
    tickets: Tickets,
    report: Report,
    trouble: Trouble,
}

impl Shared {
    /// Waits until nothing of these partitions is under way, for a while; holds the thread up.
    fn wait_for(&self, partitions: &[Partition]) {
        let deadline = Instant::now() + LAST;
        loop {
            let mut offsets = self.offsets.lock();
            offsets.done(&self.tickets.take());
            if !offsets.are_under_way(partitions) || Instant::now() >= deadline {
                return;
            }
            drop(offsets);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What may be committed and is not.
    fn to_commit(&self) -> Option<TopicPartitionList> {
        let mut offsets = self.offsets.lock();
        offsets.done(&self.tickets.take());
        let reached = offsets.take_reached();
        let mut list = TopicPartitionList::with_capacity(reached.len());
        for ((topic, partition), offset) in &reached {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).ok()?;
        }
        (!reached.is_empty()).then_some(list)
    }
}

/// What librdkafka tells of the group.
struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // One broker of several may come and go.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            self.0.report.unavailable(CONNECTION, self.0.trouble.explain(&error, reason));
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let partitions: Vec<Partition> =
            list.elements().iter().map(|it| (it.topic().to_owned(), it.partition())).collect();
        self.0.wait_for(&partitions);
        if let Some(list) = self.0.to_commit()
            && let Err(error) = consumer.commit(&list, CommitMode::Sync)
        {
            tracing::warn!("offsets cannot be committed; what is done with will come again: {error}");
        }
        self.0.offsets.lock().forget(&partitions);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        tracing::warn!("offsets cannot be committed yet; they are with the next ones: {error}");
        let mut own = self.0.offsets.lock();
        for element in offsets.elements() {
            if let Offset::Offset(offset) = element.offset() {
                own.put_back(&(element.topic().to_owned(), element.partition()), offset);
            }
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => self.0.report.available(),
            Rebalance::Error(error) => self.0.report.unavailable(CONNECTION, error.to_string()),
            Rebalance::Revoke(_) => {}
        }
    }
}

struct Receiving {
    consumer: Arc<StreamConsumer<Context>>,
    shared: Arc<Shared>,
    intake: Intake,
    /// In front of the data flow.
    waiting: VecDeque<(Parcel, Ticket)>,
    paused: bool,
    reads_headers: bool,
}

impl Receiving {
    fn new(source: &KafkaSource, intake: Intake, report: Report) -> Result<Self, KafkaError> {
        let shared = Arc::new(Shared {
            offsets: Mutex::default(),
            tickets: Tickets::new(),
            report,
            trouble: Trouble::default(),
        });
        let consumer = StreamConsumer::from_config_and_context(&source.config, Context(Arc::clone(&shared)))?;
        let topics: Vec<&str> = source.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        let consumer = Arc::new(consumer);
        Ok(Self {
            consumer,
            shared,
            intake,
            waiting: VecDeque::new(),
            paused: false,
            reads_headers: source.reads_headers,
        })
    }

    /// Ends well when the data flow stops.
    async fn run(&mut self) -> Result<(), KafkaError> {
        let (consumer, intake, shared) =
            (Arc::clone(&self.consumer), self.intake.clone(), Arc::clone(&self.shared));
        let (mut commits, mut probes) =
            (tokio::time::interval(COMMIT_EVERY), tokio::time::interval(PROBE_EVERY));
        loop {
            tokio::select! {
                () = intake.stopped() => break,
                came = consumer.recv() => match came {
                    Ok(message) => self.arrive(&message),
                    Err(error) if is_fatal(&error) => return Err(error),
                    Err(error) if is_told(&error) => {}
                    Err(error) => shared.report.unavailable(CONNECTION, error.to_string()),
                },
                room = intake.room(), if !self.waiting.is_empty() => {
                    let Ok(room) = room else { break };
                    if let Some((parcel, ticket)) = self.waiting.pop_front() {
                        room.push(parcel, ticket);
                    }
                }
                _ = commits.tick() => self.commit(),
                _ = probes.tick() => probe(&consumer, &shared.report),
            }
            self.pace()?;
        }
        self.finish().await;
        Ok(())
    }

    fn arrive(&mut self, message: &BorrowedMessage<'_>) {
        self.shared.report.available();
        self.shared.report.received();
        let mut parcel = Parcel {
            topic: message.topic().to_owned(),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            qos: 1,
            ..Parcel::default()
        };
        if self.reads_headers {
            headers::read(message.headers(), message.key(), message.timestamp().to_millis(), &mut parcel);
        }
        let partition = (message.topic().to_owned(), message.partition());
        let number = self.shared.offsets.lock().begin(&partition, message.offset());
        self.waiting.push_back((parcel, self.shared.tickets.issue(number)));
    }

    /// Nothing more is asked for while much waits; the group is kept up in any case.
    fn pace(&mut self) -> Result<(), KafkaError> {
        if !self.paused && self.waiting.len() > WAITING_HIGH {
            self.consumer.pause(&self.consumer.assignment()?)?;
            self.paused = true;
        } else if self.paused && self.waiting.len() < WAITING_LOW {
            self.consumer.resume(&self.consumer.assignment()?)?;
            self.paused = false;
        }
        Ok(())
    }

    /// How it ends is told to [`Context::commit_callback`].
    fn commit(&self) {
        let Some(list) = self.shared.to_commit() else { return };
        let started = self.consumer.commit(&list, CommitMode::Async);
        if started.is_err() {
            self.consumer.context().commit_callback(started, &list);
        }
    }

    /// The data flow stops: what it has in it is committed if that is soon done.
    async fn finish(&mut self) {
        // Not given to the data flow: somebody else gets it.
        let abandoned: Vec<u64> = self.waiting.iter().map(|(_, ticket)| ticket.number()).collect();
        self.shared.offsets.lock().abandon(&abandoned);
        self.waiting.clear();
        let (shared, consumer) = (Arc::clone(&self.shared), Arc::clone(&self.consumer));
        let last = tokio::task::spawn_blocking(move || {
            let all = shared.offsets.lock().all();
            shared.wait_for(&all);
            shared.to_commit().map_or(Ok(()), |list| consumer.commit(&list, CommitMode::Sync))
        });
        if let Ok(Err(error)) = last.await {
            tracing::warn!("offsets cannot be committed; what is done with will come again: {error}");
        }
    }
}

/// A cluster that is there again is noticed, although nothing comes.
fn probe(consumer: &Arc<StreamConsumer<Context>>, report: &Report) {
    if !matches!(report.health(), Health::Unavailable { .. }) {
        return;
    }
    let (consumer, report) = (Arc::clone(consumer), report.clone());
    tokio::task::spawn_blocking(move || {
        if consumer.fetch_metadata(None, PROBE_MAX).is_ok() {
            report.available();
        }
    });
}

/// Whether a consumer can do nothing more after this.
fn is_fatal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

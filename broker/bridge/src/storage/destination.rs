//! Messages to storage, in batches: each kept until its batch is there.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_array::RecordBatch;
use config::resource::endpoint::{EndpointSettings, StorageBatching};
use config::resource::graph::OutputFormat;
use uuid::Uuid;

use super::azure::{self, Container};
use super::local::Directory;
use super::record::{self, Row};
use super::schema::Schema;
use super::{columns, files};
use crate::batch::{self, BatchLimits, Ready};
use crate::{Backoff, Destination, Output, Outward, Receiver, Rejection, Report, Running, Unusable};

/// One batch in memory, bytes; less when the queue is smaller.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// A batch could not be written; it is tried again.
#[derive(Debug)]
pub struct Fault {
    /// AIO's reason code (AIO.md §9.7).
    pub code: &'static str,
    /// What is wrong and what to do about it.
    pub why: String,
}

/// Storage as a destination.
pub struct StorageDestination {
    schema: Arc<Schema>,
    limits: BatchLimits,
    target: Target,
    /// What the names of its files begin with.
    prefix: String,
}

/// Where batches go.
enum Target {
    /// Files in a directory.
    Directory(Directory),
    /// Files in a container.
    Container(Container),
    /// A table in a container.
    #[cfg(feature = "delta")]
    Table(Box<super::delta::Table>),
}

impl StorageDestination {
    /// The destination that `outward` names.
    ///
    /// # Errors
    /// The endpoint, or the schema, cannot be used as it is.
    pub fn new(outward: &Outward) -> Result<Self, Unusable> {
        let endpoint = &outward.endpoint;
        let unusable =
            |why: String| Unusable { code: azure::CONFIGURATION, why: format!("{}: {why}", endpoint.id) };
        let output = outward.output.as_ref();
        let output = output.ok_or_else(|| unusable("`outputSchemaSettings` is missing".to_owned()))?;
        let schema = Schema::read(&output.schema).map_err(|why| Unusable {
            code: "DataflowTransformTargetSchemaRetrievalFailed",
            why: format!("the schema {} cannot be written: {why}", output.reference),
        })?;
        let schema = Arc::new(schema);
        let target = Target::new(outward, output, &schema).map_err(unusable)?;
        let unsaid = StorageBatching::default();
        let batching = match &endpoint.settings {
            EndpointSettings::DataLakeStorage(lake) => &lake.batching,
            EndpointSettings::FabricOneLake(lake) => &lake.batching,
            _ => &unsaid,
        };
        let latency = Duration::from_secs(batching.latency_seconds.into());
        let limits = BatchLimits {
            latency: endpoint.batch_latency.unwrap_or(latency),
            messages_max: usize::try_from(batching.max_messages).unwrap_or(usize::MAX).max(1),
            bytes_max: BATCH_BYTES_MAX,
        };
        Ok(Self { schema, limits, target, prefix: files::prefix(&outward.instance) })
    }
}

impl Target {
    fn new(outward: &Outward, output: &Output, schema: &Schema) -> Result<Self, String> {
        let endpoint = &outward.endpoint;
        let parquet = output.format == OutputFormat::Parquet;
        if let EndpointSettings::LocalStorage(volume) = &endpoint.settings {
            return match parquet {
                true => Ok(Self::Directory(Directory::new(outward, volume)?)),
                false => Err("local storage is written as Parquet; Delta is for Azure".to_owned()),
            };
        }
        let container = Container::new(endpoint, &outward.target)?;
        match parquet {
            true => Ok(Self::Container(container)),
            #[cfg(feature = "delta")]
            false => Ok(Self::Table(Box::new(super::delta::Table::new(container, schema)?))),
            #[cfg(not(feature = "delta"))]
            false => {
                let _ = schema;
                Err("this build of forebay does not write Delta; one made with `--features delta` does"
                    .to_owned())
            }
        }
    }

    /// Whether it is there.
    async fn look(&self) -> Result<(), Fault> {
        match self {
            Self::Directory(directory) => directory.open().await,
            Self::Container(container) => container.look().await,
            #[cfg(feature = "delta")]
            Self::Table(table) => table.look().await,
        }
    }

    /// Writes a batch: it is there as a whole, and stays, or it is not.
    async fn write(&mut self, name: &str, rows: &RecordBatch) -> Result<(), Fault> {
        match self {
            Self::Directory(directory) => directory.write(name, files::parquet(rows).await?).await,
            Self::Container(container) => container.write(name, files::parquet(rows).await?).await,
            #[cfg(feature = "delta")]
            Self::Table(table) => table.append(name, rows).await,
        }
    }
}

impl Destination for StorageDestination {
    fn run(self: Box<Self>, shipments: Receiver, report: Report) -> Running {
        Box::pin(async move {
            let mut own = *self;
            let queue = shipments.limits();
            own.limits.bytes_max = own.limits.bytes_max.min(queue.bytes_max / 4).max(1);
            own.limits.messages_max = own.limits.messages_max.min(queue.messages_max / 4).max(1);
            Writing { own, shipments, report, backoff: Backoff::default() }.run().await;
        })
    }
}

struct Writing {
    own: StorageDestination,
    shipments: Receiver,
    report: Report,
    backoff: Backoff,
}

impl Writing {
    async fn run(mut self) {
        // What is not there is told of before there is anything to write.
        match self.own.target.look().await {
            Ok(()) => self.report.available(),
            Err(Fault { code, why }) => self.report.unavailable(code, why),
        }
        loop {
            let schema = Arc::clone(&self.own.schema);
            let read = |parcel: &crate::Parcel| {
                let rows = record::rows(&parcel.payload, &schema);
                let rows = rows.map_err(|why| Rejection { reason: "payload", why })?;
                let size = rows.iter().map(|row| record::size(row)).sum();
                Ok((rows, size))
            };
            let batch = batch::gather(&mut self.shipments, &self.report, &self.own.limits, read).await;
            let Some(batch) = batch else { return };
            self.deliver(batch).await;
        }
    }

    /// Writes a batch, as often as it takes.
    async fn deliver(&mut self, batch: Vec<Ready<Vec<Row>>>) {
        let rows: Vec<&Row> = batch.iter().flat_map(|ready| &ready.made).collect();
        match columns::batch(&self.own.schema, &rows) {
            Ok(rows) if rows.num_rows() > 0 => self.write(&rows).await,
            Ok(_) => {}
            Err(error) => {
                let rejection =
                    Rejection { reason: "payload", why: format!("no columns can be made of it: {error}") };
                batch.into_iter().for_each(|ready| self.report.rejected(ready.shipment, &rejection));
                return;
            }
        }
        batch.into_iter().for_each(|ready| self.report.delivered(ready.shipment));
    }

    async fn write(&mut self, rows: &RecordBatch) {
        let name = files::name(&self.own.prefix, SystemTime::now(), Uuid::new_v4());
        while let Err(Fault { code, why }) = self.own.target.write(&name, rows).await {
            self.report.retried();
            self.report.unavailable(code, why);
            tokio::time::sleep(self.backoff.wait()).await;
        }
        self.backoff.reset();
        self.report.available();
    }
}

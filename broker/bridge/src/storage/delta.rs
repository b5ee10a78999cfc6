//! A Delta table in a container: each batch is one file, and one commit that adds it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use deltalake_core::DeltaTable;
use deltalake_core::errors::DeltaTableError;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::CommitBuilder;
use deltalake_core::kernel::{Action, Add, StructType};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::builder::DeltaTableBuilder;
use deltalake_core::writer::RecordBatchWriter;
use object_store::prefix::PrefixStore;
use url::Url;

use super::azure::{Container, told};
use super::destination::Fault;
use super::files;
use super::schema::Schema;

const CONFIGURATION: &str = "DataflowDeltaLakeTargetConfigurationError";
const AUTHENTICATION: &str = "DataflowDeltaLakeTargetAuthenticationFailed";
const SEND: &str = "DataflowDeltaLakeTargetSendFailed";

/// A table that batches are appended to. It is made if it is not there.
pub struct Table {
    container: Container,
    columns: StructType,
    location: Url,
    open: Option<DeltaTable>,
}

impl Table {
    /// The table in this place.
    pub fn new(container: Container, schema: &Schema) -> Result<Self, String> {
        // Of use inside the library only: what it reaches is the store that it is given.
        let location = Url::parse("memory:///").map_err(|error| error.to_string())?;
        let arrow: ArrowSchema = schema.arrow();
        let columns = (&arrow).try_into_kernel();
        let columns =
            columns.map_err(|error: ArrowError| format!("the schema cannot be that of a table: {error}"))?;
        Ok(Self { container, columns, location, open: None })
    }

    /// Whether it can be reached.
    pub async fn look(&self) -> Result<(), Fault> {
        self.container.look().await.map_err(as_table)
    }

    /// Appends a batch in one commit. A file that no commit adds is no part of the table.
    pub async fn append(&mut self, name: &str, rows: &RecordBatch) -> Result<(), Fault> {
        let table = match self.open.take() {
            Some(table) => table,
            None => self.open().await.map_err(|error| self.fault(&error))?,
        };
        self.check(&table)?;
        let bytes = files::parquet(rows).await?;
        let add = added(name, bytes.len(), rows.num_rows());
        self.container.write(name, bytes).await.map_err(as_table)?;
        // After a fault it is read anew: somebody else may have written.
        self.open = Some(commit(table, add).await.map_err(|error| self.fault(&error))?);
        Ok(())
    }

    async fn open(&self) -> Result<DeltaTable, DeltaTableError> {
        let store = Arc::new(PrefixStore::new(self.container.store(), self.container.folder.clone()));
        let builder = DeltaTableBuilder::from_url(self.location.clone())?;
        let mut table = builder.with_storage_backend(store, self.location.clone()).build()?;
        if table.verify_deltatable_existence().await? {
            table.load().await?;
            return Ok(table);
        }
        CreateBuilder::new()
            .with_log_store(table.log_store())
            .with_columns(self.columns.fields().cloned())
            .with_save_mode(SaveMode::Ignore)
            .await
    }

    /// Whether what is written here may be added to that table: somebody else may have made it.
    fn check(&self, table: &DeltaTable) -> Result<(), Fault> {
        let other = |why: String| Fault { code: CONFIGURATION, why };
        // Says what the table asks of its writers that is not done here.
        RecordBatchWriter::for_table(table).map_err(|error| other(told(&error.to_string())))?;
        let state = table.snapshot().map_err(|error| self.fault(&error))?;
        let partitions = state.metadata().partition_columns();
        if !partitions.is_empty() {
            return Err(other(format!(
                "the table is partitioned by {}; write to one that is not",
                partitions.join(", ")
            )));
        }
        let there = state.schema();
        for column in self.columns.fields() {
            match there.field(column.name()) {
                Some(field) if field.data_type() == column.data_type() => {}
                Some(field) => {
                    return Err(other(format!(
                        "the table has another schema: `{}` is {} there and {} here",
                        column.name(),
                        field.data_type(),
                        column.data_type()
                    )));
                }
                None => {
                    return Err(other(format!(
                        "the table has another schema: there is no `{}`",
                        column.name()
                    )));
                }
            }
        }
        let missing =
            there.fields().find(|field| !field.is_nullable() && self.columns.field(field.name()).is_none());
        match missing {
            Some(field) => {
                Err(other(format!("the table has another schema: it must have `{}`", field.name())))
            }
            None => Ok(()),
        }
    }

    fn fault(&self, error: &DeltaTableError) -> Fault {
        match error {
            DeltaTableError::ObjectStore { source } => as_table(self.container.fault(source)),
            other => Fault { code: SEND, why: told(&other.to_string()) },
        }
    }
}

/// The action that adds a file to a table.
fn added(name: &str, bytes: usize, rows: usize) -> Action {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Action::Add(Add {
        path: name.to_owned(),
        partition_values: HashMap::new(),
        size: i64::try_from(bytes).unwrap_or(i64::MAX),
        modification_time: i64::try_from(now).unwrap_or(i64::MAX),
        data_change: true,
        stats: Some(format!("{{\"numRecords\":{rows}}}")),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}

/// The table with the file in it. Whoever commits meanwhile is no matter: nothing is read here, and nothing removed.
async fn commit(mut table: DeltaTable, add: Action) -> Result<DeltaTable, DeltaTableError> {
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let done = CommitBuilder::default()
        .with_actions(vec![add])
        .build(Some(table.snapshot()?), table.log_store(), operation)
        .await?;
    table.state = Some(done.snapshot());
    Ok(table)
}

/// What is wrong with a container, in the words for tables.
fn as_table(Fault { code, why }: Fault) -> Fault {
    let code = match code {
        code if code.ends_with("AuthenticationFailed") => AUTHENTICATION,
        code if code.ends_with("ConfigurationError") => CONFIGURATION,
        _ => SEND,
    };
    Fault { code, why }
}

//! A Delta table in a container: each batch is one commit.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use deltalake_core::DeltaTable;
use deltalake_core::errors::DeltaTableError;
use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::table::builder::DeltaTableBuilder;
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter};
use object_store::prefix::PrefixStore;
use url::Url;

use super::azure::{Container, told};
use super::destination::Fault;
use super::schema::Schema;

const CONFIGURATION: &str = "DataflowDeltaLakeTargetConfigurationError";
const AUTHENTICATION: &str = "DataflowDeltaLakeTargetAuthenticationFailed";
const SEND: &str = "DataflowDeltaLakeTargetSendFailed";

/// A table that batches are appended to. It is made if it is not there.
pub struct Table {
    container: Container,
    schema: Arc<Schema>,
    location: Url,
    open: Option<DeltaTable>,
}

impl Table {
    /// The table in this place.
    pub fn new(container: Container, schema: Arc<Schema>) -> Result<Self, String> {
        // Of use inside the library only: what it reaches is the store that it is given.
        let location = Url::parse("memory:///").map_err(|error| error.to_string())?;
        Ok(Self { container, schema, location, open: None })
    }

    /// Whether it can be reached.
    pub async fn look(&self) -> Result<(), Fault> {
        self.container.look().await.map_err(|fault| Fault { code: code(fault.code), why: fault.why })
    }

    /// Appends a batch in one commit.
    pub async fn append(&mut self, rows: &RecordBatch) -> Result<(), Fault> {
        let mut table = match self.open.take() {
            Some(table) => table,
            None => self.open().await.map_err(|error| self.fault(&error))?,
        };
        // After a fault it is read anew: somebody else may have written.
        let appended = append(&mut table, rows).await.map_err(|error| self.fault(&error));
        if appended.is_ok() {
            self.open = Some(table);
        }
        appended
    }

    async fn open(&self) -> Result<DeltaTable, DeltaTableError> {
        let store = Arc::new(PrefixStore::new(self.container.store(), self.container.folder.clone()));
        let builder = DeltaTableBuilder::from_url(self.location.clone())?;
        let mut table = builder.with_storage_backend(store, self.location.clone()).build()?;
        if table.verify_deltatable_existence().await? {
            table.load().await?;
            return Ok(table);
        }
        let arrow: ArrowSchema = self.schema.arrow();
        let kernel: StructType = (&arrow).try_into_kernel().map_err(|error: ArrowError| {
            DeltaTableError::Generic(format!("the schema cannot be that of a table: {error}"))
        })?;
        CreateBuilder::new()
            .with_log_store(table.log_store())
            .with_columns(kernel.fields().cloned())
            .with_save_mode(SaveMode::Ignore)
            .await
    }

    fn fault(&self, error: &DeltaTableError) -> Fault {
        match error {
            DeltaTableError::ObjectStore { source } => {
                let Fault { code: of_store, why } = self.container.fault(source);
                Fault { code: code(of_store), why }
            }
            DeltaTableError::SchemaMismatch { msg } => {
                Fault { code: CONFIGURATION, why: format!("the table has another schema: {}", told(msg)) }
            }
            other => Fault { code: SEND, why: told(&other.to_string()) },
        }
    }
}

async fn append(table: &mut DeltaTable, rows: &RecordBatch) -> Result<(), DeltaTableError> {
    let mut writer = RecordBatchWriter::for_table(table)?;
    writer.write(rows.clone()).await?;
    writer.flush_and_commit(table).await?;
    Ok(())
}

fn code(of_store: &str) -> &'static str {
    match of_store {
        code if code.ends_with("AuthenticationFailed") => AUTHENTICATION,
        code if code.ends_with("ConfigurationError") => CONFIGURATION,
        _ => SEND,
    }
}

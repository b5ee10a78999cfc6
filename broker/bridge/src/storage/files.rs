//! Parquet files and what they are called.

use std::time::SystemTime;

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use super::azure;
use super::destination::Fault;
use crate::Instance;

/// What the names of the files of a writer begin with; no other writer's do.
pub fn prefix(instance: &Instance) -> String {
    let Instance { namespace, graph, node, process } = instance;
    // Names of nodes are free; what a path cannot have is spelt otherwise.
    let node: String =
        node.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("{namespace}.{graph}.{node}-{process}")
}

/// The name of a file: in the order of time, and never the same twice, whatever clocks do.
pub fn name(prefix: &str, now: SystemTime, id: Uuid) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second][subsecond digits:3]Z");
    let stamp = OffsetDateTime::from(now).format(&format).unwrap_or_else(|_| "0".to_owned());
    format!("{prefix}-{stamp}-{}.parquet", id.simple())
}

/// The rows as a Parquet file.
pub async fn parquet(rows: &RecordBatch) -> Result<Bytes, Fault> {
    let rows = rows.clone();
    let encoded = tokio::task::spawn_blocking(move || encode(&rows)).await;
    let fault = |why: String| Fault { code: azure::SEND, why };
    encoded
        .map_err(|error| fault(format!("a file cannot be made: {error}")))?
        .map_err(|error| fault(format!("a file cannot be made: {error}")))
}

fn encode(rows: &RecordBatch) -> Result<Bytes, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(format!("forebay {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_when_and_which() {
        let instance = Instance {
            namespace: "ns".to_owned(),
            graph: "g".to_owned(),
            node: "../n".to_owned(),
            process: "p0".to_owned(),
        };
        let name = name(&prefix(&instance), SystemTime::UNIX_EPOCH, Uuid::nil());
        assert_eq!(name, format!("ns.g.___n-p0-19700101T000000000Z-{}.parquet", "0".repeat(32)));
    }
}

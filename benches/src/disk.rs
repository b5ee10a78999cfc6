//! What the disk itself takes: records appended in groups, each group synced. Nothing that promises to have a message on disk
//! before it is acknowledged can be faster.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;

/// Bytes of a record, about what a message of 64 bytes takes in a log.
const RECORD_BYTES: usize = 160;

/// Records a second that go to a file in `dir` in groups of `group`, each written and synced at once.
pub fn group_commit_rate(dir: &Path, group: usize, measured: Duration) -> Result<f64> {
    let path = dir.join("group-commit");
    let mut file = File::create(&path)?;
    let records = vec![7; RECORD_BYTES * group];
    let (begun, mut groups) = (Instant::now(), 0.0);
    while begun.elapsed() < measured {
        file.write_all(&records)?;
        file.sync_data()?;
        groups += 1.0;
    }
    let rate = groups * group as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

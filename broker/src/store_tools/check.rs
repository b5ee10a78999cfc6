//! `forebay store check`: is every record whole?

use std::io::{self, Write};
use std::path::Path;

use broker_store::{Inspection, Quarantined, Torn};

use super::{bytes, count};
use crate::persistence;

/// Prints what is damaged; says whether nothing is.
pub fn print(store: &Inspection, data_dir: &Path, out: &mut impl Write) -> io::Result<bool> {
    let report = store.verify()?;
    let directory = data_dir.join(persistence::DIRECTORY);
    for Quarantined { file, offset, bytes, reason } in &report.damaged {
        writeln!(out, "{}:{offset}: {bytes} bytes: {reason}", directory.join(file).display())?;
    }
    for message in &report.unreadable {
        writeln!(out, "message {message} cannot be read")?;
    }
    if let Some(Torn { file, offset, bytes, reason }) = &report.torn {
        let file = directory.join(file);
        let file = file.display();
        writeln!(out, "{file}:{offset}: {bytes} bytes half written when a crash came ({reason}): no damage")?;
    }
    let read = format!(
        "{} in {}, {}",
        count(report.records as usize, "record"),
        count(report.files, "file"),
        bytes(report.bytes)
    );
    if report.is_whole() {
        writeln!(out, "{read}: whole")?;
        return Ok(true);
    }
    let lost = [
        (report.lost_entries, "queued message"),
        (report.lost_retained, "retained message"),
        (report.unreadable.len(), "unreadable message"),
    ];
    let lost: Vec<String> = lost
        .into_iter()
        .filter(|&(number, _)| number > 0)
        .map(|(number, what)| count(number, what))
        .collect();
    let lost = if lost.is_empty() { "nothing that waits".to_owned() } else { lost.join(", ") };
    writeln!(out, "{read}: {} damaged; lost with it: {lost}", count(report.damaged.len(), "place"))?;
    Ok(false)
}

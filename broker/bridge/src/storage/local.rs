//! A directory of this machine, which stands for a volume claim.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use config::resource::endpoint::LocalStorageSettings;

use super::azure;
use super::destination::Fault;
use super::files;
use crate::Outward;

/// A directory that files are written to.
pub struct Directory {
    path: PathBuf,
    /// What the names of files begin with that are not whole yet; what is left of those is removed.
    unfinished: String,
}

impl Directory {
    /// The directory that `dataDestination` names, inside of the one that stands for the volume claim: the one that
    /// `forebay.dev/directory` names, or `volumes/CLAIM` in the data directory.
    pub fn new(outward: &Outward, volume: &LocalStorageSettings) -> Result<Self, String> {
        let claim = &volume.persistent_volume_claim_ref;
        let root = match (&outward.endpoint.directory, &outward.volumes) {
            (Some(directory), _) => directory.clone(),
            (None, Some(volumes)) if is_one_name(claim) => volumes.join(claim),
            (None, Some(_)) => {
                return Err(format!(
                    "`persistentVolumeClaimRef` is `{claim}`, which is no name of a volume claim"
                ));
            }
            (None, None) => {
                return Err(format!(
                    "nothing stands for the volume claim `{claim}`: name a directory with the annotation \
                     `forebay.dev/directory`, or start with --data-dir"
                ));
            }
        };
        let inside = Path::new(outward.target.trim_matches('/'));
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("`dataDestination` is `{}`, which leads out of the volume", outward.target));
        }
        let unfinished = format!(".{}-", files::prefix(&outward.instance));
        Ok(Self { path: root.join(inside), unfinished })
    }

    /// Makes it, if need be, and removes what a crash has left unfinished.
    pub async fn open(&self) -> Result<(), Fault> {
        let (path, unfinished) = (self.path.clone(), self.unfinished.clone());
        blocking(&self.path, move || {
            make(&path)?;
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&unfinished) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Writes a file: under another name first, so that nobody reads half of it.
    pub async fn write(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        let (path, name) = (self.path.clone(), name.to_owned());
        blocking(&self.path, move || {
            make(&path)?;
            let unfinished = path.join(format!(".{name}"));
            let written = write_whole(&unfinished, &bytes)
                .and_then(|()| fs::rename(&unfinished, path.join(&name)))
                .and_then(|()| sync(&path));
            if written.is_err() {
                // It is in nobody's way; the next start tries again.
                let _ = fs::remove_file(&unfinished);
            }
            written
        })
        .await
    }
}

fn is_one_name(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory that stays: each one above that is new is synced.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

async fn blocking(path: &Path, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Fault> {
    let fault = |why: String| Fault { code: azure::SEND, why: format!("{}: {why}", path.display()) };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| fault(error.to_string())),
        Err(error) => Err(fault(error.to_string())),
    }
}

//! What was pulled before, on disk: blobs by digest, and what each reference last meant.
//!
//! ```text
//! blobs/sha256/<hex>   manifests and layers, each named by its digest
//! refs/<hex>.json      per endpoint and reference: the digest of the manifest it last named
//! tmp/                 files being written
//! ```
//!
//! Files come into being complete (written aside, synced, renamed) and are believed only as far as their
//! digest goes. The cache never makes a pull fail: what cannot be written is reported and counted, what is
//! damaged is removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::manifest::{self, Content, Manifest};
use super::reference::Target;
use super::signature::Signature;
use super::{Auth, Digest, Endpoint, Limits, blocking, observe};

/// The cache. Clones are the same cache.
#[derive(Clone)]
pub(super) struct Cache {
    files: Arc<Files>,
    /// Read while a pull adds blobs that no record names yet, written while blobs that no record names are
    /// removed.
    pruning: Arc<RwLock<()>>,
}

/// What a record is filed under: the endpoint (address, scheme and user; not the password) and the reference.
#[derive(Clone, Debug)]
pub(super) struct RecordKey {
    endpoint: String,
    reference: String,
}

impl RecordKey {
    pub(super) fn new(endpoint: &Endpoint, target: &Target) -> Self {
        let scheme = if endpoint.is_plain() { "http" } else { "https" };
        let user = match &endpoint.auth {
            Auth::Anonymous => String::new(),
            Auth::Basic { user, .. } => format!("{user}@"),
            Auth::Identity(identity) => format!("{}@", identity.client_id.as_deref().unwrap_or("identity")),
        };
        RecordKey {
            endpoint: format!("{scheme}://{user}{}", endpoint.location),
            reference: target.to_string(),
        }
    }

    fn file_name(&self) -> String {
        let digest = Digest::of(format!("{}\n{}", self.endpoint, self.reference).as_bytes());
        format!("{}.json", digest.hex())
    }
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Self {
        Cache { files: Arc::new(Files { root }), pruning: Arc::default() }
    }

    /// What the reference last meant, complete and undamaged, or nothing.
    pub(super) async fn load(&self, key: &RecordKey, limits: &Limits) -> Option<Content> {
        let (files, key, limits) = (Arc::clone(&self.files), key.clone(), limits.clone());
        blocking(move || files.load(&key, &limits)).await.ok().flatten()
    }

    /// A layer of `size` bytes, if it is here undamaged.
    pub(super) async fn blob(&self, digest: &Digest, size: u64) -> Option<Bytes> {
        let (files, digest) = (Arc::clone(&self.files), digest.clone());
        let bytes = blocking(move || files.blob(&digest, size)).await.ok().flatten()?;
        (bytes.len() as u64 == size).then_some(bytes)
    }

    /// Keeps pruning away until the guard is dropped.
    pub(super) async fn begin_write(&self) -> RwLockReadGuard<'_, ()> {
        self.pruning.read().await
    }

    /// Keeps a blob whose digest has been checked.
    pub(super) async fn store_blob(&self, digest: &Digest, bytes: Bytes) {
        let (files, digest) = (Arc::clone(&self.files), digest.clone());
        let stored = blocking(move || files.write(&files.blob_path(&digest), &bytes)).await;
        self.report(stored.map_err(|cause| io::Error::other(cause.to_string())).flatten());
    }

    /// Keeps a manifest and what `key` now means; tells whether that is news, and something older can go.
    pub(super) async fn store(
        &self,
        key: &RecordKey,
        manifest: &Digest,
        bytes: Bytes,
        signature: Option<Signature>,
    ) -> bool {
        let (files, key, manifest) = (Arc::clone(&self.files), key.clone(), manifest.clone());
        let stored = blocking(move || files.store(&key, &manifest, &bytes, signature)).await;
        self.report(stored.map_err(|cause| io::Error::other(cause.to_string())).flatten()).unwrap_or(false)
    }

    /// Removes blobs that no record leads to. Leaves it to the next time if pulls are under way.
    pub(super) async fn prune(&self) {
        let Ok(_alone) = self.pruning.try_write() else { return };
        let files = Arc::clone(&self.files);
        let pruned = blocking(move || files.prune()).await;
        self.report(pruned.map_err(|cause| io::Error::other(cause.to_string())).flatten());
    }

    fn report<T>(&self, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                observe::cache_error();
                let directory = self.files.root.display();
                tracing::warn!(%directory, %error, "the registry cache could not be written: a restart will need the registry");
            })
            .ok()
    }
}

/// The files, from a thread that may wait for the disk.
struct Files {
    root: PathBuf,
}

/// What a reference last meant, and what vouched for it.
struct Named {
    manifest: Digest,
    signature: Option<Signature>,
}

/// The same, as it stands in a file.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    endpoint: String,
    reference: String,
    manifest: String,
    /// What vouched for it, to be checked anew each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

const RECORD_FORMAT: u32 = 1;
const RECORD_BYTES_MAX: u64 = 256 << 10;

impl Files {
    fn load(&self, key: &RecordKey, limits: &Limits) -> Option<Content> {
        let Named { manifest: manifest_digest, signature } = self.record(key)?;
        let manifest = self.blob(&manifest_digest, limits.manifest_bytes_max)?;
        let layer = manifest::parse(&manifest).and_then(Manifest::into_layer).ok()?;
        layer.check_size(limits).ok()?;
        let bytes = self.blob(&layer.digest, layer.size)?;
        (bytes.len() as u64 == layer.size).then_some(Content { manifest_digest, layer, bytes, signature })
    }

    fn store(
        &self,
        key: &RecordKey,
        manifest: &Digest,
        bytes: &[u8],
        signature: Option<Signature>,
    ) -> io::Result<bool> {
        let (path, before) = (self.blob_path(manifest), self.record(key));
        let same = |named: &Named| named.manifest == *manifest && named.signature == signature;
        if before.as_ref().is_some_and(same) && self.blob(manifest, bytes.len() as u64).is_some() {
            return Ok(false);
        }
        self.write(&path, bytes)?;
        let record = Record {
            format: RECORD_FORMAT,
            endpoint: key.endpoint.clone(),
            reference: key.reference.clone(),
            manifest: manifest.to_string(),
            signature,
        };
        self.write(&self.record_path(key), &serde_json::to_vec(&record)?)?;
        Ok(before.is_some_and(|before| before.manifest != *manifest))
    }

    fn record(&self, key: &RecordKey) -> Option<Named> {
        let record = read_record(&self.record_path(key))?;
        let same = record.endpoint == key.endpoint && record.reference == key.reference;
        let manifest = same.then(|| record.manifest.parse().ok()).flatten()?;
        Some(Named { manifest, signature: record.signature })
    }

    /// A blob of at most `max` bytes. One whose content is not what its name says is removed.
    fn blob(&self, digest: &Digest, max: u64) -> Option<Bytes> {
        let path = self.blob_path(digest);
        let bytes = match read_capped(&path, max) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                observe::cache_error();
                tracing::warn!(file = %path.display(), %error, "a file of the registry cache cannot be read");
                return None;
            }
        };
        if digest.same_of(&bytes) == *digest {
            return Some(bytes.into());
        }
        observe::cache_error();
        let removed = fs::remove_file(&path).is_ok();
        tracing::warn!(file = %path.display(), removed, "a file of the registry cache is damaged");
        None
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for path in entries(&self.root.join("refs"))? {
            // A record that cannot be read keeps nothing alive, and nothing can be found through it.
            let Some(manifest) = read_record(&path).and_then(|record| record.manifest.parse().ok()) else {
                continue;
            };
            // Without a limit: this endpoint's may be smaller than that of the one that pulled it.
            if let Some(bytes) = self.blob(&manifest, u64::MAX)
                && let Ok(parsed) = manifest::parse(&bytes)
            {
                kept.extend(parsed.references().iter().map(|digest| self.blob_path(digest)));
            }
            kept.push(self.blob_path(&manifest));
        }
        for algorithm in entries(&self.root.join("blobs"))? {
            for blob in entries(&algorithm)?.into_iter().filter(|blob| !kept.contains(blob)) {
                fs::remove_file(&blob)?;
            }
        }
        Ok(())
    }

    /// Writes a file so that it is there whole or not at all, whenever the power goes.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let aside = self.root.join("tmp");
        let directory = path.parent().unwrap_or(&self.root);
        make_private(&aside)?;
        make_private(directory)?;
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let aside = aside.join(name);
        // Left by a process of the same id that was killed while it wrote.
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = create_private(&aside)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, path));
        if let Err(error) = written {
            // The first failure is the one to report.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        File::open(directory)?.sync_all()
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn record_path(&self, key: &RecordKey) -> PathBuf {
        self.root.join("refs").join(key.file_name())
    }
}

fn read_record(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&read_capped(path, RECORD_BYTES_MAX).ok()?).ok()?;
    (record.format == RECORD_FORMAT).then_some(record)
}

fn read_capped(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Makes a directory, and those above it that are missing, for this user alone.
fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

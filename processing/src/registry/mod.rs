//! Modules and graphs from an OCI registry, or from an OCI image layout on disk.
//!
//! [`Registry::pull`] turns an [`Endpoint`] and a reference (`name:tag`, `name@sha256:…`) into an
//! [`Artifact`]: the bytes of one layer, checked against the digests and sizes that led to them. It bounds
//! what a registry can make this process hold (every body is read under a cap) and how long it can keep it
//! waiting (connecting, each read, the whole pull), and remembers on disk what it pulled, so that a restart
//! works while the registry is away.
//!
//! What it does not know: what the bytes mean. It neither compiles a module nor reads a graph, unpacks no
//! archive, and takes no part in when a graph is pulled again.
//!
//! # When the cache answers
//!
//! | What happened | What the caller gets |
//! |---|---|
//! | registry unreachable, timed out, cut the connection, answered 429 or 5xx | the last artifact this reference gave at this endpoint, with [`Artifact::from_cache`] and [`Artifact::fallback`] set; the error if there is none |
//! | 401, 403, 404, a TLS failure, a digest or size that does not match, anything malformed or too large | the error: the registry has spoken, and its answer is not papered over |
//! | the reference is a digest, pulled here before | the cached bytes, without asking: they cannot have changed |
//!
//! Where the endpoint names [signers](Endpoint::signers), what it gives must be [signed](signature) by one of them: what the
//! cache holds is checked against its signature each time, and is not used without one.
//!
//! Bytes from the cache are checked against their digest each time; a damaged file is removed and fetched
//! again.

mod cache;
mod digest;
mod endpoint;
mod error;
mod identity;
mod layout;
mod manifest;
mod observe;
mod reference;
pub mod signature;
mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

pub use digest::Digest;
pub use endpoint::{Auth, Endpoint, HostError, Limits, Location, PlainHttp};
pub use error::{Cause, RegistryError};
pub use identity::{AUDIENCE, IdentitySource, ManagedIdentity};
pub use observe::describe_metrics;

use cache::{Cache, RecordKey};
use manifest::{Content, Layer, Manifest};
use reference::{Selector, Target};
use signature::Trust;
use wire::Wire;

/// One pulled artifact: the bytes of its first layer that is not an empty placeholder, and where they come
/// from.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The full reference that was pulled: host, repository, and tag or digest.
    pub reference: String,
    /// Digest of the image manifest that names the layer.
    pub manifest_digest: Digest,
    /// Digest of [`bytes`](Self::bytes).
    pub digest: Digest,
    /// Media type of the layer as the manifest states it, such as `application/wasm` or `application/yaml`.
    /// Pushers differ (AIO.md §2.4), so it is a hint, not a proof of what the bytes are.
    pub media_type: String,
    /// The manifest's `artifactType`, where it has one.
    pub artifact_type: Option<String>,
    /// The layer's `org.opencontainers.image.title`: the file name at the pusher's. Text from outside: never
    /// a path.
    pub title: Option<String>,
    /// The layer, as stored: archives are not unpacked.
    pub bytes: Bytes,
    /// Whether this pull took the reference's meaning from the cache instead of from the registry.
    pub from_cache: bool,
    /// Why the cache had to answer, where it stood in for a registry that is away.
    pub fallback: Option<Arc<RegistryError>>,
}

/// Pulls artifacts, with a cache on disk if it was given a directory.
///
/// Meant to be shared (`Arc`) by all that pull: pulls of one blob at the same time are one transfer only
/// among those that share it.
pub struct Registry {
    cache: Option<Cache>,
    transfers: Transfers,
}

impl Registry {
    /// A registry client that caches under `cache_dir`, or nowhere. The directory is made at the first pull,
    /// for this user alone (0700).
    #[must_use]
    pub fn new(cache_dir: Option<PathBuf>) -> Self {
        Registry { cache: cache_dir.map(Cache::new), transfers: Transfers::default() }
    }

    /// Pulls what `reference` (`name:tag`, `name@sha256:…`, repository path included where the endpoint's
    /// host has none) names at `endpoint`.
    ///
    /// Takes at most [`Limits::total_timeout`], and may be dropped at any point. When it answers from the
    /// cache is told in the [module's documentation](self).
    ///
    /// # Errors
    /// [`RegistryError`] names the full reference, the cause, and what can be done about it.
    pub async fn pull(&self, endpoint: &Endpoint, reference: &str) -> Result<Artifact, RegistryError> {
        let observation = observe::Pull::begin();
        let result = match Target::resolve(endpoint, reference) {
            Ok(target) => self.pull_target(endpoint, &target, reference).await,
            Err(cause) => Err(RegistryError::new(reference::describe(endpoint, reference), cause)),
        };
        observation.end(&result);
        result
    }

    /// What `reference` names at `endpoint` now: the digest of its manifest. Asks the registry, never the cache, and
    /// fetches no layer.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub async fn look_up(&self, endpoint: &Endpoint, reference: &str) -> Result<Digest, RegistryError> {
        let target = Target::resolve(endpoint, reference)
            .map_err(|cause| RegistryError::new(reference::describe(endpoint, reference), cause))?;
        let looked_up = async {
            match (&endpoint.location, &target.selector) {
                (_, Selector::Digest(digest)) => Ok(digest.clone()),
                (Location::Layout(dir), _) => {
                    let (dir, target, limits) = (dir.clone(), target.clone(), endpoint.limits.clone());
                    Ok(blocking(move || layout::read(&dir, &target, &limits, None)).await??.manifest_digest)
                }
                (Location::Remote { .. }, _) => self.digest_from_any(asked(endpoint, reference)?).await,
            }
        };
        within(limit_of(endpoint), looked_up)
            .await
            .map_err(|cause| RegistryError::new(target.to_string(), cause))
    }

    async fn pull_target(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        reference: &str,
    ) -> Result<Artifact, RegistryError> {
        let full = target.to_string();
        match &endpoint.location {
            Location::Layout(dir) => {
                let (dir, target, endpoint) = (dir.clone(), target.clone(), endpoint.clone());
                let limit = limit_of(&endpoint);
                let read = blocking(move || {
                    layout::read(&dir, &target, &endpoint.limits, trust_of(&endpoint)?.as_ref())
                });
                let content = within(limit, async { read.await? }).await;
                content
                    .map(|content| artifact(full.clone(), content, false))
                    .map_err(|cause| RegistryError::new(full, cause))
            }
            Location::Remote { .. } => self.pull_remote(endpoint, target, full, reference).await,
        }
    }

    /// What the first of an endpoint's mirrors gives that gives anything; else what the registry itself says.
    async fn fetch_from_any(
        &self,
        all: Vec<(Endpoint, Target)>,
        record: &RecordKey,
    ) -> Result<Content, Cause> {
        let mut outcome = Err(nobody());
        for (asked, target) in all {
            outcome = self.fetch(&asked, &target, record).await;
            match &outcome {
                Ok(_) => break,
                Err(cause) => tracing::debug!(%target, "not from there: {cause}"),
            }
        }
        outcome
    }

    /// The same for the digest alone.
    async fn digest_from_any(&self, all: Vec<(Endpoint, Target)>) -> Result<Digest, Cause> {
        let mut outcome = Err(nobody());
        for (asked, target) in all {
            outcome = match Wire::new(&asked, &target).await {
                Ok(wire) => self.fetch_manifest(&wire, &target.selector).await.map(|(_, digest)| digest),
                Err(cause) => Err(cause),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn pull_remote(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        full: String,
        reference: &str,
    ) -> Result<Artifact, RegistryError> {
        let record = RecordKey::new(endpoint, target);
        if let (Selector::Digest(_), Some(cache)) = (&target.selector, &self.cache)
            && let Some(content) = cached(cache, &record, endpoint).await
        {
            return Ok(artifact(full, content, true));
        }
        let fetched = within(limit_of(endpoint), async {
            self.fetch_from_any(asked(endpoint, reference)?, &record).await
        });
        let fetched = fetched.await;
        let error = match fetched {
            Ok(content) => return Ok(artifact(full, content, false)),
            Err(cause) => RegistryError::new(full.clone(), cause),
        };
        let Some(cache) = self.cache.as_ref().filter(|_| error.cause().registry_is_away()) else {
            return Err(error);
        };
        let Some(content) = cached(cache, &record, endpoint).await else {
            return Err(error);
        };
        let digest = &content.layer.digest;
        tracing::warn!(reference = %full, %digest, %error, "registry is away: using the cached artifact");
        Ok(Artifact { fallback: Some(Arc::new(error)), ..artifact(full, content, true) })
    }

    /// Asks the registry what the target is and gets the layer, from the cache where its digest is there
    /// already.
    async fn fetch(
        &self,
        endpoint: &Endpoint,
        target: &Target,
        record: &RecordKey,
    ) -> Result<Content, Cause> {
        let wire = Wire::new(endpoint, target).await?;
        let (bytes, manifest_digest) = self.fetch_manifest(&wire, &target.selector).await?;
        let layer = manifest::parse(&bytes)?.into_layer()?;
        let signature = match trust_of(endpoint)? {
            Some(trust) => {
                let found = signature::over_the_wire(&wire, &manifest_digest, &trust).await?;
                Some(trust.judge(&manifest_digest, found)?)
            }
            None => None,
        };
        // Held until the record stands: pruning must not take blobs that no record names yet.
        let writing = match &self.cache {
            Some(cache) => Some(cache.begin_write().await),
            None => None,
        };
        let content_bytes = self.fetch_layer(&wire, &layer, &endpoint.limits).await?;
        if let Some(cache) = &self.cache {
            let superseded = cache.store(record, &manifest_digest, bytes, signature.clone()).await;
            drop(writing);
            if superseded {
                cache.prune().await;
            }
        }
        Ok(Content { manifest_digest, layer, bytes: content_bytes, signature })
    }

    /// The image manifest and its digest. An index that lists a single image stands for that image.
    async fn fetch_manifest(&self, wire: &Wire, selector: &Selector) -> Result<(Bytes, Digest), Cause> {
        let (bytes, digest) = wire.manifest(selector).await?;
        match manifest::parse(&bytes)? {
            Manifest::Image(_) => Ok((bytes, digest)),
            Manifest::Index(index) => wire.manifest(&Selector::Digest(index.only_image()?)).await,
        }
    }

    async fn fetch_layer(&self, wire: &Wire, layer: &Layer, limits: &Limits) -> Result<Bytes, Cause> {
        layer.check_size(limits)?;
        let transfer = self.transfers.join(&layer.digest);
        let bytes = transfer.get_or_try_init(|| async {
            if let Some(cache) = &self.cache
                && let Some(bytes) = cache.blob(&layer.digest, layer.size).await
            {
                return Ok(bytes);
            }
            let bytes = wire.blob(layer).await?;
            if let Some(cache) = &self.cache {
                cache.store_blob(&layer.digest, bytes.clone()).await;
            }
            Ok(bytes)
        });
        let bytes = bytes.await?.clone();
        // Another pull's manifest may have stated another size for the same digest.
        layer.expect_size(bytes.len() as u64)?;
        Ok(bytes)
    }
}

/// Blobs being transferred, so that whoever wants one that is on its way waits for it instead of fetching it
/// again. If the one that fetches fails or is dropped, the next one in line tries itself.
#[derive(Default)]
struct Transfers {
    by_digest: Mutex<HashMap<Digest, Weak<OnceCell<Bytes>>>>,
}

impl Transfers {
    fn join(&self, digest: &Digest) -> Arc<OnceCell<Bytes>> {
        let mut transfers = self.by_digest.lock();
        transfers.retain(|_, transfer| transfer.strong_count() > 0);
        if let Some(transfer) = transfers.get(digest).and_then(Weak::upgrade) {
            return transfer;
        }
        let transfer = Arc::new(OnceCell::new());
        transfers.insert(digest.clone(), Arc::downgrade(&transfer));
        transfer
    }
}

/// Who is asked for a reference, in that order: mirrors, and then the registry.
fn asked(endpoint: &Endpoint, reference: &str) -> Result<Vec<(Endpoint, Target)>, Cause> {
    endpoint.all().map(|asked| Target::resolve(&asked, reference).map(|target| (asked, target))).collect()
}

/// Whose signatures count at an endpoint; nobody's are asked for where it names none.
fn trust_of(endpoint: &Endpoint) -> Result<Option<Trust>, Cause> {
    endpoint.signers.as_deref().map(Trust::read).transpose()
}

/// What the cache has for a reference, if those who vouch for it count now.
async fn cached(cache: &Cache, record: &RecordKey, endpoint: &Endpoint) -> Option<Content> {
    let content = cache.load(record, &endpoint.limits).await?;
    let Some(trust) = trust_of(endpoint).transpose() else { return Some(content) };
    let signature = content.signature.as_ref()?;
    let checked = trust.map_err(|cause| cause.to_string());
    match checked.and_then(|trust| trust.check(&content.manifest_digest, signature)) {
        Ok(()) => Some(content),
        Err(fault) => {
            let digest = &content.manifest_digest;
            tracing::warn!(%digest, "what the registry cache holds is not used: its signature does not count: {fault}");
            None
        }
    }
}

fn nobody() -> Cause {
    Cause::Internal { detail: "nobody was asked".to_owned() }
}

fn artifact(reference: String, content: Content, from_cache: bool) -> Artifact {
    Artifact {
        reference,
        manifest_digest: content.manifest_digest,
        digest: content.layer.digest,
        media_type: content.layer.media_type,
        artifact_type: content.layer.artifact_type,
        title: content.layer.title,
        bytes: content.bytes,
        from_cache,
        fallback: None,
    }
}

fn limit_of(endpoint: &Endpoint) -> Duration {
    endpoint.limits.total_timeout
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Cause::Timeout { what: "the whole pull", after: limit, setting: "total_timeout" }),
    }
}

/// Runs file work where it does not hold up the sockets.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Cause> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Cause::Internal { detail: error.to_string() })
}

//! An OCI image layout directory as a registry: `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.
//!
//! A reference is looked up among the index's entries by their annotation
//! `org.opencontainers.image.ref.name`: either `name:tag` (as skopeo writes it, and as a layout of several
//! artifacts needs it), or a bare `tag` (as ORAS writes it). Bare tags say nothing of a name, so they answer
//! for any name, and only where every name in the layout is a bare tag: such a layout holds versions of one
//! artifact.
//!
//! Nothing outside the directory is read: a digest is hexadecimal before it becomes a file name, and a link
//! that leads out is refused. Digests and sizes are checked as if the bytes came from afar.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_client::manifest::ImageIndexEntry;
use serde::Deserialize;

use super::manifest::{self, Content, Index, Manifest};
use super::reference::{Selector, Target};
use super::signature::{self, Trust};
use super::{Cause, Digest, Limits};

/// Reads what `target` names in the layout at `dir`, if somebody whom `trust` names, where it names any, has signed it.
pub(super) fn read(
    dir: &Path,
    target: &Target,
    limits: &Limits,
    trust: Option<&Trust>,
) -> Result<Content, Cause> {
    let layout = Layout::open(dir, limits)?;
    let index = layout.index()?;
    let entry = find(index.entries(), target)?;
    let mut manifest_digest = digest_of(entry, dir)?;
    let mut manifest = manifest::parse(&layout.manifest(&manifest_digest)?)?;
    if let Manifest::Index(index) = manifest {
        manifest_digest = index.only_image()?;
        manifest = manifest::parse(&layout.manifest(&manifest_digest)?)?;
    }
    let layer = manifest.into_layer()?;
    layer.check_size(limits)?;
    let signature = match trust {
        Some(trust) => {
            Some(trust.judge(&manifest_digest, signature::in_layout(&layout, &manifest_digest, trust)?)?)
        }
        None => None,
    };
    let bytes = layout.blob("the layer", &layer.digest, limits.blob_bytes_max, "blob_bytes_max")?;
    layer.expect_size(bytes.len() as u64)?;
    Ok(Content { manifest_digest, layer, bytes: bytes.into(), signature })
}

/// An opened layout.
pub(super) struct Layout<'a> {
    /// Without links, so that it can be told what is inside.
    root: PathBuf,
    limits: &'a Limits,
}

impl<'a> Layout<'a> {
    fn open(dir: &Path, limits: &'a Limits) -> Result<Self, Cause> {
        let root = fs::canonicalize(dir).map_err(|error| fault(dir, &error))?;
        let layout = Layout { root, limits };
        let marker = layout.file("oci-layout");
        let bytes = layout.capped(&marker, "the file `oci-layout`", MARKER_BYTES_MAX, "this limit")?;
        let version: Marker = serde_json::from_slice(&bytes)
            .map_err(|error| Cause::Layout { path: marker.clone(), detail: error.to_string() })?;
        if !version.image_layout_version.starts_with("1.") {
            let detail = format!("layout version {:?} is not 1.x", version.image_layout_version);
            return Err(Cause::Layout { path: marker, detail });
        }
        Ok(layout)
    }

    pub(super) fn index(&self) -> Result<Index, Cause> {
        let path = self.file("index.json");
        let bytes =
            self.capped(&path, "`index.json`", self.limits.manifest_bytes_max, "manifest_bytes_max")?;
        match manifest::parse(&bytes)? {
            Manifest::Index(index) => Ok(index),
            Manifest::Image(_) => Err(Cause::Layout { path, detail: "is no index".to_owned() }),
        }
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, Cause> {
        self.blob("the manifest", digest, self.limits.manifest_bytes_max, "manifest_bytes_max")
    }

    pub(super) fn blob(
        &self,
        what: &'static str,
        digest: &Digest,
        max: u64,
        setting: &'static str,
    ) -> Result<Vec<u8>, Cause> {
        let path = self.root.join("blobs").join(digest.algorithm()).join(digest.hex());
        let bytes = self.capped(&path, what, max, setting)?;
        let actual = digest.same_of(&bytes);
        if actual != *digest {
            return Err(Cause::DigestMismatch { what, expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn capped(
        &self,
        path: &Path,
        what: &'static str,
        max: u64,
        setting: &'static str,
    ) -> Result<Vec<u8>, Cause> {
        let real = fs::canonicalize(path).map_err(|error| fault(path, &error))?;
        if !real.starts_with(&self.root) {
            let detail = "is a link that leads out of the layout".to_owned();
            return Err(Cause::Layout { path: path.to_owned(), detail });
        }
        // Before it is opened: opening a pipe would wait for its other end.
        let metadata = fs::metadata(&real).map_err(|error| fault(path, &error))?;
        if !metadata.is_file() {
            return Err(Cause::Layout { path: path.to_owned(), detail: "is no regular file".to_owned() });
        }
        let mut bytes = Vec::new();
        let read =
            File::open(&real).and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes));
        read.map_err(|error| fault(path, &error))?;
        if bytes.len() as u64 > max {
            return Err(Cause::TooLarge { what, max, setting });
        }
        Ok(bytes)
    }
}

fn find<'a>(entries: &'a [ImageIndexEntry], target: &Target) -> Result<&'a ImageIndexEntry, Cause> {
    let found = match &target.selector {
        Selector::Digest(digest) => {
            let digest = digest.to_string();
            entries.iter().find(|entry| entry.digest == digest)
        }
        Selector::Tag(tag) => {
            let full = format!("{}:{tag}", target.repository);
            let exact = entries.iter().find(|entry| ref_name(entry) == Some(&full));
            let bare_only = entries.iter().filter_map(ref_name).all(|name| !name.contains([':', '/']));
            exact.or_else(|| entries.iter().find(|entry| bare_only && ref_name(entry) == Some(tag)))
        }
    };
    found.ok_or_else(|| Cause::NotFound { what: "the manifest", detail: listing(entries) })
}

fn ref_name(entry: &ImageIndexEntry) -> Option<&str> {
    entry.annotations.as_ref()?.get("org.opencontainers.image.ref.name").map(String::as_str)
}

/// What there is instead, for whoever mistyped.
fn listing(entries: &[ImageIndexEntry]) -> String {
    let names: Vec<String> =
        entries.iter().filter_map(ref_name).take(10).map(|name| name.escape_debug().to_string()).collect();
    match names.len() {
        0 => "; the layout holds nothing with a name".to_owned(),
        _ => format!("; the layout holds {}", names.join(", ")),
    }
}

fn digest_of(entry: &ImageIndexEntry, dir: &Path) -> Result<Digest, Cause> {
    entry.digest.parse().map_err(|detail| Cause::Layout { path: dir.join("index.json"), detail })
}

fn fault(path: &Path, error: &io::Error) -> Cause {
    let detail = match error.kind() {
        io::ErrorKind::NotFound => "does not exist; is this an OCI image layout?".to_owned(),
        _ => error.to_string(),
    };
    Cause::Layout { path: path.to_owned(), detail }
}

const MARKER_BYTES_MAX: u64 = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

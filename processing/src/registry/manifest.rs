//! From a manifest to the one layer that matters.
//!
//! Artifacts are pushed in many shapes (AIO.md §2.4): with `artifactType` and an empty config, with a config
//! that names the kind, with ORAS's defaults of either generation, with or without `mediaType`. All of them
//! have the content in the first layer that is not the empty placeholder; its media type is reported, never
//! required.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::signature::Signature;
use super::{Cause, Digest, Limits};

/// Manifest media types that are understood, for the Accept header.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A layer's bytes, and how they were come by.
pub(super) struct Content {
    pub manifest_digest: Digest,
    pub layer: Layer,
    pub bytes: Bytes,
    /// The signature that counted, where one was asked for.
    pub signature: Option<Signature>,
}

/// The layer that holds an artifact's content.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    pub title: Option<String>,
    /// The manifest's, not the layer's.
    pub artifact_type: Option<String>,
}

/// A parsed manifest.
pub(super) enum Manifest {
    Image(Box<OciImageManifest>),
    Index(Index),
}

/// An index of images.
pub(super) struct Index(OciImageIndex);

/// Parses a manifest or index.
pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, Cause> {
    let probe: Probe = from_json(bytes)?;
    if probe.schema_version != 2 {
        return Err(malformed(format!("schemaVersion is {}, not 2", probe.schema_version)));
    }
    let is_index = match probe.media_type.as_deref() {
        Some(OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE) => false,
        Some(OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE) => true,
        Some(other) => {
            return Err(malformed(format!("media type `{}` is not supported", other.escape_debug())));
        }
        None => probe.manifests.is_some(),
    };
    // What could be read as either is neither: two readers must not see two artifacts under one digest.
    if probe.manifests.is_some() && probe.layers.is_some() {
        return Err(malformed("it has both `layers` and `manifests`".to_owned()));
    }
    Ok(if is_index { Manifest::Index(Index(from_json(bytes)?)) } else { Manifest::Image(from_json(bytes)?) })
}

impl Manifest {
    /// The layer with the content.
    pub(super) fn into_layer(self) -> Result<Layer, Cause> {
        let Manifest::Image(image) = self else {
            return Err(malformed("an index lists another index".to_owned()));
        };
        let layer = image.layers.into_iter().find(|layer| layer.media_type != EMPTY_MEDIA_TYPE);
        Layer::from_descriptor(layer.ok_or(Cause::NoContent)?, image.artifact_type)
    }

    /// Digests of all that this manifest refers to, for the cache to keep.
    pub(super) fn references(&self) -> Vec<Digest> {
        let digests: Vec<&str> = match self {
            Manifest::Image(image) => image.layers.iter().map(|layer| layer.digest.as_str()).collect(),
            Manifest::Index(index) => index.0.manifests.iter().map(|entry| entry.digest.as_str()).collect(),
        };
        digests.into_iter().filter_map(|digest| digest.parse().ok()).collect()
    }
}

impl Layer {
    /// Checks the stated size before anything is fetched.
    pub(super) fn check_size(&self, limits: &Limits) -> Result<(), Cause> {
        if self.size > limits.blob_bytes_max {
            let max = limits.blob_bytes_max;
            return Err(Cause::TooLarge { what: "the layer", max, setting: "blob_bytes_max" });
        }
        Ok(())
    }

    /// Checks the stated size against what came.
    pub(super) fn expect_size(&self, actual: u64) -> Result<(), Cause> {
        if actual == self.size {
            return Ok(());
        }
        Err(Cause::SizeMismatch { what: "the layer", expected: self.size, actual, at_least: false })
    }

    pub(super) fn from_descriptor(
        descriptor: OciDescriptor,
        artifact_type: Option<String>,
    ) -> Result<Layer, Cause> {
        let size = u64::try_from(descriptor.size)
            .map_err(|_| malformed(format!("a layer has the size {}", descriptor.size)))?;
        Ok(Layer {
            digest: descriptor.digest.parse().map_err(malformed)?,
            size,
            media_type: descriptor.media_type,
            title: annotation(descriptor.annotations, "org.opencontainers.image.title"),
            artifact_type: artifact_type.filter(|text| !text.is_empty()),
        })
    }
}

impl Index {
    /// The digest of the single image that the index lists. What builders attach to images (provenance and
    /// such) does not count as one.
    pub(super) fn only_image(self) -> Result<Digest, Cause> {
        let mut images = self.0.manifests.iter().filter(|entry| !is_attachment(entry));
        match (images.next(), images.count()) {
            (Some(image), 0) => image.digest.parse().map_err(malformed),
            (None, _) => Err(Cause::NoContent),
            (Some(_), others) => Err(Cause::AmbiguousIndex { images: others + 1 }),
        }
    }

    /// The entries: of a layout's `index.json`, its artifacts.
    pub(super) fn entries(&self) -> &[ImageIndexEntry] {
        &self.0.manifests
    }
}

/// `application/vnd.oci.empty.v1+json`: the two bytes `{}` where the specification wants a blob and there is
/// nothing to say.
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What tells the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: i64,
    media_type: Option<String>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

fn is_attachment(entry: &ImageIndexEntry) -> bool {
    entry.annotations.as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"))
}

fn annotation(annotations: Option<BTreeMap<String, String>>, name: &str) -> Option<String> {
    annotations.and_then(|mut annotations| annotations.remove(name))
}

fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Cause> {
    serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))
}

fn malformed(detail: String) -> Cause {
    Cause::Malformed { what: "the manifest", detail }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn descriptor(media_type: &str, content: &[u8], title: Option<&str>) -> Value {
        let mut value = json!({"mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()});
        if let Some(title) = title {
            value["annotations"] = json!({"org.opencontainers.image.title": title});
        }
        value
    }

    fn layer_of(manifest: &Value) -> Result<Layer, Cause> {
        parse(manifest.to_string().as_bytes())?.into_layer()
    }

    #[test]
    fn every_shape_that_artifacts_are_pushed_in_gives_its_first_layer() {
        let wasm = descriptor("application/wasm", b"wasm", Some("temperature.wasm"));
        let yaml = descriptor("application/yaml", b"yaml", Some("graph-simple.yaml"));
        let wasm_content = descriptor("application/vnd.wasm.content.layer.v1+wasm", b"yaml", None);
        let tar =
            descriptor("application/vnd.oci.image.layer.v1.tar", b"wasm", Some("temperature-1.0.0.wasm"));
        let config = |media_type: &str| descriptor(media_type, b"{}", None);
        let image = "application/vnd.oci.image.manifest.v1+json";
        let shapes = [
            (
                json!({"schemaVersion": 2, "mediaType": image, "artifactType": "application/vnd.module.wasm.content.layer.v1+wasm",
                    "config": config(EMPTY_MEDIA_TYPE), "layers": [wasm]}),
                "application/wasm",
                Some("temperature.wasm"),
            ),
            (
                json!({"schemaVersion": 2, "mediaType": image, "config": config("application/vnd.microsoft.aio.graph.v1+yaml"),
                    "layers": [yaml]}),
                "application/yaml",
                Some("graph-simple.yaml"),
            ),
            (
                json!({"schemaVersion": 2, "config": config("application/vnd.unknown.config.v1+json"), "layers": [tar]}),
                "application/vnd.oci.image.layer.v1.tar",
                Some("temperature-1.0.0.wasm"),
            ),
            (
                json!({"schemaVersion": 2, "mediaType": image, "config": config("application/vnd.wasm.config.v1+json"),
                    "layers": [wasm_content]}),
                "application/vnd.wasm.content.layer.v1+wasm",
                None,
            ),
            (
                json!({"schemaVersion": 2, "mediaType": IMAGE_MANIFEST_MEDIA_TYPE,
                    "config": config("application/vnd.oci.image.config.v1+json"),
                    "layers": [config(EMPTY_MEDIA_TYPE), wasm]}),
                "application/wasm",
                Some("temperature.wasm"),
            ),
        ];
        for (manifest, media_type, title) in shapes {
            let layer = layer_of(&manifest).unwrap();
            assert_eq!((layer.media_type.as_str(), layer.title.as_deref()), (media_type, title));
        }
    }

    #[test]
    fn a_manifest_without_content_or_sense_is_refused() {
        let config = descriptor(EMPTY_MEDIA_TYPE, b"{}", None);
        let manifests = [
            json!({"schemaVersion": 2, "config": config, "layers": []}),
            json!({"schemaVersion": 2, "config": config, "layers": [config]}),
            json!({"schemaVersion": 1, "config": config, "layers": [config]}),
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []}),
            json!({"schemaVersion": 2, "config": config, "layers": [{"mediaType": "x", "digest": "sha256:../..", "size": 1}]}),
            json!({"schemaVersion": 2, "config": config,
                "layers": [{"mediaType": "x", "digest": Digest::of(b"").to_string(), "size": -1}]}),
            json!({"schemaVersion": 2, "config": config, "layers": [descriptor("application/wasm", b"x", None)], "manifests": []}),
            json!([]),
        ];
        for manifest in manifests {
            assert!(layer_of(&manifest).is_err(), "{manifest}");
        }
    }

    #[test]
    fn an_index_stands_for_its_image_if_it_has_one() {
        let image =
            json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": Digest::of(b"a").to_string(), "size": 1});
        let other =
            json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": Digest::of(b"b").to_string(), "size": 1});
        let mut attachment = other.clone();
        attachment["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let only = |entries: Value| {
            let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
            match parse(index.as_bytes()).unwrap() {
                Manifest::Index(index) => index.only_image(),
                Manifest::Image(_) => panic!("an index was taken for an image"),
            }
        };
        assert_eq!(only(json!([image, attachment])).unwrap(), Digest::of(b"a"));
        assert!(matches!(only(json!([image, other])), Err(Cause::AmbiguousIndex { images: 2 })));
        assert!(matches!(only(json!([])), Err(Cause::NoContent)));
    }
}

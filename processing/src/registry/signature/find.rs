//! Where signatures of a manifest are kept.
//!
//! The Notary Project's are manifests with a `subject`: a registry lists them (`/v2/NAME/referrers/DIGEST`), or,
//! where it is too old for that, an index under the tag `sha256-HEX` does (OCI distribution 1.1). In a layout they
//! stand in its index. cosign's are layers of an image under the tag `sha256-HEX.sig`.

use bytes::Bytes;
use oci_client::manifest::OciDescriptor;
use serde::Deserialize;

use super::super::layout::Layout;
use super::super::manifest::Layer;
use super::super::reference::Selector;
use super::super::wire::Wire;
use super::{Cause, Digest, Format, SIGNATURE_BYTES_MAX, SIGNATURES_MAX, Signature, Trust};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const NOTATION: &str = "application/vnd.cncf.notary.signature";
const JWS: &str = "application/jose+json";
const COSE: &str = "application/cose";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN_SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What was found: signatures, and what is wrong with those that are none.
pub(in super::super) type Found = Vec<Result<Signature, String>>;

/// Gets the signatures of `manifest` from where it came.
///
/// # Errors
/// When the registry cannot be asked. A signature that is not there or not readable is one that does not count.
pub(in super::super) async fn over_the_wire(
    wire: &Wire,
    manifest: &Digest,
    trust: &Trust,
) -> Result<Found, Cause> {
    let mut found = Vec::new();
    if trust.wants_notation() {
        for digest in referrers(wire, manifest).await? {
            let signature = match wire.manifest(&Selector::Digest(digest)).await {
                Ok((bytes, _)) => match envelope_of(&bytes, manifest) {
                    Ok(Some((format, layer))) => fetched(wire.blob(&layer).await, format, Vec::new()),
                    Ok(None) => continue,
                    Err(fault) => Ok(Err(fault)),
                },
                Err(cause) => unless_away(cause),
            };
            found.push(signature?);
        }
    }
    if trust.wants_cosign() {
        let tag = Selector::Tag(format!("{}.sig", tag_of(manifest)));
        let Some((bytes, _)) = if_there(wire.manifest(&tag).await)? else { return Ok(found) };
        for layer in payloads_of(&bytes) {
            let signature = match layer {
                Ok((layer, detached)) => fetched(wire.blob(&layer).await, Format::Cosign, detached),
                Err(fault) => Ok(Err(fault)),
            };
            found.push(signature?);
        }
    }
    Ok(found)
}

/// Gets the signatures of `manifest` from the layout that it came from. Waits for the disk.
///
/// # Errors
/// As [`over_the_wire`].
pub(in super::super) fn in_layout(
    layout: &Layout<'_>,
    manifest: &Digest,
    trust: &Trust,
) -> Result<Found, Cause> {
    let index = layout.index()?;
    let mut found = Vec::new();
    for entry in index.entries() {
        let Ok(digest) = entry.digest.parse::<Digest>() else { continue };
        // Whatever else is there is no concern of this.
        let Ok(bytes) = layout.manifest(&digest) else { continue };
        if trust.wants_notation()
            && let Some(signature) = envelope_of(&bytes, manifest).transpose()
        {
            let read = |(format, layer): (Format, Layer)| in_file(layout, &layer, format, Vec::new());
            found.push(signature.and_then(read));
        }
        if trust.wants_cosign() && is_named(entry.annotations.as_ref(), &format!("{}.sig", tag_of(manifest)))
        {
            let read =
                |(layer, detached): (Layer, Vec<u8>)| in_file(layout, &layer, Format::Cosign, detached);
            found.extend(payloads_of(&bytes).into_iter().map(|payload| payload.and_then(read)));
        }
        found.truncate(SIGNATURES_MAX);
    }
    Ok(found)
}

/// Manifests that say they belong to `manifest`, and that may be signatures.
async fn referrers(wire: &Wire, manifest: &Digest) -> Result<Vec<Digest>, Cause> {
    let listed = match if_there(wire.referrers(manifest, NOTATION).await)? {
        Some(listed) => listed,
        None => match if_there(wire.manifest(&Selector::Tag(tag_of(manifest))).await)? {
            Some((index, _)) => index,
            None => return Ok(Vec::new()),
        },
    };
    let listed: Referrers = serde_json::from_slice(&listed)
        .map_err(|error| Cause::Malformed { what: "the list of signatures", detail: error.to_string() })?;
    let is_signature = |entry: &Referrer| entry.artifact_type.as_deref().is_none_or(|kind| kind == NOTATION);
    let digests =
        listed.manifests.into_iter().filter(is_signature).filter_map(|entry| entry.digest.parse().ok());
    Ok(digests.take(SIGNATURES_MAX).collect())
}

/// The tag under which older registries keep what belongs to a manifest.
fn tag_of(manifest: &Digest) -> String {
    format!("{}-{}", manifest.algorithm(), manifest.hex())
}

fn is_named(annotations: Option<&std::collections::BTreeMap<String, String>>, tag: &str) -> bool {
    let name = annotations.and_then(|annotations| annotations.get("org.opencontainers.image.ref.name"));
    name.is_some_and(|name| name.rsplit(':').next() == Some(tag))
}

/// The envelope that a signature's manifest names; nothing if it is no signature of `subject`.
fn envelope_of(bytes: &[u8], subject: &Digest) -> Result<Option<(Format, Layer)>, String> {
    // What is no such manifest is no signature.
    let Ok(attached) = serde_json::from_slice::<Attached>(bytes) else { return Ok(None) };
    let of_subject = attached.subject.is_some_and(|to| to.digest == subject.to_string());
    let kind =
        attached.artifact_type.as_deref().or(attached.config.as_ref().map(|it| it.media_type.as_str()));
    if !of_subject || kind != Some(NOTATION) {
        return Ok(None);
    }
    let mut layers = attached.layers.into_iter();
    let (Some(layer), None) = (layers.next(), layers.next()) else {
        return Err("its manifest does not have one layer".to_owned());
    };
    let format = match layer.media_type.as_str() {
        JWS => Format::Jws,
        COSE => Format::Cose,
        other => return Err(format!("its envelope is `{}`, not `{JWS}` or `{COSE}`", other.escape_debug())),
    };
    Ok(Some((format, small(layer)?)))
}

/// The payloads that the image under cosign's tag names, each with the signature that is annotated to it.
fn payloads_of(bytes: &[u8]) -> Vec<Result<(Layer, Vec<u8>), String>> {
    let Ok(image) = serde_json::from_slice::<Attached>(bytes) else {
        return vec![Err("what stands under its tag is no image manifest".to_owned())];
    };
    let payload = |layer: OciDescriptor| {
        let annotation = layer.annotations.as_ref().and_then(|all| all.get(COSIGN_SIGNATURE));
        let text = annotation.ok_or("its payload comes without a signature")?;
        let detached = STANDARD.decode(text).map_err(|_| "it is not base64".to_owned())?;
        Ok((small(layer)?, detached))
    };
    let layers = image.layers.into_iter().filter(|layer| layer.media_type == SIMPLE_SIGNING);
    layers.take(SIGNATURES_MAX).map(payload).collect()
}

fn small(layer: OciDescriptor) -> Result<Layer, String> {
    let layer = Layer::from_descriptor(layer, None).map_err(|cause| cause.to_string())?;
    match layer.size <= SIGNATURE_BYTES_MAX {
        true => Ok(layer),
        false => Err(format!("it is larger than {SIGNATURE_BYTES_MAX} bytes")),
    }
}

fn fetched(
    blob: Result<Bytes, Cause>,
    format: Format,
    detached: Vec<u8>,
) -> Result<Result<Signature, String>, Cause> {
    match blob {
        Ok(content) => Ok(Ok(Signature { format, content: content.into(), detached })),
        Err(cause) => unless_away(cause),
    }
}

fn in_file(
    layout: &Layout<'_>,
    layer: &Layer,
    format: Format,
    detached: Vec<u8>,
) -> Result<Signature, String> {
    let content = layout.blob("the signature", &layer.digest, SIGNATURE_BYTES_MAX, "no setting; it");
    let content = content.map_err(|cause| cause.to_string())?;
    Ok(Signature { format, content, detached })
}

/// One that cannot be had does not hide the others; a registry that is away has not spoken.
fn unless_away<T>(cause: Cause) -> Result<Result<T, String>, Cause> {
    if cause.registry_is_away() { Err(cause) } else { Ok(Err(cause.to_string())) }
}

/// Registries that do not know of referrers, or have none, say that there is no such thing.
fn if_there<T>(answer: Result<T, Cause>) -> Result<Option<T>, Cause> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Cause::NotFound { .. }) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// What belongs to a manifest, as a registry lists it.
#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: String,
    artifact_type: Option<String>,
}

/// A manifest, as far as signatures need it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attached {
    artifact_type: Option<String>,
    config: Option<Subject>,
    subject: Option<Subject>,
    layers: Vec<OciDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    media_type: String,
    digest: String,
}

//! cosign's signatures: a payload that names a manifest ("simple signing"), and a signature of it by a bare key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

use super::Digest;

/// What cosign signs with: which, a key tells; a key of one kind is none of another.
static ALGORITHMS: [&dyn VerificationAlgorithm; 7] = [
    &ECDSA_P256_SHA256_ASN1,
    &ECDSA_P384_SHA384_ASN1,
    &ECDSA_P384_SHA256_ASN1,
    &ECDSA_P521_SHA512_ASN1,
    &ECDSA_P521_SHA256_ASN1,
    &RSA_PKCS1_2048_8192_SHA256,
    &ED25519,
];

const KIND: &str = "cosign container image signature";

/// Checks that `signature` is of `payload` by one of `keys`, and that the payload names `manifest`.
pub(super) fn check(
    manifest: &Digest,
    payload: &[u8],
    signature: &[u8],
    keys: &[Vec<u8>],
) -> Result<(), String> {
    let made_by = |key: &Vec<u8>| {
        ALGORITHMS
            .iter()
            .any(|algorithm| UnparsedPublicKey::new(*algorithm, key).verify(payload, signature).is_ok())
    };
    if !keys.iter().any(made_by) {
        return Err(
            "it was made by none of the keys that are trusted, or what it signs was changed".to_owned()
        );
    }
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|error| format!("what it signs is not cosign's: {error}"))?;
    if payload.critical.kind != KIND {
        return Err(format!("it signs a `{}`, not a `{KIND}`", payload.critical.kind.escape_debug()));
    }
    let signed = payload.critical.image.docker_manifest_digest;
    match signed == manifest.to_string() {
        true => Ok(()),
        false => Err(format!("it is of another manifest, {}", signed.escape_debug())),
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

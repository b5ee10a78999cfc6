//! Who vouches for an artifact: signatures of its manifest, checked without asking anybody.
//!
//! Two formats, told apart by what a RegistryEndpoint trusts (AIO.md §5.5, `codeSigningCas` and
//! `trustSettings`):
//!
//! | Trusted | Signatures that count |
//! |---|---|
//! | certificates | the Notary Project's (`notation sign`), in JWS or COSE: by a certificate for code signing below one of these |
//! | public keys | cosign's: by the private half of one of these |
//!
//! A signature names the digest of the manifest, which names the digests of everything else. It is looked for
//! where the manifest came from, and before the layer is fetched. Nobody is asked whether a certificate was
//! revoked, and a time stamp does not prolong a certificate's life: when it has ended, what it signed is
//! refused.

mod chain;
mod cosign;
mod find;
mod notation;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::{Deserialize, Serialize};

use super::{Cause, Digest};
use chain::Authorities;

pub(super) use find::{in_layout, over_the_wire};

/// Signatures of one manifest that are looked at; whoever may push can add any number.
const SIGNATURES_MAX: usize = 32;
/// The largest envelope or payload of a signature, in bytes; one of Notation's with three certificates has six
/// thousand.
const SIGNATURE_BYTES_MAX: u64 = 64 << 10;

/// A signature as it was found, in the form in which it can be checked anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signature {
    format: Format,
    /// Notation's envelope, or cosign's payload.
    #[serde(with = "as_base64")]
    content: Vec<u8>,
    /// cosign's signature of the payload; empty in an envelope, which holds its own.
    #[serde(with = "as_base64")]
    detached: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// The Notary Project's, a JSON Web Signature.
    Jws,
    /// The Notary Project's, a COSE_Sign1.
    Cose,
    /// cosign's "simple signing".
    Cosign,
}

/// Whose signatures count at an endpoint.
pub(super) struct Trust {
    authorities: Authorities,
    /// Public keys, each a SubjectPublicKeyInfo.
    keys: Vec<Vec<u8>>,
}

impl Trust {
    /// Reads certificates and public keys, PEM.
    pub(super) fn read(pem: &[u8]) -> Result<Trust, Cause> {
        let unusable =
            |detail: String| Cause::Untrusted { detail: format!("what is trusted to sign {detail}") };
        let (mut certificates, mut keys) = (Vec::new(), Vec::new());
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            match section.map_err(|error| unusable(format!("is not readable: {error}")))? {
                (SectionKind::Certificate, der) => certificates.push(der),
                (SectionKind::PublicKey, der) => keys.push(der),
                (SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey, _) => {
                    return Err(unusable("holds a private key, which belongs to whoever signs".to_owned()));
                }
                _ => {}
            }
        }
        if certificates.is_empty() && keys.is_empty() {
            return Err(unusable("holds neither a certificate nor a public key (PEM)".to_owned()));
        }
        let authorities = Authorities::new(certificates).map_err(unusable)?;
        Ok(Trust { authorities, keys })
    }

    /// The first of these signatures of `manifest` that counts.
    pub(super) fn judge(
        &self,
        manifest: &Digest,
        found: Vec<Result<Signature, String>>,
    ) -> Result<Signature, Cause> {
        let number = found.len();
        let mut first_fault = None;
        for signature in found {
            match signature.and_then(|signature| self.check(manifest, &signature).map(|()| signature)) {
                Ok(signature) => return Ok(signature),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        Err(match first_fault {
            None => Cause::Unsigned { manifest: manifest.clone() },
            Some(fault) if number == 1 => {
                Cause::Untrusted { detail: format!("its signature does not count: {fault}") }
            }
            Some(fault) => Cause::Untrusted {
                detail: format!("none of its {number} signatures counts; of the first: {fault}"),
            },
        })
    }

    /// Whether this signature is of `manifest` and by somebody who is trusted; why not, otherwise.
    pub(super) fn check(&self, manifest: &Digest, signature: &Signature) -> Result<(), String> {
        let Signature { format, content, detached } = signature;
        match format {
            Format::Jws => notation::jws(content)?.check(manifest, &self.authorities),
            Format::Cose => notation::cose(content)?.check(manifest, &self.authorities),
            Format::Cosign => cosign::check(manifest, content, detached, &self.keys),
        }
    }

    /// Whether certificates are trusted, so that the Notary Project's signatures are worth looking for.
    fn wants_notation(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Whether keys are trusted, so that cosign's signatures are worth looking for.
    fn wants_cosign(&self) -> bool {
        !self.keys.is_empty()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Bytes inside JSON.
mod as_base64 {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

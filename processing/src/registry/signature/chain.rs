//! Certificates for code signing, and signatures by them.

use std::fmt::Display;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Object identifier of the extended key usage "code signing", 1.3.6.1.5.5.7.3.3 (RFC 5280, §4.2.1.12), as DER has it.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// Certificates between the signer's and the trusted one.
const CHAIN_MAX: usize = 8;

/// The certificates that are trusted to vouch for signers.
pub(super) struct Authorities(Vec<TrustAnchor<'static>>);

impl Authorities {
    pub(super) fn new(certificates: Vec<Vec<u8>>) -> Result<Self, String> {
        let anchors = certificates.into_iter().enumerate().map(|(at, der)| {
            let anchor = anchor_from_trusted_cert(&CertificateDer::from(der)).map(|anchor| anchor.to_owned());
            anchor.map_err(|error| {
                format!("holds a certificate (number {}) that cannot be used: {error}", at + 1)
            })
        });
        anchors.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that the first of `chain` is, now, a certificate for code signing that the others lead from to one
    /// of these, and that its key made `signature` of `signed`.
    pub(super) fn check(
        &self,
        chain: &[Vec<u8>],
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), String> {
        let Some((own, above)) = chain.split_first() else {
            return Err("it comes without a certificate".to_owned());
        };
        if above.len() > CHAIN_MAX {
            return Err(format!("it comes with more than {} certificates", CHAIN_MAX + 1));
        }
        let own = CertificateDer::from(own.as_slice());
        let above: Vec<_> = above.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let fault = |error: &dyn Display| format!("its certificate is not good: {error}");
        let leaf = EndEntityCert::try_from(&own).map_err(|error| fault(&error))?;
        leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.0,
            &above,
            UnixTime::now(),
            KeyUsage::required_if_present(CODE_SIGNING),
            None,
            None,
        )
        .map_err(|error| fault(&error))?;
        if !is_for_signing_code(&own) {
            return Err(fault(&"it is not for signing code"));
        }
        let key = leaf.subject_public_key_info();
        UnparsedPublicKey::new(algorithm.verification(), key).verify(signed, signature).map_err(|_| {
            "it was not made by the key of its certificate, or what it signs was changed".to_owned()
        })
    }
}

/// Whether a signer's own certificate says that it is; those above may leave it open.
fn is_for_signing_code(own: &CertificateDer<'_>) -> bool {
    let usage = X509Certificate::from_der(own).ok().and_then(|(_, certificate)| {
        certificate.extended_key_usage().ok().flatten().map(|usage| usage.value.code_signing)
    });
    usage == Some(true)
}

/// How an envelope of the Notary Project is signed; its specification allows no other ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
}

impl Algorithm {
    /// By its name in JSON Web Signatures (RFC 7518, §3.1).
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }

    /// The curve goes with the hash, as JWS wants it and the Notary Project does for COSE.
    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

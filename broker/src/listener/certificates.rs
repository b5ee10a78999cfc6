//! The server's side of TLS, as rustls wants it: certificate and key checked against each other.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::auth::{Authentication, read_certificates};
use crate::transport::ClientCertificates;

/// Reads a certificate with its chain, and the key.
///
/// # Errors
/// What is wrong, in words that follow the name of where they stand. Never anything of the key.
pub fn read(
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = read_certificates(certificate).map_err(|fault| format!("{fault} under `tls.crt`"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        "holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted) under `tls.key`".to_owned()
    })?;
    Ok((chain, key))
}

/// TLS with this certificate; clients are asked for theirs where the authentication may want it.
///
/// # Errors
/// What is wrong with the certificate or the key.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authentication: Option<&Authentication>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match authentication.filter(|authentication| authentication.wants_certificates()) {
        Some(authentication) => builder.with_client_cert_verifier(Arc::new(ClientCertificates::new(
            algorithms,
            authentication.certificate_issuers(),
        ))),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "has a key that is not the certificate's".to_owned(),
        error => format!("cannot be used: {error}"),
    })?;
    Ok(Arc::new(config))
}

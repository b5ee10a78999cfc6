//! TLS towards remote systems: whom to trust, and who we are.

use std::sync::Arc;

use config::RemoteEndpoint;
use config::resource::common::{Host, OperationalMode, Tls};
use config::resource::secret::Secret;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;

/// The names under which a Secret holds a certificate: AIO's own, and Kubernetes'.
const CERTIFICATE: [&str; 2] = ["client_cert.pem", "tls.crt"];
/// The same for its key.
const KEY: [&str; 2] = ["client_key.pem", "tls.key"];
/// The certificates between it and the one that the other side trusts.
const INTERMEDIATE: &str = "client_intermediate_certs.pem";

/// How to speak TLS, and whose certificate is wanted.
pub type Secured = (Arc<ClientConfig>, ServerName<'static>);

/// How to speak TLS to the `host` of an endpoint; nothing when its `tls.mode` is `Disabled`. `identity` is the Secret of a client certificate.
///
/// # Errors
/// What is wrong with the certificates, and where they stand.
pub fn config(
    endpoint: &RemoteEndpoint,
    tls: &Tls,
    host: &Host,
    identity: Option<&Secret>,
) -> Result<Option<Secured>, String> {
    if tls.mode == OperationalMode::Disabled {
        return match identity {
            None => Ok(None),
            Some(_) => Err("a client certificate needs TLS, and `tls.mode` is Disabled".to_owned()),
        };
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let trusting = match &endpoint.trusted_cas {
        Some(_) => builder.with_root_certificates(roots(endpoint)?),
        None => builder.with_platform_verifier().map_err(|error| {
            format!("no certificates are trusted: those of this system cannot be used ({error}); name some with `tls.trustedCaCertificateConfigMapRef`")
        })?,
    };
    let config = match identity {
        None => trusting.with_no_client_auth(),
        Some(secret) => {
            let (chain, key) = client(secret)?;
            let with = trusting.with_client_auth_cert(chain, key);
            with.map_err(|error| format!("the client certificate cannot be used: {error}"))?
        }
    };
    let name = ServerName::try_from(host.name().to_owned());
    let name =
        name.map_err(|_| format!("`host` has no name that a certificate can have: {}", host.as_str()))?;
    Ok(Some((Arc::new(config), name)))
}

/// The certificates of the ConfigMap.
fn roots(endpoint: &RemoteEndpoint) -> Result<RootCertStore, String> {
    const WHERE: &str = "the ConfigMap of `tls.trustedCaCertificateConfigMapRef`";
    let mut roots = RootCertStore::empty();
    if let Some(map) = &endpoint.trusted_cas {
        for certificate in CertificateDer::pem_slice_iter(&map.joined()) {
            let certificate = certificate.map_err(|error| format!("{WHERE} holds no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{WHERE} holds a bad certificate: {error}"))?;
        }
    }
    if roots.is_empty() {
        return Err(format!("{WHERE} holds no certificate"));
    }
    Ok(roots)
}

/// The certificate of a client, with those behind it, and its key.
fn client(secret: &Secret) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let entry = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| secret.bytes(name));
        found.ok_or_else(|| format!("the Secret has neither `{}` nor `{}`", names[0], names[1]))
    };
    let mut chain = Vec::new();
    for text in [Some(entry(CERTIFICATE)?), secret.bytes(INTERMEDIATE)].into_iter().flatten() {
        for certificate in CertificateDer::pem_slice_iter(text) {
            chain.push(certificate.map_err(|error| format!("the client certificate is no PEM: {error}"))?);
        }
    }
    if chain.is_empty() {
        return Err("the client certificate is empty".to_owned());
    }
    // Not even the kind of fault is told of a key.
    let key =
        PrivateKeyDer::from_pem_slice(entry(KEY)?).map_err(|_| "the client key is no PEM private key")?;
    Ok((chain, key))
}

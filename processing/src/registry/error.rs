//! Why a pull failed, and what can be done about it.

use std::path::PathBuf;
use std::time::Duration;

use super::Digest;

/// A pull that failed: the full reference, the cause, and advice where there is some.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {reference}: {cause}{}", cause.advice().map(|advice| format!(" ({advice})")).unwrap_or_default())]
pub struct RegistryError {
    reference: String,
    cause: Box<Cause>,
}

impl RegistryError {
    pub(super) fn new(reference: String, cause: Cause) -> Self {
        RegistryError { reference, cause: Box::new(cause) }
    }

    /// The full reference: host, repository, and tag or digest.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// What went wrong.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// AIO's health reason code for it (AIO.md §9.7).
    #[must_use]
    pub fn reason_code(&self) -> &'static str {
        match *self.cause {
            Cause::Timeout { .. } => "DataflowGraphModuleDownloadTimeout",
            _ => "DataflowGraphModuleDownloadFailed",
        }
    }
}

/// What went wrong with a pull.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The reference does not parse.
    #[error("the reference is not `name:tag` or `name@sha256:…`: {problem}")]
    BadReference {
        /// What the parser says.
        problem: String,
    },
    /// The endpoint's host is none.
    #[error("host `{}` {problem}", host.escape_debug())]
    BadHost {
        /// The host as given.
        host: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No connection: name not found, refused, no route.
    #[error("the registry cannot be reached: {detail}")]
    Unreachable {
        /// What the system says.
        detail: String,
    },
    /// Nothing came in time.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
        /// The limit's name.
        setting: &'static str,
    },
    /// The connection ended in the middle of an answer.
    #[error("the connection broke off: {detail}")]
    Interrupted {
        /// What the system says.
        detail: String,
    },
    /// 429 or 5xx.
    #[error("the registry is not able to answer now: HTTP {status}{detail}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// The registry's own words, led by `: `, or empty.
        detail: String,
    },
    /// The host does not speak TLS.
    #[error("the host answered in plain HTTP to an HTTPS request")]
    SpeaksPlainHttp,
    /// The host speaks TLS only.
    #[error("the host wants HTTPS and was asked in plain HTTP")]
    SpeaksTls,
    /// TLS failed.
    #[error("TLS failed: {detail}")]
    Tls {
        /// What the TLS library says.
        detail: String,
    },
    /// There is no managed identity here, or the registry does not know it.
    #[error("no managed identity: {detail}")]
    Identity {
        /// Who says what.
        detail: String,
    },
    /// 401 or 403.
    #[error("the registry refuses access: HTTP {status}{detail}")]
    Denied {
        /// HTTP status.
        status: u16,
        /// The registry's own words, led by `: `, or empty.
        detail: String,
        /// Whether no credentials are configured.
        anonymous: bool,
    },
    /// There is no such repository, tag or digest.
    #[error("{what} does not exist there{detail}")]
    NotFound {
        /// Manifest or layer.
        what: &'static str,
        /// The registry's own words, led by `: `, or empty.
        detail: String,
    },
    /// Another HTTP status, or an answer the protocol does not allow.
    #[error("the registry answered what the OCI distribution protocol does not allow: {detail}")]
    Protocol {
        /// Which.
        detail: String,
    },
    /// The bytes are not those that were asked for.
    #[error("{what} does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Manifest or layer.
        what: &'static str,
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// More or fewer bytes than the manifest says.
    #[error("{what} does not have its stated size: expected {expected} bytes, got {}{actual}", if *at_least { "at least " } else { "" })]
    SizeMismatch {
        /// Manifest or layer.
        what: &'static str,
        /// Bytes as stated.
        expected: u64,
        /// Bytes that came.
        actual: u64,
        /// Whether reading stopped there.
        at_least: bool,
    },
    /// Larger than allowed.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// Manifest or layer.
        what: &'static str,
        /// The limit, in bytes.
        max: u64,
        /// The limit's name.
        setting: &'static str,
    },
    /// No manifest that could be used.
    #[error("{what} is not usable: {detail}")]
    Malformed {
        /// Manifest, index, token.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// An index of several images: which one is meant cannot be told.
    #[error("the reference names an index of {images} images")]
    AmbiguousIndex {
        /// How many.
        images: usize,
    },
    /// A manifest without content.
    #[error("the manifest has no layer with content")]
    NoContent,
    /// A signature is wanted, and there is none.
    #[error("nobody has signed its manifest, {manifest}")]
    Unsigned {
        /// The manifest's digest.
        manifest: Digest,
    },
    /// A signature is wanted, and none of those that are there counts; or what is trusted cannot be read.
    #[error("{detail}")]
    Untrusted {
        /// Why not.
        detail: String,
    },
    /// A layout directory that cannot be read.
    #[error("{}: {detail}", path.display())]
    Layout {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A fault of this program.
    #[error("internal fault: {detail}")]
    Internal {
        /// What happened.
        detail: String,
    },
}

impl Cause {
    /// Whether the registry did not get to speak, so that what it said last may stand in for it.
    #[must_use]
    pub fn registry_is_away(&self) -> bool {
        matches!(
            self,
            Cause::Unreachable { .. }
                | Cause::Timeout { .. }
                | Cause::Interrupted { .. }
                | Cause::Unavailable { .. }
        )
    }

    /// What whoever runs the broker can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let advice = match self {
            Cause::Unreachable { .. } => "check the endpoint's host and port, and this machine's network",
            Cause::Timeout { setting, .. } => {
                return Some(format!("if the registry is merely slow, raise {setting}"));
            }
            Cause::SpeaksPlainHttp => {
                "a registry off loopback is spoken to without TLS only if the endpoint says so: allow plain HTTP for it"
            }
            Cause::SpeaksTls => {
                "do not allow plain HTTP for this endpoint; for a registry on loopback, forbid it"
            }
            Cause::Tls { .. } => {
                "the registry's certificate must be issued for its host by an authority that this system's certificates name; check the clock too"
            }
            Cause::Denied { anonymous: true, .. } => {
                "no credentials are configured for this endpoint: give user and password, or make the repository public"
            }
            Cause::Denied { anonymous: false, .. } => {
                "check user and password, and that the user may pull from this repository"
            }
            Cause::Identity { .. } => {
                "managed identities exist on Azure only: elsewhere, give the endpoint an ArtifactPullSecret with a token of the registry"
            }
            Cause::NotFound { what: "the manifest", .. } => {
                "check name and tag, and that the repository path stands in the endpoint's host or in the reference"
            }
            Cause::DigestMismatch { .. } | Cause::SizeMismatch { .. } => {
                "the content was changed or damaged on its way or at the registry: do not use it; push it again"
            }
            Cause::TooLarge { setting, .. } => return Some(format!("raise {setting} if this is wanted")),
            Cause::AmbiguousIndex { .. } => {
                "operators do not depend on the platform: name one image by its digest"
            }
            Cause::Unsigned { .. } => {
                "the endpoint's codeSigningCas or trustSettings want a signature: sign the artifact by its digest (`notation sign`, or `cosign sign --key` where public keys are trusted)"
            }
            Cause::Untrusted { .. } => {
                "codeSigningCas or trustSettings of the endpoint name, in a Secret or ConfigMap, the certificates (PEM) that issue those of signers, or public keys"
            }
            Cause::NoContent => "push it with one file, as `oras push REFERENCE FILE:application/wasm`",
            _ => return None,
        };
        Some(advice.to_owned())
    }

    /// The label under which this is counted.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Cause::BadReference { .. } | Cause::BadHost { .. } => "bad_reference",
            Cause::Unreachable { .. } | Cause::Interrupted { .. } => "unreachable",
            Cause::Timeout { .. } => "timeout",
            Cause::Unavailable { .. } => "unavailable",
            Cause::SpeaksPlainHttp | Cause::SpeaksTls | Cause::Tls { .. } => "tls",
            Cause::Identity { .. } => "identity",
            Cause::Denied { .. } => "denied",
            Cause::NotFound { .. } => "not_found",
            Cause::DigestMismatch { .. } | Cause::SizeMismatch { .. } => "mismatch",
            Cause::TooLarge { .. } => "too_large",
            Cause::Unsigned { .. } => "unsigned",
            Cause::Untrusted { .. } => "untrusted",
            Cause::Protocol { .. }
            | Cause::Malformed { .. }
            | Cause::AmbiguousIndex { .. }
            | Cause::NoContent => "malformed",
            Cause::Layout { .. } => "layout",
            Cause::Internal { .. } => "internal",
        }
    }
}

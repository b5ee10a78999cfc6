//! The versions in `moduleRequirements` and the rule for them (DESIGN §4.8): the same major as the
//! host's, and not newer.

use crate::finding::{Report, Severity, quoted};
use crate::read::{Located, Path};
use std::fmt;

/// The contract that a graph's modules are built against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contract {
    /// `tinykube-graph:processor@1.0.0`, graph files with `hostlibVersion`.
    Preview,
    /// `wasm-graph:processor@1.1.0`, graph files with `metadata` and `runtimeVersion`.
    Ga,
}

impl Contract {
    /// The newest version that the host serves.
    fn newest(self) -> Version {
        match self {
            Self::Preview => Version(0, 2, 0),
            Self::Ga => Version(1, 1, 0),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<u32>().ok(),
            false => None,
        });
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// Before 1.0, semantic versioning lets the second number break what was promised.
    fn major(self) -> (u32, u32) {
        (self.0, if self.0 == 0 { self.1 } else { 0 })
    }
}

/// Checks `apiVersion`.
pub(super) fn check_api(contract: Contract, text: &Located<String>, path: &Path<'_>, report: &mut Report) {
    let newest = contract.newest();
    let Some(version) = parse(text, path, report) else { return };
    let fault = if version.major() != newest.major() {
        match contract {
            Contract::Ga => format!("the host serves {newest} (and 0.2.0 with `hostlibVersion`)"),
            Contract::Preview => format!("with `hostlibVersion` the host serves {newest} only"),
        }
    } else if version > newest {
        format!("the host serves no newer than {newest}")
    } else {
        return;
    };
    report.error(text.position, path, format!("`{path}` is {}, but {fault}", quoted(text)));
}

/// Checks `runtimeVersion` or `hostlibVersion`: it promises nothing that could be looked at, so a newer
/// one is only worth a warning.
pub(super) fn check_runtime(
    contract: Contract,
    text: &Located<String>,
    path: &Path<'_>,
    report: &mut Report,
) {
    let newest = contract.newest();
    let Some(version) = parse(text, path, report) else { return };
    if version > newest {
        let message = format!("`{path}` is {}, which is newer than the host's {newest}", quoted(text));
        report.add(Severity::Warning, text.position, path, message);
    }
}

fn parse(text: &Located<String>, path: &Path<'_>, report: &mut Report) -> Option<Version> {
    let version = Version::parse(text);
    if version.is_none() {
        let message = format!("`{path}` is {}, but must be a version such as `1.1.0`", quoted(text));
        report.error(text.position, path, message);
    }
    version
}

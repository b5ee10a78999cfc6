//! What several kinds of resources share.

use crate::finding::{Position, Report, quoted};
use crate::read::{Decode, Fields, Located, Path, choice, record, subject};
use crate::suggest::nearest;
use crate::yaml::Node;
use std::fmt;
use std::time::Duration;

/// On or off. Written in any case, as AIO does (AIO.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationalMode {
    /// On.
    Enabled,
    /// Off.
    Disabled,
}

impl Decode for OperationalMode {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        if text.eq_ignore_ascii_case("Enabled") {
            Some(Self::Enabled)
        } else if text.eq_ignore_ascii_case("Disabled") {
            Some(Self::Disabled)
        } else {
            crate::read::no_choice(node, path, report, &text, &["Enabled", "Disabled"])
        }
    }
}

choice! {
    /// Which part of some state is persisted (AIO.md §6).
    pub enum PersistenceMode {
        /// Nothing.
        None = "None",
        /// Everything.
        All = "All",
        /// What the settings beside it say.
        Custom = "Custom",
    }
}

choice! {
    /// How keys of the state store are matched.
    pub enum KeyType {
        /// A pattern with wildcards.
        Pattern = "Pattern",
        /// The exact text.
        String = "String",
        /// The exact bytes, written in base64.
        Binary = "Binary",
    }
}

/// Text that must not be shown. Prints as `<hidden>`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Whoever takes it must not log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// No settings: `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {}

impl Decode for Empty {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        Fields::open(node, path, report)?.close().map(|()| Self {})
    }
}

record! {
    /// A reference to a Secret by name.
    pub struct SecretRef {
        /// The name of the Secret.
        secret_ref: Located<String> = "secretRef" required(),
    }
}

record! {
    /// TLS towards a remote system.
    pub struct Tls {
        /// Whether TLS is used.
        mode: OperationalMode = "mode" or(OperationalMode::Enabled),
        /// The ConfigMap with the certificates that are trusted.
        trusted_ca_certificate_config_map_ref: Option<Located<String>> =
            "trustedCaCertificateConfigMapRef" optional(),
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { mode: OperationalMode::Enabled, trusted_ca_certificate_config_map_ref: None }
    }
}

record! {
    /// A system-assigned managed identity of Azure.
    pub struct SystemIdentity {
        /// For whom the token is made.
        audience: Option<String> = "audience" optional(),
        /// The name of the Arc extension (in the documentation only).
        extension_name: Option<String> = "extensionName" optional(),
        /// The tenant (in the documentation only).
        tenant_id: Option<String> = "tenantId" optional(),
    }
}

impl SystemIdentity {
    pub(crate) fn unset() -> Self {
        Self { audience: None, extension_name: None, tenant_id: None }
    }
}

record! {
    /// A user-assigned managed identity of Azure.
    pub struct UserIdentity {
        /// The client id.
        client_id: String = "clientId" required(),
        /// The tenant.
        tenant_id: String = "tenantId" required(),
        /// The scope that is asked for.
        scope: Option<String> = "scope" optional(),
    }
}

record! {
    /// A Kubernetes service account token.
    pub struct ServiceAccountToken {
        /// For whom the token is made.
        audience: String = "audience" or("aio-internal".to_owned()),
    }
}

record! {
    /// A volume claim, as Kubernetes defines it.
    pub struct VolumeClaim {
        /// How the volume may be mounted, such as `ReadWriteOncePod`.
        access_modes: Vec<String> = "accessModes" or(Vec::new()),
        /// The storage class.
        storage_class_name: Option<String> = "storageClassName" optional(),
        /// `Filesystem` or `Block`.
        volume_mode: Option<String> = "volumeMode" optional(),
        /// The volume itself.
        volume_name: Option<String> = "volumeName" optional(),
        /// What is requested of the volume.
        resources: Option<crate::read::Unread> = "resources" optional(),
        /// Which volumes may serve.
        selector: Option<crate::read::Unread> = "selector" optional(),
        /// What the volume is filled from.
        data_source: Option<crate::read::Unread> = "dataSource" optional(),
        /// What the volume is filled from.
        data_source_ref: Option<crate::read::Unread> = "dataSourceRef" optional(),
        /// The class of changeable attributes.
        volume_attributes_class_name: Option<String> = "volumeAttributesClassName" optional(),
    }
}

/// `<hostname>[:port]`, with what a URL may have before and behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The port, where one is named.
    pub fn port(&self) -> Option<u16> {
        let (_, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority = rest.split('/').next().unwrap_or_default();
        let after = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
        after.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    }

    /// The path, with its slash, where one is named.
    pub fn path(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        rest.find('/').map(|slash| &rest[slash..])
    }

    /// The host name alone.
    pub fn name(&self) -> &str {
        let (_, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority = rest.split('/').next().unwrap_or_default();
        match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((address, _)) => address,
            None => authority.split(':').next().unwrap_or_default(),
        }
    }
}

impl Decode for Host {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let (_, rest) = text.split_once("://").unwrap_or(("", &text));
        match check_authority(rest.split('/').next().unwrap_or_default()) {
            Ok(()) => Some(Self(text)),
            Err(fault) => {
                let message = format!("{} is {}, but {fault}", subject(path), quoted(&text));
                report.error(node.position, path, message);
                None
            }
        }
    }
}

/// Checks `<hostname>[:port]`.
pub(crate) fn check_authority(text: &str) -> Result<(), &'static str> {
    let (name, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("the address between brackets is no IPv6 address");
            }
            ("v6", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) })
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(inner)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("this is no host name");
    }
    match port.map(|port| (port.bytes().all(|b| b.is_ascii_digit()), port.parse::<u16>())) {
        None | Some((true, Ok(1..))) => Ok(()),
        _ => Err("the port must be a whole number from 1 to 65535"),
    }
}

/// A length of time as text, such as `50ms`, `1.5s`, `240h` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Decode for Span {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        parsed(parse_duration(&text), &text, node.position, path, report).map(Self)
    }
}

/// Passes on what was parsed, or reports why `text` could not be.
pub(crate) fn parsed<T>(
    result: Result<T, String>,
    text: &str,
    position: Position,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<T> {
    result
        .map_err(|fault| {
            report.error(position, path, format!("{} is {}, but {fault}", subject(path), quoted(text)));
        })
        .ok()
}

const DURATION_FORM: &str = "must be a length of time such as `50ms`, `2s` or `1h30m`";

/// Reads a length of time: numbers with `ns`, `us`, `ms`, `s`, `m`, `h` or `d`, one behind the other.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fail = || DURATION_FORM.to_owned();
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let nanos: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            _ => return Err(fail()),
        };
        let number: f64 = number.parse().map_err(|_| fail())?;
        let part = Duration::try_from_secs_f64(number * nanos / 1e9).map_err(|_| "is too long".to_owned())?;
        total = total.checked_add(part).ok_or_else(|| "is too long".to_owned())?;
        rest = tail;
    }
    Ok(total)
}

/// An amount of bytes as text, such as `64MiB`, `128Mi`, `10G` or `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Reads an amount of bytes: `K`, `M`, `G`, `T`, `P`, `E` are powers of 1000, with `i` of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fail = || "must be an amount of bytes such as `64MiB`, `10Gi` or `500M`".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| fail())?;
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let (base, letter) = match unit.strip_suffix('i') {
        Some(letter) => (1024_u64, letter),
        None => (1000, unit),
    };
    let power = match letter {
        "" if unit.is_empty() => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return Err(fail()),
    };
    base.checked_pow(power).and_then(|unit| number.checked_mul(unit)).ok_or_else(|| "is too much".to_owned())
}

impl Decode for Bytes {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        parsed(parse_bytes(&text), &text, node.position, path, report).map(Self)
    }
}

/// A log level of AIO's `diagnostics.logs.level`; per-crate directives may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl LogLevel {
    const LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    pub(crate) fn info() -> Self {
        Self("info".to_owned())
    }

    /// The level of what no directive names.
    pub fn of_everything(&self) -> &str {
        let mut words = self.0.split([',', ';']).map(str::trim);
        words.find(|word| !word.contains('=')).unwrap_or("info")
    }
}

impl Decode for LogLevel {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let first = text.split([',', ';']).next().unwrap_or_default().trim();
        if Self::LEVELS.iter().any(|level| level.eq_ignore_ascii_case(first)) || first.contains('=') {
            return Some(Self(text));
        }
        let hint =
            nearest(first, Self::LEVELS).map_or(String::new(), |level| format!("; did you mean `{level}`?"));
        let message = format!("{} is {}, but is no log level{hint}", subject(path), quoted(&text));
        report.error(node.position, path, message);
        None
    }
}

record! {
    /// Logging of one part.
    pub struct Logs {
        /// The least level that is logged.
        level: LogLevel = "level" or(LogLevel::info()),
    }
}

record! {
    /// Metrics of one part.
    pub struct Metrics {
        /// The port for Prometheus.
        prometheus_port: u16 = "prometheusPort" or_in(9600, 0..=65535),
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { level: LogLevel::info() }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { prometheus_port: 9600 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2160h0m0s"), Ok(Duration::from_secs(2160 * 3600)));
        for wrong in ["", "5", "ms", "5 s", "-1s", "1e9s", "5x", "99999999999999999999999d", "."] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_of_bytes_are_decimal_or_binary() {
        assert_eq!(parse_bytes("10GiB"), Ok(10 << 30));
        assert_eq!(parse_bytes("128Mi"), Ok(128 << 20));
        assert_eq!(parse_bytes("5K"), Ok(5000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for wrong in ["", "M", "1.5G", "10X", "16E16", "99999999999E", "1i", "-4M"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_names_may_have_a_port() {
        for right in ["localhost", "a-b.example:5000", "127.0.0.1:1", "[::1]:80", "[::1]", "x."] {
            assert_eq!(check_authority(right), Ok(()), "{right}");
        }
        for wrong in ["", "a b", "a:", "a:0", "a:70000", "a:+1", ".a", "a..b", "[::1", "[x]:1", "[::1]1"] {
            assert!(check_authority(wrong).is_err(), "{wrong}");
        }
    }
}

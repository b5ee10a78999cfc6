//! Content digests: `sha256:<64 hex digits>` and `sha512:<128 hex digits>`.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// The digest of a blob or manifest, checked to be one: lower-case hexadecimal of the right length, so that
/// it is safe as a file name and in a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Algorithm::Sha256.digest_of(bytes)
    }

    /// `sha256` or `sha512`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// The digest itself, in lower-case hexadecimal.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The digest of `bytes` by the algorithm of this one, to compare with it.
    #[must_use]
    pub fn same_of(&self, bytes: &[u8]) -> Digest {
        self.algorithm.digest_of(bytes)
    }

    pub(super) fn hasher(&self) -> Hasher {
        self.algorithm.hasher()
    }
}

/// Hashes a blob while it comes in.
pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => {
                Digest { algorithm: Algorithm::Sha256, hex: format!("{:x}", hasher.finalize()).into() }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: Algorithm::Sha512, hex: format!("{:x}", hasher.finalize()).into() }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hasher(self) -> Hasher {
        match self {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    fn digest_of(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let (algorithm, length) = match text.split_once(':') {
            Some(("sha256", _)) => (Algorithm::Sha256, 64),
            Some(("sha512", _)) => (Algorithm::Sha512, 128),
            _ => return Err(format!("`{}` is no sha256 or sha512 digest", text.escape_debug())),
        };
        let hex = &text["sha256:".len()..];
        if hex.len() != length || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!(
                "`{}` is no digest: {} takes {length} lower-case hexadecimal digits",
                text.escape_debug(),
                algorithm.name()
            ));
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        let digest = Digest::of(b"forebay");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let long = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn what_could_leave_its_directory_is_no_digest() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let short = format!("sha256:{}", "a".repeat(63));
        let path = format!("sha256:../{}", "a".repeat(61));
        for text in ["", "sha256", "sha256:", "sha256:../../etc/passwd", "md5:aa", &upper, &short, &path] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}

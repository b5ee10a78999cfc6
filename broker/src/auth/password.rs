//! Password files in the formats of mosquitto: a line `user:hash` for each user.
//!
//! `$6$salt$hash` is SHA-512 of password and salt, `$7$iterations$salt$hash` is PBKDF2 with HMAC-SHA-512, both in base64;
//! `$argon2id$v=19$m=…,t=…,p=…$salt$hash` is Argon2id as everybody writes it.
//!
//! Beyond mosquitto's, `SCRAM-SHA-256$…` and `SCRAM-SHA-512$…` ([`scram`](super::scram)) are for users who may also prove that
//! they know their password without telling it.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use broker_core::packet::ReasonCode;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::scram::{Exchange, First, Mechanism, Verifier};
use super::{Credentials, Identity, Verdict};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Iterations of PBKDF2 beyond which a line is taken for a mistake: each login would take seconds.
const ITERATIONS_MAX: u32 = 50_000_000;
/// KiB of Argon2's memory beyond which a line is taken for a mistake.
const ARGON2_KIB_MAX: u32 = 1 << 20;
/// Iterations of new hashes; a login costs some tens of milliseconds.
pub const ITERATIONS_DEFAULT: u32 = 100_000;
/// As many as mosquitto takes, no more and no fewer.
const SALT_BYTES: usize = 12;

/// Hashes worked out at once: they take a core each, and messages want some, too.
static AT_ONCE: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new((cores / 2).max(1))
});

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HashKind {
    /// Once, with SHA-512; only for what cannot read anything better.
    Sha512,
    /// With PBKDF2 and HMAC-SHA-512; mosquitto reads it from 2.0 on.
    Sha512Pbkdf2,
    /// With Argon2id; mosquitto reads it from 2.1 on.
    Argon2id,
    /// For the authentication method SCRAM-SHA-256, and for plain passwords, too; mosquitto does not read it.
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

/// The hash of one password.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$6$`
    Sha512 {
        /// Salt.
        salt: Vec<u8>,
        /// Hash.
        hash: Vec<u8>,
    },
    /// `$7$`
    Pbkdf2 {
        /// Iterations.
        iterations: NonZeroU32,
        /// Salt.
        salt: Vec<u8>,
        /// Hash.
        hash: Vec<u8>,
    },
    /// `$argon2id$`
    Argon2id {
        /// KiB of memory, passes and lanes.
        costs: (u32, u32, u32),
        /// Salt.
        salt: Vec<u8>,
        /// Hash.
        hash: Vec<u8>,
    },
    /// `SCRAM-SHA-256$` and `SCRAM-SHA-512$`
    Scram(Arc<Verifier>),
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// Hashes a password anew, with a salt of its own.
    ///
    /// # Errors
    /// When there is no randomness, or the password cannot be hashed so.
    pub fn make(kind: HashKind, iterations: NonZeroU32, password: &[u8]) -> Result<Self, String> {
        if iterations.get() > ITERATIONS_MAX {
            return Err(format!("more than {ITERATIONS_MAX} iterations are not read again"));
        }
        let scram = |mechanism| {
            Verifier::make(mechanism, iterations, password).map(|made| Self::Scram(Arc::new(made)))
        };
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| "the operating system gives no random bytes".to_owned())?;
        let mut made = match kind {
            HashKind::Sha512 => Self::Sha512 { salt, hash: Vec::new() },
            HashKind::Sha512Pbkdf2 => Self::Pbkdf2 { iterations, salt, hash: vec![0; 64] },
            HashKind::Argon2id => Self::Argon2id { costs: (19 * 1024, 2, 1), salt, hash: vec![0; 32] },
            HashKind::ScramSha256 => return scram(Mechanism::Sha256),
            HashKind::ScramSha512 => return scram(Mechanism::Sha512),
        };
        let worked_out = made.work_out(password).ok_or("the password cannot be hashed")?;
        if let Self::Sha512 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Argon2id { hash, .. } = &mut made
        {
            *hash = worked_out;
        }
        Ok(made)
    }

    /// Reads what stands behind the user's name.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow the name. Never the text itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|_| "has no valid base64 in its hash".to_owned());
        let fields: Vec<&str> = text.split('$').collect();
        if let Some(mechanism) = fields.first().copied().and_then(Mechanism::named) {
            let verifier = Verifier::parse(mechanism, &fields[1..], ITERATIONS_MAX)?;
            return Ok(Self::Scram(Arc::new(verifier)));
        }
        match fields[..] {
            ["", "6", salt, hash] => Ok(Self::Sha512 { salt: decode(salt)?, hash: decode(hash)? }),
            ["", "7", iterations, salt, hash] => {
                let iterations = iterations.parse().ok().filter(|n: &NonZeroU32| n.get() <= ITERATIONS_MAX);
                let iterations = iterations.ok_or("has no sensible number of iterations")?;
                Ok(Self::Pbkdf2 { iterations, salt: decode(salt)?, hash: decode(hash)? })
            }
            ["", "argon2id", "v=19", costs, salt, hash] => Self::argon2id(costs, salt, hash),
            _ => Err("has no hash of a known kind ($6$, $7$, $argon2id$v=19$, SCRAM-SHA-256$ or SCRAM-SHA-512$); hash \
                plain passwords with `forebay passwd -U`"
                .to_owned()),
        }
    }

    fn argon2id(costs: &str, salt: &str, hash: &str) -> Result<Self, String> {
        let unpadded = |text: &str| {
            STANDARD_NO_PAD.decode(text).map_err(|_| "has no valid base64 in its hash".to_owned())
        };
        let cost = |name: &str| {
            let found = costs.split(',').find_map(|cost| cost.strip_prefix(name)?.strip_prefix('='));
            found.and_then(|value| value.parse::<u32>().ok())
        };
        let costs = cost("m").zip(cost("t")).zip(cost("p")).map(|((m, t), p)| (m, t, p));
        let (m, t, p) = costs.ok_or("has no costs m, t and p")?;
        let hash = unpadded(hash)?;
        if m > ARGON2_KIB_MAX || Params::new(m, t, p, Some(hash.len())).is_err() {
            return Err("has costs that Argon2 does not take".to_owned());
        }
        Ok(Self::Argon2id { costs: (m, t, p), salt: unpadded(salt)?, hash })
    }

    /// What was read, as it is written.
    pub fn again(text: &str) -> Option<String> {
        Self::parse(text).ok().map(|hash| hash.to_string())
    }

    /// Whether this is the password. Takes as long as it was made to.
    pub fn verify(&self, password: &[u8]) -> bool {
        let hash = match self {
            Self::Sha512 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Argon2id { hash, .. } => hash,
            Self::Scram(verifier) => return verifier.verify(password),
        };
        let worked_out = self.work_out(password);
        worked_out.is_some_and(|found| constant_time::verify_slices_are_equal(&found, hash).is_ok())
    }

    fn work_out(&self, password: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Scram(_) => None,
            Self::Sha512 { salt, .. } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                Some(context.finish().as_ref().to_vec())
            }
            Self::Pbkdf2 { iterations, salt, hash } => {
                let mut out = vec![0; hash.len()];
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, &mut out);
                Some(out)
            }
            Self::Argon2id { costs: (m, t, p), salt, hash } => {
                let params = Params::new(*m, *t, *p, Some(hash.len())).ok()?;
                let mut out = vec![0; hash.len()];
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut out).ok()?;
                Some(out)
            }
        }
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha512 { salt, hash } => {
                write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            Self::Pbkdf2 { iterations, salt, hash } => {
                write!(f, "$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            Self::Argon2id { costs: (m, t, p), salt, hash } => {
                let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
                write!(f, "$argon2id$v=19$m={m},t={t},p={p}${salt}${hash}")
            }
            Self::Scram(verifier) => verifier.fmt(f),
        }
    }
}

/// Users and the hashes of their passwords.
#[derive(Debug)]
pub struct PasswordFile {
    users: HashMap<String, Arc<PasswordHash>>,
    /// What an unknown user's password is checked against: the answer takes as long as a known one's.
    nobody: Arc<PasswordHash>,
    /// What stays the same as long as the file does, and nobody else knows: salts of unknown users are made of it.
    secret: Vec<u8>,
}

impl PasswordFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong.
    pub fn load(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let fail = |error: std::io::Error| format!("the password file {shown} cannot be read: {error}");
        if std::fs::metadata(path).map_err(fail)?.len() > FILE_BYTES_MAX {
            return Err(format!("the password file {shown} is larger than {FILE_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(fail)?;
        Self::parse(&text).map_err(|(line, fault)| format!("{shown}:{line}: {fault}"))
    }

    /// Reads the text of a file; an error has its line.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line_number = at + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) =
                line.split_once(':').ok_or((line_number, "the line is not `user:hash`".to_owned()))?;
            let fail = |fault: String| (line_number, format!("the user `{user}` {fault}"));
            let hash = PasswordHash::parse(hash.trim_end()).map_err(fail)?;
            if users.insert(user.to_owned(), Arc::new(hash)).is_some() {
                return Err(fail("stands here twice".to_owned()));
            }
        }
        let nobody = users.values().next().cloned().unwrap_or_else(|| {
            Arc::new(PasswordHash::Sha512 { salt: vec![0; SALT_BYTES], hash: vec![0; 64] })
        });
        Ok(Self { users, nobody, secret: digest::digest(&digest::SHA512, text.as_bytes()).as_ref().to_vec() })
    }

    /// Whether some user can use this authentication method of MQTT 5.
    pub(super) fn serves(&self, method: &str) -> bool {
        Mechanism::named(method).is_some_and(|mechanism| self.verifiers(mechanism).next().is_some())
    }

    fn verifiers(&self, wanted: Mechanism) -> impl Iterator<Item = &Arc<Verifier>> {
        self.users.values().filter_map(move |hash| match &**hash {
            PasswordHash::Scram(verifier) if verifier.mechanism() == wanted => Some(verifier),
            _ => None,
        })
    }

    /// Answers the first message of SCRAM.
    fn challenge(&self, mechanism: Mechanism, message: &[u8]) -> Verdict {
        let first = match First::parse(message) {
            Ok(first) => first,
            Err(why) => return Verdict::refused(ReasonCode::NotAuthorized, why),
        };
        let Some(example) = self.verifiers(mechanism).next() else { return Verdict::NotRelevant };
        let known = match self.users.get(&first.user).map(|hash| &**hash) {
            Some(PasswordHash::Scram(verifier)) if verifier.mechanism() == mechanism => Some(verifier),
            _ => None,
        };
        let verifier = match known {
            Some(verifier) => Arc::clone(verifier),
            None => Arc::new(example.of_nobody(&self.secret, &first.user)),
        };
        match Exchange::begin(first, verifier, known.is_some()) {
            Ok(exchange) => Verdict::Challenged(exchange),
            Err(why) => Verdict::refused(ReasonCode::ServerUnavailable, why),
        }
    }

    /// A user name and a password are relevant, and SCRAM for those who can use it.
    pub(super) async fn ask(&self, credentials: &Credentials<'_>) -> Verdict {
        if let Some(mechanism) = credentials.method.and_then(Mechanism::named) {
            return self.challenge(mechanism, credentials.data.unwrap_or_default());
        }
        let (Some(user), Some(password), None) =
            (credentials.username, credentials.password, credentials.method)
        else {
            return Verdict::NotRelevant;
        };
        let known = self.users.get(user).cloned();
        let is_known = known.is_some();
        let hash = known.unwrap_or_else(|| Arc::clone(&self.nobody));
        let password = Zeroizing::new(password.to_vec());
        // Never closed; were it, nobody would be let in.
        let Ok(_permit) = AT_ONCE.acquire().await else {
            return Verdict::refused(ReasonCode::ServerBusy, "no password can be checked");
        };
        let checked = tokio::task::spawn_blocking(move || hash.verify(&password)).await.unwrap_or(false);
        match checked && is_known {
            true => Verdict::Accepted(Identity { username: Some(user.to_owned()), ..Identity::default() }),
            false => Verdict::refused(
                ReasonCode::BadUserNameOrPassword,
                "the user is not known, or the password is wrong",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(101).expect("not zero");

    #[test]
    fn every_kind_comes_back_as_it_was_written() {
        for kind in <HashKind as clap::ValueEnum>::value_variants().iter().copied() {
            let hash = PasswordHash::make(kind, FEW, b"secret").expect("it can be made");
            let read = PasswordHash::parse(&hash.to_string()).expect("it can be read");
            assert!(read == hash && read.verify(b"secret"), "{kind:?}");
            assert!(!read.verify(b"Secret") && !read.verify(b""), "{kind:?}");
        }
    }

    #[test]
    fn what_other_programs_wrote_is_understood() {
        // By mosquitto_passwd 2.0.11, and by argon2-cffi 25.1 for Python.
        let lines = [
            include_str!("../../../tests/fixtures/passwords/sha512.txt"),
            include_str!("../../../tests/fixtures/passwords/pbkdf2.txt"),
            include_str!("../../../tests/fixtures/passwords/argon2id.txt"),
        ];
        for line in lines {
            let (user, hash) = line.trim_end().split_once(':').expect("user:hash");
            assert_eq!(user, "ada");
            let hash = PasswordHash::parse(hash).expect("a known kind");
            assert!(hash.verify(b"correct horse"), "{line}");
            assert!(!hash.verify(b"wrong horse"), "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_without_its_text() {
        let cases = [
            (
                "# users\n\nada:$6$c2FsdA==$aGFzaA==\nbob:plain",
                "4: the user `bob` has no hash of a known kind",
            ),
            ("ada", "1: the line is not `user:hash`"),
            ("ada:$6$!$aGFzaA==", "1: the user `ada` has no valid base64"),
            ("ada:$7$0$c2FsdA==$aGFzaA==", "1: the user `ada` has no sensible number of iterations"),
            ("ada:$7$99999999$c2FsdA==$aGFzaA==", "1: the user `ada` has no sensible number of iterations"),
            (
                "ada:$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
                "1: the user `ada` has costs",
            ),
            ("ada:$6$c2FsdA==$aGFzaA==\nada:$6$c2FsdA==$aGFzaA==", "2: the user `ada` stands here twice"),
        ];
        for (text, expected) in cases {
            let (line, fault) = PasswordFile::parse(text).expect_err("refused");
            let said = format!("{line}: {fault}");
            assert!(said.starts_with(expected), "{said}");
            assert!(!said.contains("plain;") && !said.contains("aGFzaA"), "{said}");
        }
    }
}

//! SCRAM (RFC 5802, RFC 7677): a client proves that it knows its password, the broker that it knows the user, and neither
//! tells it. In MQTT 5 it is an authentication method with two messages each way (v5 §4.12).
//!
//! What is kept of a password, a [`Verifier`], is of no use to whoever steals it: it proves nothing, and a guess costs what
//! a login costs. Channel binding is not offered.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::packet::ReasonCode;

use super::{Identity, Refusal};

/// Bytes of a new salt, and of the salt that somebody unknown is shown.
const SALT_BYTES: usize = 16;
/// Random bytes that the broker adds to a client's nonce.
const NONCE_BYTES: usize = 18;
/// The longest message of a client; names and nonces are short.
const MESSAGE_BYTES_MAX: usize = 8192;

/// Which SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 7677.
    Sha256,
    /// The same with SHA-512.
    Sha512,
}

impl Mechanism {
    /// The mechanism of this name: an authentication method of MQTT 5.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// Its name, as IANA lists it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message)
    }

    fn hash(self, bytes: &[u8]) -> digest::Digest {
        digest::digest(self.digest(), bytes)
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn derivation(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn bytes(self) -> usize {
        self.digest().output_len()
    }
}

/// What is kept of one password: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as PostgreSQL writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    mechanism: Mechanism,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Of a password, with a salt of its own.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn make(mechanism: Mechanism, iterations: NonZeroU32, password: &[u8]) -> Result<Self, String> {
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| "the operating system gives no random bytes".to_owned())?;
        Ok(Self::derive(mechanism, iterations, salt, password))
    }

    fn derive(mechanism: Mechanism, iterations: NonZeroU32, salt: Vec<u8>, password: &[u8]) -> Self {
        let mut salted = zeroize::Zeroizing::new(vec![0; mechanism.bytes()]);
        pbkdf2::derive(mechanism.derivation(), iterations, &salt, &prepared(password), &mut salted);
        let client_key = mechanism.hmac(&salted, b"Client Key");
        let stored_key = mechanism.hash(client_key.as_ref()).as_ref().to_vec();
        let server_key = mechanism.hmac(&salted, b"Server Key").as_ref().to_vec();
        Self { mechanism, iterations, salt, stored_key, server_key }
    }

    /// Reads what [`Display`](fmt::Display) writes; the mechanism is known from its beginning.
    ///
    /// # Errors
    /// What is wrong, in words that follow the user's name. Never the text itself.
    pub fn parse(mechanism: Mechanism, rest: &[&str], iterations_max: u32) -> Result<Self, String> {
        let malformed = || format!("has no `{}$iterations:salt$StoredKey:ServerKey`", mechanism.name());
        let [costs, keys] = rest else { return Err(malformed()) };
        let (iterations, salt) = costs.split_once(':').ok_or_else(malformed)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(malformed)?;
        let iterations = iterations.parse().ok().filter(|n: &NonZeroU32| n.get() <= iterations_max);
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|_| "has no valid base64 in its hash".to_owned());
        let (stored_key, server_key) = (decode(stored_key)?, decode(server_key)?);
        if stored_key.len() != mechanism.bytes() || server_key.len() != mechanism.bytes() {
            return Err(format!("has keys that are not of {}", mechanism.name()));
        }
        let iterations = iterations.ok_or("has no sensible number of iterations")?;
        Ok(Self { mechanism, iterations, salt: decode(salt)?, stored_key, server_key })
    }

    /// Whether this is the password, said outright.
    pub fn verify(&self, password: &[u8]) -> bool {
        let derived = Self::derive(self.mechanism, self.iterations, self.salt.clone(), password);
        constant_time::verify_slices_are_equal(&derived.stored_key, &self.stored_key).is_ok()
    }

    /// For which mechanism it is.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What somebody unknown is shown: salts that stay the same for a name, as those of users do, and keys that nothing
    /// fits.
    pub fn of_nobody(&self, secret: &[u8], user: &str) -> Self {
        let tag = self.mechanism.hmac(secret, user.as_bytes());
        let salt = tag.as_ref().iter().copied().take(self.salt.len()).collect();
        let nothing = vec![0; self.mechanism.bytes()];
        Self { salt, stored_key: nothing.clone(), server_key: nothing, ..self.clone() }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt, &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{}${}:{salt}${stored}:{server}", self.mechanism.name(), self.iterations)
    }
}

/// As RFC 5802 wants a password: by SASLprep, where it can be; other bytes as they are.
fn prepared(password: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    text.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec())
}

/// The first message of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct First {
    /// Whose password it is to be.
    pub user: String,
    nonce: String,
    /// What the client says of channel binding; told again in its last message.
    header: String,
    /// All behind the header.
    bare: String,
}

impl First {
    /// Reads `n,,n=user,r=nonce`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(message: &[u8]) -> Result<Self, &'static str> {
        let text = utf8(message)?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(other), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("its first message is not `n,,n=USER,r=NONCE`");
        };
        match binding {
            "n" | "y" => {}
            _ => return Err("its first message asks for channel binding, which is not offered"),
        }
        if !other.is_empty() {
            return Err("its first message asks to act as somebody else");
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|it| it.strip_prefix("n=")).and_then(unescaped);
        let nonce = attributes.next().and_then(|it| it.strip_prefix("r=")).filter(|it| is_printable(it));
        let (Some(user), Some(nonce)) = (user, nonce) else {
            return Err("its first message has no name or no nonce");
        };
        let header = format!("{binding},,");
        Ok(Self { user, nonce: nonce.to_owned(), header, bare: bare.to_owned() })
    }
}

/// A login that waits for the client's last message.
#[derive(Debug)]
pub struct Exchange {
    first: First,
    verifier: Arc<Verifier>,
    is_known: bool,
    nonce: String,
    /// What the broker said.
    said: String,
}

impl Exchange {
    /// Answers the first message: with the salt of this user, or one like it for somebody who is none.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn begin(first: First, verifier: Arc<Verifier>, is_known: bool) -> Result<Self, String> {
        let mut random = [0; NONCE_BYTES];
        rand::fill(&mut random).map_err(|_| "the operating system gives no random bytes".to_owned())?;
        Ok(Self::with_nonce(first, verifier, is_known, &STANDARD.encode(random)))
    }

    fn with_nonce(first: First, verifier: Arc<Verifier>, is_known: bool, own: &str) -> Self {
        let nonce = format!("{}{own}", first.nonce);
        let said = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        Self { first, verifier, is_known, nonce, said }
    }

    /// What the client is told.
    pub fn said(&self) -> &[u8] {
        self.said.as_bytes()
    }

    /// Takes the client's last message, `c=header,r=nonce,p=proof`; gives who it is and the broker's own proof.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub fn finish(self, message: &[u8]) -> Result<(Identity, Vec<u8>), Refusal> {
        let refused = |why: &str| Refusal { reason: ReasonCode::BadUserNameOrPassword, why: why.to_owned() };
        let text = utf8(message).map_err(refused)?;
        let (unproven, proof) =
            text.rsplit_once(",p=").ok_or_else(|| refused("its last message has no proof"))?;
        let mut attributes = unproven.split(',');
        let header = attributes.next().and_then(|it| it.strip_prefix("c="));
        if header != Some(&STANDARD.encode(&self.first.header)) {
            return Err(refused("its last message says something else of channel binding than its first"));
        }
        if attributes.next().and_then(|it| it.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(refused("its last message does not have the nonce that was agreed on"));
        }
        let (mechanism, verifier) = (self.verifier.mechanism, &self.verifier);
        let signed = format!("{},{},{unproven}", self.first.bare, self.said);
        let signature = mechanism.hmac(&verifier.stored_key, signed.as_bytes());
        let proof = STANDARD.decode(proof).unwrap_or_default();
        let client_key: Vec<u8> =
            proof.iter().zip(signature.as_ref()).map(|(proof, own)| proof ^ own).collect();
        let stored_key = mechanism.hash(&client_key);
        let fits = proof.len() == mechanism.bytes()
            && constant_time::verify_slices_are_equal(stored_key.as_ref(), &verifier.stored_key).is_ok();
        if !(fits && self.is_known) {
            return Err(refused("the user is not known, or the password is wrong"));
        }
        let own = STANDARD.encode(mechanism.hmac(&verifier.server_key, signed.as_bytes()));
        let identity = Identity { username: Some(self.first.user), ..Identity::default() };
        Ok((identity, format!("v={own}").into_bytes()))
    }
}

fn utf8(message: &[u8]) -> Result<&str, &'static str> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err("its message is too long");
    }
    std::str::from_utf8(message).map_err(|_| "its message is not text")
}

/// A name as it stands in a message: `,` is `=2C` there and `=` is `=3D`.
fn unescaped(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        name.push_str(&rest[..at]);
        name.push(match rest.get(at..at + 3)? {
            "=2C" => ',',
            "=3D" => '=',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    name.push_str(rest);
    (!name.is_empty()).then_some(name)
}

fn is_printable(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

    /// The example of RFC 7677, §3.
    fn example() -> Exchange {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = Verifier::derive(Mechanism::Sha256, COUNT, salt, b"pencil");
        let first = First::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").expect("a first message");
        Exchange::with_nonce(first, Arc::new(verifier), true, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        let exchange = example();
        assert_eq!(
            exchange.said,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (identity, own) = exchange.finish(last).expect("the proof is right");
        assert_eq!(identity.username.as_deref(), Some("user"));
        assert_eq!(own, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_last_message_that_is_not_right_is_refused() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let cases = [
            (format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR="), "password is wrong"),
            (format!("c=biws,r={nonce},p=dHzb"), "password is wrong"),
            (format!("c=biws,r={nonce},p=!"), "password is wrong"),
            (format!("c=eSws,r={nonce},p={proof}"), "channel binding"),
            (format!("c=biws,r=x{nonce},p={proof}"), "nonce"),
            (format!("c=biws,r={nonce}"), "no proof"),
            (String::new(), "no proof"),
            ("x".repeat(MESSAGE_BYTES_MAX + 1), "too long"),
        ];
        for (message, why) in cases {
            let refusal = example().finish(message.as_bytes()).expect_err(why);
            assert_eq!(refusal.reason, ReasonCode::BadUserNameOrPassword);
            assert!(refusal.why.contains(why), "{}", refusal.why);
        }
        let unknown = Exchange { is_known: false, ..example() };
        unknown.finish(format!("c=biws,r={nonce},p={proof}").as_bytes()).expect_err("unknown");
    }

    #[test]
    fn a_first_message_is_read_as_the_standard_writes_it() {
        let first = First::parse(b"y,,n=a=2Cb=3Dc,r=abc,x=more").expect("a first message");
        assert_eq!(
            (first.user.as_str(), first.nonce.as_str(), first.header.as_str()),
            ("a,b=c", "abc", "y,,")
        );
        for message in [
            &b""[..],
            b"n,,",
            b"n,,n=,r=abc",
            b"n,,n=a",
            b"n,,n=a,r=",
            b"n,,n=a=2,r=abc",
            b"n,,n=a=41,r=abc",
            b"n,,m=x,n=a,r=abc",
            b"n,a=other,n=a,r=abc",
            b"p=tls-unique,,n=a,r=abc",
            b"n,,n=a,r=a\x00c",
            b"n,,n=\xff,r=abc",
        ] {
            First::parse(message).expect_err("no first message");
        }
    }

    #[test]
    fn somebody_unknown_is_shown_a_salt_like_those_of_users() {
        let verifier = Verifier::make(Mechanism::Sha512, COUNT, b"secret").expect("it can be made");
        let [eve, again, mallory] =
            ["eve", "eve", "mallory"].map(|user| verifier.of_nobody(b"of the file", user));
        assert!(eve == again && eve.salt != mallory.salt && eve.salt != verifier.salt);
        assert_eq!((eve.salt.len(), eve.iterations), (verifier.salt.len(), verifier.iterations));
        assert!(!eve.verify(b"secret"));
    }
}

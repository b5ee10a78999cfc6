//! Requests to the state store and its answers, as they are written in MQTT payloads (AIO.md §8): a little of RESP3.

use std::time::Duration;

use super::{Condition, StoreError};

/// Most arguments of a request.
const ARGUMENTS_MAX: usize = 8;

/// What a request asks for. Borrows from the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// `SET key value [NX | NEX [value]] [PX milliseconds]`.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
        /// NX or NEX.
        condition: Condition,
        /// What NEX compares with; the new value when nothing is said.
        expected: Option<&'a [u8]>,
        /// PX.
        expires: Option<Duration>,
    },
    /// `GET key`.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// `DEL key`.
    Del {
        /// The key.
        key: &'a [u8],
    },
    /// `VDEL key value`.
    Vdel {
        /// The key.
        key: &'a [u8],
        /// The value that it must have.
        value: &'a [u8],
    },
    /// `KEYNOTIFY key [STOP]`.
    KeyNotify {
        /// The key.
        key: &'a [u8],
        /// No more notifications.
        stop: bool,
    },
}

/// Why a request cannot be carried out. The words are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not written as requests are.
    #[error("syntax error")]
    Syntax,
    /// A verb that is none.
    #[error("unknown command")]
    UnknownCommand,
    /// Too few or too many for the verb.
    #[error("wrong number of arguments")]
    Arguments,
    /// A SET without `__ts`.
    #[error("missing timestamp")]
    MissingTimestamp,
    /// `__ts` or `__ft` that cannot be read.
    #[error("malformed timestamp")]
    MalformedTimestamp,
    /// `__ts` more than a minute ahead.
    #[error(
        "the request timestamp is too far in the future; ensure that the client and broker system clocks are synchronized"
    )]
    TimestampAhead,
    /// Whoever asks may not do that with the key.
    #[error("not authorized")]
    NotAuthorized,
    /// The store refuses it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it, in the protocol's words.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RequestError> {
        let mut rest = payload;
        let count = number(&mut rest, b'*')?;
        if count == 0 || count > ARGUMENTS_MAX {
            return Err(if count == 0 { RequestError::Syntax } else { RequestError::Arguments });
        }
        let mut arguments: [&[u8]; ARGUMENTS_MAX] = [&[]; ARGUMENTS_MAX];
        for argument in &mut arguments[..count] {
            *argument = bulk(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(RequestError::Syntax);
        }
        let [verb, arguments @ ..] = &arguments[..count] else { return Err(RequestError::Syntax) };
        let request = Self::of(verb, arguments)?;
        match request.key().is_empty() {
            true => Err(StoreError::EmptyKey.into()),
            false => Ok(request),
        }
    }

    fn of(verb: &[u8], arguments: &[&'a [u8]]) -> Result<Self, RequestError> {
        let is = |word: &str| verb.eq_ignore_ascii_case(word.as_bytes());
        match arguments {
            [key, value, options @ ..] if is("SET") => Self::set(key, value, options),
            [key] if is("GET") => Ok(Self::Get { key }),
            [key] if is("DEL") => Ok(Self::Del { key }),
            [key, value] if is("VDEL") => Ok(Self::Vdel { key, value }),
            [key] if is("KEYNOTIFY") => Ok(Self::KeyNotify { key, stop: false }),
            [key, stop] if is("KEYNOTIFY") => match stop.eq_ignore_ascii_case(b"STOP") {
                true => Ok(Self::KeyNotify { key, stop: true }),
                false => Err(RequestError::Syntax),
            },
            _ if ["SET", "GET", "DEL", "VDEL", "KEYNOTIFY"].into_iter().any(is) => {
                Err(RequestError::Arguments)
            }
            _ => Err(RequestError::UnknownCommand),
        }
    }

    fn set(key: &'a [u8], value: &'a [u8], mut options: &[&'a [u8]]) -> Result<Self, RequestError> {
        let (mut condition, mut expected, mut expires) = (Condition::Unconditional, None, None);
        while let [option, rest @ ..] = options {
            options = rest;
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if (is("NX") || is("NEX")) && condition == Condition::Unconditional {
                condition = if is("NX") { Condition::IfAbsent } else { Condition::IfAbsentOrEqual };
            } else if is("PX") && expires.is_none() {
                let [milliseconds, rest @ ..] = options else { return Err(RequestError::Syntax) };
                options = rest;
                expires = Some(Duration::from_millis(digits(milliseconds)?));
            } else if condition == Condition::IfAbsentOrEqual && expected.is_none() {
                // Some clients say what to compare with, most do not.
                expected = Some(*option);
            } else {
                return Err(RequestError::Syntax);
            }
        }
        Ok(Self::Set { key, value, condition, expected, expires })
    }

    /// The key it is about.
    pub fn key(&self) -> &'a [u8] {
        match self {
            Self::Set { key, .. }
            | Self::Get { key }
            | Self::Del { key }
            | Self::Vdel { key, .. }
            | Self::KeyNotify { key, .. } => key,
        }
    }

    /// The verb, for metrics.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Set { .. } => "SET",
            Self::Get { .. } => "GET",
            Self::Del { .. } => "DEL",
            Self::Vdel { .. } => "VDEL",
            Self::KeyNotify { .. } => "KEYNOTIFY",
        }
    }
}

/// One line: `kind`, a number, the line's end.
fn number(rest: &mut &[u8], kind: u8) -> Result<usize, RequestError> {
    let line = rest.strip_prefix(&[kind]).ok_or(RequestError::Syntax)?;
    // No number that can be used has more digits.
    let end = line.iter().take(11).position(|byte| *byte == b'\r').ok_or(RequestError::Syntax)?;
    let value = digits(&line[..end])?;
    *rest = line[end..].strip_prefix(b"\r\n").ok_or(RequestError::Syntax)?;
    usize::try_from(value).map_err(|_| RequestError::Syntax)
}

fn digits(text: &[u8]) -> Result<u64, RequestError> {
    let text = std::str::from_utf8(text).map_err(|_| RequestError::Syntax)?;
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| RequestError::Syntax),
        false => Err(RequestError::Syntax),
    }
}

/// One string with its length before it.
fn bulk<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RequestError> {
    let length = number(rest, b'$')?;
    let (bytes, tail) = rest.split_at_checked(length).ok_or(RequestError::Syntax)?;
    *rest = tail.strip_prefix(b"\r\n").ok_or(RequestError::Syntax)?;
    Ok(bytes)
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// A value, or none.
    Value(Option<Vec<u8>>),
    /// How many; −1 when a condition is not met.
    Number(i64),
    /// It cannot be done.
    Error(RequestError),
}

impl Answer {
    /// As it is written in a payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ok => b"+OK\r\n".to_vec(),
            Self::Value(None) => b"$-1\r\n".to_vec(),
            Self::Value(Some(value)) => write(&[value], false),
            Self::Number(number) => format!(":{number}\r\n").into_bytes(),
            Self::Error(error) => format!("-ERR {error}\r\n").into_bytes(),
        }
    }
}

/// The payload of a notification: a key has a new value, or is gone.
pub fn notification(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => write(&[b"NOTIFY", b"SET", b"VALUE", value], true),
        None => write(&[b"NOTIFY", b"DELETE"], true),
    }
}

fn write(parts: &[&[u8]], as_list: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 16).sum());
    if as_list {
        out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    }
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Vec<u8> {
        write(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(), true)
    }

    fn parsed(words: &[&str]) -> String {
        let bytes = request(words);
        match Request::parse(&bytes) {
            Ok(Request::Set { condition, expected, expires, .. }) => {
                format!("{condition:?} {} {expires:?}", expected.is_some())
            }
            Ok(other) => format!("{} {}", other.verb(), String::from_utf8_lossy(other.key())),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_request_of_the_protocol_is_read() {
        assert_eq!(parsed(&["SET", "k", "v"]), "Unconditional false None");
        assert_eq!(parsed(&["SET", "k", "v", "NX", "PX", "1500"]), "IfAbsent false Some(1.5s)");
        assert_eq!(parsed(&["set", "k", "v", "PX", "1", "nex"]), "IfAbsentOrEqual false Some(1ms)");
        assert_eq!(parsed(&["SET", "k", "v", "NEX", "old", "PX", "1"]), "IfAbsentOrEqual true Some(1ms)");
        assert_eq!(parsed(&["GET", "k"]), "GET k");
        assert_eq!(parsed(&["DEL", "k"]), "DEL k");
        assert_eq!(parsed(&["VDEL", "k", "v"]), "VDEL k");
        assert_eq!(parsed(&["KEYNOTIFY", "k"]), "KEYNOTIFY k");
        assert_eq!(parsed(&["KEYNOTIFY", "k", "STOP"]), "KEYNOTIFY k");
    }

    #[test]
    fn every_other_request_has_its_error() {
        assert_eq!(parsed(&["HSET", "k"]), "unknown command");
        assert_eq!(parsed(&["GET"]), "wrong number of arguments");
        assert_eq!(parsed(&["GET", "a", "b"]), "wrong number of arguments");
        assert_eq!(parsed(&["SET", "k"]), "wrong number of arguments");
        assert_eq!(parsed(&["GET", ""]), "the key length is zero");
        for wrong in [
            &["SET", "k", "v", "XX"][..],
            &["SET", "k", "v", "NX", "NEX"],
            &["SET", "k", "v", "PX"],
            &["SET", "k", "v", "PX", "-1"],
            &["SET", "k", "v", "PX", "99999999999999999999"],
            &["KEYNOTIFY", "k", "GO"],
        ] {
            assert_eq!(parsed(wrong), "syntax error", "{wrong:?}");
        }
        for wrong in ["", "*", "*1", "*1\r\n", "*0\r\n", "GET k", "*2\r\n$3\r\nGET\r\n$5\r\nk\r\n", "*-1\r\n"]
        {
            assert_eq!(Request::parse(wrong.as_bytes()), Err(RequestError::Syntax), "{wrong:?}");
        }
        assert_eq!(Request::parse(b"*9999999999\r\n"), Err(RequestError::Arguments));
        assert_eq!(
            Request::parse(&[request(&["GET", "k"]).as_slice(), b"x"].concat()),
            Err(RequestError::Syntax)
        );
    }

    #[test]
    fn damaged_requests_are_refused_and_never_a_panic() {
        let whole = request(&["SET", "key", "value", "NEX", "PX", "100"]);
        for at in 0..whole.len() {
            assert!(Request::parse(&whole[..at]).is_err(), "cut at {at}");
            for byte in [0, b'\r', b'\n', b'$', b'*', b'9', 255] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = Request::parse(&damaged);
            }
        }
    }

    #[test]
    fn answers_are_written_as_clients_read_them() {
        assert_eq!(Answer::Ok.to_bytes(), b"+OK\r\n");
        assert_eq!(Answer::Value(None).to_bytes(), b"$-1\r\n");
        assert_eq!(Answer::Value(Some(b"a\r\nb".to_vec())).to_bytes(), b"$4\r\na\r\nb\r\n");
        assert_eq!(Answer::Number(-1).to_bytes(), b":-1\r\n");
        assert_eq!(Answer::Error(RequestError::Arguments).to_bytes(), b"-ERR wrong number of arguments\r\n");
        assert_eq!(notification(None), b"*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n");
        assert_eq!(
            notification(Some(b"v")),
            b"*4\r\n$6\r\nNOTIFY\r\n$3\r\nSET\r\n$5\r\nVALUE\r\n$1\r\nv\r\n"
        );
    }
}

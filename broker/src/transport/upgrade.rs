//! The HTTP request by which a connection becomes a WebSocket (RFC 6455 §4.2), with the subprotocol `mqtt`
//! [MQTT-6.0.0-3].

use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Layered;

/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// The most header fields that it may have.
const FIELDS_MAX: usize = 64;
/// What every server adds to the client's key (§1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols that are spoken: `mqtt`, and what clients of 3.1 ask for.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why a request does not become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The network, or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer went away.
    #[error("the peer went away before its HTTP request was complete")]
    Gone,
    /// The request was answered with an error.
    #[error("the HTTP request was answered with {status}: {what}")]
    Refused {
        /// The status code and its name.
        status: &'static str,
        /// What was wrong.
        what: &'static str,
    },
}

/// Reads the request and answers it. From then on bytes come and go in frames. `origins` are the web pages that may
/// connect; empty is all of them.
pub async fn upgrade(layered: &Layered, origins: &[String]) -> Result<(), UpgradeError> {
    let mut bytes = Vec::new();
    let verdict = loop {
        let mut chunk = [0; 1024];
        match layered.try_read(&mut chunk) {
            Ok(0) => return Err(UpgradeError::Gone),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|cx| layered.poll_read_ready(cx)).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        match answer(&bytes, origins) {
            Answer::More if bytes.len() < REQUEST_BYTES_MAX => {}
            Answer::More => break Err(("431 Request Header Fields Too Large", "the request is too long")),
            Answer::Refused(status, what) => break Err((status, what)),
            Answer::Accepted { response, len } => break Ok((response, len)),
        }
    };
    match verdict {
        Ok((response, len)) => {
            send(layered, response.as_bytes()).await?;
            layered.begin_web(bytes.split_off(len));
            Ok(())
        }
        Err((status, what)) => {
            send(layered, refusal(status, what).as_bytes()).await?;
            layered.finish(&[]);
            Err(UpgradeError::Refused { status, what })
        }
    }
}

fn refusal(status: &str, what: &str) -> String {
    let version =
        if status.starts_with("426") { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
    let len = what.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{version}Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{what}\n"
    )
}

async fn send(layered: &Layered, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match layered.try_write(&[io::IoSlice::new(bytes)]) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|cx| layered.poll_write_ready(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(Debug)]
enum Answer {
    More,
    Refused(&'static str, &'static str),
    Accepted { response: String, len: usize },
}

/// What there is to say to a request, as far as it came.
fn answer(bytes: &[u8], origins: &[String]) -> Answer {
    const BAD: &str = "400 Bad Request";
    const OTHER: &str = "426 Upgrade Required";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Answer::More,
        Err(_) => return Answer::Refused(BAD, "this is no HTTP request"),
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return Answer::Refused("405 Method Not Allowed", "only GET of HTTP/1.1 becomes a WebSocket");
    }
    let values = |name: &'static str| {
        let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.filter_map(|field| std::str::from_utf8(field.value).ok())
    };
    let tokens = |name| values(name).flat_map(|value| value.split(',')).map(str::trim);
    let has = |name, token: &str| tokens(name).any(|other| other.eq_ignore_ascii_case(token));
    if values("host").next().is_none() {
        return Answer::Refused(BAD, "the request has no Host");
    }
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Answer::Refused(OTHER, "this port speaks MQTT over WebSocket");
    }
    if !has("sec-websocket-version", "13") {
        return Answer::Refused(OTHER, "the version of WebSocket must be 13");
    }
    let Some(key) = values("sec-websocket-key").next().map(str::trim).filter(|key| is_key(key)) else {
        return Answer::Refused(BAD, "the request has no valid Sec-WebSocket-Key");
    };
    let origin = values("origin").next();
    if let Some(origin) = origin.filter(|_| !origins.is_empty())
        && !origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    {
        return Answer::Refused("403 Forbidden", "pages from there may not connect");
    }
    // [MQTT-6.0.0-4]
    let Some(protocol) = tokens("sec-websocket-protocol").find(|token| SUBPROTOCOLS.contains(token)) else {
        return Answer::Refused(BAD, "the subprotocol must be mqtt");
    };
    let accept =
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{ACCEPT_SUFFIX}").as_bytes()));
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    Answer::Accepted { response, len }
}

/// 16 bytes in base64 (§4.1).
fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let bytes = [REQUEST.as_bytes(), b"more"].concat();
        let Answer::Accepted { response, len } = answer(&bytes, &[]) else { panic!("not accepted") };
        assert_eq!(len, REQUEST.len());
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert!(response.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{response}");
        for end in 0..REQUEST.len() {
            assert!(matches!(answer(&REQUEST.as_bytes()[..end], &[]), Answer::More), "{end} bytes");
        }
    }

    #[test]
    fn other_requests_are_refused_and_told_why() {
        let cases = [
            ("GET", "POST", "405"),
            ("Host: server.example.com", "X: y", "400"),
            ("Upgrade: websocket", "Upgrade: h2c", "426"),
            ("keep-alive, Upgrade", "keep-alive", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "400"),
            ("chat, mqtt", "chat", "400"),
            ("HTTP/1.1", "HTTP/9.9", "400"),
        ];
        for (good, bad, code) in cases {
            let request = REQUEST.replacen(good, bad, 1);
            match answer(request.as_bytes(), &[]) {
                Answer::Refused(status, _) => assert!(status.starts_with(code), "{bad}: {status}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
        assert!(matches!(
            answer(b"\x16\x03\x01\x02\x00\x01\x00", &[]),
            Answer::Refused("400 Bad Request", _)
        ));
    }

    #[test]
    fn pages_from_elsewhere_may_be_kept_out() {
        let allowed = ["https://plant.example".to_owned(), "http://example.com".to_owned()];
        assert!(matches!(answer(REQUEST.as_bytes(), &allowed), Answer::Accepted { .. }));
        assert!(matches!(answer(REQUEST.as_bytes(), &allowed[..1]), Answer::Refused("403 Forbidden", _)));
        // What is no page says no origin.
        let plain = REQUEST.replace("Origin: http://example.com\r\n", "");
        assert!(matches!(answer(plain.as_bytes(), &allowed[..1]), Answer::Accepted { .. }));
    }
}

//! One request to the control socket of a running broker.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks; with a body when there is something to say.
///
/// # Errors
/// What the broker says, a line each; or why it does not answer.
pub async fn ask<A: for<'de> Deserialize<'de>>(
    socket: &Path,
    path: &str,
    order: Option<&impl Serialize>,
) -> Result<A, Vec<String>> {
    let away = |why: String| {
        vec![format!(
            "no broker answers on {} ({why}); it is there while `forebay serve --data-dir DIR` runs",
            socket.display()
        )]
    };
    let asked = tokio::time::timeout(PATIENCE, exchange(socket, path, order)).await;
    let (status, body) = match asked {
        Ok(answer) => answer.map_err(away)?,
        Err(_) => return Err(away(format!("not within {} s", PATIENCE.as_secs()))),
    };
    if status != StatusCode::OK {
        let lines = serde_json::from_slice(&body);
        return Err(lines.unwrap_or_else(|_| vec![String::from_utf8_lossy(&body).into_owned()]));
    }
    serde_json::from_slice(&body)
        .map_err(|error| vec![format!("the broker's answer cannot be read: {error}")])
}

async fn exchange(
    socket: &Path,
    path: &str,
    order: Option<&impl Serialize>,
) -> Result<(StatusCode, Bytes), String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let plain = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(plain)?;
    tokio::spawn(connection);
    let body = match order {
        Some(order) => serde_json::to_vec(order).map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    let method = if order.is_some() { "POST" } else { "GET" };
    let request = Request::builder().method(method).uri(path).header("host", "forebay");
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(plain)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(plain)?;
    Ok((status, body.to_bytes()))
}

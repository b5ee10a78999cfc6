//! Memory of connections that do nothing: resident bytes of the broker before and after, divided by their number.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{self, Version};
use crate::{Result, peer};

/// How many clients, and whether each subscribes to a filter of its own.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// MQTT version of every client.
    pub version: Version,
    /// Number of clients.
    pub clients: usize,
    /// Whether each subscribes.
    pub subscribe: bool,
}

/// Connects `crowd` and returns bytes of resident memory per connection; `resident` reads the broker's.
pub fn run(addr: SocketAddr, crowd: &Crowd, resident: impl Fn() -> Result<u64>) -> Result<f64> {
    peer::raise_file_limit(crowd.clients as u64 + 200)?;
    // The first clients pay for what is allocated once.
    let first: Vec<TcpStream> = (0..20).map(|n| client(addr, crowd, 1_000_000 + n)).collect::<Result<_>>()?;
    let before = resident()?;
    let clients: Vec<TcpStream> =
        (0..crowd.clients).map(|n| client(addr, crowd, n)).collect::<Result<_>>()?;
    let after = resident()?;
    drop((first, clients));
    Ok(after.saturating_sub(before) as f64 / crowd.clients as f64)
}

fn client(addr: SocketAddr, crowd: &Crowd, n: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::connect(crowd.version, &format!("idle-client-{n:07}")))?;
    expect(&mut stream, wire::CONNACK, n)?;
    if crowd.subscribe {
        stream.write_all(&wire::subscribe(crowd.version, &format!("idle/site-{}/client-{n}", n % 100), 1))?;
        expect(&mut stream, wire::SUBACK, n)?;
    }
    Ok(stream)
}

/// Reads one packet and checks its type; these answers are short and come alone.
fn expect(stream: &mut TcpStream, kind: u8, n: usize) -> Result<()> {
    let mut buffer = [0u8; 512];
    let mut end = 0;
    loop {
        if let Some(frame) = wire::frame(&buffer[..end]) {
            return match frame.kind() == kind {
                true => Ok(()),
                false => Err(format!("client {n}: packet type {} where {kind} was due", frame.kind()).into()),
            };
        }
        let got = stream.read(&mut buffer[end..])?;
        if got == 0 {
            return Err(format!("client {n}: the broker closed the connection").into());
        }
        end += got;
    }
}

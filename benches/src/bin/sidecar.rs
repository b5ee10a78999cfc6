//! The external converter beside a broker that cannot convert by itself: subscribes to Fahrenheit readings, publishes
//! Celsius readings. As lean as a helper process gets in Rust: one thread, one read and one write a batch.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use forebay_benches::Result;
use forebay_benches::load::Greeting;
use forebay_benches::scenario::{PROCESSED, RAW};
use forebay_benches::wire::{self, PUBLISH, Version};
use serde_json::{Value, json};

/// Converts Fahrenheit to Celsius outside a broker.
#[derive(Parser)]
struct Options {
    /// Where the broker listens.
    addr: std::net::SocketAddr,
    /// MQTT version.
    #[arg(value_enum)]
    version: Version,
}

fn main() -> ExitCode {
    match serve(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecar: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Until the broker goes away.
fn serve(options: &Options) -> Result<()> {
    let version = options.version;
    let mut link = Greeting::connect(options.addr, version, "sidecar")?;
    link.subscribe(version, RAW, 0)?;
    link.stream.set_read_timeout(None)?;
    let mut out = Vec::with_capacity(64 * 1024);
    loop {
        if link.read.fill(&mut link.stream)? == 0 {
            return Ok(());
        }
        link.read.for_each_frame(|frame| {
            if frame.kind() == PUBLISH {
                let payload = frame.payload(version).ok_or("a PUBLISH without payload")?;
                out.extend_from_slice(&wire::publish(version, PROCESSED, 0, &to_celsius(payload)?).bytes);
            }
            Ok(())
        })?;
        link.stream.write_all(&out)?;
        out.clear();
    }
}

fn to_celsius(payload: &[u8]) -> Result<Vec<u8>> {
    let mut reading: Value = serde_json::from_slice(payload)?;
    let temperature = &mut reading["temperature"];
    if temperature["unit"] == "F"
        && let Some(value) = temperature["value"].as_f64()
    {
        temperature["value"] = json!((value - 32.0) * 5.0 / 9.0);
        temperature["unit"] = json!("C");
    }
    Ok(serde_json::to_vec(&reading)?)
}

//! forebay: an MQTT broker that runs WebAssembly operator graphs inside its own message path.
//!
//! The process's life, read aloud: say what is wanted, check it, bind, say what is bound, wait, drain.

mod admin;
mod broker;
mod cli;
mod client;
mod clock;
mod connection;
mod demo;
mod graphs;
mod handshake;
mod housekeeping;
mod inbound;
mod listener;
mod metrics;
mod pipeline;
mod route;
mod serve;
mod translate;
mod turn;
mod validate;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter = EnvFilter::try_from_env("FOREBAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .init();
    let result = match cli.command {
        cli::Command::Serve(options) => serve::run(&options),
        cli::Command::Validate(options) => return validate::run(&options),
        cli::Command::Demo(options) => demo::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay: {error}");
            ExitCode::FAILURE
        }
    }
}

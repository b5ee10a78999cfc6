//! An OpenTelemetry collector that others wrote: rotel.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;
use crate::{repository, wait};

/// A running collector that prints what it gets.
pub struct Collector {
    /// Where it takes gRPC.
    pub grpc: SocketAddr,
    /// Where it takes HTTP.
    pub http: SocketAddr,
    process: Option<Process>,
}

fn program() -> PathBuf {
    let lib = repository().join(".tools/clients/lib");
    let versions = fs::read_dir(&lib).into_iter().flatten().flatten();
    let found =
        versions.map(|entry| entry.path().join("site-packages/rotel/rotel-agent")).find(|path| path.exists());
    found.expect("rotel is there; tests/setup installs it")
}

impl Collector {
    /// One on free ports.
    pub fn start() -> Self {
        let mut collector = Self { grpc: wait::free_addr(), http: wait::free_addr(), process: None };
        collector.resume();
        collector
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        let mut command = Command::new(program());
        command.args(["start", "--otlp-grpc-endpoint", &self.grpc.to_string()]);
        command.args(["--otlp-http-endpoint", &self.http.to_string(), "--exporter", "blackhole"]);
        command.args(["--debug-log", "metrics", "--debug-log", "logs", "--debug-log-verbosity", "detailed"]);
        let mut process = Process::start(command);
        process.says("Starting Rotel");
        self.process = Some(process);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Makes it hold still, as a machine that hangs does.
    pub fn hang(&self) {
        self.process.iter().for_each(Process::hang);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.iter().for_each(Process::go_on);
    }

    /// What it got so far, as it prints it.
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}

//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An MQTT broker that runs WebAssembly operator graphs inside its own message path.
///
/// A device publishes, the graph processes, a subscriber reads: all in one process, without a network hop
/// between. Start with `forebay demo`, which needs nothing else.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker in the foreground.
    ///
    /// With nothing else said it listens on 127.0.0.1:1883, for MQTT 3.1, 3.1.1 and 5 on the same port, and
    /// takes anybody on this machine without a password. SIGTERM or Ctrl-C ends it in good order.
    Serve(Serve),
    /// Check resource files without running anything.
    ///
    /// Prints a line for each finding, as `file:line:column: severity: message`, and ends with 1 when one of
    /// them is an error.
    Validate(Validate),
    /// Show the main job: Fahrenheit in, Celsius out.
    ///
    /// Serves on a free loopback port with the sample graph, publishes readings through it as a client, and
    /// prints both sides until Ctrl-C.
    Demo(Demo),
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Listen here for MQTT; may be given several times. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    pub listen: Vec<SocketAddr>,
    /// Keep what must outlive the process here: fetched artifacts and compiled components.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Resources to run: a YAML file, or a directory of them; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// Answer /livez, /readyz and /metrics over HTTP here.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// Let anybody in from other machines too. Without it, only loopback addresses are listened on.
    #[arg(long)]
    pub allow_anonymous: bool,
}

/// Options of `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Resources to check: a YAML file, or a directory of them; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    pub files: Vec<PathBuf>,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after ten readings.
    #[arg(long)]
    pub once: bool,
}

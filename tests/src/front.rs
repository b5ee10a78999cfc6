//! HAProxy in front of a server that others wrote: it ends TLS, asks for certificates, and lets in whom it is told to.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::pki::Authority;
use crate::process::Process;

/// A running HAProxy.
pub struct Front {
    _process: Process,
    _dir: TempDir,
}

impl Front {
    /// With these settings for what it listens on; `SERVER` is a file with a certificate of the authority for this machine, and its key,
    /// `CLIENTS` one with the certificate that clients' must be of.
    pub fn new(authority: &Authority, settings: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let server = authority.server();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a file can be written");
            path.display().to_string()
        };
        let server = write("server", &[server.certificate, server.key].concat());
        let clients = write("clients", &authority.certificate);
        let settings = settings.replace("SERVER", &server).replace("CLIENTS", &clients);
        let times = "timeout connect 5s\ntimeout client 1m\ntimeout server 1m\n";
        let config = write("haproxy", &format!("defaults\n{times}listen front\n{settings}\n"));
        let program = "/usr/sbin/haproxy";
        let mut command = Command::new(if Path::new(program).exists() { program } else { "haproxy" });
        command.args(["-db", "-f", &config]);
        Self { _process: Process::start(command), _dir: dir }
    }
}

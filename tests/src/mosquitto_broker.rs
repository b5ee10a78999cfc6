//! mosquitto as a remote broker.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// A running mosquitto.
pub struct MosquittoBroker {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Process,
    _dir: TempDir,
}

impl MosquittoBroker {
    /// One that lets everybody in.
    pub fn start() -> Self {
        Self::with("allow_anonymous true\n", &[])
    }

    /// One with these settings for its listener, and these files, which settings name as `DIR/<name>`.
    pub fn with(settings: &str, files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("a file can be written");
        }
        let addr = wait::free_addr();
        let place = dir.path().display().to_string();
        let settings = settings.replace("DIR", &place);
        // Keeps everything for those who are away, and is not run by another user.
        let text = format!(
            "listener {} 127.0.0.1\n{settings}max_queued_messages 0\nmax_inflight_messages 0\npersistence false\nuser root\n",
            addr.port()
        );
        std::fs::write(dir.path().join("mosquitto.conf"), text).expect("a file can be written");
        let program = if std::path::Path::new("/usr/sbin/mosquitto").exists() {
            "/usr/sbin/mosquitto"
        } else {
            "mosquitto"
        };
        let mut command = Command::new(program);
        command.arg("-c").arg(dir.path().join("mosquitto.conf")).arg("-v");
        let mut process = Process::start(command);
        process.line("mosquitto runs", |line| line.ends_with("running"));
        Self { addr, process, _dir: dir }
    }

    /// Makes it hold still, as a machine that hangs does.
    pub fn hang(&self) {
        self.process.hang();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.go_on();
    }
}

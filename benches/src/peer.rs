//! Broker processes: started on a free loopback port, pinned to one core, measured through `/proc`, killed when dropped.
//!
//! Each is configured to carry all it can: nothing persisted, queues and inflight windows wide enough never to be what
//! limits it, anonymous clients on loopback.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use crate::Result;
use crate::wire::Version;

/// How long a process may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(30);

/// A broker that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// This project's.
    Forebay,
    /// Debian's mosquitto.
    Mosquitto,
    /// rumqttd from crates.io, embedded in `rumqttd-peer`.
    Rumqttd,
    /// The same with this project's graphs inside, `forebay-rumqttd`: in the scenarios that need one.
    Plugin,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Forebay => "forebay",
            Kind::Mosquitto => "mosquitto",
            Kind::Rumqttd => "rumqttd",
            Kind::Plugin => "plugin",
        })
    }
}

/// Where things are and which cores they run on.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The `forebay` executable.
    pub forebay: PathBuf,
    /// The `mosquitto` executable.
    pub mosquitto: PathBuf,
    /// The `rumqttd-peer` executable.
    pub rumqttd: PathBuf,
    /// The `forebay-rumqttd` executable.
    pub plugin: PathBuf,
    /// The `sidecar` executable.
    pub sidecar: PathBuf,
    /// Resource file whose graph turns `sensor/temperature/raw` into `sensor/temperature/processed`.
    pub graph: PathBuf,
    /// Core of the broker and of its helper; `None`: not pinned.
    pub broker_cpu: Option<usize>,
    /// Core of the load.
    pub load_cpu: Option<usize>,
}

impl Bench {
    /// The executable of `kind`.
    pub fn program(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Forebay => &self.forebay,
            Kind::Mosquitto => &self.mosquitto,
            Kind::Rumqttd => &self.rumqttd,
            Kind::Plugin => &self.plugin,
        }
    }

    /// Pins this process, and so the load, to its core.
    pub fn pin_load(&self) -> Result<()> {
        pin(self.load_cpu)
    }

    /// Starts `kind` and waits until it takes connections. With `transform`, forebay and the plugin get the sample
    /// graph and the others an external converter on the same core.
    pub fn start(&self, kind: Kind, version: Version, transform: bool, storage: Storage) -> Result<Broker> {
        let dir = TempDir::new()?;
        let addr = free_addr()?;
        let mut command = Command::new(self.program(kind));
        let mut admin = None;
        match kind {
            Kind::Forebay => {
                command.arg("serve").arg("--listen").arg(addr.to_string());
                if storage != Storage::None {
                    command.arg("--data-dir").arg(dir.path());
                }
                if transform {
                    let at = free_addr()?;
                    command.arg("--admin").arg(at.to_string()).arg("-f").arg(&self.graph);
                    admin = Some(at);
                }
            }
            Kind::Mosquitto => {
                let conf = dir.path().join("mosquitto.conf");
                fs::write(&conf, mosquitto_conf(addr, dir.path(), storage == Storage::Used))?;
                command.arg("-c").arg(conf);
            }
            Kind::Rumqttd => {
                command.arg(addr.to_string()).arg(if version == Version::V5 { "5" } else { "4" });
            }
            Kind::Plugin => {
                let version = if version == Version::V5 { "5" } else { "3.1.1" };
                command.arg("--listen").arg(addr.to_string()).arg("--mqtt").arg(version);
                command.arg("-f").arg(&self.graph);
            }
        }
        let mut broker = Broker { addr, processes: Vec::new(), log: dir.path().join("log"), dir };
        broker.spawn(command, self)?;
        broker.wait_until("it takes connections", || TcpStream::connect(addr).is_ok())?;
        if let Some(admin) = admin {
            broker.wait_until("its graph runs", || ready(admin))?;
        } else if transform && kind != Kind::Plugin {
            let mut sidecar = Command::new(&self.sidecar);
            sidecar.arg(addr.to_string()).arg(if version == Version::V5 { "5" } else { "4" });
            broker.spawn(sidecar, self)?;
        }
        Ok(broker)
    }
}

/// What a broker may write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nothing: it has no place for that.
    None,
    /// What clients ask for, of those that know that; none does.
    Offered,
    /// The same, and clients ask for it; mosquitto writes down every change.
    Used,
}

/// A running broker, with its helper where it has one.
pub struct Broker {
    /// Where it listens.
    pub addr: SocketAddr,
    processes: Vec<Child>,
    log: PathBuf,
    dir: TempDir,
}

impl Broker {
    /// CPU time used so far, helper included.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(|child| cpu_of(child.id())).sum()
    }

    /// Resident bytes, helper included.
    pub fn resident(&self) -> Result<u64> {
        self.processes.iter().map(|child| resident_of(child.id())).sum()
    }

    /// Where it keeps what it keeps.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// What the processes printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn spawn(&mut self, mut command: Command, bench: &Bench) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(&self.log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("RUST_LOG", "warn")
            .env("FOREBAY_LOG", "warn");
        // A child inherits the affinity of the thread that starts it.
        pin(bench.broker_cpu)?;
        let child = command.spawn();
        pin(bench.load_cpu)?;
        let child = child.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        self.processes.push(child);
        Ok(())
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + START_MAX;
        while !holds() {
            for child in &mut self.processes {
                if let Some(status) = child.try_wait()? {
                    let log = self.dir.path().join("log");
                    let said = fs::read_to_string(log).unwrap_or_default();
                    return Err(format!("ended ({status}) before {what}:\n{said}").into());
                }
            }
            if Instant::now() >= end {
                return Err(format!("not so after {START_MAX:?}: {what}\n{}", self.log()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // It may have ended by itself; either way it is gone after this.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mosquitto_conf(addr: SocketAddr, dir: &Path, persist: bool) -> String {
    // The nearest that it has to "before it is acknowledged": its whole database after every change, without a sync.
    let persistence = match persist {
        true => format!(
            "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1",
            dir.display()
        ),
        false => "persistence false".to_owned(),
    };
    format!(
        "listener {} {}\nallow_anonymous true\n{persistence}\nlog_type error\nset_tcp_nodelay true\n\
         max_inflight_messages 1000\nmax_queued_messages 100000\nsys_interval 0\n",
        addr.port(),
        addr.ip()
    )
}

fn ready(admin: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = [0u8; 12];
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer.ends_with(b" 200")
}

/// A loopback address nobody listens on at this moment.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn pin(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("core {cpu} cannot be used: {error}").into())
}

/// Raises this process's limit of open files (children inherit it) to at least `files`.
pub fn raise_file_limit(files: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
        if now.maximum.is_some_and(|maximum| maximum < files) {
            return Err(format!("{files} open files are needed, the hard limit is {:?}", now.maximum).into());
        }
    }
    Ok(())
}

/// CPU time of this process, the load.
pub fn own_cpu() -> Result<Duration> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(used.tv_sec.try_into()?, used.tv_nsec.try_into()?))
}

/// User and system time of a process, from `/proc/PID/stat`.
fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name may hold anything; the fields are counted after its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).ok_or("short /proc/PID/stat")?.parse()?) };
    let total = ticks(11)? + ticks(12)?;
    Ok(Duration::from_secs_f64(total as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// `VmRSS` of a process in bytes.
fn resident_of(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

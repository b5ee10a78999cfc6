//! A `forebay serve` process on free loopback ports, and the other commands.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{self, Process};
use crate::resources::Resources;
use crate::{http, repository, wait};

/// The executable: `FOREBAY_BIN` when it is set, or else what cargo builds here and now, beside the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FOREBAY_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// A `forebay` command, run from the root of the repository.
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(repository());
    command
}

/// Runs `forebay` with `arguments` to its end.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> (ExitStatus, String) {
    process::run(command(arguments))
}

/// What a `serve` process is started with.
#[derive(Default)]
pub struct Serve {
    files: Vec<PathBuf>,
    data_dir: Option<PathBuf>,
    wrapper: Vec<String>,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    resources: Vec<Resources>,
}

impl Serve {
    /// Nothing but listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// With these resources, which are kept for as long as it runs.
    pub fn resources(mut self, resources: &Resources) -> Self {
        self.resources.push(resources.clone());
        self.file(resources.path())
    }

    /// With the resources of this file or directory.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// With a data directory that outlives the process.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// With more options of the command.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Run under another program (such as strace), given with its arguments.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Forebay {
        let forebay = self.start_unready();
        forebay.wait_ready();
        forebay
    }

    /// Starts it and waits only until it takes connections.
    pub fn start_unready(self) -> Forebay {
        match self.try_start() {
            Ok(forebay) => forebay,
            Err((status, output)) => panic!("forebay ended ({status}):\n{output}"),
        }
    }

    /// Starts it and waits until it takes connections; or how it ended before that, and what it said.
    pub fn try_start(self) -> Result<Forebay, (ExitStatus, String)> {
        let (addr, admin) = (wait::free_addr(), wait::free_addr());
        let own = TempDir::new().expect("a temporary directory");
        let data_dir = self.data_dir.as_deref().unwrap_or(own.path());
        let mut words = self.wrapper.iter();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary());
                // It may not pass signals on: all of them are to be gone in the end.
                command.process_group(0);
                command
            }
            None => Command::new(binary()),
        };
        command.current_dir(repository()).envs(self.environment).arg("serve");
        command.arg("--listen").arg(addr.to_string()).arg("--admin").arg(admin.to_string());
        command.arg("--data-dir").arg(data_dir).args(&self.options);
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        let mut process = Process::start(command);
        let ended = wait::until("forebay answers on its admin address", || match process.ended() {
            Some(status) => Ok(Some(status)),
            None => match http::get(admin, "/livez") {
                Ok(_) => Ok(None),
                Err(error) => Err(format!("{error}\n{}", process.output())),
            },
        });
        match ended {
            Some(status) => Err((status, process.drained_output())),
            None => Ok(Forebay { process, addr, admin, own, _resources: self.resources }),
        }
    }
}

/// A running broker; killed when dropped.
pub struct Forebay {
    /// The process.
    pub process: Process,
    /// Where it takes MQTT.
    pub addr: SocketAddr,
    /// Where it answers HTTP.
    pub admin: SocketAddr,
    own: TempDir,
    _resources: Vec<Resources>,
}

impl Forebay {
    /// Waits until `/readyz` says so.
    pub fn wait_ready(&self) {
        wait::until("forebay is ready", || {
            let answer =
                http::get(self.admin, "/readyz").map_err(|error| format!("{error}\n{}", self.output()))?;
            match answer.status {
                200 => Ok(()),
                status => Err(format!("{status}: {}\n{}", answer.text(), self.output())),
            }
        });
    }

    /// Its data directory, when it was not given one.
    pub fn own_data_dir(&self) -> &Path {
        self.own.path()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The sum of all samples of metric `name` (with or without a `_total` suffix) whose labels hold all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = http::get(self.admin, "/metrics").expect("metrics are answered").text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| {
                let (metric, tags) = series.split_once('{').unwrap_or((series, ""));
                metric.trim_end_matches("_total") == name.trim_end_matches("_total")
                    && labels.iter().all(|label| tags.contains(label))
            })
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// Waits until that metric is at least `least`.
    pub fn wait_metric(&self, name: &str, labels: &[&str], least: f64) {
        wait::until(&format!("metric {name} {labels:?} reaches {least}"), || {
            let now = self.metric(name, labels);
            if now >= least {
                return Ok(());
            }
            let all = http::get(self.admin, "/metrics").map(|answer| answer.text()).unwrap_or_default();
            Err(format!("it is {now} in\n{all}\n{}", self.output()))
        });
    }

    /// Waits until a metric has this value.
    pub fn wait_metric_is(&self, name: &str, labels: &[&str], value: f64) {
        wait::until(&format!("metric {name} {labels:?} is {value}"), || match self.metric(name, labels) {
            now if now == value => Ok(()),
            now => Err(format!("it is {now}\n{}", self.output())),
        });
    }

    /// SIGTERM, and the status it ends with.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}

/// Builds the binary in the profile and the target directory that the tests themselves were built in.
fn build() -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let profile_dir = here.parent().and_then(Path::parent).expect("TARGET/PROFILE/deps/test");
    let target = profile_dir.parent().expect("TARGET/PROFILE");
    let profile = match profile_dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "forebay", "--bin", "forebay", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "forebay does not build");
    profile_dir.join("forebay")
}

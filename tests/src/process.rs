//! A child process whose output is kept as it comes, and which does not outlive the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A running program; killed and reaped when dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`; standard output and standard error are both kept.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
        let lines = Arc::default();
        keep(child.stdout.take().expect("piped"), &lines);
        keep(child.stderr.take().expect("piped"), &lines);
        Self { child, lines }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every line printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.lines().join("\n")
    }

    /// Everything that it printed before it ended: the readers may still hold the last line when it is gone.
    pub fn drained_output(&self) -> String {
        drain(self);
        self.output()
    }

    /// Waits for a line that `is` accepts and returns it.
    pub fn line(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        wait::until(what, || {
            let found = self.lines().into_iter().find(|line| is(line));
            found.ok_or_else(|| format!("its output was:\n{}", self.output()))
        })
    }

    /// Waits for a line that holds `text`.
    pub fn says(&mut self, text: &str) -> String {
        self.line(&format!("the program says {text:?}"), |line| line.contains(text))
    }

    /// The exit status, if it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        wait::until("the program ends", || self.ended().ok_or_else(|| self.output()))
    }

    /// Asks it to end, as a service manager does, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Makes it hold still, as a machine that hangs does.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has an id");
        kill_process(pid, signal).expect("a child that was not reaped can be signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this, and what it started, if it leads a group.
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- output of process {}\n{}\n---", self.child.id(), self.output());
        }
    }
}

/// Runs a program to its end and returns its status and all it printed.
pub fn run(command: Command) -> (ExitStatus, String) {
    let mut process = Process::start(command);
    let status = process.wait();
    (status, process.drained_output())
}

/// Waits until both readers have seen the end of their pipe.
fn drain(process: &Process) {
    wait::until("the program's output ends", || match Arc::strong_count(&process.lines) {
        1 => Ok(()),
        _ => Err("something still holds its pipes".into()),
    });
}

fn keep(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().expect("no reader panics").push(text);
            line.clear();
        }
    });
}

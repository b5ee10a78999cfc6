//! Run to completion, seen from outside: in an idle broker one thread reads the PUBLISH and writes the one derived from it,
//! and nothing wakes anybody in between (DESIGN: "a PUBLISH in and the PUBLISH derived from it out cross no thread and
//! wait in no queue").

use std::fs;
use std::path::{Path, PathBuf};

use forebay_tests::forebay::Serve;
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::{repository, wait};
use tempfile::TempDir;

const TRACED: &str =
    "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,futex,epoll_wait,epoll_pwait";

#[test]
fn one_read_and_one_write_carry_a_message_through_the_graph_without_a_wake_up_between_them() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("trace");
    let path = file.to_str().unwrap();
    // -D: the broker stays our child, so that it ends with the test.
    let strace = ["strace", "-D", "-f", "-q", "-s", "400", "-e", TRACED, "-o", path];
    let mut broker = Serve::new().file(patient_graph(dir.path())).under(&strace).start();
    let mut subscriber = Client::connect(broker.addr, &Connect::v5("subscriber"));
    subscriber.subscribe("sensor/temperature/processed", 0);
    let mut publisher = Client::connect(broker.addr, &Connect::v5("publisher"));
    // The first messages pay for what is made once: the topic's place in the cache, the operator's memory.
    for _ in 0..3 {
        publisher.publish("sensor/temperature/raw", 0, br#"{"temperature":{"value":32.0,"unit":"F"}}"#);
        assert!(subscriber.receive().text().contains(r#""value":0.0"#));
        subscriber.settle();
        publisher.settle();
    }
    publisher.publish("sensor/temperature/raw", 0, br#"{"temperature":{"value":212.0,"unit":"F"}}"#);
    assert!(subscriber.receive().text().contains(r#""value":100.0"#));
    assert_eq!(broker.terminate().code(), Some(0));

    let trace = wait::until("strace has written everything", || {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let ended = text.lines().any(|line| {
            line.split_once(' ').is_some_and(|(process, rest)| {
                process == broker.process.id().to_string() && rest.trim() == "+++ exited with 0 +++"
            })
        });
        if ended { Ok(text) } else { Err("the end is missing".to_owned()) }
    });
    let calls = calls(&trace);
    let read = position(&calls, r#"\"value\":212.0"#);
    let write = position(&calls, r#"\"value\":100.0"#);
    let seen = calls[read..=write].iter().map(|call| call.text.as_str()).collect::<Vec<_>>().join("\n");
    assert_eq!(calls[read].thread, calls[write].thread, "one thread does both:\n{seen}");
    let between: Vec<&str> = calls[read + 1..write]
        .iter()
        .filter(|call| call.thread == calls[read].thread)
        .map(|call| call.text.as_str())
        .collect();
    assert!(between.is_empty(), "between the read and the write:\n{}", between.join("\n"));
    assert!(is(&calls[read].text, &["read(", "recvfrom(", "recvmsg(", "readv("]), "{seen}");
    assert!(is(&calls[write].text, &["write(", "sendto(", "sendmsg(", "writev("]), "{seen}");
}

/// The sample with an inline budget that covers being traced on a busy machine: a call that takes longer moves the graph
/// to a thread of its own, as it should, and that is not what is looked at here.
fn patient_graph(dir: &Path) -> PathBuf {
    let samples = repository().join("config/samples");
    let sample = fs::read_to_string(samples.join("fahrenheit.yaml")).unwrap();
    let name = "  name: fahrenheit\n";
    let registry = format!("oci-layout:{}", samples.join("registry").display());
    assert!(sample.contains(name) && sample.contains("oci-layout:registry"));
    let sample = sample
        .replace("oci-layout:registry", &registry)
        .replace(name, &format!("{name}  annotations: {{ forebay.dev/inline-budget: 1s }}\n"));
    let file = dir.join("graph.yaml");
    fs::write(&file, sample).unwrap();
    file
}

struct Call {
    thread: String,
    text: String,
}

/// One entry a system call, in the order in which they began; strace splits those that others interrupt.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in trace.lines() {
        let (thread, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.trim_start();
        if let Some((_, rest)) = text.strip_prefix("<... ").and_then(|text| text.split_once("resumed>")) {
            let begun = calls.iter_mut().rev().find(|call| call.thread == thread);
            if let Some(call) = begun {
                call.text += rest;
            }
        } else {
            let text = text.trim_end_matches("<unfinished ...>").to_owned();
            calls.push(Call { thread: thread.to_owned(), text });
        }
    }
    calls
}

fn position(calls: &[Call], part: &str) -> usize {
    let found = calls.iter().position(|call| call.text.contains(part));
    found.unwrap_or_else(|| panic!("no system call carries {part}"))
}

fn is(text: &str, names: &[&str]) -> bool {
    names.iter().any(|name| text.starts_with(name))
}

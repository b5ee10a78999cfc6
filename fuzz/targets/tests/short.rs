//! Each target a little: over the corpora that are kept, and over changes to them for some seconds.
//!
//! `FUZZ_SECONDS` says for how long each, `FUZZ_SEED` with which changes; what fails is shown as hex, and belongs into
//! the corpus once it is mended.

use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use fuzz_targets::random::Random;
use fuzz_targets::{TARGETS, run};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file that can be read")).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn try_one(name: &str, input: &[u8]) {
    let result = catch_unwind(|| run(name, input));
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(result.is_ok(), "{name} does not hold for {hex}");
}

fn a_little(name: &str) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 3, "{name} has a corpus");
    corpus.iter().for_each(|input| try_one(name, input));
    let mut random = Random::new(number("FUZZ_SEED", 20_260_101));
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 2));
    while Instant::now() < end {
        for _ in 0..100 {
            try_one(name, &random.input(&corpus));
        }
    }
}

#[test]
fn packets() {
    a_little("packets");
}

#[test]
fn properties() {
    a_little("properties");
}

#[test]
fn topics() {
    a_little("topics");
}

#[test]
fn sessions() {
    a_little("sessions");
}

#[test]
fn resources() {
    a_little("resources");
}

#[test]
fn definitions() {
    a_little("definitions");
}

#[test]
fn state_store() {
    a_little("state_store");
}

#[test]
fn every_target_is_run_here_and_by_cargo_fuzz() {
    let source = include_str!("short.rs");
    let mains = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    for (name, _) in TARGETS {
        assert!(source.contains(&format!("a_little(\"{name}\")")), "{name} is not run here");
        let main = std::fs::read_to_string(mains.join(format!("{name}.rs"))).expect("a main of the target");
        assert!(main.contains(&format!("\"{name}\"")), "{name} is not run by cargo fuzz");
    }
}

#[test]
fn passwords() {
    a_little("passwords");
}

#[test]
fn web_frames() {
    a_little("web_frames");
}

//! Which runs of a simulation are carried out.

use std::fmt::Debug;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// Carries out a run for each of many seeds, and hands what came of each to `each`: as many as there is time for, and at least
/// some, since a loaded machine is not a defect. The environment's `FOREBAY_SEED` repeats a single run, and prints it;
/// `FOREBAY_SIM_RUNS` says how many there are. Whether there were many.
///
/// # Panics
/// When a run does: with its seed.
#[allow(clippy::panic, reason = "that is how a test fails")]
pub fn run_many<R: Debug>(time: Duration, run: fn(u64) -> R, mut each: impl FnMut(R)) -> bool {
    const LEAST: u64 = 20;
    if let Some(seed) = number("FOREBAY_SEED") {
        println!("{:#?}", run(seed));
        return false;
    }
    let (runs, start) = (number("FOREBAY_SIM_RUNS"), u64::from(std::process::id()) << 20);
    let (end, mut done) = (Instant::now() + time, 0);
    while runs.map_or(done < LEAST || Instant::now() < end, |runs| done < runs) {
        let seed = start + done;
        match catch_unwind(|| run(seed)) {
            Ok(result) => each(result),
            Err(_) => panic!("again with FOREBAY_SEED={seed}"),
        }
        done += 1;
    }
    println!("{done} runs");
    true
}

#[allow(clippy::panic, reason = "that is how a test fails")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no whole number: {text}")))
}

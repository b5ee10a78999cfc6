//! The store against a naive model, on a disk that loses power, fails and fills up: random events, crashes anywhere,
//! also while a store is being opened; what was said to be on disk is there, nothing half, nothing else, in order.
//!
//! `FOREBAY_SEED` repeats one run; `FOREBAY_SIM_RUNS` says how many there are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod history;
mod model;
mod run;
mod workload;

use std::time::Duration;

use broker_store::sim::run_many;
use run::Run;

/// Runs that fail when a defect comes back that the simulation once found.
const FAILED_ONCE: &[u64] = &[
    // A segment took the name, and with it the place, of one that held only moves of messages.
    15752757261, //
    // A segment was given back before it was on disk that nothing in it was needed any more.
    17608737054, //
    // A segment whose making had failed half way made the one before it seem to be missing.
    16368271716, //
    // A segment was written to after a sync of it had failed.
    17073963085,
];

#[test]
fn crashes_anywhere_lose_nothing_that_was_told() {
    let mut sum = run::Sum::default();
    if run_many(Duration::from_secs(15), |seed| Run::new(seed).carry_out(), |run| sum.add(&run)) {
        println!("{sum:?}");
        sum.assert_all_happened();
    }
}

#[test]
fn runs_that_once_failed() {
    for &seed in FAILED_ONCE {
        Run::new(seed).carry_out();
    }
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| Run::new(seed).carry_out());
        assert_eq!(first, second, "seed {seed}");
    }
}

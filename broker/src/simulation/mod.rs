//! The whole broker in a test's hands: its sessions, its routing and its store, with a clock, a network and a disk that do what
//! a seed says. Connections come and go, bytes arrive in pieces, the store's writer, the delivering thread and each connection
//! get their turns in any order, the disk fails, fills up and loses power; and whatever was acknowledged must be there.
//!
//! Nothing here is a copy of the broker: connections are served by [`crate::connection::run`], commits followed up by
//! [`crate::delivery::Delivery`], sessions restored by [`crate::broker::Broker::persist`].
//!
//! `FOREBAY_SEED` repeats one run; `FOREBAY_SIM_RUNS` says how many there are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod keeper;
mod life;
mod publisher;
mod subscriber;
mod wire;
mod world;

use std::time::{Duration, Instant};

use world::{Sum, World};

/// Runs that fail when a defect comes back that the simulation once found.
const FAILED_ONCE: &[u64] = &[];

#[test]
fn what_was_acknowledged_survives_any_end_in_any_order() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    if let Some(seed) = number("FOREBAY_SEED") {
        println!("{:#?}", World::new(seed).carry_out());
        return;
    }
    let (runs, start) = (number("FOREBAY_SIM_RUNS"), u64::from(std::process::id()) << 20);
    // As many as there is time for, where nothing is said: a loaded machine is not a defect.
    let end = Instant::now() + Duration::from_secs(20);
    let (mut done, mut sum) = (0, Sum::default());
    while runs.map_or(done < 20 || Instant::now() < end, |runs| done < runs) {
        let seed = start + done;
        match std::panic::catch_unwind(|| World::new(seed).carry_out()) {
            Ok(run) => sum.add(&run),
            Err(_) => panic!("again with FOREBAY_SEED={seed}"),
        }
        done += 1;
    }
    println!("{done} runs: {sum:?}");
    sum.assert_all_happened();
}

#[test]
fn runs_that_once_failed() {
    for &seed in FAILED_ONCE {
        World::new(seed).carry_out();
    }
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..5 {
        let [first, second] = [(); 2].map(|()| World::new(seed).carry_out());
        assert_eq!(first, second, "seed {seed}");
    }
}

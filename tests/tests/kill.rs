//! The broker is killed again and again, at any moment: what it acknowledged is not lost, and at QoS 2 not doubled.
//!
//! `FOREBAY_KILL_ROUNDS` says how often; `FOREBAY_SEED` repeats a run's moments.

use std::time::Duration;

use forebay_tests::forebay::Serve;
use forebay_tests::lives::{End, Life, Lives};
use forebay_tests::random::{Random, seed};

#[test]
fn killed_at_any_moment() {
    let rounds = std::env::var("FOREBAY_KILL_ROUNDS").map_or(60, |rounds| rounds.parse().expect("a number"));
    let mut random = Random::new(seed());
    let mut lives = Lives::new(0, true);
    for _ in 0..rounds {
        let time = Duration::from_millis(20 + random.below(200));
        let (status, output) = lives.live(Life { serve: Serve::new(), lives: time, end: End::Kill });
        assert!(!status.success(), "{output}");
    }
    assert!(lives.acknowledged() > rounds, "hardly anything happened");
    lives.settle();
}

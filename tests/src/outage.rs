//! What is published while a far side is away.

use std::ops::Range;
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::mqtt::Client;

/// Between two messages.
const PACE: Duration = Duration::from_millis(5);

/// How long a far side stays away: two seconds, or what `FOREBAY_OUTAGE_SECONDS` says.
fn length() -> Duration {
    let seconds = env::var("FOREBAY_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Publishes at a steady pace for as long as that, each message acknowledged; the numbers of those, from `first` on.
pub fn publish(
    publisher: &mut Client,
    topic: &str,
    message: impl Fn(u32) -> Vec<u8>,
    first: u32,
) -> Range<u32> {
    let end = Instant::now() + length();
    let mut next = first;
    while Instant::now() < end {
        publisher.publish(topic, 1, &message(next));
        next += 1;
        thread::sleep(PACE);
    }
    first..next
}

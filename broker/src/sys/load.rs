//! Moving averages of counters: events a minute, over one, five and fifteen minutes.

use std::time::Duration;

/// Minutes that averages go over.
const MINUTES: [u32; 3] = [1, 5, 15];

/// The averages of one counter.
#[derive(Debug)]
pub struct Load {
    /// What it is called.
    pub name: &'static str,
    last: u64,
    averages: [f64; 3],
}

impl Load {
    /// Nothing has happened since the counter was at `value`.
    pub fn new(name: &'static str, value: u64) -> Self {
        Self { name, last: value, averages: [0.0; 3] }
    }

    /// The counter is at `value` now, `interval` after the last time.
    pub fn count(&mut self, value: u64, interval: Duration) {
        let seconds = interval.as_secs_f64();
        let a_minute = value.saturating_sub(self.last) as f64 * 60.0 / seconds;
        for (average, minutes) in self.averages.iter_mut().zip(MINUTES) {
            let kept = (-seconds / (60.0 * f64::from(minutes))).exp();
            *average = *average * kept + a_minute * (1.0 - kept);
        }
        self.last = value;
    }

    /// Each average with its minutes.
    pub fn averages(&self) -> impl Iterator<Item = (u32, f64)> {
        MINUTES.into_iter().zip(self.averages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_shown_as_what_it_is_sooner_over_fewer_minutes() {
        let mut load = Load::new("messages", 0);
        for n in 1..=6 {
            load.count(n * 10, Duration::from_secs(10));
        }
        let after_a_minute: Vec<f64> = load.averages().map(|(_, average)| average).collect();
        assert!(after_a_minute.is_sorted_by(|a, b| a > b));
        // One time constant: 1 − 1/e of 60 a minute.
        assert!((after_a_minute[0] - 60.0 * (1.0 - (-1.0f64).exp())).abs() < 0.01);
        for n in 7..=1000 {
            load.count(n * 10, Duration::from_secs(10));
        }
        assert!(load.averages().all(|(_, average)| (average - 60.0).abs() < 0.1));
    }
}

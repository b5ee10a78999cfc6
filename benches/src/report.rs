//! Medians over repeats, ratios to the peers, and how they are printed.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::peer::Kind;
use crate::scenario::Scenario;

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Messages received per second.
    Rate,
    /// CPU seconds of the broker (and its helper) per million messages received.
    CpuPerMillion,
    /// Share of the time that the broker (and its helper) was on its core. Well below 1 while the load is not
    /// at its limit either: something else took the core.
    BrokerBusy,
    /// Share of its core that the load itself used.
    LoadBusy,
    /// Deliveries that never came.
    Lost,
    /// Messages a second that the disk takes in groups as large as the load's.
    DiskRate,
    /// Median latency, microseconds.
    P50,
    /// 99th percentile, microseconds.
    P99,
    /// 99.9th percentile, microseconds.
    P999,
    /// Resident bytes per connection.
    BytesPerConnection,
}

/// The figures of one run.
pub type Sample = BTreeMap<Metric, f64>;

/// All repeats of one scenario on one broker.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was run.
    pub scenario: Scenario,
    /// Against what.
    pub broker: Kind,
    /// Medians of `samples`.
    pub median: Sample,
    /// Every repeat.
    pub samples: Vec<Sample>,
    /// Repeats that could not be measured, and why.
    pub failures: Vec<String>,
}

impl Row {
    /// A row without results yet.
    pub fn new(scenario: Scenario, broker: Kind) -> Self {
        Self { scenario, broker, median: Sample::new(), samples: Vec::new(), failures: Vec::new() }
    }

    /// Takes the result of one repeat.
    pub fn add(&mut self, result: crate::Result<Sample>) {
        match result {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.failures.push(error.to_string()),
        }
        let metrics: Vec<Metric> = self.samples.iter().flat_map(|sample| sample.keys().copied()).collect();
        for metric in metrics {
            let values = self.samples.iter().filter_map(|sample| sample.get(&metric).copied()).collect();
            self.median.insert(metric, median(values));
        }
    }

    /// The figure by which brokers are compared, and whether more of it is better.
    fn headline(&self) -> Option<(f64, bool)> {
        let of = |metric: Metric| self.median.get(&metric).copied();
        of(Metric::Rate)
            .map(|v| (v, true))
            .or_else(|| of(Metric::P50).or_else(|| of(Metric::BytesPerConnection)).map(|v| (v, false)))
    }

    fn figures(&self) -> String {
        let of = |metric: Metric| self.median.get(&metric).copied();
        let mut text = String::new();
        if let (Some(rate), Some(cpu)) = (of(Metric::Rate), of(Metric::CpuPerMillion)) {
            let busy = of(Metric::LoadBusy).unwrap_or_default();
            let _ =
                write!(text, "{:>10}/s  {cpu:>6.2} CPU s/M  load {:>3.0} %", thousands(rate), busy * 100.0);
            if busy > 0.97 {
                text.push_str(" (load-bound)");
            }
            if let Some(disk) = of(Metric::DiskRate).filter(|disk| *disk > 0.0) {
                let _ = write!(text, "  {:.2} × the disk's {}/s", rate / disk, thousands(disk));
            }
            if let Some(lost) = of(Metric::Lost).filter(|lost| *lost > 0.0) {
                let _ = write!(text, "  lost {}", thousands(lost));
            }
        } else if let (Some(p50), Some(p99), Some(p999)) =
            (of(Metric::P50), of(Metric::P99), of(Metric::P999))
        {
            let _ = write!(text, "p50 {p50:>6.1} µs  p99 {p99:>6.1} µs  p99.9 {p999:>7.1} µs");
        } else if let Some(bytes) = of(Metric::BytesPerConnection) {
            let _ = write!(text, "{:>7.2} KiB each", bytes / 1024.0);
        }
        text
    }
}

/// The whole table: one block per scenario, ratios against mosquitto and rumqttd.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = None;
    for row in rows {
        if last.replace(row.scenario) != Some(row.scenario) {
            let _ = writeln!(text, "\n{}", row.scenario.title());
        }
        let _ = write!(text, "  {:<10} {:<62}", row.broker, row.figures());
        for peer in [Kind::Mosquitto, Kind::Rumqttd] {
            let base = rows.iter().find(|other| other.scenario == row.scenario && other.broker == peer);
            match (row.headline(), base.and_then(Row::headline)) {
                (Some((value, _)), Some((base, _))) if base > 0.0 && peer != row.broker => {
                    let _ = write!(text, "  {:>6.2} × {peer}", value / base);
                }
                _ => {}
            }
        }
        text.push('\n');
        for failure in &row.failures {
            let _ = writeln!(text, "    not measured: {}", failure.trim_end().replace('\n', "\n      "));
        }
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
    }

    #[test]
    fn large_figures_are_grouped_by_three() {
        assert_eq!(thousands(1234567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
    }
}

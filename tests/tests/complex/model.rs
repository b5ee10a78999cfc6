//! What the complex graph must make of what was published, worked out without a graph.
//!
//! A message that says when it was made belongs to one window. One that does not is made when it arrives, somewhere between
//! its publishing and its acknowledgement: where a window ends in between, it may be in either, but in exactly one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::Value;

/// How long a window is.
const WINDOW_MS: u64 = 10_000;
/// More messages than this between two windows are not told apart.
const OPEN_MAX: usize = 12;
/// Averages are sums of floats in some order.
const PRECISION: f64 = 1e-9;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// A reading that comes out, °C.
    Temperature(f64),
    /// A reading that comes out, per cent.
    Humidity(f64),
    /// A picture of a cat.
    Picture,
    /// A reading that the filter drops.
    Implausible,
    /// Something that an operator fails on.
    Broken,
    /// Something whose window closed long ago.
    Late,
}

/// A message, and the moments between which it was made.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What it was.
    pub what: What,
    /// One moment when it says so itself.
    pub made_ms: RangeInclusive<u64>,
}

impl Sent {
    fn windows(&self) -> (u64, u64) {
        (window(*self.made_ms.start()), window(*self.made_ms.end()))
    }
}

/// The end of the window that a moment belongs to.
pub fn window(ms: u64) -> u64 {
    ms.next_multiple_of(WINDOW_MS)
}

/// What the graph said about one kind of reading in one window.
#[derive(Clone, Copy, Debug)]
struct Summary {
    count: u64,
    min: f64,
    max: f64,
    average: f64,
    last: f64,
}

/// What the graph said about one window.
#[derive(Debug)]
pub struct Output {
    end_ms: u64,
    temperature: Option<Summary>,
    humidity: Option<Summary>,
    overtemp: bool,
    picture: Option<String>,
}

impl Output {
    /// Reads a message of the graph, which carries the end of its window as its timestamp.
    pub fn read(timestamp: &str, payload: &[u8]) -> Self {
        let all: Value = serde_json::from_slice(payload).expect("JSON");
        let one = |kind: &str| {
            let found = all[kind].as_array().unwrap_or_else(|| panic!("{kind} is a list in {all}"));
            assert!(found.len() <= 1, "one summary of a window: {all}");
            found.first().cloned()
        };
        let number =
            |value: &Value, name: &str| value[name].as_f64().unwrap_or_else(|| panic!("{name} in {all}"));
        let summary = |value: &Value| Summary {
            count: value["count"].as_u64().unwrap_or_else(|| panic!("count in {all}")),
            min: number(value, "min"),
            max: number(value, "max"),
            average: number(value, "average"),
            last: number(value, "last"),
        };
        let temperature = one("temperature");
        let overtemp = temperature.as_ref().is_some_and(|value| value["overtemp"] == true);
        let picture = one("object").map(|object| object["result"].as_str().expect("a name").to_owned());
        Self {
            end_ms: timestamp.split(':').next().and_then(|ms| ms.parse().ok()).expect("milliseconds"),
            temperature: temperature.as_ref().map(summary),
            humidity: one("humidity").as_ref().map(summary),
            overtemp,
            picture,
        }
    }

    /// Whether it is the window that ends then.
    pub fn ends_at(&self, end_ms: u64) -> bool {
        self.end_ms == end_ms
    }
}

/// Panics with what is wrong where the outputs are not what the messages must become.
pub fn verify(sent: &[Sent], outputs: &[Output]) {
    let ends: Vec<u64> = outputs.iter().map(|output| output.end_ms).collect();
    assert!(ends.is_sorted_by(|one, next| one < next), "each window once, in order: {ends:?}");
    let temperature = |what: What| if let What::Temperature(value) = what { Some(value) } else { None };
    let humidity = |what: What| if let What::Humidity(value) = what { Some(value) } else { None };
    readings("temperature", sent, temperature, outputs, |output| output.temperature);
    readings("humidity", sent, humidity, outputs, |output| output.humidity);
    pictures(sent, outputs);
    overtemp(outputs);
}

/// A reading of one kind: its value, and when it was made.
type Reading<'a> = (f64, &'a Sent);

/// Readings of one window.
#[derive(Default)]
struct Members<'a> {
    certain: Vec<Reading<'a>>,
    /// In this window or in the next one.
    open: Vec<Reading<'a>>,
}

/// Every reading is in exactly one window. Of those between two windows, each way to divide them is tried which leaves
/// the windows before them right.
fn readings(
    kind: &str,
    sent: &[Sent],
    value: impl Fn(What) -> Option<f64>,
    outputs: &[Output],
    said: impl Fn(&Output) -> Option<Summary>,
) {
    let mut windows: BTreeMap<u64, Members<'_>> = BTreeMap::new();
    let mut published = 0;
    for (value, sent) in sent.iter().filter_map(|sent| Some((value(sent.what)?, sent))) {
        published += 1;
        let (first, last) = sent.windows();
        let members = windows.entry(first).or_default();
        if first == last {
            members.certain.push((value, sent))
        } else {
            members.open.push((value, sent))
        }
        windows.entry(last).or_default();
    }
    let said: BTreeMap<u64, Summary> =
        outputs.iter().filter_map(|output| Some((output.end_ms, said(output)?))).collect();
    let came_out: u64 = said.values().map(|summary| summary.count).sum();
    assert_eq!(came_out, published, "{kind}: all that was published came out, and once");
    for end in said.keys() {
        windows.entry(*end).or_default();
    }
    let mut ways = vec![Vec::new()];
    for (end, members) in &windows {
        ways = ways.iter().flat_map(|before| divided(before, members, said.get(end))).collect();
        assert!(
            !ways.is_empty(),
            "{kind} of the window that ends at {end}: {:?}\n{}",
            said.get(end),
            members.told()
        );
    }
    assert!(ways.iter().any(Vec::is_empty), "{kind}: what no window has");
}

/// What is left for the next window, in each way to divide the open ones that gives what was said of this one.
/// `before` are those that the window before left.
fn divided<'a>(
    before: &[Reading<'a>],
    members: &Members<'a>,
    said: Option<&Summary>,
) -> Vec<Vec<Reading<'a>>> {
    let open = &members.open;
    assert!(open.len() <= OPEN_MAX, "{} messages between two windows", open.len());
    let ways = (0_u32..1 << open.len()).filter_map(|taken| {
        let is_taken = |at: usize| taken & (1 << at) != 0;
        let here = (0..open.len()).filter(|at| is_taken(*at)).map(|at| open[at]);
        let here: Vec<Reading<'a>> =
            before.iter().copied().chain(members.certain.iter().copied()).chain(here).collect();
        let rest = || (0..open.len()).filter(|at| !is_taken(*at)).map(|at| open[at]).collect();
        is_said(&here, said).then(rest)
    });
    ways.collect()
}

fn is_said(readings: &[Reading<'_>], said: Option<&Summary>) -> bool {
    let Some(said) = said else { return readings.is_empty() };
    let values = || readings.iter().map(|(value, _)| *value);
    let average = values().sum::<f64>() / readings.len() as f64;
    readings.len() as u64 == said.count
        && values().reduce(f64::min) == Some(said.min)
        && values().reduce(f64::max) == Some(said.max)
        && (average - said.average).abs() <= PRECISION * average.abs().max(1.0)
        && is_last(readings, said.last)
}

/// Whether a reading of this value may have been made last.
fn is_last(readings: &[Reading<'_>], value: f64) -> bool {
    let latest = readings.iter().map(|(_, sent)| *sent.made_ms.start()).max();
    readings.iter().any(|(own, sent)| *own == value && Some(*sent.made_ms.end()) >= latest)
}

impl Members<'_> {
    /// For whoever wonders what is wrong.
    fn told(&self) -> String {
        let values = || self.certain.iter().map(|(value, _)| *value);
        format!(
            "published: {} with {:?} to {:?}, sum {}; and of the next window or this: {:?}",
            self.certain.len(),
            values().reduce(f64::min),
            values().reduce(f64::max),
            values().sum::<f64>(),
            self.open
        )
    }
}

/// What was seen is told of the windows with a picture, and of no other.
fn pictures(sent: &[Sent], outputs: &[Output]) {
    let of = |sent: &Sent| {
        let (first, last) = sent.windows();
        assert_eq!(first, last, "pictures say when they were made");
        first
    };
    let published: BTreeSet<u64> = sent.iter().filter(|sent| sent.what == What::Picture).map(of).collect();
    let seen: BTreeSet<u64> =
        outputs.iter().filter(|output| output.picture.is_some()).map(|output| output.end_ms).collect();
    assert_eq!(seen, published, "windows with pictures");
    for seen in outputs.iter().filter_map(|output| output.picture.as_deref()) {
        assert!(seen.contains("cat") && !seen.contains(';'), "the same cat, named once: {seen}");
    }
}

/// Too hot is what has been above 100 °C, until something has been below zero.
fn overtemp(outputs: &[Output]) {
    let mut hot = false;
    for output in outputs {
        let Some(Summary { min, max, .. }) = output.temperature else { continue };
        hot = max > 100.0 || (hot && min >= 0.0);
        assert_eq!(output.overtemp, hot, "{output:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(what: What, from: u64, to: u64) -> Sent {
        Sent { what, made_ms: from..=to }
    }

    fn output(end: u64, temperature: &str) -> Output {
        let payload = format!(r#"{{"temperature":[{temperature}],"humidity":[],"object":[]}}"#);
        Output::read(&format!("{end:015}:00000:graph"), payload.as_bytes())
    }

    fn summary(count: u32, min: f64, max: f64, average: f64, last: f64) -> String {
        format!(
            r#"{{"count":{count},"min":{min},"max":{max},"average":{average},"last":{last},"overtemp":false}}"#
        )
    }

    /// One of 20 °C in the first window, one of 30 in the second, and one of 25 between them.
    fn between() -> Vec<Sent> {
        let reading = |value, from, to| sent(What::Temperature(value), from, to);
        vec![reading(20.0, 4_000, 4_000), reading(25.0, 9_999, 10_001), reading(30.0, 15_000, 15_000)]
    }

    #[test]
    fn a_message_between_two_windows_may_be_in_either() {
        let (one, two) = (summary(1, 20.0, 20.0, 20.0, 20.0), summary(2, 25.0, 30.0, 27.5, 30.0));
        verify(&between(), &[output(10_000, &one), output(20_000, &two)]);
        let (one, two) = (summary(2, 20.0, 25.0, 22.5, 25.0), summary(1, 30.0, 30.0, 30.0, 30.0));
        verify(&between(), &[output(10_000, &one), output(20_000, &two)]);
    }

    #[test]
    #[should_panic(expected = "all that was published came out, and once")]
    fn a_message_between_two_windows_may_not_be_in_both() {
        let (one, two) = (summary(2, 20.0, 25.0, 22.5, 25.0), summary(2, 25.0, 30.0, 27.5, 30.0));
        verify(&between(), &[output(10_000, &one), output(20_000, &two)]);
    }

    #[test]
    #[should_panic(expected = "temperature of the window that ends at 20000")]
    fn a_wrong_number_is_found() {
        let (one, two) = (summary(1, 20.0, 20.0, 20.0, 20.0), summary(2, 25.0, 30.0, 27.6, 30.0));
        verify(&between(), &[output(10_000, &one), output(20_000, &two)]);
    }

    #[test]
    #[should_panic(expected = "each window once")]
    fn a_window_that_comes_twice_is_found() {
        let one = summary(1, 20.0, 20.0, 20.0, 20.0);
        verify(&between(), &[output(10_000, &one), output(10_000, &one)]);
    }
}

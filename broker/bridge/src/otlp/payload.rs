//! What a message must be to become metrics and logs (AIO.md §7.6).

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Number as JsonNumber;

use super::proto::{
    AnyValue, DELTA, Data, Gauge, Histogram, HistogramPoint, KeyValue, LogRecord, Metric, Number, Point, Sum,
};

/// The upper bounds of histograms: those that OpenTelemetry's SDKs have by default.
const BOUNDS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// What one message becomes.
#[derive(Debug, Default, PartialEq)]
pub struct Telemetry {
    /// Metrics.
    pub metrics: Vec<Metric>,
    /// Log records.
    pub logs: Vec<LogRecord>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    metrics: Vec<MetricPayload>,
    #[serde(default)]
    logs: Vec<LogPayload>,
}

#[derive(Deserialize)]
struct MetricPayload {
    name: String,
    /// AIO's own sample operator writes `metric_type`.
    #[serde(alias = "metric_type")]
    r#type: String,
    value: JsonNumber,
    description: Option<String>,
    #[serde(alias = "units")]
    unit: Option<String>,
    timestamp: Option<u64>,
    attributes: Option<Vec<AttributePayload>>,
}

#[derive(Deserialize)]
struct AttributePayload {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct LogPayload {
    value: String,
    level: String,
    timestamp: Option<u64>,
    attributes: Option<Vec<AttributePayload>>,
}

/// What a payload says.
///
/// # Errors
/// What is wrong with it, in words that follow "the payload".
pub fn read(payload: &[u8]) -> Result<Telemetry, String> {
    let payload: Payload =
        serde_json::from_slice(payload).map_err(|error| format!("is not as it must be: {error}"))?;
    if payload.metrics.is_empty() && payload.logs.is_empty() {
        return Err("has neither `metrics` nor `logs`".to_owned());
    }
    let metrics = payload.metrics.into_iter().map(metric).collect::<Result<_, _>>()?;
    let logs = payload.logs.into_iter().map(log).collect::<Result<_, _>>()?;
    Ok(Telemetry { metrics, logs })
}

fn metric(payload: MetricPayload) -> Result<Metric, String> {
    let MetricPayload { name, r#type, value, description, unit, timestamp, attributes } = payload;
    let wrong = |what: &str| format!("has a metric `{name}` of type {type} whose value {value} {what}");
    let whole = || value.as_i64().ok_or_else(|| wrong("is not a whole number that fits"));
    let natural =
        || whole().and_then(|value| if value < 0 { Err(wrong("is below zero")) } else { Ok(value) });
    let fraction = || value.as_f64().ok_or_else(|| wrong("is no number"));
    let (time_unix_nano, attributes) = (timestamp.unwrap_or_else(now), attributes_of(attributes));
    let point =
        |value: Number| vec![Point { time_unix_nano, attributes: attributes.clone(), value: Some(value) }];
    let sum = |value: Number, is_monotonic: bool| {
        Data::Sum(Sum { data_points: point(value), aggregation_temporality: DELTA, is_monotonic })
    };
    let gauge = |value: Number| Data::Gauge(Gauge { data_points: point(value) });
    let rising =
        || fraction().and_then(|value| if value < 0.0 { Err(wrong("is below zero")) } else { Ok(value) });
    let data = match r#type.as_str() {
        "u64_counter" => sum(Number::Int(natural()?), true),
        "f64_counter" => sum(Number::Double(rising()?), true),
        "i64_up_down_counter" => sum(Number::Int(whole()?), false),
        "f64_up_down_counter" => sum(Number::Double(fraction()?), false),
        "u64_gauge" => gauge(Number::Int(natural()?)),
        "i64_gauge" => gauge(Number::Int(whole()?)),
        "f64_gauge" => gauge(Number::Double(fraction()?)),
        "f64_histogram" => histogram(fraction()?, time_unix_nano, &attributes),
        "u64_histogram" => histogram(natural()? as f64, time_unix_nano, &attributes),
        other => return Err(format!("has a metric `{name}` of the unknown type `{other}`")),
    };
    let (description, unit) = (description.unwrap_or_default(), unit.unwrap_or_default());
    Ok(Metric { name, description, unit, data: Some(data) })
}

/// A histogram of one sample.
fn histogram(value: f64, time_unix_nano: u64, attributes: &[KeyValue]) -> Data {
    let bucket = BOUNDS.iter().position(|bound| value <= *bound).unwrap_or(BOUNDS.len());
    let point = HistogramPoint {
        time_unix_nano,
        count: 1,
        sum: Some(value),
        bucket_counts: (0..=BOUNDS.len()).map(|at| u64::from(at == bucket)).collect(),
        explicit_bounds: BOUNDS.to_vec(),
        attributes: attributes.to_vec(),
        min: Some(value),
        max: Some(value),
    };
    Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: DELTA })
}

fn log(payload: LogPayload) -> Result<LogRecord, String> {
    let severity_number = match payload.level.as_str() {
        "trace" => 1,
        "debug" => 5,
        "info" => 9,
        "warn" => 13,
        "error" => 17,
        "fatal" => 21,
        other => return Err(format!("has a log of the unknown level `{other}`")),
    };
    Ok(LogRecord {
        time_unix_nano: payload.timestamp.unwrap_or_else(now),
        severity_number,
        severity_text: payload.level.to_uppercase(),
        body: Some(AnyValue { string_value: Some(payload.value) }),
        attributes: attributes_of(payload.attributes),
        observed_time_unix_nano: now(),
    })
}

fn attributes_of(attributes: Option<Vec<AttributePayload>>) -> Vec<KeyValue> {
    attributes.unwrap_or_default().iter().map(|it| KeyValue::text(&it.key, &it.value)).collect()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_of_metric_becomes_what_it_is() {
        let text = br#"{"metrics": [
            {"name": "a", "type": "u64_counter", "value": 3, "timestamp": 7, "attributes": [{"key": "k", "value": "v"}]},
            {"name": "b", "metric_type": "f64_gauge", "value": 1.5, "unit": "C", "timestamp": 7, "attributes": null},
            {"name": "c", "type": "f64_histogram", "value": 7, "timestamp": 7}]}"#;
        let Telemetry { metrics, logs } = read(text).unwrap();
        assert!(logs.is_empty());
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == DELTA);
        let point = Point {
            time_unix_nano: 7,
            attributes: vec![KeyValue::text("k", "v")],
            value: Some(Number::Int(3)),
        };
        assert_eq!(sum.data_points, [point]);
        assert!(
            matches!(&metrics[1].data, Some(Data::Gauge(gauge)) if gauge.data_points[0].value == Some(Number::Double(1.5)))
        );
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.count, point.sum, point.bucket_counts.iter().position(|count| *count == 1)),
            (1, Some(7.0), Some(2))
        );
    }

    #[test]
    fn what_does_not_conform_is_named() {
        for (text, says) in [
            ("{}", "neither"),
            ("[1]", "not as it must be"),
            (r#"{"metrics": [{"name": "a", "type": "u64_counter", "value": -1}]}"#, "below zero"),
            (r#"{"metrics": [{"name": "a", "type": "i64_gauge", "value": 1.5}]}"#, "whole number"),
            (r#"{"metrics": [{"name": "a", "type": "guess", "value": 1}]}"#, "unknown type `guess`"),
            (r#"{"metrics": [{"name": "a", "value": 1}]}"#, "type"),
            (r#"{"logs": [{"value": "x", "level": "loud"}]}"#, "unknown level `loud`"),
        ] {
            let why = read(text.as_bytes()).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        let log = read(br#"{"logs": [{"value": "it broke", "level": "error"}]}"#).unwrap().logs.remove(0);
        assert_eq!((log.severity_number, log.severity_text.as_str()), (17, "ERROR"));
        assert!(log.time_unix_nano > 1_700_000_000_000_000_000);
    }
}

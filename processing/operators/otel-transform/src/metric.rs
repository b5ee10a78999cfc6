//! From a payload to a metric: what is taken from where.

use chrono::DateTime;
use serde::Serialize;
use serde_json::Value;

/// How a payload becomes a metric. The paths are of names with dots between.
#[derive(Debug, Default)]
pub struct Settings {
    pub name: Option<String>,
    pub name_path: Option<String>,
    pub value_path: Option<String>,
    pub kind: Option<String>,
    pub unit: Option<String>,
    pub timestamp_path: Option<String>,
}

/// The message's payload afterwards.
#[derive(Debug, Serialize)]
pub struct Metrics {
    pub metrics: Vec<Metric>,
}

/// One metric with one value.
#[derive(Debug, Serialize)]
pub struct Metric {
    name: String,
    value: f64,
    /// The OpenTelemetry destination reads `type`; the sample this one agrees with writes `metric_type`.
    metric_type: String,
    unit: Option<String>,
    timestamp: Option<i64>,
    attributes: Option<Vec<Attribute>>,
}

/// What else is known.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Attribute {
    pub key: String,
    pub value: String,
}

impl Settings {
    /// The metric that a payload holds; `now_ns` since the Unix epoch.
    ///
    /// # Panics
    /// Without a `metricValuePath`; and without a `metricName` when no path says where the name is.
    pub fn metric(&self, payload: &Value, attributes: Vec<Attribute>, now_ns: i64) -> Metric {
        let value_path = self.value_path.as_deref().expect("metricValuePath is configured");
        // The file format's own words say that metricName wins over metricNamePath; the operator does the opposite.
        let name = match &self.name_path {
            Some(path) => at(payload, path).and_then(Value::as_str).unwrap_or("wasm-placeholder"),
            None => self.name.as_deref().expect("metricName or metricNamePath is configured"),
        };
        let timestamp = match &self.timestamp_path {
            Some(path) => at(payload, path).map(nanoseconds),
            None => Some(now_ns),
        };
        Metric {
            name: name.to_owned(),
            value: at(payload, value_path).and_then(Value::as_f64).unwrap_or(0.0),
            metric_type: self.kind.clone().unwrap_or_else(|| "type-placeholder".to_owned()),
            unit: self.unit.clone(),
            timestamp,
            attributes: (!attributes.is_empty()).then_some(attributes),
        }
    }
}

fn at<'a>(payload: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(payload, |value, name| value.get(name))
}

/// An RFC 3339 time since the Unix epoch; 0 for what is none, or outside the years 1677 to 2262.
fn nanoseconds(time: &Value) -> i64 {
    let parsed = time.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    parsed.and_then(|time| time.timestamp_nanos_opt()).unwrap_or(0)
}

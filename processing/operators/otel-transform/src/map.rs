//! A reading becomes a metric.

use std::sync::OnceLock;
use std::time::SystemTime;

use measurement::{count_request, log_configuration, property, unexpected_input};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

use crate::metric::{Attribute, Metrics, Settings};

const NAME: &str = "module-otel-transform/map";

/// What the names of user properties begin with that become attributes.
const PREFIX: &str = "otel/";

static SETTINGS: OnceLock<Settings> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    let text = |key: &str| property(&configuration, key).map(str::to_owned);
    let settings = Settings {
        name: text("metricName"),
        name_path: text("metricNamePath"),
        value_path: text("metricValuePath"),
        kind: text("metricType"),
        unit: text("metricUnits"),
        timestamp_path: text("metricTimestampPath"),
    };
    SETTINGS.set(settings).is_ok()
}

#[map_operator(init = "start")]
fn to_metric(input: DataModel) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(mut message) = input else { return Err(unexpected_input()) };
    let payload = match serde_json::from_slice(&message.payload.read()) {
        Ok(payload) => payload,
        Err(error) => {
            logger::log(Level::Error, NAME, &format!("the payload is no JSON: {error}"));
            return Ok(DataModel::Message(message));
        }
    };
    let attributes = attributes(&message.properties.user_properties);
    let settings = SETTINGS.get().expect("init has run");
    let metrics = Metrics { metrics: vec![settings.metric(&payload, attributes, now_ns())] };
    message.payload = serde_json::to_vec(&metrics).expect("numbers and texts are JSON").into();
    Ok(DataModel::Message(message))
}

fn attributes(properties: &[(BufferOrString, BufferOrString)]) -> Vec<Attribute> {
    let text = |field: &BufferOrString| String::from_utf8_lossy(&field.read()).into_owned();
    let attribute = |(key, value): &(BufferOrString, BufferOrString)| {
        let key = text(key).strip_prefix(PREFIX)?.to_owned();
        Some(Attribute { key, value: text(value) })
    };
    properties.iter().filter_map(attribute).collect()
}

/// Since the Unix epoch.
fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

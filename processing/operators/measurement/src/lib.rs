//! What the sample operators send each other: an object with one key that says what was measured. And what each of
//! them does around its own work.
//!
//! AIO.md §3, "Common JSON type".

mod statistics;

pub use statistics::Statistics;

use serde::{Deserialize, Serialize};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::metrics::{self, CounterValue, Label};
use wasm_graph_sdk::{Error, ModuleConfiguration};

/// One measurement, tagged by its kind.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurement {
    Temperature(Temperature),
    Humidity(Humidity),
    Object(Object),
    SensorData(SensorData),
}

/// A thermometer's reading, or the statistics of several.
#[derive(Debug, Deserialize, Serialize)]
pub struct Temperature {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub max: f64,
    #[serde(default)]
    pub min: f64,
    #[serde(default)]
    pub average: f64,
    #[serde(default)]
    pub last: f64,
    pub unit: Unit,
    #[serde(default)]
    pub overtemp: bool,
}

/// The unit of a temperature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Unit {
    #[serde(rename = "C")]
    Celsius,
    #[serde(rename = "F")]
    Fahrenheit,
}

/// A hygrometer's reading, or the statistics of several.
#[derive(Debug, Deserialize, Serialize)]
pub struct Humidity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub max: f64,
    #[serde(default)]
    pub min: f64,
    #[serde(default)]
    pub average: f64,
    #[serde(default)]
    pub last: f64,
}

/// What was recognised in an image.
#[derive(Debug, Deserialize, Serialize)]
pub struct Object {
    pub result: String,
}

/// Everything that was measured in one window.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct SensorData {
    #[serde(default)]
    pub temperature: Vec<Temperature>,
    #[serde(default)]
    pub humidity: Vec<Humidity>,
    #[serde(default)]
    pub object: Vec<Object>,
}

/// Reads a payload.
pub fn parse(payload: &[u8]) -> Result<Measurement, Error> {
    serde_json::from_slice(payload).map_err(|_| error("Failed to parse payload as JSON"))
}

impl Measurement {
    /// Its JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts are JSON")
    }
}

/// An error with these words.
pub fn error(message: impl Into<String>) -> Error {
    Error { message: message.into() }
}

/// The error for an item that is no message.
pub fn unexpected_input() -> Error {
    error("Unexpected input type")
}

/// The error for a measurement of another kind.
pub fn unexpected_measurement() -> Error {
    error("Unexpected measurement type.")
}

/// The value configured under `key`.
pub fn property<'a>(configuration: &'a ModuleConfiguration, key: &str) -> Option<&'a str> {
    let found = configuration.properties.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

/// Counts one request of an operator.
pub fn count_request(operator: &str, unit: Option<&str>) {
    let label = |key: &str, value: &str| Label { key: key.to_owned(), value: value.to_owned() };
    let mut labels = vec![label("module", operator)];
    labels.extend(unit.map(|unit| label("unit", unit)));
    // A metric that is not counted is no reason to lose a reading.
    let _ = metrics::add_to_counter("requests", CounterValue::U64(1), Some(&labels));
}

/// Logs what an operator was started with.
pub fn log_configuration(operator: &str, configuration: &ModuleConfiguration) {
    logger::log(Level::Info, operator, "started");
    for (key, value) in &configuration.properties {
        logger::log(Level::Info, operator, &format!("property {key} = {value}"));
    }
    for schema in &configuration.module_schemas {
        logger::log(Level::Info, operator, &format!("schema {} ({})", schema.name, schema.content_type));
    }
}

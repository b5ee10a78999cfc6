//! Count, average, extremes and last value of the temperatures of one window.

use wasm_graph_sdk::macros::accumulate_operator;

use crate::measurement::{
    Measurement, Temperature, Unit, count_request, log_configuration, parse, unexpected_input,
};

const NAME: &str = "module-temperature/accumulate";

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

/// What has been seen so far.
struct Statistics {
    count: u64,
    sum: f64,
    max: f64,
    min: f64,
    last: f64,
    last_at: (u64, u32),
    unit: Unit,
}

impl Statistics {
    fn of(staged: &Message) -> Result<Self, Error> {
        let payload = staged.payload.read();
        let last_at = (staged.timestamp.timestamp.secs, staged.timestamp.timestamp.nanos);
        if payload.is_empty() {
            let (max, min) = (f64::MIN, f64::MAX);
            return Ok(Self {
                count: 0,
                sum: 0.0,
                max,
                min,
                last: 0.0,
                last_at: (0, 0),
                unit: Unit::Celsius,
            });
        }
        let temperature = temperature(&payload)?;
        let Temperature { count, max, min, average, last, unit, .. } = temperature;
        Ok(Self { count, sum: average * count as f64, max, min, last, last_at, unit })
    }

    fn add(&mut self, message: &Message) -> Result<(), Error> {
        let temperature =
            temperature(&message.payload.read()).unwrap_or_else(|error| panic!("{}", error.message));
        let value = temperature.value.expect("a reading has a value");
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        self.min = self.min.min(value);
        self.unit = temperature.unit;
        let at = (message.timestamp.timestamp.secs, message.timestamp.timestamp.nanos);
        if at >= self.last_at {
            self.last = value;
            self.last_at = at;
        }
        Ok(())
    }

    fn payload(&self) -> Vec<u8> {
        let Self { count, sum, max, min, last, unit, .. } = self;
        let average = sum / *count as f64;
        let unit = if *unit == Unit::Celsius { "C" } else { "F" };
        format!(
            r#"{{"temperature":{{"count":{count},"max":{max},"min":{min},"average":{average},"last":{last},"unit":"{unit}"}}}}"#
        )
        .into_bytes()
    }
}

fn temperature(payload: &[u8]) -> Result<Temperature, Error> {
    match parse(payload)? {
        Measurement::Temperature(temperature) => Ok(temperature),
        _ => Err(Error { message: "Unexpected measurement type.".to_owned() }),
    }
}

#[accumulate_operator(init = "start")]
fn statistics(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(mut result) = staged else { return Err(unexpected_input()) };
    let mut statistics = Statistics::of(&result)?;
    for input in inputs {
        let DataModel::Message(message) = input else { return Err(unexpected_input()) };
        statistics.add(&message)?;
        result.topic = message.topic;
    }
    result.payload = BufferOrBytes::Bytes(statistics.payload());
    (result.timestamp.timestamp.secs, result.timestamp.timestamp.nanos) = statistics.last_at;
    Ok(DataModel::Message(result))
}

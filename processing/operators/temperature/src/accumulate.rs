//! Count, average, extremes and last value of the temperatures of one window.

use measurement::{
    Measurement, Statistics, Temperature, Unit, count_request, log_configuration, parse, unexpected_input,
    unexpected_measurement,
};
use wasm_graph_sdk::macros::accumulate_operator;

const NAME: &str = "module-temperature/accumulate";

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

fn temperature(payload: &[u8]) -> Result<Temperature, Error> {
    match parse(payload)? {
        Measurement::Temperature(temperature) => Ok(temperature),
        _ => Err(unexpected_measurement()),
    }
}

/// What has been seen so far, and in which unit.
fn resume(staged: &Message) -> Result<(Statistics, Unit), Error> {
    let payload = staged.payload.read();
    if payload.is_empty() {
        return Ok((Statistics::new(), Unit::Celsius));
    }
    let Temperature { count, max, min, average, last, unit, .. } = temperature(&payload)?;
    Ok((Statistics::resume(count, average, max, min, last, &staged.timestamp), unit))
}

fn payload(statistics: &Statistics, unit: Unit) -> String {
    let Statistics { count, max, min, last, .. } = statistics;
    let average = statistics.average();
    let unit = if unit == Unit::Celsius { "C" } else { "F" };
    format!(
        r#"{{"temperature":{{"count":{count},"max":{max},"min":{min},"average":{average},"last":{last},"unit":"{unit}"}}}}"#
    )
}

#[accumulate_operator(init = "start")]
fn statistics(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(mut result) = staged else { return Err(unexpected_input()) };
    let (mut statistics, mut unit) = resume(&result)?;
    for input in inputs {
        let DataModel::Message(message) = input else { return Err(unexpected_input()) };
        let temperature =
            temperature(&message.payload.read()).unwrap_or_else(|error| panic!("{}", error.message));
        statistics.add(temperature.value.expect("a reading has a value"), &message.timestamp);
        unit = temperature.unit;
        result.topic = message.topic;
    }
    result.payload = payload(&statistics, unit).into_bytes().into();
    statistics.stamp(&mut result);
    Ok(DataModel::Message(result))
}

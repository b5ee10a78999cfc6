//! One message about a whole window.

use measurement::{
    Humidity, Measurement, SensorData, Temperature, count_request, error, log_configuration, parse,
    unexpected_input,
};
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

use crate::memory;

pub const NAME: &str = "module-enrichment/map";

/// Where the result goes.
const TOPIC: &[u8] = b"sensors";
/// Hotter than this, °C, is too hot.
const OVERTEMP: f64 = 100.0;
/// Colder than this ends it.
const OVERTEMP_END: f64 = 0.0;
/// More humid than this, per cent, is wet.
const WET: f64 = 80.0;

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

fn judge_temperature(temperature: &mut Temperature) {
    temperature.value = None;
    if temperature.max > OVERTEMP {
        temperature.overtemp = true;
        memory::set(memory::OVERTEMP, b"true");
        memory::count_overtemp();
    } else if temperature.min < OVERTEMP_END {
        temperature.overtemp = false;
        memory::set(memory::OVERTEMP, b"false");
    } else {
        match memory::get(memory::OVERTEMP).as_deref() {
            Some(b"true") => temperature.overtemp = true,
            Some(b"false") | None => {}
            Some(other) => {
                let message = format!("the stored overtemp is {}", String::from_utf8_lossy(other));
                logger::log(Level::Warn, NAME, &message);
            }
        }
    }
}

fn judge_humidity(humidity: &Humidity) {
    if humidity.max > WET {
        memory::set(memory::WET, humidity.max.to_string().as_bytes());
    } else if humidity.min < WET {
        memory::delete(memory::WET);
    }
}

#[map_operator(init = "start")]
fn enrich(input: DataModel) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(message) = input else { return Err(unexpected_input()) };
    let measurement = parse(&message.payload.read()).unwrap_or_else(|error| panic!("{}", error.message));
    let Measurement::SensorData(mut data) = measurement else {
        return Err(error("Unexpected type for result."));
    };
    data.temperature.iter_mut().for_each(judge_temperature);
    data.humidity.iter().for_each(judge_humidity);
    Ok(DataModel::Message(Message {
        topic: TOPIC.to_vec().into(),
        content_type: None,
        schema: None,
        payload: bare(&data).into(),
        ..message
    }))
}

/// The data without the tag that says what it is.
fn bare(data: &SensorData) -> Vec<u8> {
    serde_json::to_vec(data).expect("numbers and texts are JSON")
}

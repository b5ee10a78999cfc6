//! Only temperatures in Celsius that a probe can really have.

use std::sync::OnceLock;

use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::filter_operator;

use measurement::{Measurement, Unit, count_request, log_configuration, parse, unexpected_input};

const NAME: &str = "module-temperature/filter";

/// Colder than this, most probes do not work.
const LOWER_DEFAULT: f64 = -40.0;
/// Tungsten melts here, and the probe with it.
const UPPER_DEFAULT: f64 = 3422.0;

static BOUNDS: OnceLock<(f64, f64)> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    let bound = |name: &str, default| {
        let given = configuration.properties.iter().find(|(key, _)| key == name);
        given.map_or(default, |(_, value)| {
            value.parse().unwrap_or_else(|_| {
                let message = format!("{name} is not a number: {value}; {default} it is");
                logger::log(Level::Error, NAME, &message);
                default
            })
        })
    };
    let bounds =
        (bound("temperature_lower_bound", LOWER_DEFAULT), bound("temperature_upper_bound", UPPER_DEFAULT));
    BOUNDS.set(bounds).expect("init runs once");
    true
}

#[filter_operator(init = "start")]
fn is_plausible(input: DataModel) -> Result<bool, Error> {
    count_request(NAME, None);
    let DataModel::Message(message) = input else { return Err(unexpected_input()) };
    let measurement = parse(&message.payload.read()).unwrap_or_else(|error| panic!("{}", error.message));
    let (lower, upper) = *BOUNDS.get().expect("init has run");
    Ok(match measurement {
        Measurement::Temperature(temperature) if temperature.unit == Unit::Celsius => {
            let value = temperature.value.expect("a reading has a value");
            lower < value && value < upper
        }
        _ => false,
    })
}

//! Fahrenheit to Celsius.

use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

use measurement::{Measurement, Unit, count_request, log_configuration, parse, unexpected_input};

const NAME: &str = "module-temperature/map";

fn start(configuration: ModuleConfiguration) -> bool {
    log_configuration(NAME, &configuration);
    true
}

#[map_operator(init = "start")]
fn fahrenheit_to_celsius(input: DataModel) -> Result<DataModel, Error> {
    count_request(NAME, None);
    let DataModel::Message(mut message) = input else { return Err(unexpected_input()) };
    log_description(&message);
    if let Measurement::Temperature(mut temperature) = parse(&message.payload.read())? {
        if temperature.unit == Unit::Fahrenheit {
            count_request(NAME, Some("Fahrenheit"));
            let fahrenheit = temperature.value.expect("a reading in Fahrenheit has a value");
            temperature.value = Some((fahrenheit - 32.0) * 5.0 / 9.0);
            temperature.unit = Unit::Celsius;
            message.payload = Measurement::Temperature(temperature).to_json().into();
        } else {
            count_request(NAME, Some("Celsius"));
        }
    }
    for (key, value) in &mut message.properties.user_properties {
        if is_test_key(key) {
            *value = BufferOrString::String("new_value".to_owned());
        }
    }
    Ok(DataModel::Message(message))
}

fn is_test_key(key: &BufferOrString) -> bool {
    match key {
        BufferOrString::String(key) => key == "test_property_key",
        BufferOrString::Buffer(key) => key.read() == b"test_property_key",
    }
}

/// Says what the message tells about itself; at debug level, since it comes with every message.
fn log_description(message: &Message) {
    if let Some(schema) = &message.schema {
        let name = match schema {
            MessageSchema::RegistryReference(reference) => reference,
            MessageSchema::Inline(inline) => &inline.name,
        };
        logger::log(Level::Debug, NAME, &format!("schema {}", String::from_utf8_lossy(&name.read())));
    }
    if let Some(content_type) = &message.content_type {
        let text = content_type.read();
        logger::log(Level::Debug, NAME, &format!("content type {}", String::from_utf8_lossy(&text)));
    }
}

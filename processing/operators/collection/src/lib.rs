//! Everything that was measured in one window, in one message.
//!
//! Behaviour: AIO.md §3, "collection".

mod accumulate {
    use measurement::{
        Measurement, SensorData, count_request, error, log_configuration, parse, unexpected_input,
        unexpected_measurement,
    };
    use wasm_graph_sdk::macros::accumulate_operator;

    const NAME: &str = "module-collection/accumulate";

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        true
    }

    fn resume(payload: &[u8]) -> Result<SensorData, Error> {
        if payload.is_empty() {
            return Ok(SensorData::default());
        }
        match parse(payload)? {
            Measurement::SensorData(collected) => Ok(collected),
            _ => Err(error("Unexpected type for result.")),
        }
    }

    fn add(collected: &mut SensorData, measurement: Measurement) -> Result<(), Error> {
        match measurement {
            Measurement::Temperature(temperature) => collected.temperature.push(temperature),
            Measurement::Humidity(humidity) => collected.humidity.push(humidity),
            Measurement::Object(object) => collected.object.push(object),
            Measurement::SensorData(_) => return Err(unexpected_measurement()),
        }
        Ok(())
    }

    #[accumulate_operator(init = "start")]
    fn collect(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let DataModel::Message(mut result) = staged else { return Err(unexpected_input()) };
        let mut collected = resume(&result.payload.read())?;
        for input in inputs {
            let payload = match input {
                DataModel::Message(message) => message.payload,
                DataModel::Snapshot(snapshot) => snapshot.frame,
                DataModel::BufferOrBytes(_) => return Err(unexpected_input()),
            };
            add(&mut collected, parse(&Vec::from(payload))?)?;
        }
        result.payload = Measurement::SensorData(collected).to_json().into();
        Ok(DataModel::Message(result))
    }
}

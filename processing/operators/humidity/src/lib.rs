//! Count, average, extremes and last value of the humidity readings of one window.
//!
//! Behaviour: AIO.md §3, "humidity".

mod accumulate {
    use measurement::{
        Humidity, Measurement, Statistics, count_request, parse, unexpected_input, unexpected_measurement,
    };
    use wasm_graph_sdk::macros::accumulate_operator;

    const NAME: &str = "module-humidity/accumulate";

    /// A reading, or what was staged.
    ///
    /// # Panics
    /// A payload that is no measurement at all.
    fn humidity(payload: &[u8]) -> Result<Humidity, Error> {
        match parse(payload).unwrap_or_else(|error| panic!("{}", error.message)) {
            Measurement::Humidity(humidity) => Ok(humidity),
            _ => Err(unexpected_measurement()),
        }
    }

    fn resume(staged: &Message) -> Result<Statistics, Error> {
        let payload = staged.payload.read();
        if payload.is_empty() {
            return Ok(Statistics::new());
        }
        let Humidity { count, max, min, average, last, .. } = humidity(&payload)?;
        Ok(Statistics::resume(count, average, max, min, last, &staged.timestamp))
    }

    fn payload(statistics: &Statistics) -> String {
        let Statistics { count, max, min, last, .. } = statistics;
        let average = statistics.average();
        format!(
            r#"{{"humidity":{{"count":{count},"max":{max},"min":{min},"average":{average},"last":{last}}}}}"#
        )
    }

    #[accumulate_operator]
    fn statistics(staged: DataModel, inputs: Vec<DataModel>) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let DataModel::Message(mut result) = staged else { return Err(unexpected_input()) };
        let mut statistics = resume(&result)?;
        for input in inputs {
            let DataModel::Message(message) = input else { return Err(unexpected_input()) };
            let value = humidity(&message.payload.read())?.value.expect("a reading has a value");
            statistics.add(value, &message.timestamp);
            result.topic = message.topic;
        }
        result.payload = payload(&statistics).into_bytes().into();
        statistics.stamp(&mut result);
        Ok(DataModel::Message(result))
    }
}

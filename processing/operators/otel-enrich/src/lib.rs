//! Puts what the state store knows beside each message.
//!
//! Behaviour: AIO.md §3, "otel-enrich".

mod map {
    use std::sync::OnceLock;

    use measurement::{count_request, log_configuration, unexpected_input};
    use wasm_graph_sdk::logger::{self, Level};
    use wasm_graph_sdk::macros::map_operator;
    use wasm_graph_sdk::state_store;

    const NAME: &str = "module-otel-enrich/map";

    /// Where the result goes.
    const TOPIC: &[u8] = b"sensors";
    /// What the names of the user properties begin with.
    const PREFIX: &str = "otel/";
    const KEYS: &str = "enrichKeys";

    static ENRICH_KEYS: OnceLock<Vec<String>> = OnceLock::new();

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        for (key, value) in &configuration.properties {
            if key != KEYS {
                logger::log(Level::Warn, NAME, &format!("unknown property {key}"));
                continue;
            }
            let keys = value.split(',').map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
            // Of two, the first one stays.
            let _ = ENRICH_KEYS.set(keys.collect());
        }
        true
    }

    #[map_operator(init = "start")]
    fn enrich(input: DataModel) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let DataModel::Message(mut message) = input else { return Err(unexpected_input()) };
        let Some(keys) = ENRICH_KEYS.get() else {
            logger::log(Level::Error, NAME, "enrichKeys is not configured: messages stay as they are");
            return Ok(DataModel::Message(message));
        };
        for key in keys {
            if let Some(value) = known(key) {
                let property = (format!("{PREFIX}{key}").into(), value.into());
                message.properties.user_properties.push(property);
            }
        }
        message.topic = TOPIC.to_vec().into();
        Ok(DataModel::Message(message))
    }

    /// What the store knows under `key`; what is not to be had is left out.
    fn known(key: &str) -> Option<String> {
        match state_store::get(key.as_bytes(), None) {
            Ok(found) => found.response.map(|value| String::from_utf8_lossy(&value).into_owned()),
            Err(error) => {
                logger::log(Level::Warn, NAME, &format!("get {key}: {error:?}"));
                None
            }
        }
    }
}

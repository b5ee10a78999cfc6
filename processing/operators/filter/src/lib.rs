//! Only messages that are valid by a JSON Schema.
//!
//! Behaviour: AIO.md §3, "schema filter".

mod filter {
    use std::sync::OnceLock;

    use jsonschema::{Draft, Validator};
    use measurement::{count_request, log_configuration, unexpected_input};
    use wasm_graph_sdk::logger::{self, Level};
    use wasm_graph_sdk::macros::filter_operator;

    const NAME: &str = "filter";

    static VALIDATOR: OnceLock<Validator> = OnceLock::new();

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        let Some(schema) = configuration.module_schemas.first() else {
            logger::log(Level::Error, NAME, "Initialization received no schemas.");
            return false;
        };
        if configuration.module_schemas.len() > 1 {
            logger::log(Level::Warn, NAME, &format!("of several schemas the first is used: {}", schema.name));
        }
        match compile(&schema.content) {
            Ok(validator) => VALIDATOR.set(validator).is_ok(),
            Err(reason) => {
                logger::log(Level::Error, NAME, &format!("the schema {} is none: {reason}", schema.name));
                false
            }
        }
    }

    fn compile(content: &str) -> Result<Validator, String> {
        let schema = serde_json::from_str(content).map_err(|error| error.to_string())?;
        jsonschema::options().with_draft(Draft::Draft7).build(&schema).map_err(|error| error.to_string())
    }

    #[filter_operator(init = "start")]
    fn is_valid(input: DataModel) -> Result<bool, Error> {
        count_request(NAME, None);
        let DataModel::Message(message) = input else { return Err(unexpected_input()) };
        let Ok(payload) = serde_json::from_slice(&message.payload.read()) else { return Ok(false) };
        let validator = VALIDATOR.get().expect("init has run");
        let mut valid = true;
        for error in validator.iter_errors(&payload) {
            let message = format!("{error} at {}", error.instance_path());
            logger::log(Level::Error, NAME, &message);
            valid = false;
        }
        Ok(valid)
    }
}

//! Operators that use the two imports which no operator has by itself: `command-invoker` and `schema-registry`. They are
//! brought in by worlds of their own (`mrpc-use` and `schema-registry-use`).

/// Asks a remote command with the message's payload, and passes its answer on, or the error's name.
mod command {
    use std::sync::OnceLock;

    use wasm_graph_sdk::macros::map_operator;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "wasm-graph:processor/mrpc-use",
        generate_all,
    });

    use wasm_graph::processor::command_invoker::{CommandInvoker, new_invoker};
    use wasm_graph::processor::rpc_types::{
        CommandInvokerOptionsBuilder, CommandRequestBuilder, CommandResponse, RpcError,
    };

    static PATTERN: OnceLock<String> = OnceLock::new();

    fn start(configuration: ModuleConfiguration) -> bool {
        let pattern = configuration.properties.iter().find(|(key, _)| key == "pattern");
        PATTERN
            .set(pattern.map_or("plant/{machine}/{commandName}".to_owned(), |(_, value)| value.clone()))
            .is_ok()
    }

    fn invoker() -> Result<CommandInvoker, RpcError> {
        let pattern = PATTERN.get().map(String::as_str).unwrap_or_default();
        let options = CommandInvokerOptionsBuilder::new()
            .request_topic_pattern(pattern)?
            .command_name("convert")?
            .topic_token_map(&[("machine".to_owned(), "press-4".to_owned())])?
            .build()?;
        new_invoker(options)
    }

    fn call(payload: &[u8]) -> Result<CommandResponse, RpcError> {
        let request = CommandRequestBuilder::new()
            .payload(payload)?
            .custom_user_data(&[("line".to_owned(), "7".to_owned())])?
            .timeout(0, 500_000_000)?
            .build()?;
        invoker()?.invoke(request)
    }

    #[map_operator(init = "start")]
    fn command(input: DataModel) -> Result<DataModel, Error> {
        let DataModel::Message(mut message) = input else {
            return Err(Error { message: "only messages here".to_owned() });
        };
        let answer =
            call(&message.payload.read()).map_err(|error| Error { message: format!("{error:?}") })?;
        for (key, value) in answer.custom_user_data {
            message
                .properties
                .user_properties
                .push((BufferOrString::String(key), BufferOrString::String(value)));
        }
        message.payload = BufferOrBytes::Bytes(answer.payload);
        Ok(DataModel::Message(message))
    }
}

/// Lets messages pass whose payload names a schema that the registry has, as `name` or `name:version`.
mod schema {
    use wasm_graph_sdk::macros::filter_operator;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "wasm-graph:processor/schema-registry-use",
        generate_all,
    });

    use wasm_graph::processor::schema_registry::get;

    #[filter_operator]
    fn schema(input: DataModel) -> Result<bool, Error> {
        let DataModel::Message(message) = input else {
            return Err(Error { message: "only messages here".to_owned() });
        };
        let text = String::from_utf8_lossy(&message.payload.read()).into_owned();
        let (name, version) = text.split_once(':').unwrap_or((&text, ""));
        match get(name, version, (1, 0)) {
            Ok(schema) => Ok(schema.schema_content.contains("\"type\"") && schema.name == name),
            Err(error) => Err(Error { message: format!("{error:?}") }),
        }
    }
}

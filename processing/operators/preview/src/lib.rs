//! Operators as the preview of the contract had them: no error to answer with. They are here to show that components of
//! that time run unchanged.

/// Upper case, and a count of the messages so far in the state store.
mod shout {
    use std::sync::OnceLock;

    use tinykube_wasm_sdk::logger::{self, Level};
    use tinykube_wasm_sdk::macros::map_operator;
    use tinykube_wasm_sdk::metrics::{self, CounterValue};
    use tinykube_wasm_sdk::state_store::{self, SetOptions};

    static SUFFIX: OnceLock<String> = OnceLock::new();

    fn start(configuration: ModuleConfiguration) -> bool {
        let suffix = configuration.properties.iter().find(|(key, _)| key == "suffix");
        SUFFIX.set(suffix.map(|(_, value)| value.clone()).unwrap_or_default()).is_ok()
    }

    #[map_operator(init = "start")]
    fn shout(input: DataModel) -> DataModel {
        let DataModel::Message(mut message) = input else { panic!("only messages here") };
        let text = String::from_utf8_lossy(&message.payload.read()).to_uppercase();
        logger::log(Level::Debug, "shout", &text);
        let _ = metrics::add_to_counter("requests", CounterValue::U64(1), None);
        let _ = state_store::set(b"last-shout", text.as_bytes(), None, None, SetOptions::default());
        let suffix = SUFFIX.get().map(String::as_str).unwrap_or_default();
        message.payload = BufferOrBytes::Bytes(format!("{text}{suffix}").into_bytes());
        DataModel::Message(message)
    }
}

/// Drops empty messages.
mod filled {
    use tinykube_wasm_sdk::macros::filter_operator;

    #[filter_operator]
    fn filled(input: DataModel) -> bool {
        match input {
            DataModel::Message(message) => !message.payload.read().is_empty(),
            _ => false,
        }
    }
}

/// The arm "True" is for what asks.
mod asks {
    use tinykube_wasm_sdk::macros::branch_operator;

    #[branch_operator]
    fn asks(_time: HybridLogicalClock, input: DataModel) -> bool {
        matches!(input, DataModel::Message(message) if message.payload.read().ends_with(b"?"))
    }
}

/// All that was said in one moment, in one message.
mod chorus {
    use tinykube_wasm_sdk::macros::accumulate_operator;

    #[accumulate_operator]
    fn chorus(staged: DataModel, inputs: Vec<DataModel>) -> DataModel {
        let DataModel::Message(mut all) = staged else { panic!("staged is a message") };
        let mut text = all.payload.read();
        for input in inputs {
            if let DataModel::Message(message) = input {
                text.extend(message.payload.read());
            }
        }
        all.payload = BufferOrBytes::Bytes(text);
        DataModel::Message(all)
    }
}

/// Everything of a second goes on at the second's end.
mod second {
    use tinykube_wasm_sdk::macros::delay_operator;

    #[delay_operator]
    fn second(_data: DataModel, time: HybridLogicalClock) -> HybridLogicalClock {
        let secs = time.timestamp.secs + u64::from(time.timestamp.nanos > 0);
        HybridLogicalClock { timestamp: Timespec { secs, nanos: 0 }, counter: 0, node_id: time.node_id }
    }
}

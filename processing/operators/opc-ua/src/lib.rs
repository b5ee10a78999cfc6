//! The values of an OPC UA server's dataset as rows of a table.
//!
//! Behaviour: AIO.md §3, "opc-ua".

mod map {
    use std::sync::OnceLock;

    use measurement::{count_request, error, log_configuration, property, unexpected_input};
    use serde_json::{Map, Value};
    use wasm_graph_sdk::logger::{self, Level};
    use wasm_graph_sdk::macros::map_operator;

    const NAME: &str = "module-opc/map";
    const SCHEMA_PROPERTY: &str = "dataschema";

    #[derive(Default)]
    struct Settings {
        /// What the user property `dataschema` becomes.
        schema: Option<String>,
        /// User properties, and the columns that they become.
        headers: Vec<(String, String)>,
        /// Whether what is no tag is copied into every row.
        copy_all: bool,
    }

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        let settings = Settings {
            schema: property(&configuration, "dataschema").map(str::to_owned),
            headers: property(&configuration, "headers").map(headers).unwrap_or_default(),
            copy_all: property(&configuration, "copy_all").is_some_and(copy_all),
        };
        SETTINGS.set(settings).is_ok()
    }

    /// Reads `property=column;property=column`.
    fn headers(text: &str) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((property, column)) => {
                    headers.push((property.trim().to_owned(), column.trim().to_owned()));
                }
                None => logger::log(Level::Warn, NAME, &format!("headers: {pair} is not property=column")),
            }
        }
        headers
    }

    fn copy_all(text: &str) -> bool {
        text.trim().parse().unwrap_or_else(|_| {
            logger::log(Level::Warn, NAME, &format!("copy_all is neither true nor false: {text}"));
            false
        })
    }

    /// A row for each tag: an entry with a value and the time it was taken.
    fn rows(dataset: Value, columns: &[(String, String)], copy_all: bool) -> Value {
        let Value::Object(dataset) = dataset else { return Value::Array(Vec::new()) };
        let is_tag = |value: &Value| value.get("Value").is_some() && value.get("SourceTimestamp").is_some();
        let (tags, others): (Vec<_>, Vec<_>) = dataset.into_iter().partition(|(_, value)| is_tag(value));
        let common: Map<String, Value> = if copy_all { others.into_iter().collect() } else { Map::new() };
        let row = |(tag, mut entry): (String, Value)| {
            let mut row = common.clone();
            row.extend(columns.iter().map(|(column, value)| (column.clone(), value.as_str().into())));
            row.insert("tag".to_owned(), tag.into());
            row.insert("value".to_owned(), entry["Value"].take());
            row.insert("timestamp".to_owned(), entry["SourceTimestamp"].take());
            Value::Object(row)
        };
        tags.into_iter().map(row).collect()
    }

    #[map_operator(init = "start")]
    fn to_rows(input: DataModel) -> Result<DataModel, Error> {
        count_request(NAME, None);
        let DataModel::Message(mut message) = input else { return Err(unexpected_input()) };
        let dataset: Value = serde_json::from_slice(&message.payload.read())
            .map_err(|reason| error(format!("Failed to deserialize json object. Reason: {reason}")))?;
        let none = Settings::default();
        let settings = SETTINGS.get().unwrap_or(&none);
        let columns = columns(&mut message.properties.user_properties, settings);
        message.payload = rows(dataset, &columns, settings.copy_all).to_string().into_bytes().into();
        Ok(DataModel::Message(message))
    }

    /// The columns that the user properties give; and the schema that the rows have is noted among them.
    fn columns(
        properties: &mut [(BufferOrString, BufferOrString)],
        settings: &Settings,
    ) -> Vec<(String, String)> {
        let mut columns = Vec::new();
        for (key, value) in properties {
            let key = key.read();
            if let Some(schema) = settings.schema.as_ref().filter(|_| key == SCHEMA_PROPERTY.as_bytes()) {
                *value = schema.clone().into();
            }
            let wanted = settings.headers.iter().filter(|(property, _)| property.as_bytes() == key);
            columns
                .extend(wanted.map(|(_, column)| {
                    (column.clone(), String::from_utf8_lossy(&value.read()).into_owned())
                }));
        }
        columns
    }
}

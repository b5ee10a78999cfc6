//! What must come out, and how it is compared with what did.
//!
//! Both sides are brought into one form: an object with `topic`, `payload`, `contentType`, `userProperties` and
//! `timestamp`, of which only what is expected is compared. A payload that is JSON is compared as JSON, also where it
//! stands in a string, as AIO's test runner writes it; a number is a number, with or without a fraction.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value, json};

use super::envelope::{Outgoing, PAYLOAD_FIELDS};
use super::input;
use super::report::{Paint, count, indent};

/// How many differing messages are shown.
const SHOWN_MAX: usize = 3;

/// What must come out.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// The last message; what comes before it does not count.
    Last(Value),
    /// All messages, in their order.
    All(Vec<Value>),
}

impl Expected {
    /// Reads `path`: JSON lines (`.jsonl`, a message a line), or one JSON value: a list has all messages, anything
    /// else is the last one. A message is an object with `payload`; any other value is its payload.
    ///
    /// # Errors
    /// What is wrong with the file, in a sentence.
    pub fn read(path: &Path) -> Result<Self, String> {
        let fail = |why: String| format!("{}: {why}", path.display());
        let bytes = input::read(path).map_err(fail)?;
        let text = String::from_utf8(bytes).map_err(|_| fail("the file is not UTF-8 text".to_owned()))?;
        let no_json = |line: usize, error: serde_json::Error| {
            let place = format!("{}:{line}:{}", path.display(), error.column());
            format!(
                "{place}: this is no JSON: {error}; a payload that is none stands in {{\"payloadText\": \"…\"}}"
            )
        };
        if path.extension().is_some_and(|end| end == "jsonl") {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let messages = lines.map(|(at, line)| {
                let value = serde_json::from_str(line).map_err(|error| no_json(at + 1, error))?;
                message(value).map_err(|why| format!("{}:{}: {why}", path.display(), at + 1))
            });
            return messages.collect::<Result<_, _>>().map(Self::All);
        }
        match serde_json::from_str(&text).map_err(|error| no_json(error.line(), error))? {
            Value::Array(values) => {
                values.into_iter().map(message).collect::<Result<_, _>>().map(Self::All).map_err(fail)
            }
            value => message(value).map(Self::Last).map_err(fail),
        }
    }

    fn all(&self) -> &[Value] {
        match self {
            Self::Last(message) => std::slice::from_ref(message),
            Self::All(messages) => messages,
        }
    }
}

/// Which parts of messages are compared.
#[derive(Debug, Default)]
pub struct Selection {
    /// These; everything, when there is none.
    pub select: Vec<Parts>,
    /// But these.
    pub ignores: Vec<Parts>,
}

impl Selection {
    /// The first path of `select` that is nowhere in what is expected: with it, nothing would be compared.
    pub fn vacuous(&self, expected: &Expected) -> Option<usize> {
        let all = expected.all();
        let somewhere = |path: &Parts| all.iter().any(|message| keep(&mut message.clone(), &[&path.0]));
        self.select.iter().position(|path| !all.is_empty() && !somewhere(path))
    }

    fn apply(&self, message: &mut Value) {
        if !self.select.is_empty() {
            let paths: Vec<&[String]> = self.select.iter().map(|path| path.0.as_slice()).collect();
            if !keep(message, &paths) {
                *message = json!({});
            }
        }
        for path in &self.ignores {
            remove(message, &path.0);
        }
    }
}

/// A dotted path into a message, such as `payload.temperature.value` or `payload.rows[0].tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts(Vec<String>);

/// The fields of a message that a path may begin with; any other path is one into the payload.
const FIELDS: [&str; 5] = ["topic", "payload", "contentType", "userProperties", "timestamp"];

impl Parts {
    /// Reads a path.
    pub fn parse(path: &str) -> Self {
        // As mosquitto_sub's JSON has it, which AIO's test runner compares.
        let path = match path.strip_prefix("properties.") {
            Some(rest) => rest.replacen("user-properties", "userProperties", 1).replacen(
                "content-type",
                "contentType",
                1,
            ),
            None => path.to_owned(),
        };
        let dotted = path.replace("][", ".").replace('[', ".").replace(']', "");
        let mut parts: Vec<String> = dotted.split('.').map(str::to_owned).collect();
        if parts.first().is_none_or(|first| !FIELDS.contains(&first.as_str())) {
            parts.insert(0, "payload".to_owned());
        }
        Self(parts)
    }
}

/// Compares what came out. What differs is told in lines.
pub fn compare(
    expected: &Expected,
    came_out: &[Outgoing],
    selection: &Selection,
    paint: Paint,
) -> Result<(), String> {
    let (wanted, found) = match expected {
        Expected::All(messages) => (messages.as_slice(), came_out),
        Expected::Last(message) => {
            (std::slice::from_ref(message), &came_out[came_out.len().saturating_sub(1)..])
        }
    };
    let pairs = wanted.iter().map(Some).chain(std::iter::repeat(None));
    let found: Vec<Value> = found.iter().zip(pairs).map(|(m, like)| seen(m, like, selection)).collect();
    let wanted: Vec<Value> = wanted
        .iter()
        .map(|message| {
            let mut message = message.clone();
            selection.apply(&mut message);
            message
        })
        .collect();
    if wanted.len() != found.len() {
        return Err(other_number(&wanted, &found, paint));
    }
    let differing: Vec<usize> = (0..wanted.len()).filter(|&at| wanted[at] != found[at]).collect();
    if differing.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for &at in differing.iter().take(SHOWN_MAX) {
        let which = if wanted.len() == 1 { "the message".to_owned() } else { format!("message {}", at + 1) };
        text += &format!("{which} differs (- expected, + came out):\n");
        text += &indent(&paint.diff(&pretty(&wanted[at]), &pretty(&found[at])), 2);
    }
    if differing.len() > SHOWN_MAX {
        text += &format!("and {} more\n", differing.len() - SHOWN_MAX);
    }
    Err(text)
}

fn other_number(wanted: &[Value], found: &[Value], paint: Paint) -> String {
    let mut text = format!(
        "{} expected, {} came out (- expected, + came out):\n",
        count(wanted.len() as u64, "message"),
        found.len()
    );
    let list = |messages: &[Value]| messages.iter().map(pretty).collect::<String>();
    text += &indent(&paint.diff(&list(wanted), &list(found)), 2);
    if let [one] = found
        && one.get("payload").is_some_and(Value::is_array)
    {
        text += "a list stands for several messages; for one message whose payload is a list write {\"payload\": […]}\n";
    }
    text
}

/// A message for the reader: of one that has only a payload, the payload.
fn pretty(message: &Value) -> String {
    let shown = match message.as_object() {
        Some(fields) if fields.len() == 1 => fields.get("payload").unwrap_or(message),
        _ => message,
    };
    format!("{shown:#}\n")
}

/// The form of an expected message.
fn message(value: Value) -> Result<Value, String> {
    let Value::Object(mut fields) = value else {
        return Ok(json!({ "payload": payload(value) }));
    };
    if !PAYLOAD_FIELDS.iter().any(|field| fields.contains_key(*field)) {
        return Ok(json!({ "payload": payload(Value::Object(fields)) }));
    }
    if let Some(Value::Object(properties)) = fields.remove("properties") {
        for (name, ours) in [("user-properties", "userProperties"), ("content-type", "contentType")] {
            if let Some(value) = properties.get(name) {
                fields.insert(ours.to_owned(), value.clone());
            }
        }
    }
    let mut made = Map::new();
    for (field, value) in fields {
        match field.as_str() {
            "payload" | "payloadText" => drop(made.insert("payload".to_owned(), payload(value))),
            "payloadBase64" => drop(made.insert("payload".to_owned(), json!({ "base64": value }))),
            known if FIELDS.contains(&known) => drop(made.insert(field, value)),
            _ => {
                let known = FIELDS.join("`, `");
                return Err(format!("a message has no field `{field}`; known are `{known}`"));
            }
        }
    }
    Ok(Value::Object(made))
}

/// The form of a message that came out, with the fields that the one expected has.
fn seen(message: &Outgoing, like: Option<&Value>, selection: &Selection) -> Value {
    let body = match serde_json::from_slice(&message.payload) {
        Ok(value) => payload(value),
        Err(_) => match std::str::from_utf8(&message.payload) {
            Ok(text) => Value::from(text),
            Err(_) => json!({ "base64": BASE64.encode(&message.payload) }),
        },
    };
    let mut made = json!({
        "topic": message.topic,
        "payload": body,
        "contentType": message.content_type,
        "userProperties": message.properties(),
        "timestamp": message.timestamp.to_string(),
    });
    if let Some(fields) = made.as_object_mut() {
        let wanted = |field: &str| match like {
            Some(like) => like.get(field).is_some(),
            None => field == "payload",
        };
        fields.retain(|field, _| wanted(field));
    }
    selection.apply(&mut made);
    made
}

/// JSON as it is compared: out of its string, and each number in one form only.
fn payload(value: Value) -> Value {
    match value {
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::String(_)) | Err(_) => Value::String(text),
            Ok(inner) => plain(inner),
        },
        value => plain(value),
    }
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

/// 1695.0 is 1695.
fn whole(number: &Number) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
    (-EXACT..=EXACT).contains(&float).then(|| Number::from(float as i64))
}

/// The ways in which a path can begin with `key`, which may have dots itself; what is left of the path.
fn after<'a>(path: &'a [String], key: &str) -> Option<&'a [String]> {
    (1..=path.len()).find(|&n| path[..n].join(".") == key).map(|n| &path[n..])
}

/// A place in a list, when the path names one.
fn place(path: &[String]) -> Option<usize> {
    path.first()?.parse().ok()
}

/// Leaves only what the paths lead to; a name leads into every item of a list. False when that is nothing.
fn keep(value: &mut Value, paths: &[&[String]]) -> bool {
    if paths.iter().any(|path| path.is_empty()) {
        return true;
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|key, child| {
                let rest: Vec<&[String]> = paths.iter().filter_map(|path| after(path, key)).collect();
                !rest.is_empty() && keep(child, &rest)
            });
            !fields.is_empty()
        }
        Value::Array(items) => {
            let everywhere = paths.iter().any(|path| place(path).is_none());
            let (mut at, mut found) = (0, false);
            items.retain_mut(|item| {
                let rest: Vec<&[String]> = paths
                    .iter()
                    .filter_map(|path| match place(path) {
                        None => Some(*path),
                        Some(place) => (place == at).then(|| &path[1..]),
                    })
                    .collect();
                at += 1;
                let kept = !rest.is_empty() && keep(item, &rest);
                found |= kept;
                // Where all items count, how many there are counts too.
                kept || everywhere
            });
            found
        }
        _ => false,
    }
}

/// Takes away what the path leads to.
fn remove(value: &mut Value, path: &[String]) {
    match value {
        Value::Object(fields) => fields.retain(|key, child| match after(path, key) {
            Some([]) => false,
            Some(rest) => {
                remove(child, rest);
                true
            }
            None => true,
        }),
        Value::Array(items) => match place(path) {
            Some(at) if path.len() == 1 && at < items.len() => drop(items.remove(at)),
            Some(at) => items.get_mut(at).into_iter().for_each(|item| remove(item, &path[1..])),
            None => items.iter_mut().for_each(|item| remove(item, path)),
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use broker_core::hlc::Timestamp;
    use bytes::Bytes;

    use super::*;

    fn out(payload: &str) -> Outgoing {
        Outgoing {
            topic: "sensors".to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            content_type: None,
            user_properties: vec![("otel/a.b".to_owned(), "x".to_owned())],
            timestamp: Timestamp { ms: 1, counter: 0, node: "n".into() },
        }
    }

    fn expected(json: Value) -> Expected {
        match json {
            Value::Array(values) => Expected::All(values.into_iter().map(|v| message(v).unwrap()).collect()),
            value => Expected::Last(message(value).unwrap()),
        }
    }

    fn selection(select: &[&str], ignores: &[&str]) -> Selection {
        let paths = |paths: &[&str]| paths.iter().map(|path| Parts::parse(path)).collect();
        Selection { select: paths(select), ignores: paths(ignores) }
    }

    fn check(json: Value, came_out: &[Outgoing], selection: &Selection) -> Result<(), String> {
        compare(&expected(json), came_out, selection, Paint::plain())
    }

    #[test]
    fn payloads_are_compared_as_json_in_a_string_or_not() {
        let all = Selection::default();
        check(json!({"a": 1695, "b": [1.5]}), &[out(r#"{"b":[1.50],"a":1695.0}"#)], &all).unwrap();
        check(json!({"payload": "{\"a\":1}"}), &[out(r#"{ "a": 1.0 }"#)], &all).unwrap();
        check(json!({"payloadText": "no json"}), &[out("no json")], &all).unwrap();
        check(json!({"a": 9007199254740993_u64}), &[out(r#"{"a":9007199254740992}"#)], &all).unwrap_err();
        check(json!({"a": 1}), &[out(r#"{"a":1,"b":2}"#)], &all).unwrap_err();
    }

    #[test]
    fn a_message_is_compared_in_what_is_expected_of_it() {
        let all = Selection::default();
        let message = json!({"topic": "sensors", "payload": 1, "userProperties": {"otel/a.b": "x"}});
        check(message.clone(), &[out("1")], &all).unwrap();
        let aio = json!({"payload": "1", "properties": {"user-properties": {"otel/a.b": "x"}}});
        let selected = selection(&["payload", "properties.user-properties.otel/a.b"], &[]);
        check(aio, &[out("1")], &selected).unwrap();
        let error = check(json!({"topic": "other", "payload": 1}), &[out("1")], &all).unwrap_err();
        assert!(
            error.contains("- ") && error.contains("\"other\"") && error.contains("\"sensors\""),
            "{error}"
        );
        assert!(super::message(json!({"payload": 1, "qos": 0})).unwrap_err().contains("`qos`"));
    }

    #[test]
    fn one_object_is_the_last_message_and_a_list_is_all_of_them_in_order() {
        let (one, two) = (out("1"), out("2"));
        let all = Selection::default();
        check(json!({"payload": 2}), &[one.clone(), two.clone()], &all).unwrap();
        check(json!([1, 2]), &[one.clone(), two.clone()], &all).unwrap();
        check(json!([2, 1]), &[one.clone(), two.clone()], &all).unwrap_err();
        check(json!([]), &[], &all).unwrap();
        assert!(
            check(json!([]), std::slice::from_ref(&one), &all)
                .unwrap_err()
                .starts_with("0 messages expected, 1 came out")
        );
        assert!(check(json!({"payload": 1}), &[], &all).unwrap_err().starts_with("1 message expected, 0"));
        let list = check(json!([{"a": 1}, {"a": 2}]), &[out(r#"[{"a":1},{"a":2}]"#)], &all).unwrap_err();
        assert!(list.contains("{\"payload\": […]}"), "{list}");
    }

    #[test]
    fn selected_parts_count_and_ignored_ones_do_not() {
        let row =
            |value: i64| out(&format!(r#"{{"rows":[{{"t":"a","v":{value}}},{{"t":"b","v":3}}],"n":2}}"#));
        let wanted = json!({"rows": [{"t": "a", "v": 1}, {"t": "b", "v": 3}], "n": 2});
        for (select, ignores, same) in [
            (&["rows.t", "n"][..], &[][..], true),
            (&["payload.rows[1]"], &[], true),
            (&["rows.0.v"], &[], false),
            (&["rows"], &["rows.v"], true),
            (&[], &["rows.v"], true),
            (&[], &["rows[0].v"], true),
            (&[], &["rows[0]"], true),
            (&[], &["rows[1].v"], false),
            (&[], &["n"], false),
        ] {
            let result = check(wanted.clone(), &[row(9)], &selection(select, ignores));
            assert_eq!(result.is_ok(), same, "{select:?} {ignores:?} {result:?}");
        }
    }

    #[test]
    fn a_selected_part_that_is_not_expected_anywhere_would_compare_nothing() {
        let expected = expected(json!([{"a": {"b": 1}}, {"c": 1}]));
        assert_eq!(selection(&["a.b", "c"], &[]).vacuous(&expected), None);
        assert_eq!(selection(&["a", "a.x"], &[]).vacuous(&expected), Some(1));
        assert_eq!(selection(&["x"], &[]).vacuous(&Expected::All(Vec::new())), None);
    }

    #[test]
    fn an_expected_part_that_is_selected_and_missing_differs() {
        check(json!({"a": 1, "b": 2}), &[out(r#"{"b":2}"#)], &selection(&["a"], &[])).unwrap_err();
    }
}

//! From a payload to rows: JSON by the rules of a schema (AIO.md §7.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, PrimitiveDateTime};

use super::schema::{Field, Kind, Schema};

/// 1970-01-01 as a Julian day.
const EPOCH_DAY: i32 = 2_440_588;
/// Records that one payload may have.
const ROWS_MAX: usize = 100_000;
/// The largest payload, bytes: what it becomes takes up to thirty times as much while it is read.
const PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// The value of a field in one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// It is missing or null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer; days since 1970 of a date; microseconds of a timestamp; the digits of a decimal.
    Int(i128),
    /// A number.
    Float(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The fields of a struct.
    Struct(Vec<Cell>),
    /// The elements of an array.
    List(Vec<Cell>),
}

/// A record: one cell for each field of the schema.
pub type Row = Vec<Cell>;

/// The rows of a payload: an object is one, an array of objects are many.
///
/// # Errors
/// Why it does not fit the schema, in AIO's words where those are known.
pub fn rows(payload: &[u8], schema: &Schema) -> Result<Vec<Row>, String> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("the payload has {} bytes; {PAYLOAD_BYTES_MAX} may be", payload.len()));
    }
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| format!("the payload is no JSON: {error}"))?;
    match value {
        Value::Object(object) => Ok(vec![row(&object, &schema.fields, "")?]),
        Value::Array(values) if values.len() > ROWS_MAX => {
            Err(format!("the payload has {} records; {ROWS_MAX} may be", values.len()))
        }
        Value::Array(values) => values.iter().map(|value| object_row(value, schema)).collect(),
        _ => Err("the payload is neither an object nor an array of objects".to_owned()),
    }
}

/// What cells take in memory, bytes.
pub fn size(cells: &[Cell]) -> usize {
    let of = |cell: &Cell| match cell {
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) => bytes.len(),
        Cell::Struct(cells) | Cell::List(cells) => size(cells),
        _ => 0,
    };
    cells.iter().map(|cell| size_of::<Cell>() + of(cell)).sum()
}

fn object_row(value: &Value, schema: &Schema) -> Result<Row, String> {
    let object = value.as_object().ok_or("the payload is an array of something else than objects")?;
    row(object, &schema.fields, "")
}

fn row(object: &Map<String, Value>, fields: &[Field], at: &str) -> Result<Row, String> {
    if let Some(unknown) = object.keys().find(|key| fields.iter().all(|field| field.name != **key)) {
        let path = path(at, unknown);
        return Err(format!("could not set a field {path}, it does not exist by the schema"));
    }
    fields
        .iter()
        .map(|field| {
            let path = path(at, &field.name);
            match object.get(&field.name) {
                None | Some(Value::Null) if field.nullable => Ok(Cell::Null),
                None | Some(Value::Null) => {
                    Err(format!("ParquetEncoding found missing property that is not Nullable: {path}"))
                }
                Some(value) => cell(value, &field.kind, &path),
            }
        })
        .collect()
}

fn path(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn cell(value: &Value, kind: &Kind, path: &str) -> Result<Cell, String> {
    let fault = || format!("could not set a field {path}: it is to be {}", kind.name());
    let read = match (kind, value) {
        (Kind::Struct(fields), Value::Object(object)) => return Ok(Cell::Struct(row(object, fields, path)?)),
        (Kind::List(element), Value::Array(values)) => return list(values, element, path),
        (Kind::Boolean, Value::Bool(value)) => Some(Cell::Bool(*value)),
        (Kind::Integer(bits), value) => integer(value, *bits),
        (Kind::Float | Kind::Double, value) => value.as_f64().map(Cell::Float),
        (Kind::Decimal(precision, scale), value) => decimal(value, *precision, *scale),
        (Kind::String, Value::String(text)) => Some(Cell::Text(text.clone())),
        (Kind::Binary, value) => binary(value),
        (Kind::Date, Value::String(text)) => date(text),
        (Kind::Timestamp(utc), Value::String(text)) => timestamp(text, *utc),
        _ => None,
    };
    read.ok_or_else(fault)
}

fn list(values: &[Value], element: &Field, path: &str) -> Result<Cell, String> {
    let cells = values.iter().map(|value| match value {
        Value::Null if element.nullable => Ok(Cell::Null),
        Value::Null => Err(format!("ParquetEncoding found missing property that is not Nullable: {path}")),
        value => cell(value, &element.kind, path),
    });
    Ok(Cell::List(cells.collect::<Result<_, _>>()?))
}

/// Fractions are cut off; what does not fit is refused.
fn integer(value: &Value, bits: u8) -> Option<Cell> {
    let number = match (value.as_i64(), value.as_u64(), value.as_f64()) {
        (Some(number), _, _) => i128::from(number),
        (_, Some(number), _) => i128::from(number),
        (_, _, Some(number)) if number.is_finite() => number.trunc() as i128,
        _ => return None,
    };
    let limit = 1i128 << (bits.min(64) - 1);
    (-limit..limit).contains(&number).then_some(Cell::Int(number))
}

/// From a number or a string of one; digits beyond the scale are cut off.
fn decimal(value: &Value, precision: u8, scale: i8) -> Option<Cell> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text.as_str(), 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // How many digits stand before the point when the number has as many behind it as the scale says.
    let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let kept = usize::try_from(kept.max(0)).ok()?;
    let significant = all.trim_start_matches('0');
    if !significant.is_empty() && kept.saturating_sub(all.len() - significant.len()) > usize::from(precision)
    {
        return None;
    }
    let padded = match kept <= all.len() {
        true => all[..kept].to_owned(),
        false if significant.is_empty() => String::new(),
        false => format!("{all}{}", "0".repeat(kept - all.len())),
    };
    let number: i128 = if padded.is_empty() { 0 } else { padded.parse().ok()? };
    Some(Cell::Int(if negative { -number } else { number }))
}

fn binary(value: &Value) -> Option<Cell> {
    let bytes = match value {
        Value::String(text) => STANDARD.decode(text).ok()?,
        Value::Array(values) => {
            let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
            values.iter().map(byte).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(Cell::Bytes(bytes))
}

fn date(text: &str) -> Option<Cell> {
    let date = Date::parse(text, &Iso8601::DATE).ok()?;
    Some(Cell::Int(i128::from(date.to_julian_day() - EPOCH_DAY)))
}

fn timestamp(text: &str, utc: bool) -> Option<Cell> {
    let nanos = match (OffsetDateTime::parse(text, &Rfc3339), utc) {
        (Ok(time), true) => time.unix_timestamp_nanos(),
        // The time on the clock where it was taken.
        (Ok(time), false) => time.replace_offset(time::UtcOffset::UTC).unix_timestamp_nanos(),
        (Err(_), false) => {
            PrimitiveDateTime::parse(text, &Iso8601::DATE_TIME).ok()?.assume_utc().unix_timestamp_nanos()
        }
        (Err(_), true) => return None,
    };
    Some(Cell::Int(nanos.div_euclid(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: Kind, nullable: bool) -> Field {
        Field { name: name.to_owned(), kind, nullable }
    }

    fn one(kind: Kind, value: &str) -> Result<Cell, String> {
        let schema = Schema { fields: vec![field("x", kind, false)] };
        let mut rows = rows(format!("{{\"x\": {value}}}").as_bytes(), &schema)?;
        Ok(rows.remove(0).remove(0))
    }

    #[test]
    fn values_are_read_as_the_schema_says() {
        for (kind, value, expected) in [
            (Kind::Integer(64), "3.9", Cell::Int(3)),
            (Kind::Integer(64), "-3.9", Cell::Int(-3)),
            (Kind::Integer(8), "127", Cell::Int(127)),
            (Kind::Double, "7", Cell::Float(7.0)),
            (Kind::Decimal(5, 2), "12.349", Cell::Int(1234)),
            (Kind::Decimal(5, 2), "\"-0.5\"", Cell::Int(-50)),
            (Kind::Decimal(5, 0), "1e3", Cell::Int(1000)),
            (Kind::Decimal(3, 0), "0", Cell::Int(0)),
            (Kind::Binary, "\"AAH/\"", Cell::Bytes(vec![0, 1, 255])),
            (Kind::Binary, "[0, 1, 255]", Cell::Bytes(vec![0, 1, 255])),
            (Kind::Date, "\"1970-01-02\"", Cell::Int(1)),
            (Kind::Timestamp(true), "\"1970-01-01T01:00:00.5+01:00\"", Cell::Int(500_000)),
            (Kind::Timestamp(false), "\"1970-01-01T01:00:00+01:00\"", Cell::Int(3_600_000_000)),
            (Kind::Timestamp(false), "\"1970-01-01T00:00:01\"", Cell::Int(1_000_000)),
            (Kind::String, "\"ä\"", Cell::Text("ä".to_owned())),
        ] {
            assert_eq!(one(kind.clone(), value), Ok(expected), "{kind:?} {value}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (kind, value) in [
            (Kind::Integer(8), "128"),
            (Kind::Integer(64), "9223372036854775808"),
            (Kind::Integer(64), "1e300"),
            (Kind::Integer(64), "\"1\""),
            (Kind::Boolean, "1"),
            (Kind::Decimal(4, 2), "123.4"),
            (Kind::Decimal(38, 0), "\"1e400000000\""),
            (Kind::Decimal(4, 2), "\"x\""),
            (Kind::Binary, "[256]"),
            (Kind::Binary, "\"***\""),
            (Kind::Date, "\"soon\""),
            (Kind::Timestamp(true), "\"2026-01-01T00:00:00\""),
            (Kind::String, "{\"y\": 1}"),
            (Kind::Struct(vec![field("y", Kind::Double, true)]), "1"),
        ] {
            assert!(one(kind.clone(), value).unwrap_err().starts_with("could not set a field x"), "{kind:?}");
        }
    }

    #[test]
    fn missing_null_and_unknown_fields_are_told_in_aios_words() {
        let inner = Kind::Struct(vec![field("b", Kind::Double, false)]);
        let schema = Schema { fields: vec![field("a", inner, true), field("c", Kind::String, true)] };
        let read = |text: &str| rows(text.as_bytes(), &schema);
        assert_eq!(read("{}").unwrap(), [[Cell::Null, Cell::Null]]);
        assert_eq!(read(r#"[{"c": "x"}, {"a": {"b": 1}}]"#).unwrap().len(), 2);
        assert!(read("[]").unwrap().is_empty());
        let missing = "ParquetEncoding found missing property that is not Nullable: a.b";
        for (text, why) in [
            (r#"{"a": {}}"#, missing),
            (r#"{"a": {"b": null}}"#, missing),
            (r#"{"a": {"b": 1, "d": 2}}"#, "could not set a field a.d, it does not exist by the schema"),
            ("1", "neither an object nor an array"),
            ("[1]", "something else than objects"),
            ("nonsense", "no JSON"),
            (&" ".repeat(PAYLOAD_BYTES_MAX + 1), "8388608 may be"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn what_is_short_as_text_and_large_in_memory_is_weighed_as_it_is() {
        let element = Box::new(field("element", Kind::Integer(8), true));
        let schema = Schema { fields: vec![field("x", Kind::List(element), true)] };
        let text = format!("{{\"x\": [{}1]}}", "1,".repeat(999));
        let row = rows(text.as_bytes(), &schema).unwrap().remove(0);
        assert!(size(&row) >= 1001 * size_of::<Cell>());
    }
}

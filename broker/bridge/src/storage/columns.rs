//! From rows to Arrow's columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::ArrowError;

use super::record::{Cell, Row};
use super::schema::{Field, Kind, Schema, arrow_fields};

/// The rows as a batch of the schema's columns.
///
/// # Errors
/// They are not of this schema, or too much for one batch.
pub fn batch(schema: &Schema, rows: &[&Row]) -> Result<RecordBatch, ArrowError> {
    let columns = columns(&schema.fields, rows.iter().map(|row| Some(row.as_slice())))?;
    RecordBatch::try_new(Arc::new(schema.arrow()), columns)
}

/// A column for each field; a record that is missing has nothing in any of them.
fn columns<'a>(
    fields: &[Field],
    records: impl Iterator<Item = Option<&'a [Cell]>> + Clone,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let of = |(index, field): (usize, &Field)| {
        let cells: Vec<&Cell> = records
            .clone()
            .map(|record| record.and_then(|it| it.get(index)).unwrap_or(&Cell::Null))
            .collect();
        column(field, &cells)
    };
    fields.iter().enumerate().map(of).collect()
}

fn column(field: &Field, cells: &[&Cell]) -> Result<ArrayRef, ArrowError> {
    Ok(match &field.kind {
        Kind::Boolean => Arc::new(cells.iter().map(|cell| cell.bool()).collect::<BooleanArray>()),
        Kind::Integer(8) => Arc::new(cells.iter().map(|cell| cell.int()).collect::<Int8Array>()),
        Kind::Integer(16) => Arc::new(cells.iter().map(|cell| cell.int()).collect::<Int16Array>()),
        Kind::Integer(32) => Arc::new(cells.iter().map(|cell| cell.int()).collect::<Int32Array>()),
        Kind::Integer(_) => Arc::new(cells.iter().map(|cell| cell.int()).collect::<Int64Array>()),
        Kind::Float => {
            let narrow = |number: f64| number as f32;
            Arc::new(cells.iter().map(|cell| cell.float().map(narrow)).collect::<Float32Array>())
        }
        Kind::Double => Arc::new(cells.iter().map(|cell| cell.float()).collect::<Float64Array>()),
        Kind::Decimal(precision, scale) => {
            let numbers = cells.iter().map(|cell| cell.int()).collect::<Decimal128Array>();
            Arc::new(numbers.with_precision_and_scale(*precision, *scale)?)
        }
        Kind::String => Arc::new(cells.iter().map(|cell| cell.text()).collect::<StringArray>()),
        Kind::Binary => Arc::new(cells.iter().map(|cell| cell.bytes()).collect::<BinaryArray>()),
        Kind::Date => Arc::new(cells.iter().map(|cell| cell.int()).collect::<Date32Array>()),
        Kind::Timestamp(utc) => {
            let times = cells.iter().map(|cell| cell.int()).collect::<TimestampMicrosecondArray>();
            Arc::new(if *utc { times.with_timezone("UTC") } else { times })
        }
        Kind::Struct(fields) => {
            let records = cells.iter().map(|cell| cell.fields());
            let nulls = nulls(cells);
            Arc::new(StructArray::try_new_with_length(
                arrow_fields(fields),
                columns(fields, records)?,
                nulls,
                cells.len(),
            )?)
        }
        Kind::List(element) => list(element, cells)?,
    })
}

fn list(element: &Field, cells: &[&Cell]) -> Result<ArrayRef, ArrowError> {
    let elements: Vec<&Cell> = cells.iter().flat_map(|cell| cell.elements()).collect();
    i32::try_from(elements.len()).map_err(|_| ArrowError::OffsetOverflowError(elements.len()))?;
    let offsets = OffsetBuffer::from_lengths(cells.iter().map(|cell| cell.elements().len()));
    let values = column(element, &elements)?;
    Ok(Arc::new(ListArray::try_new(Arc::new(element.arrow()), offsets, values, nulls(cells))?))
}

fn nulls(cells: &[&Cell]) -> Option<NullBuffer> {
    Some(cells.iter().map(|cell| **cell != Cell::Null).collect::<Vec<bool>>().into())
}

/// Nothing for what is missing; a record is read by its schema, so nothing else is met.
impl Cell {
    fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    fn int<T: TryFrom<i128>>(&self) -> Option<T> {
        if let Self::Int(value) = self { T::try_from(*value).ok() } else { None }
    }

    fn float(&self) -> Option<f64> {
        if let Self::Float(value) = self { Some(*value) } else { None }
    }

    fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(value) = self { Some(value) } else { None }
    }

    fn fields(&self) -> Option<&[Self]> {
        if let Self::Struct(cells) = self { Some(cells) } else { None }
    }

    fn elements(&self) -> &[Self] {
        if let Self::List(cells) = self { cells } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    use super::super::record;
    use super::*;

    #[test]
    fn what_is_inside_of_others_is_where_it_belongs() {
        let schema = Schema::read(
            r#"{"$schema": "Delta/1.0", "properties": {"type": "struct", "fields": [
                {"name": "n", "type": "byte"},
                {"name": "s", "type": {"type": "struct", "fields": [{"name": "t", "type": "string", "nullable": false}]}},
                {"name": "l", "type": {"type": "array", "elementType": "double"}}]}}"#,
        )
        .unwrap();
        let rows = record::rows(
            br#"[{"n": 1, "s": {"t": "x"}, "l": [1, null]}, {}, {"l": []}, {"s": {"t": "y"}, "l": [2.5]}]"#,
            &schema,
        )
        .unwrap();
        let batch = batch(&schema, &rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (4, 3));
        assert_eq!(batch.column(0).null_count(), 3);
        let inner = batch.column(1).as_struct();
        assert_eq!((inner.is_null(1), inner.column(0).as_string::<i32>().value(3)), (true, "y"));
        let list = batch.column(2).as_list::<i32>();
        assert_eq!((list.is_null(1), list.is_null(2), list.value_length(0)), (true, false, 2));
    }
}

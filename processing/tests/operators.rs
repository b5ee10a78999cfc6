//! The sample operators, built from source, in the real host: what AIO.md §3 says of each, and the vectors of §3.1.
//!
//! `processing/operators/build` makes the components that are used here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod operators_support;

use std::time::Duration;

use operators_support::*;
use processing::instance::StartError;
use processing_core::graph::Kind;
use processing_core::operator::{Operator, OperatorError};

fn failed<T>(text: &str) -> Result<T, OperatorError> {
    Err(OperatorError::Failed(text.to_owned()))
}

mod humidity {
    use super::*;

    fn operator() -> Fixture {
        start("humidity", Kind::Accumulate, &[])
    }

    #[test]
    fn statistics_of_a_window_are_written_in_the_documented_form() {
        let mut operator = operator();
        let batch = [
            message("h/1", 10, r#"{"humidity":{"value":40}}"#),
            message("h/2", 12, r#"{"humidity":{"value":60.5}}"#),
            message("h/3", 11, r#"{"humidity":{"value":50}}"#),
        ];
        let made = operator.accumulate(&staged(""), &batch.map(data)).unwrap();
        let wanted =
            r#"{"humidity":{"count":3,"max":60.5,"min":40,"average":50.166666666666664,"last":60.5}}"#;
        assert_eq!(payload(&made), wanted);
        assert_eq!(message_of(&made).timestamp.secs, 12, "the time of the last reading");
        assert_eq!(message_of(&made).topic, "h/3", "the topic of the last to arrive");
    }

    #[test]
    fn a_staged_result_goes_on() {
        let staged = staged(r#"{"humidity":{"count":2,"max":60,"min":40,"average":50,"last":60}}"#);
        let made = operator().accumulate(&staged, &[data(message("h", 10, r#"{"humidity":{"value":20}}"#))]);
        let wanted = r#"{"humidity":{"count":3,"max":60,"min":20,"average":40,"last":20}}"#;
        assert_eq!(payload(&made.unwrap()), wanted);
    }

    #[test]
    fn other_measurements_are_an_error_and_no_measurement_is_a_fault() {
        let mut operator = operator();
        let batch = [data(message("h", 1, r#"{"temperature":{"value":1,"unit":"C"}}"#))];
        assert_eq!(operator.accumulate(&staged(""), &batch), failed("Unexpected measurement type."));
        assert!(operator.accumulate(&staged(""), &[data(message("h", 1, "{"))]).unwrap_err().is_fault());
    }
}

mod window {
    use super::*;

    fn end(secs: u64, nanos: u32) -> (u64, u32) {
        let mut operator = start("window", Kind::Delay, &[]);
        let mut item = message("t", secs, "x");
        item.timestamp.nanos = nanos;
        let now = hlc(5, 7);
        let end = operator.delay(&data(item), &now).unwrap();
        assert_eq!((end.counter, &*end.node), (0, "node"));
        (end.secs, end.nanos)
    }

    #[test]
    fn a_message_waits_for_the_end_of_its_ten_seconds() {
        assert_eq!(end(13, 0), (20, 0));
        assert_eq!(end(13, 1_999_999), (20, 0), "parts of a millisecond go");
        assert_eq!(end(19, 999_000_000), (20, 0));
    }

    #[test]
    fn the_end_of_a_window_is_in_it_and_stays_as_it_is() {
        assert_eq!(end(20, 0), (20, 0));
        assert_eq!(end(20, 999_999), (20, 999_999), "less than a millisecond past it is still the end");
    }

    #[test]
    fn images_go_by_their_own_time_and_bytes_by_the_logical_one() {
        let mut operator = start("window", Kind::Delay, &[]);
        let image = snapshot("jpeg", 0, 0, "x", 31);
        assert_eq!(operator.delay(&image, &hlc(5, 7)).unwrap().secs, 40);
        assert_eq!(operator.delay(&bytes("x"), &hlc(5, 7)).unwrap().secs, 10);
    }

    #[test]
    fn the_end_of_time_is_no_fault() {
        assert_eq!(end(u64::MAX, 0).0, u64::MAX);
    }
}

mod format {
    use super::*;

    /// A picture of one colour in a simple format of its own right.
    fn ppm(side: usize, colour: [u8; 3]) -> Vec<u8> {
        let mut file = format!("P6\n{side} {side}\n255\n").into_bytes();
        file.extend(std::iter::repeat_n(colour, side * side).flatten());
        file
    }

    fn operator() -> Fixture {
        start("format", Kind::Map, &[])
    }

    #[test]
    fn an_image_is_decoded_and_scaled() {
        let made = operator().map(data(message("t", 3, ppm(448, [200, 100, 50])))).unwrap();
        let made = snapshot_of(&made);
        assert_eq!((&*made.format, made.width, made.height), (&b"rgb24"[..], 224, 224));
        assert_eq!(made.frame.len(), FRAME_BYTES);
        assert!(made.frame.chunks(3).all(|pixel| pixel == [200, 100, 50]));
        assert_eq!(made.timestamp.secs, 3);
    }

    #[test]
    fn a_jpeg_is_decoded_whatever_its_size() {
        let made = operator().map(data(message("t", 3, CAT))).unwrap();
        assert_eq!(snapshot_of(&made).frame.len(), FRAME_BYTES);
    }

    #[test]
    fn a_frame_of_the_right_size_stays_as_it_is() {
        let frame = snapshot("rgb24", 224, 224, "not even a frame", 3);
        assert_eq!(operator().map(frame.clone()).unwrap(), frame);
    }

    #[test]
    fn another_snapshot_is_decoded() {
        let made = operator().map(snapshot("ppm", 448, 448, ppm(10, [1, 2, 3]), 3)).unwrap();
        assert_eq!(snapshot_of(&made).frame[..3], [1, 2, 3]);
    }

    #[test]
    fn bytes_of_a_frames_length_are_taken_for_a_frame() {
        let raw = vec![0_u8; FRAME_BYTES];
        let made = operator().map(data(message("t", 3, raw.clone()))).unwrap();
        assert_eq!(snapshot_of(&made).frame, raw);
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        let error = operator().map(data(message("t", 3, "no image")));
        assert_eq!(error, failed("Unexpected image format or size."));
    }

    #[test]
    fn an_image_that_says_it_is_huge_is_an_error_and_no_fault() {
        let bomb = format!("P6\n60000 60000\n255\n{}", "x".repeat(1000));
        assert_eq!(operator().map(data(message("t", 3, bomb))), failed("Unexpected image format or size."));
    }
}

mod snapshot_branch_and_accumulate {
    use super::*;

    #[test]
    fn images_and_messages_of_the_topic_take_the_true_arm() {
        let mut operator = start("snapshot", Kind::Branch, &[("snapshot_topic", "snapshot_simulation")]);
        let mut arm = |item| operator.branch(&hlc(1, 0), &item);
        assert_eq!(arm(snapshot("jpeg", 0, 0, "x", 1)), Ok(true));
        assert_eq!(arm(data(message("snapshot_simulation", 1, "x"))), Ok(true));
        assert_eq!(arm(data(message("other", 1, "x"))), Ok(false));
        assert_eq!(arm(bytes("x")), failed("Unexpected input type."));
    }

    #[test]
    fn without_a_topic_no_message_is_an_image() {
        let mut operator = start("snapshot", Kind::Branch, &[]);
        assert_eq!(operator.branch(&hlc(1, 0), &data(message("", 1, "x"))), Ok(false));
    }

    #[test]
    fn each_thing_is_listed_once() {
        let mut operator = start("snapshot", Kind::Accumulate, &[]);
        let seen = |what| snapshot("rgb24", 224, 224, format!(r#"{{"object":{{"result":"{what}"}}}}"#), 1);
        let made = operator.accumulate(&staged(""), &[seen("cat"), seen("dog"), seen("cat")]).unwrap();
        assert_eq!(payload(&made), r#"{"object":{"result":"cat; dog"}}"#);
        let made = operator.accumulate(&made, &[seen("cow")]).unwrap();
        assert_eq!(payload(&made), r#"{"object":{"result":"cat; dog; cow"}}"#);
        assert_eq!(
            message_of(&made).topic,
            message_of(&staged("")).topic,
            "topic and time stay those of staged"
        );
    }

    #[test]
    fn staged_must_be_a_message() {
        let mut operator = start("snapshot", Kind::Accumulate, &[]);
        assert!(matches!(operator.accumulate(&bytes(""), &[]), Err(OperatorError::Failed(_))));
    }
}

mod collection {
    use super::*;

    fn operator() -> Fixture {
        start("collection", Kind::Accumulate, &[])
    }

    #[test]
    fn everything_goes_into_its_own_list_in_order_of_arrival() {
        let batch = [
            data(message("a", 1, r#"{"temperature":{"value":1,"unit":"C"}}"#)),
            data(message("a", 1, r#"{"humidity":{"value":2}}"#)),
            snapshot("rgb24", 224, 224, r#"{"object":{"result":"cat"}}"#, 1),
            data(message("a", 1, r#"{"temperature":{"count":2,"unit":"F","overtemp":true}}"#)),
        ];
        let mut operator = operator();
        let made = operator.accumulate(&staged(""), &batch).unwrap();
        let temperature = |start: &str, unit: &str, overtemp: bool, count: u32| {
            format!(
                r#"{{{start}"count":{count},"max":0.0,"min":0.0,"average":0.0,"last":0.0,"unit":"{unit}","overtemp":{overtemp}}}"#
            )
        };
        let humidity = r#"{"value":2.0,"count":0,"max":0.0,"min":0.0,"average":0.0,"last":0.0}"#;
        let (first, second) = (temperature(r#""value":1.0,"#, "C", false, 0), temperature("", "F", true, 2));
        let wanted = format!(
            r#"{{"sensor_data":{{"temperature":[{first},{second}],"humidity":[{humidity}],"object":[{{"result":"cat"}}]}}}}"#
        );
        assert_eq!(payload(&made), wanted);
        let again = operator.accumulate(&made, &[data(message("a", 1, r#"{"object":{"result":"dog"}}"#))]);
        assert!(payload(&again.unwrap()).ends_with(r#""object":[{"result":"cat"},{"result":"dog"}]}}"#));
    }

    #[test]
    fn what_was_staged_must_be_a_collection() {
        let staged = staged(r#"{"humidity":{}}"#);
        assert_eq!(operator().accumulate(&staged, &[]), failed("Unexpected type for result."));
    }

    #[test]
    fn collections_and_bytes_are_not_collected() {
        let mut operator = operator();
        let batch = [data(message("a", 1, r#"{"sensor_data":{}}"#))];
        assert!(matches!(operator.accumulate(&staged(""), &batch), Err(OperatorError::Failed(_))));
        assert!(matches!(operator.accumulate(&staged(""), &[bytes("{}")]), Err(OperatorError::Failed(_))));
    }
}

mod enrichment {
    use super::*;

    fn collected(temperature: &str, humidity: &str) -> String {
        format!(
            r#"{{"sensor_data":{{"temperature":[{temperature}],"humidity":[{humidity}],"object":[{{"result":"cat"}}]}}}}"#
        )
    }

    fn temperature(max: i32, min: i32) -> String {
        format!(r#"{{"value":1,"count":1,"max":{max},"min":{min},"average":0,"last":0,"unit":"C"}}"#)
    }

    #[test]
    fn the_result_is_the_bare_collection_for_the_sensors_topic() {
        let mut operator = start("enrichment", Kind::Map, &[]);
        let made = operator.map(data(message("in", 1, collected(&temperature(50, 10), "")))).unwrap();
        let wanted = r#"{"temperature":[{"count":1,"max":50.0,"min":10.0,"average":0.0,"last":0.0,"unit":"C","overtemp":false}],"humidity":[],"object":[{"result":"cat"}]}"#;
        assert_eq!(payload(&made), wanted);
        let made = message_of(&made);
        assert_eq!((&*made.topic, &made.content_type, &made.schema), (&b"sensors"[..], &None, &None));
        assert_eq!(made.user_properties, message("", 1, "").user_properties);
    }

    #[test]
    fn too_hot_is_remembered_and_counted_until_it_is_cold() {
        let mut operator = start("enrichment", Kind::Map, &[]);
        let mut overtemp = |max, min| {
            let made = operator.map(data(message("in", 1, collected(&temperature(max, min), "")))).unwrap();
            payload(&made).contains(r#""overtemp":true"#)
        };
        assert!(!overtemp(50, 10));
        assert!(overtemp(101, 10));
        assert!(overtemp(50, 10), "the store remembers");
        assert!(overtemp(102, 10));
        assert!(!overtemp(50, -1));
        assert!(!overtemp(50, 10));
        assert_eq!(operator.stored("overtemp").as_deref(), Some("false"));
        assert_eq!(operator.stored("overtemp_count").as_deref(), Some("2"));
        assert_eq!(operator.stored("lock"), None, "the lock is given back");
    }

    #[test]
    fn a_lock_that_another_holds_keeps_it_from_counting_and_nothing_else() {
        let mut operator = start("enrichment", Kind::Map, &[]);
        operator.store("lock", "module1");
        let made = operator.map(data(message("in", 1, collected(&temperature(101, 10), "")))).unwrap();
        assert!(payload(&made).contains(r#""overtemp":true"#));
        assert_eq!(operator.stored("overtemp_count"), None);
        assert_eq!(operator.stored("lock").as_deref(), Some("module1"));
    }

    #[test]
    fn wet_is_remembered_until_it_is_dry() {
        let mut operator = start("enrichment", Kind::Map, &[]);
        let mut humidity = |max: f64, min: f64| {
            let of = format!(r#"{{"max":{max},"min":{min}}}"#);
            operator.map(data(message("in", 1, collected(&temperature(50, 10), &of)))).unwrap();
            operator.stored("wet_flag")
        };
        assert_eq!(humidity(80.0, 80.0), None);
        assert_eq!(humidity(80.5, 10.0).as_deref(), Some("80.5"));
        assert_eq!(humidity(80.0, 80.0).as_deref(), Some("80.5"));
        assert_eq!(humidity(80.0, 79.0), None);
    }

    #[test]
    fn other_measurements_are_an_error_and_no_measurement_is_a_fault() {
        let mut operator = start("enrichment", Kind::Map, &[]);
        let other = operator.map(data(message("in", 1, r#"{"humidity":{}}"#)));
        assert_eq!(other, failed("Unexpected type for result."));
        assert!(operator.map(data(message("in", 1, "{"))).unwrap_err().is_fault());
    }
}

mod opc_ua {
    use super::*;

    const DATASET: &str = r#"{"Temperature":{"SourceTimestamp":"2026-01-01T00:00:00Z","Value":23.5},"Pressure":{"SourceTimestamp":"2026-01-01T00:00:00Z","Value":101.3},"Line":"a","Partial":{"Value":1}}"#;

    fn rows(settings: &[(&str, &str)], text: &str) -> String {
        let made =
            start("opc-ua", Kind::Map, settings).map(data(message("opc", 1, text.to_owned()))).unwrap();
        payload(&made).to_owned()
    }

    /// AIO.md §3.1, t04.
    const T04: &str = r#"[{"tag":"Pressure","timestamp":"2026-01-01T00:00:00Z","value":101.3},{"tag":"Temperature","timestamp":"2026-01-01T00:00:00Z","value":23.5}]"#;

    #[test]
    fn each_tag_is_a_row() {
        assert_eq!(rows(&[], DATASET), T04);
    }

    #[test]
    fn the_graph_gives_the_vector_t04() {
        let mut graph = graph("graph-opc-ua", &[]);
        assert_eq!(graph.push(message("opc", 1, DATASET)).payloads(), [T04]);
    }

    #[test]
    fn the_rest_is_copied_into_every_row_when_asked_for() {
        let text = rows(&[("copy_all", "true")], DATASET);
        assert!(text.starts_with(r#"[{"Line":"a","Partial":{"Value":1},"tag":"Pressure""#), "{text}");
        assert_eq!(text.matches(r#""Line":"a""#).count(), 2);
        assert_eq!(rows(&[("copy_all", "perhaps")], DATASET), T04, "what is no bool is false");
    }

    #[test]
    fn user_properties_become_columns_and_the_schema_is_noted() {
        let mut operator =
            start("opc-ua", Kind::Map, &[("headers", "line=Line;x=y"), ("dataschema", "new/schema")]);
        let mut input = message("opc", 1, r#"{"T":{"Value":1,"SourceTimestamp":"s"}}"#);
        input.user_properties.push(("dataschema".into(), "old".into()));
        let made = operator.map(data(input)).unwrap();
        assert_eq!(payload(&made), r#"[{"Line":"2","tag":"T","timestamp":"s","value":1}]"#);
        let properties = &message_of(&made).user_properties;
        assert_eq!(properties.last().unwrap(), &("dataschema".into(), "new/schema".into()));
        let made = operator.map(data(message("opc", 1, "{}"))).unwrap();
        assert_eq!(message_of(&made).user_properties.len(), 2, "none is added");
    }

    #[test]
    fn what_is_no_object_has_no_rows_and_no_json_is_an_error() {
        assert_eq!(rows(&[], "[1]"), "[]");
        let error = start("opc-ua", Kind::Map, &[]).map(data(message("opc", 1, "{"))).unwrap_err();
        assert!(error.to_string().starts_with("Failed to deserialize json object. Reason: "), "{error}");
    }
}

mod otel_enrich {
    use super::*;

    #[test]
    fn what_the_store_knows_goes_with_the_message() {
        let mut operator = start("otel-enrich", Kind::Map, &[("enrichKeys", "factoryId, machineId ,none")]);
        operator.store("factoryId", "f1");
        operator.store("machineId", "m7");
        let made = operator.map(data(message("in", 1, "x"))).unwrap();
        let made = message_of(&made);
        let added = &made.user_properties[2..];
        assert_eq!(added, [("otel/factoryId".into(), "f1".into()), ("otel/machineId".into(), "m7".into())]);
        assert_eq!((&*made.topic, &*made.payload), (&b"sensors"[..], &b"x"[..]));
    }

    #[test]
    fn without_keys_messages_stay_as_they_are() {
        let mut operator = start("otel-enrich", Kind::Map, &[("other", "x")]);
        let input = data(message("in", 1, "x"));
        assert_eq!(operator.map(input.clone()).unwrap(), input);
        assert!(matches!(operator.map(bytes("x")), Err(OperatorError::Failed(_))));
    }

    #[test]
    fn the_scenarios_graph_has_its_keys_by_default() {
        let mut graph = graph("statestore-scenario/graph.dataflow", &[]);
        graph.store("machineId", "m7");
        let out = graph.push(message("in", 1, "x"));
        assert_eq!(out.items.len(), 1);
        assert_eq!(out.items[0].user_properties.last().unwrap(), &("otel/machineId".into(), "m7".into()));
    }
}

mod otel_transform {
    use super::*;

    const READING: &str = r#"{"sensor":{"name":"t1","value":21.5,"at":"2026-01-01T00:00:00.5Z"}}"#;

    fn metric(settings: &[(&str, &str)], text: &str) -> Result<String, OperatorError> {
        let made =
            start("otel-transform", Kind::Map, settings).map(data(message("in", 1, text.to_owned())))?;
        Ok(payload(&made).to_owned())
    }

    #[test]
    fn a_reading_becomes_a_metric() {
        let settings = [
            ("metricName", "not this one"),
            ("metricNamePath", "sensor.name"),
            ("metricValuePath", "sensor.value"),
            ("metricType", "gauge"),
            ("metricUnits", "C"),
            ("metricTimestampPath", "sensor.at"),
        ];
        let wanted = r#"{"metrics":[{"name":"t1","value":21.5,"metric_type":"gauge","unit":"C","timestamp":1767225600500000000,"attributes":null}]}"#;
        assert_eq!(metric(&settings, READING).unwrap(), wanted);
    }

    #[test]
    fn what_is_missing_has_its_documented_stand_in() {
        let settings = [
            ("metricNamePath", "nowhere.at.all"),
            ("metricValuePath", "sensor.name"),
            ("metricTimestampPath", "sensor.name"),
        ];
        let wanted = r#"{"metrics":[{"name":"wasm-placeholder","value":0.0,"metric_type":"type-placeholder","unit":null,"timestamp":0,"attributes":null}]}"#;
        assert_eq!(metric(&settings, READING).unwrap(), wanted);
        let settings = [("metricName", "n"), ("metricValuePath", "v"), ("metricTimestampPath", "nowhere")];
        assert!(metric(&settings, READING).unwrap().contains(r#""timestamp":null"#));
    }

    #[test]
    fn without_a_path_the_time_is_now() {
        let text = metric(&[("metricName", "n"), ("metricValuePath", "sensor.value")], READING).unwrap();
        let at = text.split_once(r#""timestamp":"#).unwrap().1.split_once(',').unwrap().0;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.checked_sub(Duration::from_nanos(at.parse().unwrap())).unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn without_a_name_or_a_value_path_it_is_a_fault() {
        assert!(metric(&[("metricName", "n")], READING).unwrap_err().is_fault());
        assert!(metric(&[("metricValuePath", "v")], READING).unwrap_err().is_fault());
    }

    #[test]
    fn what_is_no_json_stays_as_it_is() {
        assert_eq!(metric(&[("metricName", "n"), ("metricValuePath", "v")], "{").unwrap(), "{");
    }

    #[test]
    fn the_graph_takes_attributes_from_the_store() {
        let settings = [
            ("enrichKeys", "machineId"),
            ("metricName", "temperature"),
            ("metricValuePath", "sensor.value"),
            ("metricTimestampPath", "sensor.at"),
        ];
        let mut graph = graph("graph-otel", &settings);
        graph.store("machineId", "m7");
        let out = graph.push(message("in", 1, READING));
        let wanted = r#"{"metrics":[{"name":"temperature","value":21.5,"metric_type":"type-placeholder","unit":null,"timestamp":1767225600500000000,"attributes":[{"key":"machineId","value":"m7"}]}]}"#;
        assert_eq!(out.payloads(), [wanted]);
        assert_eq!(out.items[0].topic, "sensors");
        let mut graph = super::graph("graph-otel-transform", &settings[1..]);
        assert_eq!(graph.push(message("in", 1, READING)).items[0].topic, "in");
    }
}

mod viconverter {
    use super::*;

    #[test]
    fn each_instance_of_each_detection_is_a_row() {
        let instance = |x: &str| {
            format!(
                r#"{{"x":{x},"y":2,"width":3,"height":4,"start":"a","end":"b","startTime":"c","endTime":"d","confidence":0.5,"more":1}}"#
            )
        };
        let (one, two) = (instance("1"), instance("1.5"));
        let input = format!(
            r#"{{"id":7,"height":480,"width":640,"detections":[{{"Id":9,"insightName":"i","modelType":"m","instances":[{one},{two}]}}]}}"#
        );
        let row = |x: &str| {
            format!(
                r#"{{"id":7,"frame_width":640,"frame_height":480,"detection_id":9,"insight_name":"i","model_type":"m","x":{x},"y":2,"width":3,"height":4,"start":"a","end":"b","start_time":"c","end_time":"d","confidence":0.5}}"#
            )
        };
        let made = start("viconverter", Kind::Map, &[]).map(data(message("v", 1, input))).unwrap();
        assert_eq!(payload(&made), format!("[{},{}]", row("1"), row("1.5")));
    }

    #[test]
    fn a_frame_without_detections_has_no_rows() {
        let made = start("viconverter", Kind::Map, &[])
            .map(data(message("v", 1, r#"{"id":7,"height":480,"width":640}"#)))
            .unwrap();
        assert_eq!(payload(&made), "[]");
    }

    #[test]
    fn what_it_cannot_read_is_a_fault() {
        let fault = |input| start("viconverter", Kind::Map, &[]).map(input).unwrap_err().is_fault();
        assert!(fault(data(message("v", 1, "{}"))));
        assert!(fault(bytes("{}")));
    }
}

mod schema_filter {
    use super::*;

    const SCHEMA: &str =
        include_str!("../../config/samples/graphs/schema-registry-scenario/tk_schema_config.json");

    #[test]
    fn only_what_is_valid_passes() {
        let mut operator = start_with_schemas("filter", Kind::Filter, &[SCHEMA]).unwrap();
        let mut passes = |text: &'static str| operator.filter(&data(message("in", 1, text)));
        assert_eq!(passes(r#"{"humidity":175,"temperature":12.5}"#), Ok(true));
        assert_eq!(passes(r#"{"humidity":175.1,"temperature":12.5}"#), Ok(false));
        assert_eq!(passes(r#"{"humidity":176.2}"#), Ok(false));
        assert_eq!(passes("no json"), Ok(false));
        assert!(matches!(operator.filter(&bytes("{}")), Err(OperatorError::Failed(_))));
    }

    #[test]
    fn of_several_schemas_the_first_counts() {
        let mut operator =
            start_with_schemas("filter", Kind::Filter, &[SCHEMA, r#"{"type":"string"}"#]).unwrap();
        assert_eq!(operator.filter(&data(message("in", 1, "{}"))), Ok(true));
    }

    #[test]
    fn without_a_schema_or_with_a_broken_one_it_does_not_start() {
        for schemas in [&[][..], &["{"], &[r#"{"type":"nothing that is"}"#]] {
            let error = start_with_schemas("filter", Kind::Filter, schemas).err().unwrap();
            assert!(matches!(error, StartError::Refused), "{error}");
        }
    }

    #[test]
    fn the_scenarios_graph_drops_what_is_not_valid() {
        let mut graph = graph_with_schemas("schema-registry-scenario/graph.dataflow", &[], &[SCHEMA]);
        assert_eq!(graph.push(message("in", 1, r#"{"humidity":175}"#)).items.len(), 1);
        assert_eq!(graph.push(message("in", 1, r#"{"humidity":176.2}"#)).items.len(), 0);
    }
}

/// AIO.md §3.1, t01.
#[test]
fn the_simple_graph_gives_the_vector_t01() {
    let mut graph = graph("graph-simple", &[]);
    let out = graph.push(message("in", 1, r#"{"temperature":{"value":1209,"unit":"F"}}"#));
    let wanted = r#"{"temperature":{"value":653.8888888888889,"count":0,"max":0.0,"min":0.0,"average":0.0,"last":0.0,"unit":"C","overtemp":false}}"#;
    assert_eq!(out.payloads(), [wanted]);
}

#[cfg(feature = "wasi-nn")]
mod neural_networks {
    use super::*;

    use bytes::Bytes;
    use processing_core::engine::{Cause, Outlet};
    use processing_core::item::{Item, Message};

    #[test]
    fn a_picture_of_a_cat_shows_a_cat() {
        let frame = start("format", Kind::Map, &[]).map(data(message("t", 3, CAT))).unwrap();
        let mut operator = start("snapshot", Kind::Map, &[]);
        let made = operator.map(frame.clone()).unwrap();
        let (made, frame) = (snapshot_of(&made), snapshot_of(&frame));
        assert_eq!((made.width, made.height, &made.timestamp), (frame.width, frame.height, &frame.timestamp));
        let text = std::str::from_utf8(&made.frame).unwrap();
        assert!(text.starts_with(r#"{"object":{"result":""#) && text.contains("cat"), "{text}");
    }

    #[test]
    fn a_frame_of_another_size_is_an_error() {
        let mut operator = start("snapshot", Kind::Map, &[]);
        let error = operator.map(snapshot("rgb24", 10, 10, "short", 1)).unwrap_err();
        assert!(error.to_string().starts_with("Error executing graph inference: "), "{error}");
        assert!(matches!(operator.map(data(message("t", 1, "x"))), Err(OperatorError::Failed(_))));
    }

    #[test]
    fn one_window_of_everything_becomes_one_message() {
        for (name, settings) in
            [("graph-complex", &[("snapshot_topic", "snapshot_simulation")][..]), ("graph.dataflow", &[])]
        {
            let mut graph = graph(name, settings);
            graph.push(message("t", 1001, r#"{"temperature":{"value":212,"unit":"F"}}"#));
            graph.push(message("h", 1003, r#"{"humidity":{"value":85}}"#));
            graph.push(message("snapshot_simulation", 1005, CAT));
            graph.push(message("t", 1009, r#"{"temperature":{"value":68,"unit":"F"}}"#));
            assert_eq!(graph.advance(1_009_000).items.len(), 0, "the window is open");
            let out = graph.advance(1_010_001);
            let [text] = out.payloads()[..] else { panic!("{out:?}") };
            let wanted = r#"{"temperature":[{"count":2,"max":100.0,"min":20.0,"average":60.0,"last":20.0,"unit":"C","overtemp":false}],"humidity":[{"count":1,"max":85.0,"min":85.0,"average":85.0,"last":85.0}],"object":[{"result":""#;
            assert!(text.starts_with(wanted) && text.contains("cat"), "{text}");
            assert_eq!(out.items[0].topic, "sensors");
            assert_eq!(graph.stored("wet_flag").as_deref(), Some("85"));
        }
    }

    #[test]
    fn a_model_that_is_larger_than_allowed_is_refused() {
        let limits = processing::limits::Limits { nn_bytes_max: 1 << 20, ..Default::default() };
        let error = try_start("snapshot", Kind::Map, &[], &[], limits).err().unwrap();
        assert!(matches!(error, StartError::Refused), "{error}");
    }

    #[test]
    fn an_inference_ends_with_its_call() {
        let limits = processing::limits::Limits { call_max: Duration::from_millis(1), ..Default::default() };
        let mut operator = try_start("snapshot", Kind::Map, &[], &[], limits).unwrap();
        let frame = snapshot("rgb24", 224, 224, vec![0; FRAME_BYTES], 1);
        assert_eq!(operator.map(frame), Err(OperatorError::Deadline(Duration::from_millis(1))));
    }

    /// The model of the snapshot operator.
    fn classifier() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/operators/target/model/classifier.onnx");
        std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; run processing/operators/build"))
    }

    /// What ONNX is written in: a number, or the bytes of something.
    mod protobuf {
        fn varint(mut value: u64) -> Vec<u8> {
            let mut bytes = Vec::new();
            while value > 0x7F {
                bytes.push(0x80 | (value & 0x7F) as u8);
                value >>= 7;
            }
            bytes.push(value as u8);
            bytes
        }

        pub fn number(field: u64, value: u64) -> Vec<u8> {
            [varint(field << 3), varint(value)].concat()
        }

        pub fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
            let content = content.as_ref();
            [&*varint(field << 3 | 2), &*varint(content.len() as u64), content].concat()
        }
    }

    /// A model that makes `scores` of `data`: what is below zero becomes zero.
    fn relu(dimensions: &[u64]) -> Vec<u8> {
        use protobuf::{bytes, number};
        let shape: Vec<u8> = dimensions.iter().flat_map(|size| bytes(1, number(1, *size))).collect();
        let tensor = [number(1, 1), bytes(2, shape)].concat();
        let value = |name: &str| [bytes(1, name), bytes(2, bytes(1, &tensor))].concat();
        let node = [bytes(1, "data"), bytes(2, "scores"), bytes(4, "Relu")].concat();
        let graph =
            [bytes(1, node), bytes(2, "relu"), bytes(11, value("data")), bytes(12, value("scores"))].concat();
        [number(1, 8), bytes(7, graph), bytes(8, number(2, 13))].concat()
    }

    fn model(bytes: impl Into<Bytes>) -> Message {
        message("model", 1, bytes)
    }

    /// Numbers for the model, and how they are arranged.
    fn input(dimensions: &'static str, numbers: &[f32]) -> Message {
        let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let user_properties = vec![("dimensions".into(), dimensions.into())];
        Message { user_properties, ..message("input", 2, payload) }
    }

    fn numbers(message: &Message) -> Vec<f32> {
        message.payload.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// What came of the messages: payloads that came out, and errors.
    #[derive(Default)]
    struct Judged {
        out: Vec<Message>,
        errors: Vec<String>,
    }

    impl Outlet<()> for Judged {
        fn emit(&mut self, _: usize, item: Item<()>) {
            self.out.push(message_of(&item.data).clone());
        }
        fn dropped(&mut self, operation: &str, cause: Cause, _: &()) {
            let Cause::Error(OperatorError::Failed(error)) = cause else { panic!("{operation}: {cause:?}") };
            self.errors.push(error);
        }
    }

    impl Judged {
        /// The only error since it was asked last.
        fn error(&mut self) -> String {
            let [error] = &std::mem::take(&mut self.errors)[..] else { panic!("one error") };
            error.clone()
        }
    }

    /// A graph that has a model, and shows after each bad one that it still has it and that messages go on.
    struct Undeterred {
        graph: Running,
        judged: Judged,
        bad: u64,
    }

    impl Undeterred {
        fn start() -> Self {
            let mut all = Self { graph: one_map("models"), judged: Judged::default(), bad: 0 };
            all.push(model(relu(&[1, 3])));
            all.goes_on();
            all
        }

        fn push(&mut self, message: Message) {
            self.graph.push_into(message, &mut self.judged);
        }

        /// The error that a bad message ends with.
        fn refused(&mut self, bad: Message) -> String {
            self.push(bad);
            let error = self.judged.error();
            self.bad += 1;
            self.goes_on();
            error
        }

        fn goes_on(&mut self) {
            self.judged.out.clear();
            self.push(message("other", 2, "as it is"));
            self.push(input("1,3", &[-1.0, 0.5, 2.0]));
            assert_eq!(self.judged.errors, [""; 0]);
            let [other, answer] = &self.judged.out[..] else { panic!("two messages") };
            assert_eq!((&*other.payload, numbers(answer)), (&b"as it is"[..], vec![0.0, 0.5, 2.0]));
            let stats = self.graph.stats("map");
            assert_eq!((stats.errors, stats.received - stats.passed), (self.bad, self.bad));
        }
    }

    #[test]
    fn bytes_that_are_no_model_are_an_error_and_the_graph_goes_on_with_the_model_it_has() {
        let mut graph = Undeterred::start();
        assert_eq!(
            graph.refused(model("")),
            "ErrorCode::InvalidEncoding: this is no ONNX model: it has no graph"
        );
        let mut state = 1_u32;
        let mut noise = |length: usize| -> Vec<u8> {
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .take(length)
            .collect()
        };
        let mut garbage =
            vec![b"this is no model".to_vec(), vec![0xFF; 1 << 20], vec![0; 5_000], super::CAT.to_vec()];
        garbage.extend((1..200).map(&mut noise));
        for bytes in garbage {
            let error = graph.refused(model(bytes));
            assert!(error.starts_with("ErrorCode::InvalidEncoding: "), "{error}");
        }
    }

    #[test]
    fn a_model_that_ends_too_soon_is_an_error_and_the_graph_goes_on_with_the_model_it_has() {
        let mut graph = Undeterred::start();
        let whole = classifier();
        for length in [1, 100, whole.len() / 10, whole.len() / 2, whole.len() - 100] {
            let error = graph.refused(model(whole[..length].to_vec()));
            assert!(error.starts_with("ErrorCode::InvalidEncoding: "), "{length}: {error}");
        }
        let small = relu(&[1, 3]);
        for length in 1..small.len() - 4 {
            let error = graph.refused(model(small[..length].to_vec()));
            assert!(error.starts_with("ErrorCode::InvalidEncoding: "), "{length}: {error}");
        }
        // The whole of it is a model like another.
        graph.push(model(whole));
        graph.judged.out.clear();
        graph.push(input("1,3,224,224", &vec![0.0; FRAME_BYTES]));
        assert_eq!(graph.judged.errors, [""; 0]);
        assert_eq!(numbers(&graph.judged.out[0]).len(), 1_000);
    }

    #[test]
    fn a_model_that_wants_another_shape_is_an_error_with_each_message_and_the_graph_goes_on() {
        let mut graph = Undeterred::start();
        let wrong = |input: &str| format!("ErrorCode::InvalidArgument: input `data` {input}");
        let error = graph.refused(input("1,4", &[0.0; 4]));
        assert_eq!(error, wrong("has the dimensions [1, 3], not [1, 4]"));
        let error = graph.refused(input("3", &[0.0; 3]));
        assert_eq!(error, wrong("has the dimensions [1, 3], not [3]"));
        let error = graph.refused(input("1,3", &[0.0; 2]));
        assert_eq!(error, wrong("takes 12 bytes, not 8"));
        let mut named = input("1,3", &[0.0; 3]);
        named.user_properties.push(("name".into(), "picture".into()));
        let error = graph.refused(named);
        assert_eq!(error, "ErrorCode::InvalidArgument: the model's input `data` is not given");
        // The other way round: the guest is right, and the model is not the one for it.
        graph.push(model(relu(&[1, 3, 10, 10])));
        for _ in 0..3 {
            graph.push(input("1,3,224,224", &vec![0.0; FRAME_BYTES]));
            let error = graph.judged.error();
            assert_eq!(error, wrong("has the dimensions [1, 3, 10, 10], not [1, 3, 224, 224]"));
            graph.bad += 1;
        }
        graph.push(model(relu(&[1, 3])));
        graph.goes_on();
    }
}

#[cfg(not(feature = "wasi-nn"))]
#[test]
fn a_component_that_wants_wasi_nn_is_told_that_this_host_has_none() {
    let error = load_error("snapshot");
    assert!(error.contains("wasi:nn/") && error.contains("built without the feature `wasi-nn`"), "{error}");
}

//! Operators in other languages than Rust, built from source: Python by componentize-py, C by plain wit-bindgen.
//!
//! `processing/operators/build` makes the components that are used here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

#[allow(dead_code)] // other tests use the rest
mod operators_support;

use operators_support::*;
use processing::limits::Limits;
use processing_core::graph::Kind;
use processing_core::operator::{Operator, OperatorError};

mod python {
    use super::*;

    #[test]
    fn a_map_converts_whole_degrees_and_leaves_the_rest_alone() {
        let mut operator = start("python-map", Kind::Map, &[]);
        let made = operator
            .map(data(message("t", 3, r#"{"temperature": {"value": 100, "unit": "F"}, "line": 7}"#)))
            .unwrap();
        assert_eq!(payload(&made), r#"{"temperature": {"value": 38, "unit": "C"}, "line": 7}"#);
        assert_eq!(message_of(&made).user_properties, message("t", 3, "").user_properties);
        for text in [r#"{"temperature":{"value":21.5}}"#, r#"{"temperature":{"value":true}}"#, "[1]"] {
            let same = data(message("t", 3, text));
            assert_eq!(operator.map(same.clone()).unwrap(), same);
        }
        // What Python raises is a crash of the instance, and another takes its place.
        let Err(OperatorError::Trapped { .. }) = operator.map(data(message("t", 3, "{"))) else {
            panic!("no JSON is an exception")
        };
    }

    #[test]
    fn a_filter_has_its_threshold_from_the_configuration() {
        let reading =
            |value: f64, unit: &str| format!(r#"{{"temperature":{{"value":{value},"unit":"{unit}"}}}}"#);
        for (settings, passes, stays) in [
            (&[][..], reading(20.0, "C"), reading(67.9, "F")),
            (&[("temperature_threshold", "30.5")], reading(87.0, "f"), reading(30.4, "C")),
            (&[("temperature_threshold", "warm")], reading(20.0, "C"), reading(19.9, "C")),
        ] {
            let mut operator = start("python-filter", Kind::Filter, settings);
            assert!(operator.filter(&data(message("t", 3, passes))).unwrap());
            assert!(!operator.filter(&data(message("t", 3, stays))).unwrap());
            assert!(operator.filter(&data(message("t", 3, r#"{"humidity": 3}"#))).unwrap());
        }
    }

    #[test]
    fn a_branch_tells_temperatures_from_the_rest() {
        let mut operator = start("python-branch", Kind::Branch, &[]);
        let mut arm = |text: &'static str| operator.branch(&hlc(1, 0), &data(message("t", 3, text))).unwrap();
        assert!(!arm(r#"{"temperature": {}}"#));
        assert!(arm(r#"{"humidity": {}}"#));
    }

    #[test]
    fn a_map_of_the_preview_adds_up_in_the_state_store() {
        let mut operator = start("python-preview-map", Kind::Map, &[("key", "line-7"), ("other", "x")]);
        let mut map = |text: &'static str| operator.map(data(message("t", 3, text)));
        let made = map(r#"{"parts": 12, "line": 7}"#).unwrap();
        assert_eq!(payload(&made), r#"{"parts": 12, "line": 7, "total": 12}"#);
        let (made, given) = (message_of(&made), message("t", 3, ""));
        assert_eq!((&made.user_properties, &made.topic), (&given.user_properties, &given.topic));
        assert_eq!((&made.timestamp, &made.content_type), (&given.timestamp, &given.content_type));
        assert_eq!(payload(&map(r#"{"parts": -2}"#).unwrap()), r#"{"parts": -2, "total": 10}"#);
        for text in [r#"{"parts": true}"#, r#"{"parts": 1.5}"#, r#"{"total": 3}"#, "[1]"] {
            assert_eq!(map(text).unwrap(), data(message("t", 3, text)));
        }
        assert_eq!(operator.stored("line-7").as_deref(), Some("10"));
        // What somebody else wrote there is no reason to lose messages.
        operator.store("line-7", "many");
        let made = operator.map(data(message("t", 3, r#"{"parts": 1}"#))).unwrap();
        assert_eq!(payload(&made), r#"{"parts": 1, "total": 1}"#);
    }

    #[test]
    fn a_crash_of_a_map_of_the_preview_loses_its_message_and_not_its_sum() {
        let mut operator = start("python-preview-map", Kind::Map, &[]);
        operator.map(data(message("t", 3, r#"{"parts": 5}"#))).unwrap();
        let Err(OperatorError::Trapped { .. }) = operator.map(data(message("t", 3, "{"))) else {
            panic!("no JSON is an exception, and the preview has no errors")
        };
        let refused = try_start("python-preview-map", Kind::Map, &[("key", "")], &[], patient());
        assert!(matches!(refused, Err(processing::instance::StartError::Refused)));
        assert_eq!(operator.stored("parts-total").as_deref(), Some("5"));
    }

    /// Whatever a Python export returns is never given back: without being begun anew, the instance would soon need more
    /// memory than it may have.
    #[test]
    fn an_instance_that_grows_is_begun_anew_and_no_message_is_lost() {
        let limits = Limits { memory_bytes_max: 40 << 20, ..patient() };
        let mut operator = try_start("python-map", Kind::Map, &[], &[], limits).unwrap();
        let padding = "x".repeat(1 << 20);
        let text = format!(r#"{{"temperature": {{"value": 32}}, "padding": "{padding}"}}"#);
        let (mut highest, mut recycled) = (0, 0);
        for _ in 0..60 {
            let before = operator.memory_bytes();
            let made = operator.map(data(message("t", 3, text.clone()))).unwrap();
            assert!(payload(&made).contains(r#""value": 0"#));
            highest = highest.max(operator.memory_bytes());
            recycled += u32::from(operator.memory_bytes() < before);
        }
        assert!(highest < 40 << 20, "{highest}");
        assert!(recycled >= 2, "begun anew {recycled} times");
    }
}

mod c {
    use super::*;

    #[test]
    fn a_filter_looks_at_the_topic_and_never_at_the_payload() {
        let mut operator = start("c-filter", Kind::Filter, &[("other", "x"), ("level", "temperature")]);
        let mut passes = |topic: &'static str| operator.filter(&data(message(topic, 1, "x"))).unwrap();
        assert!(passes("line/1/temperature") && passes("temperature"));
        assert!(!passes("line/1/humidity") && !passes("line/1/overtemperature") && !passes("ture"));
        let refused = operator.filter(&bytes("x"));
        assert_eq!(refused, Err(OperatorError::Failed("only messages here".to_owned())));
        // Nothing piles up in the guest, however large what passes by is.
        let before = operator.memory_bytes();
        for _ in 0..2_000 {
            let large = message("line/1/temperature", 1, vec![0; 1 << 20]);
            assert!(operator.filter(&data(large)).unwrap());
        }
        assert_eq!(operator.memory_bytes(), before);
    }

    #[test]
    fn init_refuses_without_its_property() {
        let refused = try_start("c-filter", Kind::Filter, &[], &[], Limits::default());
        assert!(matches!(refused, Err(processing::instance::StartError::Refused)));
    }

    #[test]
    fn a_table_grows_up_to_its_limit_and_the_instance_lives_on() {
        let limits = Limits { table_elements_max: 1_000, ..Limits::default() };
        let mut operator = try_start("c-table", Kind::Filter, &[("elements", "400")], &[], limits).unwrap();
        let mut grows = || operator.filter(&data(message("t", 1, "x")));
        // What the component's own functions take is in its tables, too: a few elements.
        assert_eq!([grows(), grows()], [Ok(true), Ok(true)]);
        // The guest is told, as by any engine that has no room; what it does then is its own affair.
        assert_eq!([grows(), grows()], [Ok(false), Ok(false)]);

        let mut roomy =
            try_start("c-table", Kind::Filter, &[("elements", "90000")], &[], Limits::default()).unwrap();
        let mut grows = || roomy.filter(&data(message("t", 1, "x")));
        assert_eq!([grows(), grows()], [Ok(true), Ok(false)]);
    }
}

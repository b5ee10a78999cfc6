//! Readings as metrics, in the form that an OpenTelemetry destination takes.
//!
//! Behaviour: AIO.md §3, "otel-transform".

mod map;
mod metric;

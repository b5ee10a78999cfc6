//! OpenTelemetry collectors as destinations: metrics and logs by OTLP, over gRPC or HTTP (AIO.md §5.2, §7.6).

mod destination;
mod payload;
mod proto;
mod wire;

pub use destination::OtlpDestination;

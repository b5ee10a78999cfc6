//! Operators for readings of a thermometer: Fahrenheit to Celsius, sorting out, plausibility, statistics.
//!
//! Behaviour: AIO.md §3, "temperature".

mod accumulate;
mod branch;
mod filter;
mod map;

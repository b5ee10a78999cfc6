//! Sorts items into windows of ten seconds, by when they were made: each goes to the end of its own.
//!
//! Behaviour: AIO.md §3, "window".

mod delay {
    use measurement::{count_request, log_configuration};
    use wasm_graph_sdk::macros::delay_operator;

    const NAME: &str = "module-window/delay";
    const WINDOW_MS: u128 = 10_000;

    fn start(configuration: ModuleConfiguration) -> bool {
        log_configuration(NAME, &configuration);
        true
    }

    /// The end of the window that `time` is in. A time that is the end of one stays as it is.
    fn window_end(time: Timespec) -> Timespec {
        let time = Duration::from(time);
        let over = time.as_millis() % WINDOW_MS;
        if over == 0 {
            return time.into();
        }
        // Less than ten seconds; the parts of a millisecond go.
        let rest = Duration::from_millis((WINDOW_MS - over) as u64);
        let end = time.saturating_add(rest);
        Duration::new(end.as_secs(), end.subsec_millis() * 1_000_000).into()
    }

    #[delay_operator(init = "start")]
    fn to_window_end(data: DataModel, time: HybridLogicalClock) -> Result<HybridLogicalClock, Error> {
        count_request(NAME, None);
        let made = match data {
            DataModel::Message(message) => message.timestamp.timestamp,
            DataModel::Snapshot(snapshot) => snapshot.timestamp.timestamp,
            DataModel::BufferOrBytes(_) => time.timestamp,
        };
        Ok(HybridLogicalClock { timestamp: window_end(made), counter: 0, ..time })
    }
}

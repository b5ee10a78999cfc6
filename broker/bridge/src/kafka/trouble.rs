//! What is wrong with a cluster, in words that help.

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The last thing that was wrong with a broker of a cluster. librdkafka says that first, and then that all of them are down.
#[derive(Default)]
pub struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// What there is to say about an error that librdkafka tells its clients of.
    pub fn explain(&self, error: &KafkaError, reason: &str) -> String {
        let mut last = self.0.lock();
        match &*last {
            Some(last) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) => {
                format!("{reason}; the last one: {last}")
            }
            _ => last.insert(reason.to_owned()).clone(),
        }
    }

    /// The last thing that was wrong.
    pub fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Whether librdkafka has told its client of an error, with a reason, before it gives it to who receives.
pub fn is_told(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::SSL
        )
    )
}

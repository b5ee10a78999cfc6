//! Which messages of a remote system are done with.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Stands for a message that came in. When it is dropped, the message is done with: what was derived from it is delivered, or
/// was dropped on purpose.
pub struct Ticket {
    number: u64,
    done: Arc<Done>,
}

impl Ticket {
    /// The number that the source knows the message by.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.done.numbers.lock().push(self.number);
        self.done.more.notify_one();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.number).finish()
    }
}

#[derive(Default)]
struct Done {
    numbers: Mutex<Vec<u64>>,
    more: Notify,
}

/// Issues tickets, and tells which messages are done with.
#[derive(Default)]
pub struct Tickets(Arc<Done>);

impl Tickets {
    /// None issued yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ticket for the message that the source knows by this number.
    pub fn issue(&self, number: u64) -> Ticket {
        Ticket { number, done: Arc::clone(&self.0) }
    }

    /// The numbers of messages that are done with since the last call, in the order in which they were.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.numbers.lock())
    }

    /// Waits until there are some. Nothing is lost when this is dropped while it waits.
    pub async fn next(&self) -> Vec<u64> {
        loop {
            let numbers = self.take();
            if !numbers.is_empty() {
                return numbers;
            }
            self.0.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_done_with_when_its_ticket_is_gone() {
        let tickets = Tickets::new();
        let (one, two) = (tickets.issue(1), tickets.issue(2));
        assert!(tickets.take().is_empty());
        drop(two);
        assert_eq!(tickets.next().await, [2]);
        drop(one);
        assert_eq!(tickets.next().await, [1]);
    }
}

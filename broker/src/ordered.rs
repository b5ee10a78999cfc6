//! Subscriptions of clients that are fed in the order of `__ts`: who asks for it, and what is held meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use broker_core::Millis;
use broker_core::message::Message;
use broker_core::packet::{Properties, PropertiesBuilder, Property};
use broker_core::reorder::{self, LATENESS_MS_DEFAULT, LATENESS_MS_MAX, Late, Order, Reorder};
use broker_core::router::Options;
use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::client::Client;
use crate::clock;
use crate::translate::{self, TIMESTAMP};
use crate::turn::Turn;

/// The user property of SUBSCRIBE that asks for an order; its one value is [`TIMESTAMP`].
pub const ORDER_BY: &str = "order-by";
/// The user property of SUBSCRIBE that says how long to wait for earlier messages.
pub const MAX_LATENESS: &str = "max-lateness-ms";
/// The user property of SUBSCRIBE that says what happens to those that come later still.
pub const LATE_MESSAGES: &str = "late-messages";
/// The user property that marks a message that came too late to be in order; its value is `true`.
pub const LATE: &str = "late";

/// No time at which anything is due.
const NEVER: u64 = u64::MAX;

/// What the user properties of a SUBSCRIBE say about the order of its subscriptions.
///
/// # Errors
/// What is wrong with them, for the client to read.
pub fn asked(properties: Properties<'_>) -> Result<Option<Order>, String> {
    let mut by_timestamp = false;
    let mut order = Order { max_lateness_ms: LATENESS_MS_DEFAULT, late: Late::default() };
    let mut detail = None;
    for (key, value) in properties.user_properties() {
        match key {
            ORDER_BY if value == TIMESTAMP => by_timestamp = true,
            ORDER_BY => return Err(format!("{ORDER_BY} is {TIMESTAMP} or not there, not {value:.40}")),
            MAX_LATENESS => {
                let ms = value.parse().ok().filter(|ms| *ms <= LATENESS_MS_MAX);
                let wrong =
                    || format!("{MAX_LATENESS} is a number from 0 to {LATENESS_MS_MAX}, not {value:.40}");
                order.max_lateness_ms = ms.ok_or_else(wrong)?;
                detail = Some(MAX_LATENESS);
            }
            LATE_MESSAGES => {
                order.late = late(value)
                    .ok_or_else(|| format!("{LATE_MESSAGES} is deliver or drop, not {value:.40}"))?;
                detail = Some(LATE_MESSAGES);
            }
            _ => {}
        }
    }
    match (by_timestamp, detail) {
        (true, _) => Ok(Some(order)),
        (false, None) => Ok(None),
        (false, Some(detail)) => Err(format!("{detail} needs {ORDER_BY} = {TIMESTAMP} beside it")),
    }
}

fn late(text: &str) -> Option<Late> {
    match text {
        "deliver" => Some(Late::Deliver),
        "drop" => Some(Late::Drop),
        _ => None,
    }
}

/// What a SUBACK says of the order that was granted.
pub fn granted(order: Order, out: &mut PropertiesBuilder) {
    let late = match order.late {
        Late::Deliver => "deliver",
        Late::Drop => "drop",
    };
    let lateness = order.max_lateness_ms.to_string();
    for pair in [(ORDER_BY, TIMESTAMP), (MAX_LATENESS, &lateness), (LATE_MESSAGES, late)] {
        // Only a text over 65,535 bytes could fail, and there is none here.
        let _ = out.put(Property::UserProperty(pair));
    }
}

/// The stamp that `message` is ordered by. A `__ts` that is there and not used is counted.
pub fn stamp(message: &Message, wall: Millis) -> broker_core::hlc::Timestamp {
    let properties = translate::properties(message);
    let (stamp, unused) = reorder::stamp(properties.user_property(TIMESTAMP), wall);
    if let Some(error) = unused {
        let reason = translate::Refused::Timestamp(error).reason();
        counter!("forebay_order_timestamps_unused_total", "reason" => reason).increment(1);
    }
    stamp
}

/// Counts a message that came too late to be in order. The message as it goes on, if it does.
pub fn too_late(message: &Arc<Message>, late: Late) -> Option<Arc<Message>> {
    match late {
        Late::Drop => {
            counter!("forebay_order_late_total", "action" => "drop").increment(1);
            None
        }
        Late::Deliver => {
            counter!("forebay_order_late_total", "action" => "deliver").increment(1);
            Some(Arc::new(message.with_user_property(LATE, "true")))
        }
    }
}

/// Counts messages that left before their time.
pub fn count_forced(forced: &mut u64) {
    if *forced > 0 {
        counter!("forebay_order_forced_total").increment(std::mem::take(forced));
    }
}

/// One subscription of a client, and the messages that wait for their turn.
#[derive(Debug)]
pub struct Ordered {
    client: Weak<Client>,
    options: Options,
    order: Order,
    held: Mutex<Reorder<Held>>,
    /// When something is due next, by the monotonic clock.
    due_ms: AtomicU64,
    /// Tells the timer that it is due earlier than thought, or that the subscription is over.
    earlier: Notify,
    over: AtomicBool,
}

/// A message on hold.
#[derive(Debug)]
pub struct Held {
    /// The message.
    pub message: Arc<Message>,
    /// It is sent because it is retained [MQTT-3.3.1-8].
    pub retained: bool,
}

/// What is held by a subscription, while somebody works on it: what leaves must be delivered before the next one may.
pub type Holding<'a> = MutexGuard<'a, Reorder<Held>>;

impl Ordered {
    /// A subscription of `client` that holds nothing yet, and its timer.
    pub fn start(client: &Arc<Client>, options: Options, order: Order, broker: &Weak<Broker>) -> Arc<Self> {
        let ordered = Arc::new(Self {
            client: Arc::downgrade(client),
            options,
            order,
            held: Mutex::new(Reorder::new(order.max_lateness_ms, reorder::Limits::default())),
            due_ms: AtomicU64::new(NEVER),
            earlier: Notify::new(),
            over: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&ordered).keep_time(Weak::clone(broker)));
        ordered
    }

    /// Whose subscription it is, while the session lives.
    pub fn client(&self) -> Option<Arc<Client>> {
        self.client.upgrade()
    }

    /// What was subscribed with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What is held. The client's own lock may be taken while this one is held, not the other way round.
    pub fn lock(&self) -> Holding<'_> {
        self.held.lock()
    }

    /// Holds a message. Gives back what does not wait: a message that is late, if it goes on at all, and one that comes
    /// after the subscription has ended, with a route that was looked up before.
    pub fn hold(&self, holding: &mut Holding<'_>, held: Held, now: Millis) -> Option<Held> {
        if self.over.load(Ordering::Acquire) {
            return Some(held);
        }
        let wall = clock::wall();
        let (stamp, size) = (stamp(&held.message, wall), held.message.size());
        let Err(Held { message, retained }) = holding.push(stamp, held, size, now, wall) else { return None };
        too_late(&message, self.order.late).map(|message| Held { message, retained })
    }

    /// The next message that is due.
    pub fn release(&self, holding: &mut Holding<'_>, now: Millis) -> Option<Held> {
        if self.over.load(Ordering::Acquire) {
            return holding.pop();
        }
        let next = holding.release(now);
        if next.is_none() {
            count_forced(&mut holding.forced);
            self.arm(holding.due());
        }
        next
    }

    /// The subscription is over: nothing waits any more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.earlier.notify_one();
    }

    fn arm(&self, due: Option<Millis>) {
        let due_ms = due.map_or(NEVER, |due| due.0);
        if due_ms < self.due_ms.swap(due_ms, Ordering::AcqRel) {
            self.earlier.notify_one();
        }
    }

    /// Delivers what is due, until the subscription is over.
    async fn keep_time(self: Arc<Self>, broker: Weak<Broker>) {
        loop {
            let over = self.over.load(Ordering::Acquire);
            let due_ms = self.due_ms.load(Ordering::Acquire);
            let now = clock::monotonic();
            if !over && due_ms == NEVER {
                self.earlier.notified().await;
            } else if !over && due_ms > now.0 {
                let wait = Duration::from_millis(due_ms - now.0);
                let _ = tokio::time::timeout(wait, self.earlier.notified()).await;
            } else {
                let Some(broker) = broker.upgrade() else { return };
                let mut turn = Turn::begin(&broker, now);
                turn.release(&self, &mut self.lock());
                turn.finish();
                if over {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Order>, String> {
        let mut list = PropertiesBuilder::new();
        for (key, value) in pairs {
            list.put_user(key, value).unwrap();
        }
        asked(list.properties())
    }

    #[test]
    fn an_order_is_asked_for_with_user_properties() {
        assert_eq!(read(&[("a", "b")]), Ok(None));
        let default = Order { max_lateness_ms: 1_000, late: Late::Deliver };
        assert_eq!(read(&[("order-by", "__ts")]), Ok(Some(default)));
        let asked = [("late-messages", "drop"), ("order-by", "__ts"), ("max-lateness-ms", "250")];
        assert_eq!(read(&asked), Ok(Some(Order { max_lateness_ms: 250, late: Late::Drop })));
    }

    #[test]
    fn what_cannot_be_granted_is_told() {
        for (pairs, told) in [
            (&[("order-by", "time")][..], "order-by is __ts or not there, not time"),
            (&[("max-lateness-ms", "5")], "max-lateness-ms needs order-by = __ts beside it"),
            (&[("late-messages", "drop")], "late-messages needs order-by = __ts beside it"),
            (&[("max-lateness-ms", "-1")], "max-lateness-ms is a number from 0 to 600000, not -1"),
            (&[("max-lateness-ms", "600001")], "max-lateness-ms is a number from 0 to 600000, not 600001"),
            (&[("late-messages", "keep")], "late-messages is deliver or drop, not keep"),
        ] {
            assert_eq!(read(pairs), Err(told.to_owned()));
        }
    }
}

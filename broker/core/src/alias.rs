//! Topic aliases of a server towards one client (v5 §3.3.2.3.4): the first topics get one each, and keep it.

use foldhash::HashMap;

/// Shorter topics are sent as they are: an alias would take as much room.
const TOPIC_BYTES_MIN: usize = 4;
/// Longer ones are not remembered: what a client makes us keep is bounded by this times its aliases.
const TOPIC_BYTES_MAX: usize = 1024;

/// The aliases of one connection. They end with it [MQTT-3.3.2-7].
///
/// None is ever given to another topic: that would take bookkeeping for each message, and gain something only for
/// clients that hear many topics in bursts.
#[derive(Debug, Default)]
pub struct Aliases {
    /// The highest one that may be used [MQTT-3.1.2-26] [MQTT-3.3.2-11]; 0 for none [MQTT-3.1.2-27].
    max: u16,
    /// Made when the first one is said: most connections have none, and are to cost nothing for it.
    numbers: Option<Box<HashMap<Box<[u8]>, u16>>>,
}

/// How a topic is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// By its name.
    None,
    /// By its name, together with an alias that stands for it from then on, once the packet is sent.
    New(u16),
    /// By its alias alone.
    Known(u16),
}

impl Aliases {
    /// None yet, and at most `max`.
    pub fn new(max: u16) -> Self {
        Self { max, numbers: None }
    }

    /// Whether there can be any.
    pub fn in_use(&self) -> bool {
        self.max > 0
    }

    /// How `topic` is to be said now.
    pub fn of(&self, topic: &[u8]) -> Alias {
        if self.max == 0 || !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len()) {
            return Alias::None;
        }
        let Some(numbers) = &self.numbers else { return Alias::New(1) };
        match (numbers.get(topic), u16::try_from(numbers.len())) {
            (Some(number), _) => Alias::Known(*number),
            (None, Ok(used)) if used < self.max => Alias::New(used + 1),
            _ => Alias::None,
        }
    }

    /// The packet that says `topic` together with its new alias is sent.
    pub fn said(&mut self, topic: &[u8], alias: Alias) {
        if let Alias::New(number) = alias {
            self.numbers.get_or_insert_default().insert(topic.into(), number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_an_alias_and_no_more_than_allowed() {
        let mut aliases = Aliases::new(2);
        let topics: [&[u8]; 3] = [b"plant/one", b"plant/two", b"plant/three"];
        for (topic, number) in topics.iter().zip([1, 2]) {
            assert_eq!(aliases.of(topic), Alias::New(number));
            assert_eq!(aliases.of(topic), Alias::New(number), "not said yet, so not known");
            aliases.said(topic, Alias::New(number));
            assert_eq!(aliases.of(topic), Alias::Known(number));
        }
        assert_eq!(aliases.of(topics[2]), Alias::None);
        assert_eq!(Aliases::new(9).of(b"abc"), Alias::None);
        assert_eq!(Aliases::new(9).of(&[b'a'; 1025]), Alias::None);
        assert_eq!(Aliases::new(0).of(topics[0]), Alias::None);
    }
}

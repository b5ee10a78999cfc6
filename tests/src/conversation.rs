//! Conversations: what clients say and what the broker must answer, as text.
//!
//! A line is `NAME> PACKET …` (the client says it), `NAME< PACKET …` (the broker answers exactly that), `NAME< closed`
//! (the broker ends the connection), `NAME< nothing` (it has nothing more to say), `NAME! gone` (the client ends
//! the connection without a word, and the broker has seen it), `wait SECONDS`, or a comment that begins with `#`. What a packet may say is in [`write`] and [`read`].

mod read;
mod write;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::mqtt::Client;
use crate::wait::PATIENCE;

/// What CONNACK says of the broker's limits, and reasons in words: the same each time, and looked at elsewhere.
const UNTOLD: [&str; 4] = ["rm=", "mps=", "tam=", "reason="];

/// Carries a conversation out.
///
/// # Panics
/// Where the broker says something else: with the line, and what it said.
pub fn carry_out(name: &str, text: &str, addr: SocketAddr) {
    let mut clients: HashMap<String, Client> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}: {line}", number + 1);
        if let Some(seconds) = line.strip_prefix("wait ") {
            let seconds: f64 = seconds.parse().unwrap_or_else(|_| panic!("{place}: no number"));
            thread::sleep(Duration::from_secs_f64(seconds));
            continue;
        }
        let mark = line.find(['>', '<', '!']).unwrap_or_else(|| panic!("{place}: not understood"));
        let (who, what) = (&line[..mark], line[mark + 1..].trim());
        match &line[mark..=mark] {
            ">" => {
                let packet = write::packet(what, clients.get(who).map(Client::level));
                let packet = packet.unwrap_or_else(|error| panic!("{place}: {error}"));
                if let Some(level) = packet.level
                    && !clients.contains_key(who)
                {
                    clients.insert(who.to_owned(), Client::open(addr, level));
                }
                let client = clients.get_mut(who).unwrap_or_else(|| panic!("{place}: who is that?"));
                client.send_to_the_unwilling(&packet.bytes);
            }
            "!" => {
                let client = clients.remove(who).unwrap_or_else(|| panic!("{place}: who is that?"));
                client.is_gone();
            }
            _ if what == "closed" => {
                let client = clients.remove(who).unwrap_or_else(|| panic!("{place}: who is that?"));
                let said: Vec<String> =
                    client.closed().iter().map(|packet| format!("{packet:02x?}")).collect();
                assert!(said.is_empty(), "{place}: it said {said:?}");
            }
            _ => {
                let client = clients.get_mut(who).unwrap_or_else(|| panic!("{place}: who is that?"));
                if what == "nothing" {
                    client.send(&[0xC0, 0]);
                }
                let wanted = if what == "nothing" { "PINGRESP" } else { what };
                let level = client.level();
                let said = match client.packet_within(PATIENCE) {
                    Ok(Some(packet)) => read::packet(&packet, level),
                    Ok(None) => "closed".to_owned(),
                    Err(error) => panic!("{place}: nothing came: {error}"),
                };
                assert!(is_as(&said, wanted), "{place}: it said `{said}`");
            }
        }
    }
}

/// Whether a packet says what is wanted: word by word, `*` for any value, `…` at the end for any more words.
fn is_as(said: &str, wanted: &str) -> bool {
    let told =
        |word: &&str| !UNTOLD.iter().any(|untold| word.starts_with(untold) && !wanted.contains(untold));
    let mut said = said.split(' ').filter(told);
    for word in wanted.split(' ') {
        if word == "…" {
            return true;
        }
        let Some(found) = said.next() else { return false };
        let same = match word.split_once('*') {
            Some((start, _)) => found.starts_with(start),
            None => found == word,
        };
        if !same {
            return false;
        }
    }
    said.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_one_by_one() {
        assert!(is_as("CONNACK 00 rm=9 id=x", "CONNACK 00 id=*"));
        assert!(is_as("CONNACK 00 id=x more", "CONNACK 00 …"));
        assert!(!is_as("CONNACK 00 id=x", "CONNACK 00"));
        assert!(!is_as("CONNACK 00", "CONNACK 00 id=*"));
        assert!(is_as("CONNACK 00 rm=9", "CONNACK 00 rm=9"));
        assert!(!is_as("CONNACK 00 rm=9", "CONNACK 00 rm=8"));
    }
}

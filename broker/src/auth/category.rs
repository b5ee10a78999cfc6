//! The label `category` of metrics (AIO.md §9.5): what a client says in the user property `metriccategory` of its CONNECT.

use std::collections::HashSet;
use std::sync::LazyLock;

use metrics::{Counter, counter};
use parking_lot::Mutex;

/// The user property.
const PROPERTY: &str = "metriccategory";
/// The category of whoever says none.
pub const DEFAULT: &str = "uncategorized";
/// Categories there may be; the clients of others are not told apart.
const CATEGORIES_MAX: usize = 1000;
/// The longest name of one.
const NAME_BYTES_MAX: usize = 256;

static KNOWN: LazyLock<Mutex<HashSet<Box<str>>>> = LazyLock::new(Mutex::default);

/// The category that the user properties of a CONNECT ask for.
pub fn asked<'a>(user_properties: impl Iterator<Item = (&'a str, &'a str)>) -> &'a str {
    let mut asked = user_properties.filter(|(name, _)| *name == PROPERTY).map(|(_, value)| value);
    match asked.next().filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX) {
        Some(name) if admit(name) => name,
        _ => DEFAULT,
    }
}

fn admit(name: &str) -> bool {
    let mut known = KNOWN.lock();
    // Clients choose the names: without a bound they could have metrics without end.
    known.contains(name) || (known.len() < CATEGORIES_MAX && known.insert(name.into()))
}

/// Counts one in a category.
pub fn count(metric: &'static str, category: &str) {
    counter(metric, category).increment(1);
}

/// The counter of a metric in a category.
pub fn counter(metric: &'static str, category: &str) -> Counter {
    counter!(metric, "category" => category.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many() {
        assert_eq!(asked([("a", "b")].into_iter()), DEFAULT);
        assert_eq!(asked([(PROPERTY, "")].into_iter()), DEFAULT);
        assert_eq!(asked([(PROPERTY, "line1"), (PROPERTY, "line2")].into_iter()), "line1");
        let names: Vec<String> = (0..2 * CATEGORIES_MAX).map(|n| format!("category {n}")).collect();
        let taken =
            names.iter().filter(|name| asked([(PROPERTY, name.as_str())].into_iter()) == *name).count();
        assert_eq!(taken, CATEGORIES_MAX - 1);
        assert_eq!(asked([(PROPERTY, "line1")].into_iter()), "line1");
    }
}

//! A map in the order of its keys that holds very little most of the time: one subscription of a client, one subscriber of
//! a filter. A `BTreeMap` gives the first entry room for eleven.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::slice;

/// Entries that are kept side by side; with more it is a tree.
const FEW_MAX: usize = 8;

/// A map in the order of its keys.
#[derive(Clone, Debug)]
pub struct SmallMap<K, V>(Inner<K, V>);

#[derive(Clone, Debug)]
enum Inner<K, V> {
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SmallMap<K, V> {
    /// An empty one; takes no memory of its own.
    pub const fn new() -> Self {
        Self(Inner::Few(Vec::new()))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Inner::Few(few) => few.len(),
            Inner::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.0 {
            Inner::Few(few) => Iter::Few(few.iter()),
            Inner::Many(many) => Iter::Many(many.iter()),
        }
    }

    /// All keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// Sets an entry. The value before, if there was one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let few = match &mut self.0 {
            Inner::Many(many) => return many.insert(key, value),
            Inner::Few(few) => few,
        };
        match few.binary_search_by(|(own, _)| own.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
            Err(at) if few.len() < FEW_MAX => {
                few.reserve_exact(1);
                few.insert(at, (key, value));
                None
            }
            Err(_) => {
                let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                many.insert(key, value);
                self.0 = Inner::Many(many);
                None
            }
        }
    }

    /// Takes an entry away.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Inner::Few(few) => {
                let at = few.binary_search_by(|(own, _)| own.borrow().cmp(key)).ok()?;
                let (_, value) = few.remove(at);
                if few.is_empty() {
                    *few = Vec::new();
                }
                Some(value)
            }
            Inner::Many(many) => {
                let value = many.remove(key);
                // Not at the border, or one that comes and goes would move all of them each time.
                if many.len() <= FEW_MAX / 2 {
                    self.0 = Inner::Few(std::mem::take(many).into_iter().collect());
                }
                value
            }
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            Inner::Few(few) => {
                let at = few.binary_search_by(|(own, _)| own.borrow().cmp(key)).ok()?;
                Some(&few[at].1)
            }
            Inner::Many(many) => many.get(key),
        }
    }

    /// Whether there is a value for a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

/// The entries of a map, in the order of their keys.
#[derive(Debug)]
pub enum Iter<'a, K, V> {
    /// Side by side.
    Few(slice::Iter<'a, (K, V)>),
    /// Of a tree.
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (key, value)),
            Self::Many(many) => many.next(),
        }
    }
}

impl<'a, K, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_tree_however_it_grows_and_shrinks() {
        let (mut map, mut tree) = (SmallMap::new(), BTreeMap::new());
        // A walk that visits every size up to twenty, and back, several times.
        let mut seed = 7u32;
        for step in 0..4_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = ((seed >> 16) % 20).to_string();
            if (step / 200).is_multiple_of(2) || seed.is_multiple_of(3) {
                assert_eq!(map.insert(key.clone(), step), tree.insert(key, step));
            } else {
                assert_eq!(map.remove(key.as_str()), tree.remove(&key));
            }
            assert!(map.iter().eq(tree.iter()) && map.len() == tree.len());
            assert!(tree.iter().all(|(key, value)| map.get(key.as_str()) == Some(value)));
        }
        assert!(!map.contains_key("no such key"));
    }
}

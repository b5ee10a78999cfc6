//! For tests: a disk in memory that loses power, fails and rots on demand, and a store whose writer and clock are moved
//! by hand. What happens depends on a seed and on nothing else, so that a run can be repeated.

mod by_hand;
mod disk;
mod file;
mod names;
mod seeds;

pub use by_hand::ByHand;
pub use disk::{Fault, Op, SimDisk};
pub use seeds::run_many;

/// A sequence of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One from 0 to `end`, without `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// One from 0 to `end`, without `end`, as a length.
    pub fn below_len(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// True once in so many.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

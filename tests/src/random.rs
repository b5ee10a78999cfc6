//! Random numbers that come again: what a test does with them is the same for the same seed.

/// A sequence of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

/// The seed from the environment variable `FOREBAY_SEED`, or another one each time. It is printed, and shown when the test
/// fails.
pub fn seed() -> u64 {
    let given = std::env::var("FOREBAY_SEED").ok();
    let seed = match given {
        Some(text) => text.parse().expect("FOREBAY_SEED is a whole number"),
        None => std::process::id().into(),
    };
    println!("again with FOREBAY_SEED={seed}");
    seed
}

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
        self.number() % end
    }

    /// One of `from` to `to`, with two decimals.
    pub fn decimal(&mut self, from: i32, to: i32) -> f64 {
        let steps = u64::from(from.abs_diff(to)) * 100;
        // Below 2^53: nothing is lost.
        f64::from(from) + self.below(steps) as f64 / 100.0
    }
}

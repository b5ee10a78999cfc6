//! Changes to inputs, drawn from a seed: the same seed draws the same.

/// Inputs do not grow beyond this.
const LEN_MAX: usize = 4096;
/// Numbers at which things change.
const CORNERS: [u8; 8] = [0, 1, 0x7F, 0x80, 0xFF, b'/', b'#', b'+'];

/// A generator of numbers (xorshift*, Marsaglia and Vigna).
pub struct Random(u64);

impl Random {
    /// Draws from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            _ => (self.next() % end as u64) as usize,
        }
    }

    /// An input made of others: one of them changed in some places, or bytes of no meaning.
    pub fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if corpus.is_empty() || self.below(16) == 0 {
            let len = self.below(200);
            return (0..len).map(|_| self.next() as u8).collect();
        }
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input, corpus);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.next() as u8,
            2 if !input.is_empty() => input[at] = CORNERS[self.below(CORNERS.len())],
            3 => input.insert(at, CORNERS[self.below(CORNERS.len())]),
            4 => drop(input.drain(at..(at + self.below(8)).min(input.len()))),
            5 => {
                let end = (at + self.below(32)).min(input.len());
                let part = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
            6 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}

//! Random numbers from a seed: the same ones on every machine and with every version of every
//! crate, or the committed picture would change by itself. SplitMix64 (Steele, Lea, Flood, 2014).

/// A sequence of random numbers.
pub struct Random(u64);

impl Random {
    /// The sequence of one verifier: each has its own, so that none depends on how many others
    /// there are.
    pub fn of(seed: u64, verifier: u64) -> Self {
        let mut random = Self(seed);
        Self(random.number() ^ verifier.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Another sequence, which does not depend on how far this one is read.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `below`, which is not reached; 0 where there is none.
    pub fn below(&mut self, below: i64) -> i64 {
        let Ok(range) = u64::try_from(below) else {
            return 0;
        };
        let scaled = (u128::from(self.number()) * u128::from(range)) >> 64;
        i64::try_from(scaled).unwrap_or_default()
    }

    /// One of a list.
    pub fn one_of<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        let index = self.below(i64::try_from(list.len()).unwrap_or_default());
        usize::try_from(index).ok().and_then(|at| list.get(at))
    }
}

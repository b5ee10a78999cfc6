//! A file's bytes: as processes see them, and as they are when the power is gone.

use crate::sim::Random;

/// What a device writes at once, or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// As processes see them.
    pub bytes: Vec<u8>,
    /// As the device has them.
    durable: Vec<u8>,
    /// What is behind may not be on the device.
    dirty_from: usize,
    /// It was emptied, and that may not be on the device.
    emptied: bool,
}

impl File {
    /// The file as it is after somebody wrote it behind everybody's back.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { dirty_from: bytes.len(), durable: bytes.clone(), bytes, emptied: false }
    }

    pub fn empty(&mut self) {
        self.bytes.clear();
        self.dirty_from = 0;
        self.emptied = true;
    }

    /// Takes effect at once: the store does not count on the moment.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.durable.truncate(len);
        self.dirty_from = self.dirty_from.min(len);
    }

    pub fn rewrite(&mut self, offset: usize) {
        self.dirty_from = self.dirty_from.min(offset);
    }

    /// What is dirty goes to the device; what a bad sync lost before stays lost.
    pub fn sync(&mut self) {
        let clean = if self.emptied { 0 } else { self.dirty_from };
        self.durable.resize(clean, 0);
        self.durable.extend_from_slice(&self.bytes[clean..]);
        self.dirty_from = self.bytes.len();
        self.emptied = false;
    }

    /// The device took some of it, and will never be given the rest again: the pages count as clean.
    pub fn sync_badly(&mut self, random: &mut Random) {
        let mut durable = self.after_power_cut(random);
        durable.resize(self.bytes.len(), 0);
        self.durable = durable;
        self.dirty_from = self.bytes.len();
        self.emptied = false;
    }

    pub fn cut_power(&mut self, random: &mut Random) {
        *self = Self::of(self.after_power_cut(random));
    }

    fn is_clean(&self) -> bool {
        !self.emptied && self.dirty_from == self.bytes.len()
    }

    fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        if self.is_clean() || (self.emptied && random.once_in(2)) {
            return self.durable.clone();
        }
        // What was there before a byte was written again is as good.
        let old = if self.emptied { &[][..] } else { &self.durable };
        let start = self.dirty_from;
        let written = start + random.below_len(self.bytes.len() - start + 1);
        match random.below(4) {
            0 => old.to_vec(),
            1 => self.bytes.clone(),
            2 => [&self.bytes[..written], old.get(written..).unwrap_or_default()].concat(),
            // Some sectors, in no order; the length may have come first.
            _ => self.some_sectors(old, written.max(old.len()), random),
        }
    }

    fn some_sectors(&self, old: &[u8], len: usize, random: &mut Random) -> Vec<u8> {
        let mut left = old.to_vec();
        left.resize(len, 0);
        for sector in self.dirty_from / SECTOR..=len / SECTOR {
            let from = (sector * SECTOR).clamp(self.dirty_from, len);
            let to = ((sector + 1) * SECTOR).min(len);
            if !random.once_in(3) && from < to {
                left[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
        left
    }
}

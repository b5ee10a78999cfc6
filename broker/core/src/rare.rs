//! What most sessions never have: a pointer as long as it is not there.

/// A value that takes room of its own only once it is needed.
#[derive(Clone, Debug)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self::none()
    }
}

impl<T> Rare<T> {
    /// Not there.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The value, if it is there.
    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The same to change.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// It is no more.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T: Default> Rare<T> {
    /// The value; made if it is not there.
    pub fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Takes the value away.
    pub fn take(&mut self) -> T {
        self.0.take().map(|value| *value).unwrap_or_default()
    }
}

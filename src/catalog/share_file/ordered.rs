//! Items with keys, in the order of a file.

use std::collections::HashMap;

/// Things by their keys, in the order of the file.
#[derive(Debug)]
pub(super) struct Ordered<T> {
    items: Vec<(String, T)>,
    indexes: HashMap<String, usize>,
}

impl<T> Ordered<T> {
    pub(super) fn new() -> Self {
        Self { items: Vec::new(), indexes: HashMap::new() }
    }

    /// Adds a thing at the end; false if there is one with its key.
    pub(super) fn add(&mut self, key: String, item: T) -> bool {
        let new = self.indexes.insert(key.clone(), self.items.len()).is_none();
        self.items.push((key, item));
        new
    }

    pub(super) fn get(&self, key: &str) -> Option<&T> {
        self.indexes.get(key).and_then(|index| self.items.get(*index)).map(|(_, item)| item)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.items.iter().map(|(key, item)| (key.as_str(), item))
    }
}

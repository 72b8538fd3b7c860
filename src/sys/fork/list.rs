//! A list that only grows, and that a forked child can always read.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A list to which any thread adds without a lock, and from which nothing is ever taken: for a `static`, whose values live
/// to the end of the process. A child forked at any moment finds it whole.
#[derive(Debug)]
pub(crate) struct GrowingList<T: 'static> {
    newest: AtomicPtr<Node<T>>,
    owned: PhantomData<T>,
}

#[derive(Debug)]
struct Node<T: 'static> {
    value: T,
    older: Option<&'static Node<T>>,
}

impl<T: Sync> GrowingList<T> {
    pub(crate) const fn new() -> GrowingList<T> {
        GrowingList { newest: AtomicPtr::new(ptr::null_mut()), owned: PhantomData }
    }

    /// The values, the newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> {
        std::iter::successors(self.newest(), |node| node.older).map(|node| &node.value)
    }

    /// Adds a value, unless there is one that `is_it` is true of. Returns the one that is in the list.
    pub(crate) fn add_unless(&self, value: T, is_it: impl Fn(&T) -> bool) -> &'static T {
        let mut node = Box::new(Node { value, older: None });
        loop {
            let newest = self.newest();
            node.older = newest;
            if let Some(found) = std::iter::successors(newest, |node| node.older).find(|node| is_it(&node.value)) {
                return &found.value;
            }
            let before = newest.map_or(ptr::null_mut(), |newest| (newest as *const Node<T>).cast_mut());
            let added = Box::into_raw(node);
            // Release: the value is written before its address. Acquire: see `newest`.
            match self.newest.compare_exchange(before, added, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: from `Box::into_raw`, in the list from now on, and never freed.
                Ok(_) => return unsafe { &(*added).value },
                // SAFETY: from `Box::into_raw` above, and given to nobody.
                Err(_) => node = unsafe { Box::from_raw(added) },
            }
        }
    }

    fn newest(&self) -> Option<&'static Node<T>> {
        // Acquire: what a node leads to was written before its address was stored.
        let newest = self.newest.load(Ordering::Acquire);
        // SAFETY: null, or a node that is never freed nor changed.
        unsafe { newest.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_threads_that_add_the_same_value_one_does() {
        static LIST: GrowingList<u32> = GrowingList::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for value in 0..100 {
                        assert_eq!(*LIST.add_unless(value, |other| *other == value), value);
                    }
                });
            }
        });
        let mut values: Vec<u32> = LIST.iter().copied().collect();
        values.sort_unstable();
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    }
}

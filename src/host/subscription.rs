//! Subscriptions: a bounded channel of snapshots for each reader, of which a slow one loses the oldest.
//!
//! To lose the oldest the publisher must be able to receive, and a receiver of its own keeps the channel connected when
//! the reader is gone. So each reader owns its count of lost snapshots, and the publisher holds that count weakly: when
//! it is gone, so is the reader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};

use crate::sys::ProcessMark;
use crate::vocabulary::ResourceSnapshot;

/// The number of snapshots that can wait for a slow reader. They are six seconds' worth at the rate at which a busy
/// host is checked by default.
const CAPACITY: usize = 64;

/// The snapshots of a monitor from now on, oldest first; see [`ResourceMonitor::snapshots`].
///
/// As an iterator it blocks for the next snapshot and ends when the monitor is dropped; [`stop`] does not end it. It
/// borrows nothing. A reader that falls 64 snapshots behind loses the oldest, which [`missed`](Self::missed) counts; it
/// never delays a check. Dropping it ends the subscription. In a forked child an inherited one has ended.
///
/// [`ResourceMonitor::snapshots`]: crate::ResourceMonitor::snapshots
/// [`stop`]: crate::ResourceMonitor::stop
#[derive(Debug)]
pub struct Snapshots {
    receiver: Receiver<ResourceSnapshot>,
    missed: Arc<AtomicU64>,
    mark: ProcessMark,
}

impl Snapshots {
    /// Waits for the next snapshot, at most this long.
    ///
    /// # Errors
    /// `Timeout`, or `Disconnected` when the monitor is gone and every snapshot was read.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ResourceSnapshot, RecvTimeoutError> {
        if self.is_inherited() {
            return Err(RecvTimeoutError::Disconnected);
        }
        self.receiver.recv_timeout(timeout)
    }

    /// The next snapshot, if one is waiting.
    ///
    /// # Errors
    /// `Empty`, or `Disconnected` when the monitor is gone and every snapshot was read.
    pub fn try_recv(&self) -> Result<ResourceSnapshot, TryRecvError> {
        if self.is_inherited() {
            return Err(TryRecvError::Disconnected);
        }
        self.receiver.try_recv()
    }

    /// The number of snapshots lost so far because this reader was slow.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// The channel itself, for `crossbeam_channel::select!`. It must not be used in a forked child.
    pub fn receiver(&self) -> &Receiver<ResourceSnapshot> {
        &self.receiver
    }

    /// Whether the subscription is the parent's. A thread of the parent may have held the channel's locks at the fork,
    /// so nothing is received here.
    fn is_inherited(&self) -> bool {
        self.mark.is_inherited()
    }
}

impl Iterator for Snapshots {
    type Item = ResourceSnapshot;

    fn next(&mut self) -> Option<ResourceSnapshot> {
        if self.is_inherited() {
            return None;
        }
        self.receiver.recv().ok()
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if self.is_inherited() {
            // The drop of a last receiver takes one of those locks. With a clone that is leaked, this one is not the
            // last.
            std::mem::forget(self.receiver.clone());
        }
    }
}

/// The publishing end: the last snapshot and the subscribers.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    latest: Option<ResourceSnapshot>,
    subscribers: Vec<Subscriber>,
    /// The monitor is gone, and a new subscription has ended before it begins.
    closed: bool,
}

/// The sending end of one subscription.
#[derive(Debug)]
struct Subscriber {
    sender: Sender<ResourceSnapshot>,
    /// A receiver of the publisher's own, which takes the oldest out of a full channel.
    evictor: Receiver<ResourceSnapshot>,
    /// The reader's count of lost snapshots, which lives as long as the reader.
    missed: Weak<AtomicU64>,
}

impl Publisher {
    /// Adds a reader of every snapshot from now on.
    pub(crate) fn subscribe(&mut self) -> Snapshots {
        let (sender, receiver) = bounded(CAPACITY);
        let missed = Arc::new(AtomicU64::new(0));
        if !self.closed {
            self.subscribers.retain(Subscriber::is_read);
            self.subscribers.push(Subscriber { sender, evictor: receiver.clone(), missed: Arc::downgrade(&missed) });
        }
        Snapshots { receiver, missed, mark: ProcessMark::here() }
    }

    /// Keeps the snapshot as the latest and sends it to every reader. It waits for none of them, and costs one copy for
    /// each.
    pub(crate) fn publish(&mut self, snapshot: &ResourceSnapshot) {
        match &mut self.latest {
            Some(latest) => latest.copy_from(snapshot),
            None => self.latest = Some(snapshot.clone()),
        }
        self.subscribers.retain(|subscriber| subscriber.send(snapshot));
    }

    /// The snapshot that was published last.
    pub(crate) fn latest(&self) -> Option<ResourceSnapshot> {
        self.latest.clone()
    }

    /// Ends every subscription. Readers still get the snapshots that wait for them.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.subscribers.clear();
    }
}

impl Subscriber {
    /// Whether the reader still exists.
    fn is_read(&self) -> bool {
        self.missed.strong_count() > 0
    }

    /// Queues the snapshot, and makes room by losing the oldest if it must. Returns whether the reader still exists.
    fn send(&self, snapshot: &ResourceSnapshot) -> bool {
        let Some(missed) = self.missed.upgrade() else { return false };
        let mut message = snapshot.clone();
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(returned)) => {
                    message = returned;
                    if self.evictor.try_recv().is_ok() {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(count: usize) -> ResourceSnapshot {
        ResourceSnapshot { child_process_count: Some(count), ..ResourceSnapshot::unread() }
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_knows_how_many() {
        let mut publisher = Publisher::default();
        let slow = publisher.subscribe();
        for count in 0..CAPACITY + 10 {
            publisher.publish(&snapshot(count));
        }
        assert_eq!(slow.missed(), 10);
        assert_eq!(slow.try_recv().unwrap().child_process_count, Some(10));
    }

    #[test]
    fn a_dropped_reader_is_forgotten() {
        let mut publisher = Publisher::default();
        let (kept, dropped) = (publisher.subscribe(), publisher.subscribe());
        drop(dropped);
        publisher.publish(&snapshot(1));
        assert_eq!(publisher.subscribers.len(), 1);
        assert!(kept.try_recv().is_ok());
    }

    #[test]
    fn closing_ends_readers_after_what_waits_for_them() {
        let mut publisher = Publisher::default();
        let mut reader = publisher.subscribe();
        publisher.publish(&snapshot(1));
        publisher.close();
        assert!(reader.next().is_some());
        assert!(reader.next().is_none());
        assert!(publisher.subscribe().next().is_none());
    }
}

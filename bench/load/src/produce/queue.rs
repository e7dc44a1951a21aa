//! Batches of one producer for one partition: filled at the back, sent from the front, sent again in their order.

use crate::batch::{Batch, Identity, Sealed};
use crate::compress::Compress;
use crate::records::Draft;
use std::collections::VecDeque;

/// What stands between records and requests.
#[derive(Default)]
pub struct Queue {
    batches: VecDeque<Batch>,
    /// Refused for the moment, in order; nothing else is sent before these.
    again: VecDeque<Sealed>,
    /// Sent and not answered.
    pub in_flight: usize,
    /// Stands in its connection's list of queues to send from.
    pub listed: bool,
    /// Of the next batch, for an idempotent producer.
    sequence: i32,
}

impl Queue {
    /// The batch that takes a further record: the last one, if it has room.
    pub fn open(&mut self, draft: Draft, batch_bytes: usize) -> Option<&mut Batch> {
        self.batches.back_mut().filter(|batch| batch.has_room(draft, batch_bytes))
    }

    pub fn add(&mut self, batch: Batch) -> &mut Batch {
        self.batches.push_back(batch);
        self.batches.back_mut().expect("just added")
    }

    /// Whether something may be sent: a batch that is full, or whose first record came before `since_ns`.
    pub fn is_due(&self, since_ns: u64, batch_bytes: usize) -> bool {
        if !self.again.is_empty() {
            return self.in_flight == 0;
        }
        let front = self.batches.front();
        self.batches.len() > 1 || front.is_some_and(|b| b.since_ns <= since_ns || b.bytes() >= batch_bytes)
    }

    /// Takes the next batch to send.
    pub fn take(&mut self, compress: Compress, identity: Option<Identity>) -> Option<Sealed> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let batch = self.batches.pop_front()?;
        let sequence = self.sequence;
        // Sequences go on at 0 after the largest number.
        self.sequence = sequence.wrapping_add(batch.count()) & i32::MAX;
        Some(batch.seal(compress, identity.map(|id| (id, sequence))))
    }

    /// Takes a batch back that is to be sent again, at its place.
    pub fn put_back(&mut self, batch: Sealed) {
        let at = self.again.partition_point(|other| other.serial < batch.serial);
        self.again.insert(at, batch);
    }

    /// Whether an earlier batch is still to be sent again.
    pub fn repeats_before(&self, serial: u64) -> bool {
        self.again.front().is_some_and(|first| first.serial < serial)
    }
}

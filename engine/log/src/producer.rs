//! Idempotence: what one partition remembers of each producer (KIP-98, KIP-360).
//!
//! Pure state, owned by the partition's core: the epoch and the last five batches of a producer. The rules are those of
//! Kafka's `ProducerStateManager` and `ProducerAppendInfo` for producers without transactions. Bounded: when too many
//! producers are known the longest silent ones are forgotten, which Kafka's rules allow (an unknown producer may begin
//! with any sequence). Never reads a clock.

use crate::format::checkpoint::{ProducerBatch, ProducerState};
use ringmill_record::BatchHeader;
use ringmill_record::batch::increment_sequence;
use ringmill_types::{ErrorCode, Offset, ProducerEpoch, ProducerId};
use std::collections::HashMap;

/// Batches remembered per producer: the client keeps at most this many in flight.
pub const BATCHES_KEPT: usize = 5;

/// Producers remembered per partition. At about 150 bytes each, a hostile client cannot cost more than 2.5 MB here.
pub const PRODUCERS_MAX: usize = 16_384;

/// Forgotten at once when the bound is met, so that finding the oldest costs little per batch.
const EVICTED_AT_ONCE: usize = PRODUCERS_MAX / 8;

/// What to do with a batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// One of the last five batches: answer with where it is, append nothing.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        timestamp_ms: i64,
    },
    Refused(ErrorCode),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    first_offset: i64,
    timestamp_ms: i64,
    first_seq: i32,
    offset_delta: i32,
}

impl Batch {
    fn last_seq(&self) -> i32 {
        increment_sequence(self.first_seq, self.offset_delta)
    }

    fn last_offset(&self) -> Offset {
        Offset(self.first_offset).plus(i64::from(self.offset_delta))
    }
}

/// `batches[..held]` are valid, oldest first, all of `epoch`.
#[derive(Clone, Debug)]
struct Producer {
    epoch: ProducerEpoch,
    held: u8,
    last_ms: i64,
    batches: [Batch; BATCHES_KEPT],
}

impl Producer {
    fn new(epoch: ProducerEpoch) -> Producer {
        Producer { epoch, held: 0, last_ms: i64::MIN, batches: [Batch::default(); BATCHES_KEPT] }
    }

    fn kept(&self) -> &[Batch] {
        self.batches.get(..usize::from(self.held)).unwrap_or_default()
    }

    fn push(&mut self, batch: Batch) {
        if usize::from(self.held) == BATCHES_KEPT {
            self.batches.rotate_left(1);
        } else {
            self.held += 1;
        }
        if let Some(newest) = self.batches.get_mut(usize::from(self.held) - 1) {
            *newest = batch;
        }
    }
}

/// The producers of one partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerTable {
    /// Ids come from clients, so the hasher is the standard, keyed one. Nothing depends on its order.
    producers: HashMap<ProducerId, Producer>,
}

impl ProducerTable {
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a batch that has a producer id. Changes nothing.
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        // State that expired or was evicted cannot tell a lost batch from an old one: Kafka accepts any sequence.
        let Some(known) = self.producers.get(&header.producer_id) else { return Verdict::Append };
        if header.producer_epoch < known.epoch {
            return Verdict::Refused(ErrorCode::InvalidProducerEpoch);
        }
        if header.producer_epoch > known.epoch {
            // A new epoch starts over (KIP-360).
            return if header.base_sequence == 0 {
                Verdict::Append
            } else {
                Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber)
            };
        }
        let (first_seq, last_seq) = (header.base_sequence, header.last_sequence());
        if let Some(same) = known.kept().iter().find(|b| b.first_seq == first_seq && b.last_seq() == last_seq)
        {
            return Verdict::Duplicate {
                base_offset: Offset(same.first_offset),
                last_offset: same.last_offset(),
                timestamp_ms: same.timestamp_ms,
            };
        }
        match known.kept().last() {
            Some(newest) if increment_sequence(newest.last_seq(), 1) != first_seq => {
                Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber)
            }
            Some(_) | None => Verdict::Append,
        }
    }

    /// Remembers a batch that was appended at `base_offset`. `now_ms` is its append time: what a later duplicate is
    /// answered with on a `LogAppendTime` topic, and what expiry counts from.
    pub fn apply(&mut self, header: &BatchHeader, base_offset: Offset, now_ms: i64) {
        if !self.producers.contains_key(&header.producer_id) && self.producers.len() >= PRODUCERS_MAX {
            self.evict();
        }
        let producer =
            self.producers.entry(header.producer_id).or_insert_with(|| Producer::new(header.producer_epoch));
        if producer.epoch != header.producer_epoch {
            *producer = Producer::new(header.producer_epoch);
        }
        producer.last_ms = producer.last_ms.max(now_ms);
        producer.push(Batch {
            first_offset: base_offset.0,
            timestamp_ms: now_ms,
            first_seq: header.base_sequence,
            offset_delta: header.last_offset_delta,
        });
    }

    /// Remembers an epoch without a batch, as a transaction marker carries it.
    pub fn apply_marker(&mut self, id: ProducerId, epoch: ProducerEpoch, now_ms: i64) {
        if !self.producers.contains_key(&id) && self.producers.len() >= PRODUCERS_MAX {
            self.evict();
        }
        let producer = self.producers.entry(id).or_insert_with(|| Producer::new(epoch));
        if producer.epoch < epoch {
            *producer = Producer::new(epoch);
        }
        producer.last_ms = producer.last_ms.max(now_ms);
    }

    fn evict(&mut self) {
        let mut ages: Vec<(i64, ProducerId)> =
            self.producers.iter().map(|(id, p)| (p.last_ms, *id)).collect();
        let at = EVICTED_AT_ONCE.min(ages.len().saturating_sub(1));
        let (oldest, _, _) = ages.select_nth_unstable(at);
        for (_, id) in oldest.iter() {
            self.producers.remove(id);
        }
    }

    /// Forgets producers that were silent for `expiration_ms` or longer (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, p| now_ms.saturating_sub(p.last_ms) < expiration_ms);
    }

    /// Records from `end` on are gone: what pointed there is forgotten.
    pub fn truncate_end(&mut self, end: Offset) {
        self.producers.retain(|_, p| {
            let kept = p.kept().iter().take_while(|b| b.last_offset() < end).count();
            p.held = kept as u8;
            kept > 0
        });
    }

    /// What is known from batches below `upto`, in id order. A batch that is not in segments must not be remembered
    /// from here: if a cut loses it, its retry is no duplicate.
    pub fn snapshot(&self, upto: Offset) -> Vec<ProducerState> {
        let mut states: Vec<ProducerState> =
            self.producers.iter().filter_map(|(id, p)| state_of(*id, p, upto)).collect();
        states.sort_unstable_by_key(|s| s.id);
        states
    }

    /// From a snapshot; what contradicts itself in it is left out.
    pub fn restore(states: &[ProducerState]) -> ProducerTable {
        let mut table = ProducerTable::default();
        for state in states.iter().filter(|s| s.id >= 0 && s.epoch >= 0).take(PRODUCERS_MAX) {
            let mut producer = Producer::new(ProducerEpoch(state.epoch));
            producer.last_ms = state.last_ms;
            for batch in &state.batches {
                let delta = batch.last_offset.saturating_sub(batch.first_offset);
                let Ok(offset_delta) = i32::try_from(delta) else { continue };
                if batch.first_seq >= 0 && offset_delta >= 0 {
                    let (first_offset, timestamp_ms) = (batch.first_offset, batch.timestamp_ms);
                    producer.push(Batch {
                        first_offset,
                        timestamp_ms,
                        first_seq: batch.first_seq,
                        offset_delta,
                    });
                }
            }
            table.producers.insert(ProducerId(state.id), producer);
        }
        table
    }
}

fn state_of(id: ProducerId, producer: &Producer, upto: Offset) -> Option<ProducerState> {
    let batches: Vec<ProducerBatch> = producer
        .kept()
        .iter()
        .take_while(|b| b.last_offset() < upto)
        .map(|b| ProducerBatch {
            first_seq: b.first_seq,
            last_seq: b.last_seq(),
            first_offset: b.first_offset,
            last_offset: b.last_offset().0,
            timestamp_ms: b.timestamp_ms,
        })
        .collect();
    // All of it lies beyond: replay brings it back, or it never happened.
    if batches.is_empty() && producer.held > 0 {
        return None;
    }
    Some(ProducerState { id: id.0, epoch: producer.epoch.0, last_ms: producer.last_ms, batches })
}

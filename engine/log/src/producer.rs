//! Idempotence: what one partition remembers of each producer (KIP-98, KIP-360).
//!
//! Pure state, owned by the partition's core: the epoch and the last five batches of a producer. The rules are those of
//! Kafka's `ProducerStateManager` and `ProducerAppendInfo` for producers without transactions. Bounded: when too many
//! producers are known the longest silent ones are forgotten, which Kafka's rules allow (an unknown producer may begin
//! with any sequence). Expiry counts silence on the monotonic clock, which no jump of the wall clock moves. Never reads a
//! clock.

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
    /// By the wall clock; stored, so that the order of eviction survives a restart.
    last_ms: i64,
    /// By the monotonic clock of this life; 0: not in this life yet.
    seen_ns: u64,
    batches: [Batch; BATCHES_KEPT],
}

impl Producer {
    fn new(epoch: ProducerEpoch) -> Producer {
        Producer { epoch, held: 0, last_ms: i64::MIN, seen_ns: 0, batches: [Batch::default(); BATCHES_KEPT] }
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

/// One producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerView {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// -1 when no batch of the epoch is known.
    pub last_sequence: i32,
    /// When its newest batch was written.
    pub last_ms: i64,
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
        // After a marker alone no batch of the epoch is known: it begins with 0, as Kafka has it.
        let expected = known.kept().last().map_or(0, |newest| increment_sequence(newest.last_seq(), 1));
        if first_seq == expected {
            Verdict::Append
        } else {
            Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber)
        }
    }

    /// Remembers a batch that was appended at `base_offset` at `now_ms`. `stored_ms` is its largest timestamp as it is
    /// stored, which a later duplicate is answered with, whoever set it; `now_ns` is what expiry counts from, 0 in replay
    /// ([`Self::touch`] follows).
    pub fn apply(
        &mut self,
        header: &BatchHeader,
        base_offset: Offset,
        stored_ms: i64,
        now_ms: i64,
        now_ns: u64,
    ) {
        if !self.producers.contains_key(&header.producer_id) && self.producers.len() >= PRODUCERS_MAX {
            self.evict();
        }
        let producer =
            self.producers.entry(header.producer_id).or_insert_with(|| Producer::new(header.producer_epoch));
        if producer.epoch != header.producer_epoch {
            *producer = Producer::new(header.producer_epoch);
        }
        producer.last_ms = producer.last_ms.max(now_ms);
        producer.seen_ns = producer.seen_ns.max(now_ns);
        producer.push(Batch {
            first_offset: base_offset.0,
            timestamp_ms: stored_ms,
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
        let mut ages: Vec<(u64, i64, ProducerId)> =
            self.producers.iter().map(|(id, p)| (p.seen_ns, p.last_ms, *id)).collect();
        let at = EVICTED_AT_ONCE.min(ages.len().saturating_sub(1));
        let (oldest, _, _) = ages.select_nth_unstable(at);
        for (_, _, id) in oldest.iter() {
            self.producers.remove(id);
        }
    }

    /// Nobody was silent while the broker was not there: expiry counts from `now_ns` on at the earliest. What was stored
    /// cannot be measured against a wall clock that may have been set since, and forgetting late harms nobody.
    pub fn touch(&mut self, now_ns: u64) {
        for producer in self.producers.values_mut() {
            producer.seen_ns = producer.seen_ns.max(now_ns);
        }
    }

    /// Forgets producers that were silent for `expiration_ms` or longer (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ns: u64, expiration_ms: i64) {
        let expiration_ns = u64::try_from(expiration_ms).unwrap_or(0).saturating_mul(1_000_000);
        self.producers.retain(|_, p| now_ns.saturating_sub(p.seen_ns) < expiration_ns);
    }

    /// Records from `end` on are gone: what pointed there is forgotten.
    pub fn truncate_end(&mut self, end: Offset) {
        self.producers.retain(|_, p| {
            let kept = p.kept().iter().take_while(|b| b.last_offset() < end).count();
            p.held = kept as u8;
            kept > 0
        });
    }

    /// Who wrote, for people; at most `most`, in no order.
    pub fn views(&self, most: usize) -> Vec<ProducerView> {
        let view = |(id, producer): (&ProducerId, &Producer)| {
            let newest = producer.kept().last();
            ProducerView {
                id: *id,
                epoch: producer.epoch,
                last_sequence: newest.map_or(-1, Batch::last_seq),
                last_ms: newest.map_or(producer.last_ms, |batch| batch.timestamp_ms),
            }
        };
        self.producers.iter().take(most).map(view).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchSpec;
    use proptest::prelude::*;

    const OUT_OF_ORDER: Verdict = Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber);

    fn batch(id: i64, epoch: i16, sequence: i32, records: i32) -> BatchHeader {
        BatchSpec { producer: Some((id, epoch, sequence)), records, ..BatchSpec::default() }.header()
    }

    /// A table after `counts` batches of producer 1, epoch 0, from sequence and offset 0.
    fn table(counts: &[i32]) -> ProducerTable {
        let mut table = ProducerTable::default();
        let mut next = 0;
        for (now_ms, records) in (1000..).zip(counts) {
            table.apply(
                &batch(1, 0, next, *records),
                Offset(i64::from(next)),
                now_ms,
                now_ms,
                now_ms as u64 * 1_000_000,
            );
            next += records;
        }
        table
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(ProducerTable::default().check(&batch(1, 0, 77, 1)), Verdict::Append);
    }

    #[test]
    fn sequences_must_follow_each_other() {
        let table = table(&[3, 2]);
        assert_eq!(table.check(&batch(1, 0, 5, 4)), Verdict::Append);
        assert_eq!(table.check(&batch(1, 0, 6, 1)), OUT_OF_ORDER);
        assert_eq!(
            table.check(&batch(1, 0, 4, 1)),
            OUT_OF_ORDER,
            "half of an old batch is no duplicate of it"
        );
        assert_eq!(table.check(&batch(2, 0, 9, 1)), Verdict::Append, "another producer");
    }

    #[test]
    fn the_last_five_batches_are_known_as_duplicates() {
        let table = table(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(table.check(&batch(1, 0, 0, 1)), OUT_OF_ORDER, "the sixth last is forgotten");
        let place = Verdict::Duplicate { base_offset: Offset(1), last_offset: Offset(2), timestamp_ms: 1001 };
        assert_eq!(table.check(&batch(1, 0, 1, 2)), place);
        let place =
            Verdict::Duplicate { base_offset: Offset(15), last_offset: Offset(20), timestamp_ms: 1005 };
        assert_eq!(table.check(&batch(1, 0, 15, 6)), place);
        assert_eq!(table.check(&batch(1, 0, 15, 5)), OUT_OF_ORDER, "same start, other length");
    }

    #[test]
    fn epochs_fence() {
        let mut table = table(&[3]);
        table.apply(&batch(1, 4, 0, 2), Offset(3), 2000, 2000, 0);
        assert_eq!(table.check(&batch(1, 3, 0, 1)), Verdict::Refused(ErrorCode::InvalidProducerEpoch));
        assert_eq!(table.check(&batch(1, 4, 2, 1)), Verdict::Append);
        assert_eq!(table.check(&batch(1, 5, 1, 1)), OUT_OF_ORDER, "a new epoch begins with sequence 0");
        assert_eq!(table.check(&batch(1, 5, 0, 1)), Verdict::Append);
        assert_eq!(
            table.check(&batch(1, 4, 0, 3)),
            OUT_OF_ORDER,
            "batches of the old epoch are no duplicates"
        );
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut table = ProducerTable::default();
        table.apply(&batch(1, 0, i32::MAX - 1, 2), Offset(0), 1, 1, 0);
        assert_eq!(table.check(&batch(1, 0, 0, 5)), Verdict::Append);
        table.apply(&batch(1, 0, 0, 5), Offset(2), 2, 2, 0);
        let mut table = ProducerTable::default();
        table.apply(&batch(1, 0, i32::MAX, 3), Offset(0), 1, 1, 0);
        assert_eq!(table.check(&batch(1, 0, 2, 1)), Verdict::Append, "a batch may wrap within");
        assert!(matches!(table.check(&batch(1, 0, i32::MAX, 3)), Verdict::Duplicate { .. }));
    }

    #[test]
    fn a_marker_leaves_an_epoch_without_batches() {
        let mut table = table(&[3]);
        table.apply_marker(ProducerId(1), ProducerEpoch(1), 5000);
        assert_eq!(table.check(&batch(1, 1, 0, 1)), Verdict::Append);
        assert_eq!(table.check(&batch(1, 1, 3, 1)), OUT_OF_ORDER);
        assert_eq!(table.check(&batch(1, 0, 3, 1)), Verdict::Refused(ErrorCode::InvalidProducerEpoch));
    }

    #[test]
    fn silence_expires() {
        let mut table = table(&[1, 1]);
        table.expire((1001 + 99) * 1_000_000, 100);
        assert_eq!(table.len(), 1);
        table.expire((1001 + 100) * 1_000_000, 100);
        assert!(table.is_empty());
    }

    #[test]
    fn what_was_before_this_life_counts_from_its_start() {
        let stored = table(&[1]).snapshot(Offset(1));
        let mut table = ProducerTable::restore(&stored);
        table.touch(5_000_000_000);
        table.expire(5_099_000_000, 100);
        assert_eq!(table.len(), 1);
        table.expire(5_100_000_000, 100);
        assert!(table.is_empty());
    }

    #[test]
    fn the_number_of_producers_is_bounded_and_the_newest_stay() {
        let mut table = ProducerTable::default();
        let count = PRODUCERS_MAX as i64 + 10;
        for id in 0..count {
            table.apply(&batch(id, 0, 0, 1), Offset(id), id, id, 0);
            assert!(table.len() <= PRODUCERS_MAX);
        }
        assert!(matches!(table.check(&batch(count - 1, 0, 0, 1)), Verdict::Duplicate { .. }));
        assert_eq!(table.check(&batch(0, 0, 5, 1)), Verdict::Append, "the oldest was forgotten");
    }

    #[test]
    fn a_snapshot_leaves_out_what_is_not_in_segments() {
        let table = table(&[3, 2, 4]);
        let upto_two = table.snapshot(Offset(5));
        let restored = ProducerTable::restore(&upto_two);
        assert_eq!(restored.check(&batch(1, 0, 5, 4)), Verdict::Append, "its retry is no duplicate");
        assert!(matches!(restored.check(&batch(1, 0, 3, 2)), Verdict::Duplicate { .. }));
        assert_eq!(table.snapshot(Offset(8)), upto_two, "half a batch is not there");
        assert_eq!(table.snapshot(Offset(2)), []);
    }

    /// Kafka's rule in the shortest form: one producer, one epoch, everything ever appended.
    fn model(history: &[(i32, i32)], first: i32, records: i32) -> Verdict {
        let Some((last_first, last_records)) = history.last() else { return Verdict::Append };
        let recent = history.iter().rev().take(BATCHES_KEPT);
        let mut end: i64 = history.iter().map(|(_, n)| i64::from(*n)).sum();
        for (old_first, old_records) in recent {
            end -= i64::from(*old_records);
            if (*old_first, *old_records) == (first, records) {
                let last_offset = Offset(end + i64::from(records) - 1);
                return Verdict::Duplicate { base_offset: Offset(end), last_offset, timestamp_ms: 0 };
            }
        }
        let next = (i64::from(*last_first) + i64::from(*last_records)) % (i64::from(i32::MAX) + 1);
        if next == i64::from(first) { Verdict::Append } else { OUT_OF_ORDER }
    }

    proptest! {
        #[test]
        fn verdicts_are_the_models(
            start in prop_oneof![Just(0), i32::MAX - 20..=i32::MAX],
            tries in proptest::collection::vec((0usize..8, 1i32..5, -1i32..2), 1..60),
        ) {
            let mut table = ProducerTable::default();
            let mut history: Vec<(i32, i32)> = Vec::new();
            let mut end = 0;
            for (back, records, skew) in tries {
                // Mostly the next batch, sometimes an old one or one that does not fit.
                let next = history.last().map_or(start, |(f, n)| increment_sequence(*f, *n));
                let (first, records) = match history.iter().rev().nth(back) {
                    Some(old) if skew == 0 => *old,
                    _ => ((next.wrapping_add(skew.min(0))).max(0), records),
                };
                let verdict = table.check(&batch(1, 0, first, records));
                prop_assert_eq!(verdict, model(&history, first, records));
                if verdict == Verdict::Append {
                    table.apply(&batch(1, 0, first, records), Offset(end), 0, 0, 0);
                    history.push((first, records));
                    end += i64::from(records);
                }
                let copy = ProducerTable::restore(&table.snapshot(Offset(end)));
                prop_assert_eq!(copy.snapshot(Offset(i64::MAX)), table.snapshot(Offset(i64::MAX)));
            }
        }
    }
}

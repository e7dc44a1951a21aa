//! The tail ring: the newest flush groups in memory, and which of their batches are durable and which are in segments.
//!
//! Groups come in when they are sealed, in order; durable marks move with them. Nothing leaves before it is destaged, so
//! everything that is not in a segment yet is here.

use crate::carry::Carry;
use crate::core_log::{Item, Sealed};
use crate::format::group::EntryKind;
use crate::log::{Log, LogEvent, Slot};
use crate::partition::{DestageStep, TailEntry};
use ringmill_types::GroupSeq;
use ringmill_types::limits::DESTAGE_BYTES;

/// A group that is still (partly) in the tail ring.
pub(crate) struct TailGroup {
    pub sequence: GroupSeq,
    pub bytes: u64,
    pub items: Vec<Item>,
    /// Batches of it that are not in a segment yet.
    pub undestaged: u32,
}

impl Log {
    pub(crate) fn take_sealed(&mut self, sealed: Sealed) {
        let bytes = sealed.buf.len() as u64;
        self.metrics.groups += 1;
        self.metrics.group_bytes += bytes;
        self.tail_bytes += bytes;
        self.held_bytes += bytes;
        let mut undestaged = 0;
        for item in sealed.items.iter().filter(|i| i.kind.holds_batch()) {
            let Some(part) = self.parts.get_mut(item.slot) else { continue };
            if part.deleted {
                continue;
            }
            undestaged += 1;
            let buf = sealed.buf.slice(item.at as usize, (item.at + item.len) as usize);
            if let Some(carry) = part.carry.as_mut().filter(|_| item.kind == EntryKind::Carry) {
                carry.sealed(item.base, sealed.sequence, buf);
                continue;
            }
            part.tail.push_back(TailEntry {
                base: item.base,
                last: item.last,
                max_timestamp_ms: item.max_timestamp_ms,
                group: sealed.sequence,
                buf,
            });
            part.undestaged_bytes += u64::from(item.len);
            self.undestaged_bytes += u64::from(item.len);
            if !part.config.is_durable() && part.high_watermark < item.last.plus(1) {
                part.high_watermark = item.last.plus(1);
                self.events.push_back(LogEvent::Advanced(Slot(item.slot)));
            }
        }
        self.events.push_back(LogEvent::Sealed(sealed.sequence));
        self.groups.push_back(TailGroup {
            sequence: sealed.sequence,
            bytes,
            items: sealed.items,
            undestaged,
        });
    }

    /// Groups that were given up: they hold nothing here, but groups are found by their distance from the first.
    pub(crate) fn skip_groups(&mut self, first: u64, next: u64) {
        self.groups.extend((first..next).map(|sequence| TailGroup {
            sequence: GroupSeq(sequence),
            bytes: 0,
            items: Vec::new(),
            undestaged: 0,
        }));
    }

    /// Moves the durable marks of every partition in the groups that just became durable.
    pub(crate) fn after_durable(&mut self) {
        let durable = self.core_log.durable();
        if durable == self.durable_seen {
            return;
        }
        let first = self.groups.front().map_or(durable.0 + 1, |g| g.sequence.0);
        let mut removed = Vec::new();
        let mut large = Vec::new();
        for sequence in (self.durable_seen.0 + 1).max(first)..=durable.0 {
            let Some(group) = self.groups.get((sequence - first) as usize) else { continue };
            for item in &group.items {
                let Some(part) = self.parts.get_mut(item.slot) else { continue };
                match item.kind {
                    EntryKind::Batch => {
                        part.durable = part.durable.max(item.last.plus(1));
                        if part.step == DestageStep::Idle && part.undestaged_bytes >= DESTAGE_BYTES as u64 {
                            large.push(item.slot);
                        }
                        if part.high_watermark < part.durable {
                            part.high_watermark = part.durable;
                            if self.events.back() != Some(&LogEvent::Advanced(Slot(item.slot))) {
                                self.events.push_back(LogEvent::Advanced(Slot(item.slot)));
                            }
                        }
                    }
                    EntryKind::Tombstone => removed.push(item.slot),
                    EntryKind::TruncateTo
                    | EntryKind::LogStart
                    | EntryKind::Epoch
                    | EntryKind::Carry
                    | EntryKind::NoOp => {}
                }
            }
        }
        self.durable_seen = durable;
        self.carried();
        self.events.push_back(LogEvent::Durable(durable));
        for slot in large {
            self.requeue_destage(slot);
        }
        for slot in removed {
            self.drop_partition(slot);
        }
    }

    /// The tombstone is durable: memory goes now, the folder through a job.
    fn drop_partition(&mut self, slot: u32) {
        let Some(id) = self.parts.get(slot).map(|part| part.id) else { return };
        self.drop_tail(slot);
        // Nothing else may come that would: a stop may wait for the room in the core log that this gives back.
        self.advance_destaged();
        self.destage.remove_dirs.push_back(slot);
        self.checkpoint.note_deleted(slot, id);
    }

    /// Nothing of a deleted partition needs to be destaged any more.
    pub(crate) fn drop_tail(&mut self, slot: u32) {
        let Some(part) = self.parts.get_mut(slot) else { return };
        self.undestaged_bytes -= std::mem::take(&mut part.undestaged_bytes);
        let tail = std::mem::take(&mut part.tail);
        let destaged = std::mem::take(&mut part.tail_destaged);
        let carried = part.carry.take().map(Carry::into_groups).unwrap_or_default();
        for group in tail.iter().skip(destaged).map(|e| e.group).chain(carried) {
            self.group_destaged(group, 1);
        }
    }

    /// `batches` more of the group are in segments, or need not be.
    pub(crate) fn group_destaged(&mut self, group: GroupSeq, batches: u32) {
        let Some(front) = self.groups.front().map(|g| g.sequence.0) else { return };
        if let Some(entry) = group.0.checked_sub(front).and_then(|at| self.groups.get_mut(at as usize)) {
            assert!(entry.undestaged >= batches, "a batch is destaged once");
            entry.undestaged -= batches;
        }
    }

    /// Advances the mark below which every group is in segments.
    pub(crate) fn advance_destaged(&mut self) {
        let Some(front) = self.groups.front().map(|g| g.sequence.0) else { return };
        while self.destaged_groups < self.durable_seen {
            let next = self.destaged_groups.0 + 1;
            let done =
                next < front || self.groups.get((next - front) as usize).is_some_and(|g| g.undestaged == 0);
            if !done {
                return;
            }
            self.destaged_groups = GroupSeq(next);
            if let Some(group) = next.checked_sub(front).and_then(|at| self.groups.get(at as usize)) {
                self.held_bytes -= group.bytes;
            }
        }
    }

    /// Drops the oldest groups from memory while there are more than `keep_bytes`: only what is in segments already.
    pub(crate) fn evict(&mut self, keep_bytes: u64) {
        while self.tail_bytes > keep_bytes {
            let Some(group) = self.groups.front() else { return };
            if group.undestaged > 0 || group.sequence > self.destaged_groups {
                return;
            }
            let Some(group) = self.groups.pop_front() else { return };
            self.tail_bytes -= group.bytes;
            for item in group.items.iter().filter(|i| i.kind.holds_batch()) {
                let Some(part) = self.parts.get_mut(item.slot) else { continue };
                if part.tail.front().is_some_and(|e| e.group == group.sequence && e.base == item.base) {
                    assert!(part.tail_destaged > 0, "nothing leaves the tail before it is destaged");
                    part.tail.pop_front();
                    part.tail_destaged -= 1;
                }
            }
        }
    }
}

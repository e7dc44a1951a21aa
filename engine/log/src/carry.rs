//! Carrying forward: an offline partition must not hold the core log and the tail ring for all the others.
//!
//! What it could not destage is written again, as carry entries in newer groups, whenever it has become the oldest that
//! is held. All of it or nothing: the older groups count for it until the last carry entry is durable, so a cut in the
//! middle finds the originals, and replay drops whichever copy it meets second.

use crate::core_log::{Item, NoRoom};
use crate::format::group::EntryKind;
use crate::log::Log;
use ringmill_reactor::{Backend, Buf};
use ringmill_types::{GroupSeq, Offset};

/// One partition's batches on their way into newer groups.
#[derive(Default)]
pub(crate) struct Carry {
    /// Batches of the tail that were appended again.
    appended: usize,
    /// Of those, what was sealed: base offset, new group, and where the bytes are now.
    placed: Vec<(Offset, GroupSeq, Buf)>,
}

impl Carry {
    pub fn sealed(&mut self, base: Offset, group: GroupSeq, buf: Buf) {
        self.placed.push((base, group, buf));
    }

    pub fn into_groups(self) -> Vec<GroupSeq> {
        self.placed.into_iter().map(|(_, group, _)| group).collect()
    }
}

impl Log {
    /// Begins to carry an offline partition's batches forward, if what waits behind them is worth writing them again.
    pub(crate) fn begin_carry(&mut self, slot: u32) {
        let held_back: u64 =
            self.parts.iter().filter(|(_, p)| p.offline.is_some()).map(|(_, p)| p.undestaged_bytes).sum();
        let room = self.options.tail_bytes.min(self.core_log.capacity_bytes());
        let Some(part) = self.parts.get_mut(slot) else { return };
        // Every batch of it must be durable, as what is carried is acked already; and none on its way into a segment: a failed
        // read may have taken the partition offline meanwhile.
        let is_written = self.destage.writes_to(slot);
        let ready = part.undestaged_bytes > 0 && part.durable == part.log_end && !part.deleted && !is_written;
        if self.stopping || !ready || part.carry.is_some() || self.held_bytes < held_back * 3 / 2 + room / 8 {
            return;
        }
        part.carry = Some(Carry::default());
        self.carrying.push(slot);
    }

    /// Appends what is still to be carried, as far as there is room.
    pub(crate) fn poll_carry<B: Backend>(&mut self, io: &mut B) {
        let now_ns = io.now_ns();
        for at in 0..self.carrying.len() {
            let Some(slot) = self.carrying.get(at).copied() else { break };
            let Some(part) = self.parts.get_mut(slot) else { continue };
            let Some(carry) = part.carry.as_mut() else { continue };
            for entry in part.tail.iter().skip(part.tail_destaged + carry.appended) {
                let item = Item {
                    slot,
                    kind: EntryKind::Carry,
                    base: entry.base,
                    last: entry.last,
                    at: 0,
                    len: 0,
                    max_timestamp_ms: entry.max_timestamp_ms,
                };
                let epoch = part.epochs.epoch_of(entry.base).unwrap_or(part.leader_epoch);
                match self.core_log.append(io.pool(), now_ns, (part.id, epoch), item, &entry.buf, |_| ()) {
                    Ok(_) => {
                        carry.appended += 1;
                        self.metrics.carried_bytes += entry.buf.len() as u64;
                    }
                    // It fitted once, so it will again when the ring has room.
                    Err(NoRoom::Busy | NoRoom::TooLarge) => break,
                }
            }
        }
    }

    /// Where all of a partition is durable again, its older groups are free of it.
    pub(crate) fn carried(&mut self) {
        for slot in std::mem::take(&mut self.carrying) {
            let durable = self.durable_seen;
            let Some(part) = self.parts.get_mut(slot) else { continue };
            let Some(carry) = &part.carry else { continue };
            let count = part.tail.len() - part.tail_destaged;
            let last = carry.placed.last().map(|(_, group, _)| *group);
            if carry.placed.len() < count || last.is_some_and(|group| group > durable) {
                self.carrying.push(slot);
                continue;
            }
            let placed = part.carry.take().map(|c| c.placed).unwrap_or_default();
            let mut freed = Vec::with_capacity(placed.len());
            for (entry, (base, group, buf)) in part.tail.iter_mut().skip(part.tail_destaged).zip(placed) {
                assert_eq!(entry.base, base, "batches are carried in order");
                freed.push(std::mem::replace(&mut entry.group, group));
                entry.buf = buf;
            }
            for group in freed {
                self.group_destaged(group, 1);
            }
        }
        self.advance_destaged();
    }
}

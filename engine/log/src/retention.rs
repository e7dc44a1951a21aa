//! Retention: whole sealed segments go when the partition is too large or they are too old. Neither glommio nor the
//! disk's speed is involved: a log-start entry in the core log, and once that is durable, unlinking on the file thread.
//!
//! A log that nobody writes to any more ages too: when all of it is too old, what is in memory is destaged, the active
//! segment sealed, and the log begins at its end. The file of the last segment stays until a newer one is there.

use crate::format::group::{Entry, EntryKind};
use crate::jobs::{JobDone, JobFor};
use crate::log::{Log, LogEvent, Slot};
use crate::partition::{DestageStep, Partition, segment_files};
use crate::token::{self, token};
use ringmill_reactor::{Backend, Fs, Op};
use ringmill_types::{ErrorCode, GroupSeq, LeaderEpoch, Offset};
use std::io;
use std::path::PathBuf;

/// While a log is being closed because all of it is too old, retention looks this often, nanoseconds.
const AGEING_LOOK_NS: u64 = 1_000_000_000;

impl Log {
    /// Before folders are removed: these files' names are another partition's after that.
    pub(crate) fn remove_retired<B: Backend>(&mut self, io: &mut B) {
        while self.doomed_files.front().is_some_and(|(group, _)| *group <= self.core_log.durable()) {
            if let Some((_, paths)) = self.doomed_files.pop_front() {
                self.remove_files(io, paths);
            }
        }
    }

    pub(crate) fn poll_retention<B: Backend>(&mut self, io: &mut B, now_ns: u64) {
        if now_ns < self.next_retention_ns || self.stopping {
            return;
        }
        self.next_retention_ns = now_ns + self.options.retention_check_ms.max(100) as u64 * 1_000_000;
        let wall_ms = io.wall_ms();
        let mut ageing = false;
        let expiration_ms = self.producer_expiration_ms.unwrap_or(self.options.producer_expiration_ms);
        for slot in self.parts.slots() {
            let Some(part) = self.parts.get_mut(slot).filter(|p| !p.deleted) else { continue };
            part.producers.expire(now_ns, expiration_ms);
            let left_over = part.segments.get(1).is_some_and(|next| next.base <= part.log_start);
            let start = part.config.delete.then(|| retained_from(part, wall_ms)).flatten();
            let is_stale = part.config.delete && is_stale(part, wall_ms);
            if let Some(start) = start.or(left_over.then_some(part.log_start)) {
                self.advance_log_start(io, slot, start);
            }
            ageing |= is_stale && self.close_stale(io, slot);
        }
        if ageing {
            self.next_retention_ns = self.next_retention_ns.min(now_ns + AGEING_LOOK_NS);
        }
    }

    /// The next step towards a log of sealed segments only; false when there is none to take now.
    fn close_stale<B: Backend>(&mut self, io: &mut B, slot: u32) -> bool {
        let Some(part) = self.parts.get(slot) else { return false };
        if part.step != DestageStep::Idle {
            return false;
        }
        if part.tail.len() > part.tail_destaged {
            self.requeue_destage(slot);
        } else {
            self.seal_active(io, slot);
        }
        true
    }

    /// DeleteRecords: readers see nothing before `before` (-1: the high watermark) from now on, and whole segments below
    /// it go, as with retention. Gives the log start, and the group with which it is durable: a repeated request may
    /// find the offset moved and its entry still on the way.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` beyond the high watermark; `POLICY_VIOLATION` where the topic is compacted only;
    /// `KAFKA_STORAGE_ERROR` when the partition is offline or the core log has no room.
    pub fn delete_records<B: Backend>(
        &mut self,
        io: &mut B,
        slot: Slot,
        before: Offset,
    ) -> Result<(Offset, GroupSeq), ErrorCode> {
        let part = self.parts.get(slot.0).filter(|p| !p.deleted).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if part.offline.is_some() || self.fatal.is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if !part.config.delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let before = if before.0 == -1 { part.high_watermark } else { before };
        if before > part.high_watermark || before.0 < 0 {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if before > part.log_start && !self.advance_log_start(io, slot.0, before) {
            return Err(ErrorCode::KafkaStorageError);
        }
        let newest = self.core_log.newest();
        let part = self.parts.get(slot.0).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        Ok((part.log_start, newest))
    }

    fn advance_log_start<B: Backend>(&mut self, io: &mut B, slot: u32, start: Offset) -> bool {
        // Files whose names are about to change hands are not removed now; the next look removes them.
        let swapping = self.is_swapping(slot);
        let Some(part) = self.parts.get_mut(slot) else { return false };
        let entry = Entry {
            partition: part.id,
            arg: start.0,
            len: 0,
            crc: 0,
            epoch: LeaderEpoch(0),
            kind: EntryKind::LogStart,
        };
        let Ok(group) = self.core_log.append_event(io.pool(), io.now_ns(), slot, entry) else { return false };
        part.log_start = part.log_start.max(start);
        part.epochs.truncate_start(start);
        self.events.push_back(LogEvent::Advanced(Slot(slot)));
        self.checkpoint.note_changed(slot);
        let mut doomed = Vec::new();
        while !swapping
            && part.segments.len() > 1
            && part.segments.first().is_some_and(|s| s.sealed)
            && part.segments.get(1).is_some_and(|next| next.base <= start)
        {
            let segment = part.segments.remove(0);
            let waiting = self.cache.forget(segment.uid);
            self.events.extend(waiting.into_iter().map(LogEvent::Block));
            if let Some(open) = segment.open {
                io.detach_file(open.id);
            }
            doomed.extend(segment_files(&part.dir, segment.base));
        }
        if !doomed.is_empty() {
            self.doomed_files.push_back((group, doomed));
        }
        true
    }

    fn remove_files<B: Backend>(&mut self, io: &mut B, paths: Vec<PathBuf>) {
        let serial = self.serial();
        self.jobs.insert(serial, JobFor::Remove);
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::Removed(remove_all(fs, &paths)))) },
            token(token::JOB, serial),
        );
    }
}

fn remove_all(fs: &dyn Fs, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        match fs.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Where the log should start by the topic's limits, when that is later than it does.
fn retained_from(part: &Partition, wall_ms: i64) -> Option<Offset> {
    let mut excess = part.size_bytes() as i64 - part.config.retention_bytes;
    let mut start = None;
    for (at, segment) in part.segments.iter().enumerate().take_while(|(_, segment)| segment.sealed) {
        let next = part.segments.get(at + 1);
        let too_large = part.config.retention_bytes >= 0 && excess >= segment.bytes as i64;
        let closed_ms = next.map_or(part.last_append_ms, |next| next.created_ms);
        if !too_large && !is_too_old(part, segment.max_timestamp_ms, closed_ms, wall_ms) {
            break;
        }
        excess -= segment.bytes as i64;
        start = Some(next.map_or(part.destaged, |next| next.base));
    }
    start.filter(|s| *s > part.log_start)
}

/// Whether all that is not in sealed segments is too old, and there is any.
fn is_stale(part: &Partition, wall_ms: i64) -> bool {
    if part.offline.is_some() {
        return false;
    }
    let active = part.segments.last().filter(|s| !s.sealed && s.bytes > 0);
    let tail = part.tail.iter().skip(part.tail_destaged).map(|e| e.max_timestamp_ms);
    let Some(newest_ms) = tail.chain(active.map(|s| s.max_timestamp_ms)).max() else { return false };
    is_too_old(part, newest_ms, part.last_append_ms, wall_ms)
}

/// By the newest timestamp, also one from the future, as in Kafka: `message.timestamp.after.max.ms` says how far a client's
/// clock may be ahead. Records without a time are as old as the last of them was written.
fn is_too_old(part: &Partition, newest_ms: i64, written_ms: i64, wall_ms: i64) -> bool {
    let retention_ms = part.config.retention_ms;
    // Where nobody knows when it was written, it stays.
    let since_ms = if newest_ms >= 0 { newest_ms } else { written_ms };
    retention_ms >= 0 && (newest_ms >= 0 || since_ms > 0) && wall_ms.saturating_sub(since_ms) > retention_ms
}

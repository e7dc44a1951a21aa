//! Offsets by time: the first record at or after a timestamp, or the record with the largest one (KIP-79, KIP-734).
//!
//! The batch is found by what the core knows (segments' and tail entries' largest timestamps); looking into it, and
//! into segments, is the file thread's work.

use crate::jobs::{JobDone, JobFor};
use crate::log::{Log, Slot};
use crate::partition::segment_path;
use crate::segment::{self, Verify};
use crate::token::{self, token};
use ringmill_reactor::{Backend, Buf, Fs, Op, OpenMode};
use ringmill_record::{BatchHeader, Records};
use ringmill_types::{LeaderEpoch, Offset};
use std::io;
use std::path::PathBuf;

/// Unpacked bytes of one batch for a lookup: a core's file thread holds one at a time, beside the memory setting. A batch
/// that holds more is not looked into; nor is one whose bytes, which are stored as they came, are none that unpack.
const PAYLOAD_BYTES_MAX: u64 = 32 << 20;

/// A record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeFound {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub epoch: LeaderEpoch,
}

/// Order for the file thread: segments that may hold the record, oldest first, then the batches in memory that may if
/// none of them does.
struct FindTime {
    /// `None`: the largest timestamp.
    time_ms: Option<i64>,
    segments: Vec<(PathBuf, u64, u64)>,
    tail: Vec<Buf>,
    from: Offset,
}

impl Log {
    /// Looks up the first record at or after `time_ms`, or the one with the largest timestamp. The answer is a
    /// [`crate::LogEvent::Found`] with the ticket.
    pub fn find_time<B: Backend>(&mut self, io: &mut B, slot: Slot, time_ms: Option<i64>, ticket: u64) {
        if self.is_swapping(slot.0) {
            return self.search_after_swap(slot, time_ms, ticket);
        }
        let serial = self.serial();
        let mut order = FindTime { time_ms, segments: Vec::new(), tail: Vec::new(), from: Offset::ZERO };
        if let Some(part) = self.parts.get(slot.0) {
            // The record with the largest timestamp may be one that was deleted, as in Kafka, while its segment is there.
            let is_empty = part.log_start >= part.high_watermark;
            order.from = if time_ms.is_none() && !is_empty { Offset::ZERO } else { part.log_start };
            let tail = part
                .tail
                .iter()
                .filter(|e| e.last < part.high_watermark && e.base >= part.destaged && e.last >= order.from);
            let tail_max = tail.clone().map(|e| e.max_timestamp_ms).max().unwrap_or(-1);
            let largest = part.segments.iter().map(|s| s.max_timestamp_ms).max().unwrap_or(-1).max(tail_max);
            let wanted = time_ms.unwrap_or(largest);
            if largest >= 0 && wanted <= largest {
                for segment in part.segments.iter().filter(|s| s.max_timestamp_ms >= wanted && s.bytes > 0) {
                    let from = segment.index.as_ref().map_or(0, |i| i.position_of_time(wanted));
                    order.segments.push((
                        segment_path(&part.dir, segment.base, "log"),
                        u64::from(from),
                        segment.bytes,
                    ));
                }
                // Two, because the record that makes the first one fit may lie below the log start.
                let fitting = tail.filter(|e| e.max_timestamp_ms >= wanted);
                order.tail.extend(fitting.map(|e| e.buf.clone()).take(2));
                order.time_ms = Some(wanted);
            }
        }
        self.jobs.insert(serial, JobFor::FindTime(slot, time_ms, ticket));
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::TimeFound(order.run(fs)))) },
            token(token::JOB, serial),
        );
    }
}

impl FindTime {
    fn run(&self, fs: &dyn Fs) -> io::Result<Option<TimeFound>> {
        let Some(time_ms) = self.time_ms else { return Ok(None) };
        for (path, from, bytes) in &self.segments {
            if let Some(found) = self.in_segment(fs, path, *from, *bytes, time_ms)? {
                return Ok(Some(found));
            }
        }
        for batch in &self.tail {
            if let Some(header) = BatchHeader::parse(batch)
                && let Some(found) = in_batch(&header, batch, time_ms, self.from)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn in_segment(
        &self,
        fs: &dyn Fs,
        path: &std::path::Path,
        from: u64,
        bytes: u64,
        time_ms: i64,
    ) -> io::Result<Option<TimeFound>> {
        const STEP_BYTES: u64 = 4 << 20;
        let file = fs.open(path, OpenMode::ReadDirect)?;
        let mut at = from;
        while at < bytes {
            let mut hit: Option<TimeFound> = None;
            let mut step = STEP_BYTES;
            let scanned = loop {
                let scanned = segment::scan(
                    fs,
                    &file,
                    at,
                    (at + step).min(bytes),
                    Verify::Headers,
                    |header, _, batch| {
                        if header.max_timestamp_ms >= time_ms && hit.is_none() {
                            hit = in_batch(header, batch, time_ms, self.from);
                        }
                    },
                )?;
                // A batch larger than the step: look further at once.
                if scanned.end > at || at + step >= bytes {
                    break scanned;
                }
                step *= 4;
            };
            if hit.is_some() {
                return Ok(hit);
            }
            if scanned.end == at {
                break;
            }
            at = scanned.end;
        }
        Ok(None)
    }
}

/// The first record of a batch at or after the time, not below `from`. Of a batch that cannot be looked into it is its
/// first record: whoever reads on from there misses nothing, while "none" would send a reader to the end of the log.
fn in_batch(header: &BatchHeader, batch: &[u8], time_ms: i64, from: Offset) -> Option<TimeFound> {
    let found = |offset: Offset, timestamp_ms| {
        let holds = offset >= from && offset <= header.last_offset();
        holds.then_some(TimeFound { offset, timestamp_ms, epoch: header.leader_epoch })
    };
    // All its records have one time, and which of them are there is known without looking, unless some were compacted away.
    let stamped = header.is_log_append_time();
    if stamped && header.record_count == header.last_offset_delta.saturating_add(1) {
        return found(header.base_offset.max(from), header.max_timestamp_ms);
    }
    let beginning = || found(header.base_offset.max(from), header.max_timestamp_ms);
    let Ok(payload) = ringmill_compression::payload(header, batch, PAYLOAD_BYTES_MAX) else {
        return beginning();
    };
    for record in Records::of_payload(&payload, header.record_count) {
        let Ok(record) = record else { return beginning() };
        let timestamp_ms = match stamped {
            true => header.max_timestamp_ms,
            false => header.base_timestamp_ms.saturating_add(record.timestamp_delta_ms),
        };
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        if timestamp_ms >= time_ms
            && let Some(found) = found(offset, timestamp_ms)
        {
            return Some(found);
        }
    }
    None
}

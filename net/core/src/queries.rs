//! Control's questions about partitions of this core.

use crate::core::Core;
use crate::messages::{ControlMessage, CoreQuery, CoreReply, OffsetQuery, OffsetReply, PartitionSize};
use crate::reading::ControlRead;
use ringmill_log::TimeFound;
use ringmill_reactor::Backend;
use ringmill_types::{ErrorCode, GroupSeq, LeaderEpoch, Offset, PartitionId};
use std::fmt::Write as _;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

/// A ListOffsets query of which some answers need the file thread.
pub(crate) struct OffsetsPending {
    id: u64,
    left: usize,
    replies: Vec<OffsetReply>,
}

/// Moved log starts whose entries are on their way to the disk.
pub(crate) struct LogStarts {
    group: GroupSeq,
    id: u64,
    replies: Vec<Result<Offset, ErrorCode>>,
}

/// Producers of one partition in one answer; more are remembered only where somebody invents ids.
const PRODUCERS_SHOWN_MAX: usize = 4096;

impl<B: Backend> Core<B> {
    pub(crate) fn answer_query(&mut self, id: u64, query: CoreQuery) {
        let reply = match query {
            CoreQuery::Offsets(queries) => return self.offsets(id, &queries),
            CoreQuery::EpochEnd { partition, current_epoch, epoch } => {
                self.epoch_end(partition, current_epoch, epoch)
            }
            CoreQuery::Sizes => CoreReply::Sizes(self.sizes()),
            CoreQuery::DeleteRecords(wanted) => return self.delete_records(id, &wanted),
            CoreQuery::Producers(partitions) => self.producers(&partitions),
            CoreQuery::Append { partition, batch } => return self.append_for_control(id, partition, batch),
            CoreQuery::Read { partition, offset, max_bytes } => {
                return self.read_for_control(ControlRead { id, partition, offset, max_bytes });
            }
            CoreQuery::Metrics => CoreReply::Metrics(Box::new(self.snapshot())),
            CoreQuery::Connections => {
                let (count, shown) = self.connections();
                CoreReply::Connections { count, shown }
            }
            CoreQuery::Dump => CoreReply::Dump(self.dump()),
        };
        let core = self.settings.id;
        self.tell_control(ControlMessage::Reply { core, id, reply });
    }

    fn offsets(&mut self, id: u64, queries: &[OffsetQuery]) {
        let mut pending = OffsetsPending { id, left: 0, replies: Vec::with_capacity(queries.len()) };
        let key = self.offset_queries.insert(|_| OffsetsPending { id, left: 0, replies: Vec::new() });
        for (at, query) in queries.iter().enumerate() {
            match self.offset_of(query) {
                Some(reply) => pending.replies.push(reply),
                None => {
                    pending.left += 1;
                    self.time_tickets.insert(self.next_time_ticket, (key, at));
                    pending.replies.push(unknown());
                }
            }
        }
        let done = pending.left == 0;
        if let Some(place) = self.offset_queries.get_mut(key) {
            *place = pending;
        }
        if done {
            self.finish_offsets(key);
        }
    }

    fn finish_offsets(&mut self, key: crate::slab::Key) {
        let Some(pending) = self.offset_queries.remove(key) else { return };
        let core = self.settings.id;
        self.tell_control(ControlMessage::Reply {
            core,
            id: pending.id,
            reply: CoreReply::Offsets(pending.replies),
        });
    }

    /// `None`: the file thread looks it up, and [`Core::time_found`] follows.
    fn offset_of(&mut self, query: &OffsetQuery) -> Option<OffsetReply> {
        let failed = |error| Some(OffsetReply { error, ..unknown() });
        let Some(slot) = self.log.slot_of(query.partition) else {
            return failed(ErrorCode::UnknownTopicOrPartition);
        };
        let Some(view) = self.log.view(slot) else { return failed(ErrorCode::UnknownTopicOrPartition) };
        if view.offline.is_some() {
            return failed(ErrorCode::KafkaStorageError);
        }
        if query.current_epoch.0 >= 0 && query.current_epoch < view.leader_epoch {
            return failed(ErrorCode::FencedLeaderEpoch);
        }
        if query.current_epoch.0 >= 0 && query.current_epoch > view.leader_epoch {
            return failed(ErrorCode::UnknownLeaderEpoch);
        }
        let found = |offset: Offset, epoch: LeaderEpoch| {
            Some(OffsetReply { error: ErrorCode::None, offset, timestamp: -1, epoch })
        };
        match query.timestamp {
            LATEST => found(view.high_watermark, view.leader_epoch),
            EARLIEST | EARLIEST_LOCAL => found(view.log_start, self.log.epoch_at(slot, view.log_start)),
            time if time >= 0 || time == MAX_TIMESTAMP => {
                self.next_time_ticket += 1;
                let ticket = self.next_time_ticket;
                self.log.find_time(&mut self.io, slot, (time >= 0).then_some(time), ticket);
                None
            }
            _ => Some(unknown()),
        }
    }

    pub(crate) fn time_found(&mut self, ticket: u64, found: Option<TimeFound>) {
        let Some((key, at)) = self.time_tickets.remove(&ticket) else { return };
        let Some(pending) = self.offset_queries.get_mut(key) else { return };
        if let (Some(reply), Some(found)) = (pending.replies.get_mut(at), found) {
            *reply = OffsetReply {
                error: ErrorCode::None,
                offset: found.offset,
                timestamp: found.timestamp_ms,
                epoch: found.epoch,
            };
        }
        pending.left -= 1;
        if pending.left == 0 {
            self.finish_offsets(key);
        }
    }

    fn epoch_end(&self, partition: PartitionId, current_epoch: LeaderEpoch, epoch: LeaderEpoch) -> CoreReply {
        let failed = |error| CoreReply::EpochEnd { error, epoch: LeaderEpoch(-1), end: Offset(-1) };
        let Some(slot) = self.log.slot_of(partition) else {
            return failed(ErrorCode::UnknownTopicOrPartition);
        };
        let Some(view) = self.log.view(slot) else { return failed(ErrorCode::UnknownTopicOrPartition) };
        if current_epoch.0 >= 0 && current_epoch < view.leader_epoch {
            return failed(ErrorCode::FencedLeaderEpoch);
        }
        if current_epoch.0 >= 0 && current_epoch > view.leader_epoch {
            return failed(ErrorCode::UnknownLeaderEpoch);
        }
        let (epoch, end) = self.log.epoch_end(slot, epoch).unwrap_or((LeaderEpoch(-1), Offset(-1)));
        CoreReply::EpochEnd { error: ErrorCode::None, epoch, end }
    }

    fn sizes(&self) -> Vec<PartitionSize> {
        let views = self.log.slots().filter_map(|slot| self.log.view(slot));
        let sizes = views.map(|v| PartitionSize {
            partition: v.id,
            size_bytes: v.size_bytes,
            log_start: v.log_start,
            high_watermark: v.high_watermark,
            durable: v.durable,
            log_end: v.log_end,
            segments: v.segments,
            offline: v.offline,
            records_in: v.records_in,
            bytes_in: v.bytes_in,
            bytes_out: v.bytes_out,
        });
        sizes.collect()
    }

    /// Answered when every log start is durable: what was deleted must not come back after a cut.
    fn delete_records(&mut self, id: u64, wanted: &[(PartitionId, Offset)]) {
        let mut durable_with = None;
        let mut replies = Vec::with_capacity(wanted.len());
        for (partition, before) in wanted {
            let slot = self.log.slot_of(*partition).ok_or(ErrorCode::UnknownTopicOrPartition);
            replies.push(match slot.and_then(|slot| self.log.delete_records(&mut self.io, slot, *before)) {
                Ok((log_start, group)) => {
                    durable_with = durable_with.max(Some(group));
                    Ok(log_start)
                }
                Err(error) => Err(error),
            });
        }
        match durable_with.filter(|group| *group > self.log.durable_group()) {
            Some(group) => self.log_starts.push_back(LogStarts { group, id, replies }),
            None => self.records_deleted(id, replies),
        }
    }

    fn records_deleted(&mut self, id: u64, replies: Vec<Result<Offset, ErrorCode>>) {
        let core = self.settings.id;
        self.tell_control(ControlMessage::Reply { core, id, reply: CoreReply::DeleteRecords(replies) });
    }

    /// All groups up to this one are on disk.
    pub(crate) fn log_starts_durable(&mut self, upto: GroupSeq) {
        while self.log_starts.front().is_some_and(|starts| starts.group <= upto) {
            let Some(starts) = self.log_starts.pop_front() else { break };
            self.records_deleted(starts.id, starts.replies);
        }
    }

    fn producers(&self, partitions: &[PartitionId]) -> CoreReply {
        let of = |partition: &PartitionId| {
            let slot = self.log.slot_of(*partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
            let list = self.log.producers(slot, PRODUCERS_SHOWN_MAX);
            list.ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        CoreReply::Producers(partitions.iter().map(of).collect())
    }

    fn snapshot(&mut self) -> crate::metrics::CoreMetrics {
        let mut out = self.metrics.clone();
        let log = self.log.metrics();
        let gauges = self.log.gauges();
        let pool = self.io.pool().stats();
        out.flush_groups = log.groups;
        out.destage_bytes = log.destage_bytes;
        out.destage_writes = log.destage_writes;
        out.checkpoints = log.checkpoints;
        out.compactions = log.compactions;
        out.compacted_records = log.compacted_records;
        out.compacted_bytes = log.compacted_bytes;
        out.compaction_dirty_ppm = log.dirty_ppm;
        out.cold_reads = log.cold_reads;
        out.cold_read_bytes = log.cold_read_bytes;
        out.cache_hits = log.cache_hits;
        (
            out.tail_bytes,
            out.destage_lag_bytes,
            out.core_log_used_bytes,
            out.core_log_capacity_bytes,
            out.cache_bytes,
        ) = gauges;
        out.tail_limit_bytes = self.log.tail_limit_bytes();
        out.throttled_connections = self.limits.paused();
        out.produce_waiting = self.produces.len() as u64;
        out.partitions = self.log.slots().count() as u64;
        let views: Vec<_> = self.log.slots().filter_map(|s| self.log.view(s)).collect();
        out.partitions_offline = views.iter().filter(|v| v.offline.is_some()).count() as u64;
        out.relaxed_partitions = views.iter().filter(|v| v.relaxed).count() as u64;
        out.thread_cpu_ns = ringmill_reactor::thread::thread_cpu_ns();
        out.pool_mapped_bytes = pool.mapped_bytes;
        out.pool_used_bytes = pool.used_bytes;
        out.storage_full = self.log.is_storage_full();
        out
    }

    /// Text for whoever wonders why a core is stuck.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "core {}: turn {}, {} operations in flight",
            self.settings.id,
            self.metrics.turns,
            self.io.in_flight()
        );
        let _ = writeln!(out, "log: {}", self.log.describe());
        let _ = writeln!(
            out,
            "requests: {} produce, {} fetch waiting; {} stalled for room; {} remote appends waiting",
            self.produces.len(),
            self.fetches.len(),
            self.stalled.len(),
            self.remote_work.len()
        );
        let _ = writeln!(out, "connections: {}", self.conns.len());
        const SHOWN: usize = 50;
        for (_, conn) in self.conns.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "  {} waiting {}{}{}{} input {} B out {} pieces, idle {} ms",
                conn.peer,
                conn.waiting(),
                if conn.barrier { " barrier" } else { "" },
                if conn.stalled { " stalled" } else { "" },
                if conn.sending { " sending" } else { "" },
                conn.input.len(),
                conn.out.len(),
                self.now_ns.saturating_sub(conn.last_active_ns) / 1_000_000
            );
        }
        if self.conns.len() > SHOWN {
            let _ = writeln!(out, "  and {} more", self.conns.len() - SHOWN);
        }
        out
    }
}

fn unknown() -> OffsetReply {
    OffsetReply { error: ErrorCode::None, offset: Offset(-1), timestamp: -1, epoch: LeaderEpoch(-1) }
}

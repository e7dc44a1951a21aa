//! The one table of metrics: name, type, where the number comes from, help.
//!
//! What a core counts and this table does not name fails a test.

use super::{MetricDef, Number, Read, Unit};

macro_rules! metrics {
    ($($name:literal $read:expr, $help:literal;)*) => {
        /// All of them, in the order of output.
        pub static METRICS: &[MetricDef] = &[$(MetricDef { name: $name, read: $read, help: $help }),*];
    };
}

use Number::{Int, Millionths, Millis, Seconds};
use Read::{
    ApiCounter, ApiHistogram, BrokerGauge, ClientSoftware, ControlCounter, ControlGauge, ControlHistogram,
    CoreAnswered, CoreCounter, CoreGauge, CoreHistogram, DiskGauge, GroupLag, GroupStates, MailboxGauge,
    ProcessCounter, ProcessGauge, QuotaCounter, ScrubCounter, ScrubGauge, TopicCounter, TopicGauge,
};

// A name ending in _total is a counter; `tests.rs` keeps that.
metrics! {
    "ringmill_build_info" BrokerGauge(|_| Int(1)),
        "Always 1; the label tells the version.";
    "ringmill_ready" BrokerGauge(|b| Int(b.ready.into())),
        "1 while the broker takes requests, 0 while it stops.";
    "ringmill_topics" BrokerGauge(|b| Int(b.topics)),
        "Topics.";

    "ringmill_data_capacity_bytes" DiskGauge(|d| Int(d.capacity_bytes)),
        "Size of the file system that holds the data.";
    "ringmill_data_free_bytes" DiskGauge(|d| Int(d.free_bytes)),
        "Of it, what the broker may still take.";
    "ringmill_data_removed_bytes" DiskGauge(|d| Int(d.removed_bytes)),
        "Of files that were removed, what the file system gets back in the next seconds, step by step.";

    "ringmill_scrub_read_bytes_total" ScrubCounter(|s| Int(s.read_bytes)),
        "Bytes of sealed segments that upkeep read to check them; its rate is how fast the scrub goes.";
    "ringmill_scrub_limit_bytes_per_second" ScrubGauge(|s| Int(s.limit_bytes_per_second)),
        "How fast it may go (scrub.bytes.per.second); 0 is switched off.";
    "ringmill_scrub_segments_clean_total" ScrubCounter(|s| Int(s.segments_clean)),
        "Sealed segments whose batches all match their CRC.";
    "ringmill_scrub_segments_damaged_total" ScrubCounter(|s| Int(s.segments_damaged)),
        "Sealed segments found damaged, counted in every round; their partition goes offline and the log names the file.";
    "ringmill_scrub_segments_unreadable_total" ScrubCounter(|s| Int(s.segments_unreadable)),
        "Sealed segments that the device would not give; their partition goes offline too.";
    "ringmill_scrub_rounds_total" ScrubCounter(|s| Int(s.rounds)),
        "Rounds that went through every sealed segment.";
    "ringmill_scrub_in_round" ScrubGauge(|s| Int(s.in_round.into())),
        "1 while a round is under way.";
    "ringmill_scrub_last_round_timestamp_seconds" ScrubGauge(|s| Millis(s.last_round_unix_ms)),
        "When the last whole round ended, since 1970; 0 before the first.";
    "ringmill_scrub_last_round_seconds" ScrubGauge(|s| Millis(s.last_round_ms)),
        "How long it took.";
    "ringmill_scrub_resting" ScrubGauge(|s| Int(s.resting.into())),
        "1 where segments cannot be scrubbed; the log says why.";

    "ringmill_compaction_io_bytes_total" ScrubCounter(|s| Int(s.passes.io_bytes)),
        "Bytes that compaction passes read and wrote; its rate is how fast they go.";
    "ringmill_compaction_limit_bytes_per_second" ScrubGauge(|s| Int(s.passes.limit_bytes_per_second)),
        "How fast they may go (log.cleaner.io.max.bytes.per.second).";
    "ringmill_compaction_passes_total" ScrubCounter(|s| Int(s.passes.done)),
        "Passes that upkeep made to their end.";
    "ringmill_compaction_passes_failed_total" ScrubCounter(|s| Int(s.passes.failed)),
        "Passes that met an error and changed nothing; the log says which, and the partition is tried again.";
    "ringmill_compaction_last_failure_timestamp_seconds" ScrubGauge(|s| Millis(s.passes.last_failed_unix_ms)),
        "When the last of them did, since 1970; 0: none.";

    "ringmill_control_step_seconds" ControlHistogram(|c| &c.step_us),
        "One message of a core, such as a request, handled by control to its end. A long one delays all that control decides.";
    "ringmill_control_step_longest_seconds" ControlGauge(|c| Seconds(c.step_us.max() * 1000)),
        "The longest of them since the start.";
    "ringmill_control_queue" ControlGauge(|c| Int(c.mailboxes.iter().map(|m| m.to_control).sum())),
        "Messages of all cores that control has not taken up yet.";
    "ringmill_mailbox_to_control" MailboxGauge(|m| Int(m.to_control)),
        "Of them, those of the core.";
    "ringmill_mailbox_to_core" MailboxGauge(|m| Int(m.to_core)),
        "Messages of control that the core has not taken up yet.";

    "ringmill_groups" GroupStates,
        "Groups by state, as kafka-consumer-groups --list --state names it, and by protocol.";
    "ringmill_group_rebalances_total" ControlCounter(|c| Int(c.rebalances)),
        "Generations of classic groups, and epochs of groups of the consumer protocol, that began.";
    "ringmill_group_commit_seconds" ControlHistogram(|c| &c.commit_us),
        "From an OffsetCommit, as control takes it up, to its answer: the wait for the flush.";
    "ringmill_group_lag_records" GroupLag,
        "Records between a group's committed offset and the end of the partition.";
    "ringmill_group_lag_left_out" ControlGauge(|c| Int(c.committed_left_out)),
        "Committed offsets beyond the 20,000 whose lag is shown; ringmill group lag shows any.";

    "process_cpu_seconds_total" ProcessCounter(|p| Some(Seconds(p.cpu_ns))),
        "CPU time of the process, user and system.";
    "process_start_time_seconds" ProcessGauge(|p| p.started_ms.map(Millis)),
        "When the process began, since 1970.";
    "process_resident_memory_bytes" ProcessGauge(|p| p.resident_bytes.map(Int)),
        "Memory of the process that is in RAM.";
    "process_virtual_memory_bytes" ProcessGauge(|p| p.virtual_bytes.map(Int)),
        "Address space of the process.";
    "process_threads" ProcessGauge(|p| p.threads.map(Int)),
        "Threads of the process.";
    "process_open_fds" ProcessGauge(|p| p.open_fds.map(Int)),
        "Open files and sockets.";
    "process_max_fds" ProcessGauge(|p| p.max_fds.map(Int)),
        "Open files and sockets the system allows.";

    "ringmill_core_answered" CoreAnswered,
        "1 where the core answered this scrape, 0 where it did not in time; its other samples are missing then. See /v1/cores.";
    "ringmill_core_cpu_seconds_total" CoreCounter(|m| Seconds(m.thread_cpu_ns)),
        "CPU time of the core's thread, user and system.";
    "ringmill_core_turns_total" CoreCounter(|m| Int(m.turns)),
        "Turns of the core's loop.";
    "ringmill_core_turn_seconds" CoreHistogram(Unit::Micros, |m| &m.turn_us),
        "One turn of the loop without the wait in the kernel; with what the kernel took for its operations beyond 10 ms of waiting. A long one delays everything on the core.";

    "ringmill_requests_total" ApiCounter(|a| Int(a.requests)),
        "Requests taken up. The API Other is ApiVersions and all that control decides.";
    "ringmill_request_errors_total" ApiCounter(|a| Int(a.errors)),
        "Of them, answered with an error in any part, or with the end of the connection.";
    "ringmill_request_receive_seconds" ApiHistogram(Unit::Micros, |a| &a.receive_us),
        "From a request's first byte to its last; 0 where they came together.";
    "ringmill_request_wait_seconds" ApiHistogram(Unit::Micros, |a| &a.wait_us),
        "From a whole request to its answer: for Produce the wait for the flush, for Fetch the wait for records, for Other the wait for control.";
    "ringmill_request_send_seconds" ApiHistogram(Unit::Micros, |a| &a.send_us),
        "From an answer to the last byte that the kernel took of it; Produce with acks=0 has none.";

    "ringmill_connections" CoreGauge(|m| Int(m.connections)),
        "Open Kafka connections.";
    "ringmill_connections_accepted_total" CoreCounter(|m| Int(m.connections_accepted)),
        "Kafka connections accepted.";
    "ringmill_connections_refused_total" CoreCounter(|m| Int(m.connections_refused)),
        "Of them, closed unread because their address connects more often than its connection_creation_rate.";
    "ringmill_client_software_total" ClientSoftware,
        "ApiVersions requests by what the client calls itself; beyond 32 kinds a core they count as other.";
    "ringmill_connections_closed_idle_total" CoreCounter(|m| Int(m.connections_closed_idle)),
        "Connections closed after connections.max.idle.ms without a request.";
    "ringmill_connections_closed_error_total" CoreCounter(|m| Int(m.connections_closed_error)),
        "Connections closed because of an error or of a request that could not be understood.";
    "ringmill_connections_muted" CoreGauge(|m| Int(m.muted_connections)),
        "Connections that are not read from because their Produce finds no room yet.";
    "ringmill_connections_throttled" CoreGauge(|m| Int(m.throttled_connections)),
        "Connections that are not read from because their client is over a quota.";
    "ringmill_throttled_requests_total" QuotaCounter(|t| Int(t.requests)),
        "Requests whose client was over the quota: producer_byte_rate, consumer_byte_rate, request_percentage or controller_mutation_rate.";
    "ringmill_throttled_seconds_total" QuotaCounter(|t| Seconds(t.pauses_ns)),
        "Throttle times of these requests, as their answers had them.";
    "ringmill_received_bytes_total" CoreCounter(|m| Int(m.bytes_received)),
        "Bytes received from Kafka clients.";
    "ringmill_sent_bytes_total" CoreCounter(|m| Int(m.bytes_sent)),
        "Bytes sent to Kafka clients.";
    "ringmill_produce_waiting" CoreGauge(|m| Int(m.produce_waiting)),
        "Produce requests that wait for their flush or for room.";
    "ringmill_fetch_waiting" CoreGauge(|m| Int(m.fetch_waiting)),
        "Fetch requests that wait for records.";
    "ringmill_fetch_in_place_bytes_total" CoreCounter(|m| Int(m.fetch_bytes_in_place)),
        "Fetched record bytes sent from where they lay in memory.";
    "ringmill_fetch_copied_bytes_total" CoreCounter(|m| Int(m.fetch_bytes_copied)),
        "Fetched record bytes copied into the answer.";

    "ringmill_records_in_total" CoreCounter(|m| Int(m.records_in)),
        "Records appended.";
    "ringmill_batches_in_total" CoreCounter(|m| Int(m.batches_in)),
        "Record batches appended.";
    "ringmill_flush_groups_total" CoreCounter(|m| Int(m.flush_groups)),
        "Groups written to the core log, each with one flush.";
    "ringmill_flush_group_bytes" CoreHistogram(Unit::Bytes, |m| &m.flush_group_bytes),
        "Bytes of one flush group.";
    "ringmill_flush_seconds" CoreHistogram(Unit::Micros, |m| &m.flush_us),
        "From sealing a flush group to its bytes being on stable storage.";
    "ringmill_core_log_used_bytes" CoreGauge(|m| Int(m.core_log_used_bytes)),
        "Core log that is not yet free to be written again.";
    "ringmill_core_log_capacity_bytes" CoreGauge(|m| Int(m.core_log_capacity_bytes)),
        "Size of the core log.";
    "ringmill_tail_bytes" CoreGauge(|m| Int(m.tail_bytes)),
        "Newest records held in memory.";
    "ringmill_tail_limit_bytes" CoreGauge(|m| Int(m.tail_limit_bytes)),
        "Memory for the newest records.";
    "ringmill_destage_bytes_total" CoreCounter(|m| Int(m.destage_bytes)),
        "Bytes written to segment files, with padding.";
    "ringmill_destage_writes_total" CoreCounter(|m| Int(m.destage_writes)),
        "Writes to segment files.";
    "ringmill_destage_lag_bytes" CoreGauge(|m| Int(m.destage_lag_bytes)),
        "Durable bytes that are in the core log only, not yet in segment files.";
    "ringmill_checkpoints_total" CoreCounter(|m| Int(m.checkpoints)),
        "Checkpoints written.";
    "ringmill_compactions_total" CoreCounter(|m| Int(m.compactions)),
        "Compaction passes whose segments took the place of the old ones.";
    "ringmill_compacted_records_total" CoreCounter(|m| Int(m.compacted_records)),
        "Records that compaction removed.";
    "ringmill_compacted_bytes_total" CoreCounter(|m| Int(m.compacted_bytes)),
        "Bytes of segments that compaction freed.";
    "ringmill_compaction_dirty_ratio" CoreGauge(|m| Millionths(m.compaction_dirty_ppm)),
        "Share of sealed segments that compaction has not compared yet, in the core's compacted partition where it is largest; above min.cleanable.dirty.ratio for long means that compaction does not keep up.";
    "ringmill_cold_reads_total" CoreCounter(|m| Int(m.cold_reads)),
        "Reads of segment files for fetches.";
    "ringmill_cold_read_bytes_total" CoreCounter(|m| Int(m.cold_read_bytes)),
        "Bytes read from segment files for fetches.";
    "ringmill_cache_hits_total" CoreCounter(|m| Int(m.cache_hits)),
        "Fetches of older records that found their block in memory.";
    "ringmill_cache_bytes" CoreGauge(|m| Int(m.cache_bytes)),
        "Blocks of segment files held in memory.";
    "ringmill_pool_mapped_bytes" CoreGauge(|m| Int(m.pool_mapped_bytes)),
        "Memory mapped for the core's buffers.";
    "ringmill_pool_used_bytes" CoreGauge(|m| Int(m.pool_used_bytes)),
        "Of it, in use.";
    "ringmill_partitions" CoreGauge(|m| Int(m.partitions)),
        "Partitions the core owns.";
    "ringmill_partitions_offline" CoreGauge(|m| Int(m.partitions_offline)),
        "Of them, offline because their files met an error.";
    "ringmill_partitions_relaxed" CoreGauge(|m| Int(m.relaxed_partitions)),
        "Of them, of topics whose acks do not wait for the flush.";
    "ringmill_storage_full" CoreGauge(|m| Int(m.storage_full.into())),
        "1 while the core has no room to append.";

    "ringmill_topic_partitions" TopicGauge(|t| Int(t.partitions)),
        "Partitions of the topic.";
    "ringmill_topic_partitions_offline" TopicGauge(|t| Int(t.offline)),
        "Of them, offline because their files met an error.";
    "ringmill_topic_relaxed" TopicGauge(|t| Int(t.relaxed.into())),
        "1 where acks do not wait for the flush (flush.messages above 1 on a broker that allows it).";
    "ringmill_topic_size_bytes" TopicGauge(|t| Int(t.size_bytes)),
        "Bytes of the topic's log.";
    "ringmill_topic_segments" TopicGauge(|t| Int(t.segments)),
        "Segment files of the topic.";
    "ringmill_topic_unflushed_records" TopicGauge(|t| Int(t.unflushed_records)),
        "Records appended and not yet on stable storage.";
    "ringmill_topic_records_in_total" TopicCounter(|t| Int(t.records_in)),
        "Records appended since the start.";
    "ringmill_topic_in_bytes_total" TopicCounter(|t| Int(t.bytes_in)),
        "Bytes of batches appended since the start.";
    "ringmill_topic_out_bytes_total" TopicCounter(|t| Int(t.bytes_out)),
        "Bytes of batches fetched since the start.";
}

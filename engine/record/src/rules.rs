//! What a topic asks of each record, and how a producer is told which of its records broke it: Kafka's words and
//! indexes (KIP-467), so that a client can leave out the records at fault and send the others.
//!
//! Only for batches that a quicker look refused already, or that are unpacked anyway: messages are made here.

use crate::batch::BatchHeader;
use crate::records::Records;
use ringmill_types::ErrorCode;

/// Records named in one answer. A batch of a mebibyte can hold 100,000 bad ones, and the sentence about each is longer
/// than the record; Kafka names them all.
pub const RECORDS_NAMED_MAX: usize = 1_000;

/// Where a record's timestamp may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRule {
    /// `message.timestamp.before.max.ms` and `.after.max.ms` around the broker's clock, both ends included.
    Within { earliest_ms: i64, latest_ms: i64 },
    /// The broker stamps; a producer's time says nothing, but it may not pose as the broker's.
    Stamped,
}

/// A topic's rules for the records of one partition.
#[derive(Clone, Copy, Debug)]
pub struct RecordRules<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// The topic is compacted: a record without a key cannot be told from others.
    pub keys_needed: bool,
    pub time: TimeRule,
}

/// The records of a batch that break the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecords {
    pub code: ErrorCode,
    /// About the batch.
    pub message: String,
    /// Index in the batch and why, the first [`RECORDS_NAMED_MAX`].
    pub records: Vec<(i32, String)>,
}

/// Judges every record of `payload`, which is that of the batch with this header, unpacked.
///
/// `None`: all keep the rules. As in Kafka a record without a key is not asked for its time, and one bad time decides
/// the code of the whole batch.
pub fn bad_records(header: &BatchHeader, payload: &[u8], rules: &RecordRules<'_>) -> Option<BadRecords> {
    let mut bad = Bad { records: Vec::new(), count: 0, times: false };
    for (index, record) in (0..).zip(Records::of_payload(payload, header.record_count)) {
        let Ok(record) = record else { break };
        let timestamp_ms = header.base_timestamp_ms.saturating_add(record.timestamp_delta_ms);
        if rules.keys_needed && record.key.is_none() {
            bad.note(index, || {
                let (topic, partition) = (rules.topic, rules.partition);
                format!(
                    "Compacted topic cannot accept message without key in topic partition {topic}-{partition}"
                )
            });
            continue;
        }
        match rules.time {
            TimeRule::Within { earliest_ms, latest_ms }
                if timestamp_ms != -1 && !(earliest_ms..=latest_ms).contains(&timestamp_ms) =>
            {
                bad.times = true;
                bad.note(index, || {
                    format!(
                        "Timestamp {timestamp_ms} of message with offset {} is out of range. The timestamp should be \
                         within [{earliest_ms}, {latest_ms}]",
                        record.offset_delta
                    )
                });
            }
            TimeRule::Stamped if header.is_log_append_time() => {
                bad.times = true;
                bad.note(index, || {
                    format!(
                        "Invalid timestamp type in message DefaultRecord(offset={}, timestamp={}, key={} bytes, \
                         value={} bytes). Producer should not set timestamp type to LogAppendTime.",
                        record.offset_delta,
                        header.max_timestamp_ms,
                        record.key.map_or(0, <[u8]>::len),
                        record.value.map_or(0, <[u8]>::len)
                    )
                });
            }
            TimeRule::Within { .. } | TimeRule::Stamped => {}
        }
    }
    bad.sum_up()
}

/// The verdict where the records cannot be looked at: times by what the header of a compressed batch claims.
pub fn bad_time_unseen() -> BadRecords {
    BadRecords { code: ErrorCode::InvalidTimestamp, message: BAD_TIME.to_owned(), records: Vec::new() }
}

const BAD_TIME: &str = "One or more records have been rejected due to invalid timestamp";

struct Bad {
    records: Vec<(i32, String)>,
    count: usize,
    times: bool,
}

impl Bad {
    fn note(&mut self, index: i32, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.records.len() < RECORDS_NAMED_MAX {
            self.records.push((index, why()));
        }
    }

    fn sum_up(self) -> Option<BadRecords> {
        if self.count == 0 {
            return None;
        }
        if self.times {
            return Some(BadRecords { records: self.records, ..bad_time_unseen() });
        }
        let shown: Vec<String> = self
            .records
            .iter()
            .take(3)
            .map(|(index, why)| format!("RecordError(batchIndex={index}, message='{why}')"))
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first \
             three errors at most: [{}]",
            self.count,
            shown.join(", ")
        );
        Some(BadRecords { code: ErrorCode::InvalidRecord, message, records: self.records })
    }
}

//! The records of a produced batch against the rules of its topic.
//!
//! On a core: what the headers and uncompressed records say, for every batch. Compressed batches are believed there,
//! because unpacking a mebibyte takes milliseconds in which nothing else on the core would move. Only a compacted topic
//! cannot live with that (a record without a key would stay for ever, a wrong count breaks what compaction writes), so
//! its compressed batches go to the file thread first: [`unpack_and_judge`].

use crate::decompress;
use ringmill_record::rules::bad_time_unseen;
use ringmill_record::{
    BadRecords, BatchHeader, Compression, HEADER_BYTES, Produced, RecordRules, Records, Refusal, TimeRule,
    bad_records, validate_produced, validate_unpacked,
};
use ringmill_types::{TimestampType, TopicConfig};
use std::io;

/// Unpacked bytes of a batch for a compacted topic. Compaction has to hold them all at once.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// Why a batch that was unpacked is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Refused(Refusal),
    BadRecords(Box<BadRecords>),
}

/// Whether the records have to be unpacked before the batch may be appended to a topic of this kind.
pub fn needs_unpacking(config: &TopicConfig, records: &[u8]) -> bool {
    config.compacted
        && BatchHeader::parse(records)
            .is_some_and(|h| h.magic == 2 && h.compression() != Some(Compression::None))
}

/// Everything that `validate_produced` and the rules of a topic ask of a compressed batch, after unpacking it. Takes
/// milliseconds: not for a core's thread. `at`: topic and partition, as they are named to the client.
///
/// # Errors
/// [`Judgement`], in the order in which Kafka looks.
pub fn unpack_and_judge(
    records: &[u8],
    produce_version: i16,
    config: &TopicConfig,
    at: (&str, i32),
    wall_ms: i64,
) -> Result<Produced, Judgement> {
    let header = validate_produced(Some(records), produce_version).map_err(Judgement::Refused)?.header;
    let payload = decompress::payload(&header, records, UNPACKED_BYTES_MAX).map_err(|error| {
        Judgement::Refused(match error.kind() {
            io::ErrorKind::FileTooLarge => Refusal::UnpackedTooLarge,
            _ => Refusal::Unpack,
        })
    })?;
    if let Some(bad) = bad_records(&header, &payload, &record_rules(config, at, wall_ms)) {
        return Err(Judgement::BadRecords(Box::new(bad)));
    }
    validate_unpacked(header, &payload).map_err(Judgement::Refused)
}

/// The quick look at every batch on its way into the log.
///
/// # Errors
/// [`BadRecords`], naming them where they can be seen.
pub(crate) fn check_records(
    produced: &Produced,
    batch: &[u8],
    config: &TopicConfig,
    at: (&str, i32),
    wall_ms: i64,
) -> Result<(), BadRecords> {
    let header = &produced.header;
    let rules = record_rules(config, at, wall_ms);
    let bad_time = match rules.time {
        TimeRule::Within { earliest_ms, latest_ms } => {
            produced.max_timestamp_ms > latest_ms || produced.min_timestamp_ms < earliest_ms
        }
        TimeRule::Stamped => header.is_log_append_time(),
    };
    let is_bad = bad_time || rules.keys_needed && has_null_key(header, batch);
    if !is_bad {
        return Ok(());
    }
    let payload = batch.get(HEADER_BYTES..).filter(|_| header.compression() == Some(Compression::None));
    Err(payload.and_then(|payload| bad_records(header, payload, &rules)).unwrap_or_else(bad_time_unseen))
}

fn has_null_key(header: &BatchHeader, batch: &[u8]) -> bool {
    Records::new(header, batch).is_ok_and(|mut records| records.any(|r| r.is_ok_and(|r| r.key.is_none())))
}

fn record_rules<'a>(config: &TopicConfig, at: (&'a str, i32), wall_ms: i64) -> RecordRules<'a> {
    let time = match config.timestamp_type {
        TimestampType::CreateTime => TimeRule::Within {
            earliest_ms: wall_ms.saturating_sub(config.timestamp_before_max_ms),
            latest_ms: wall_ms.saturating_add(config.timestamp_after_max_ms),
        },
        TimestampType::LogAppendTime => TimeRule::Stamped,
    };
    RecordRules { topic: at.0, partition: at.1, keys_needed: config.compacted, time }
}

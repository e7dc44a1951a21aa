//! The records of a produced batch against the rules of its topic.
//!
//! On a core: what the headers and uncompressed records say, for every batch. Compressed batches are believed there,
//! because unpacking a mebibyte takes milliseconds in which nothing else on the core would move. Only a compacted topic
//! cannot live with that (a record without a key would stay for ever, a wrong count breaks what compaction writes), so
//! its compressed batches are unpacked first, beside the core: [`unpack_and_judge`]. So is what a topic stores in another
//! compression than it came in (`compression.type`), which is packed anew there too.

use ringmill_record::batch::patch_compression;
use ringmill_record::rules::bad_time_unseen;
use ringmill_record::{
    BadRecords, BatchHeader, Compression, HEADER_BYTES, Produced, RecordRules, Records, Refusal, TimeRule,
    bad_records, validate_produced, validate_unpacked,
};
use ringmill_types::{Packing, TimestampType, TopicConfig};
use std::io;

/// Unpacked bytes of a batch that is looked into. Compaction has to hold them all at once.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// To the client whose batch is [`Judgement::TooLarge`].
pub const TOO_LARGE: &str = "the batch is larger than max.message.bytes";

/// Why a batch that was to be unpacked is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// More bytes, as it came, than `max.message.bytes`.
    TooLarge,
    Refused(Refusal),
    BadRecords(Box<BadRecords>),
}

/// Whether the records have to be unpacked before the batch may be appended to a topic of this kind.
pub fn needs_unpacking(config: &TopicConfig, records: &[u8]) -> bool {
    if !config.compacted && config.stored_as.is_none() {
        return false;
    }
    let Some(header) = BatchHeader::parse(records).filter(|h| h.magic == 2) else { return false };
    config.compacted && header.compression() != Some(Compression::None)
        || packing_for(config, &header).is_some()
}

/// What the batch is to be packed with, where that is not what it came in. As in Kafka another level of the same
/// compression is not another compression.
fn packing_for(config: &TopicConfig, header: &BatchHeader) -> Option<Packing> {
    let came = header.compression()?;
    config.stored_as.filter(|packing| packing.compression != came)
}

/// A batch that was looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub produced: Produced,
    /// Its bytes as they are to be stored, where those are others than it came in. `produced` is about them then.
    pub packed: Option<Vec<u8>>,
}

/// Everything that `validate_produced` and the rules of a topic ask of a batch, after unpacking it; then the batch in the
/// topic's compression. Takes milliseconds: not for a core's thread. `at`: topic and partition, as they are named to the
/// client.
///
/// # Errors
/// [`Judgement`], in the order in which Kafka looks: what is too large as it came is refused for that, however small it
/// would get. What gets too large is refused when it is appended.
pub fn unpack_and_judge(
    records: &[u8],
    produce_version: i16,
    config: &TopicConfig,
    at: (&str, i32),
    wall_ms: i64,
) -> Result<Judged, Judgement> {
    let header = validate_produced(Some(records), produce_version).map_err(Judgement::Refused)?.header;
    if header.size_bytes as u64 > config.max_message_bytes {
        return Err(Judgement::TooLarge);
    }
    let payload = ringmill_compression::payload(&header, records, UNPACKED_BYTES_MAX).map_err(|error| {
        Judgement::Refused(match error.kind() {
            io::ErrorKind::FileTooLarge => Refusal::UnpackedTooLarge,
            _ => Refusal::Unpack,
        })
    })?;
    if let Some(bad) = bad_records(&header, &payload, &record_rules(config, at, wall_ms)) {
        return Err(Judgement::BadRecords(Box::new(bad)));
    }
    let produced = validate_unpacked(header, &payload).map_err(Judgement::Refused)?;
    match packing_for(config, &header) {
        None => Ok(Judged { produced, packed: None }),
        Some(packing) => pack(&produced, records, payload.into_owned(), packing).map_err(|error| {
            tracing::warn!(%error, topic = at.0, partition = at.1, "a batch could not be packed as its topic wants it");
            Judgement::Refused(Refusal::Pack)
        }),
    }
}

/// The batch with its records packed anew. Producer, sequence, offsets and timestamps stay as they came: only the length,
/// the compression's code and the CRC are others.
fn pack(produced: &Produced, records: &[u8], payload: Vec<u8>, packing: Packing) -> io::Result<Judged> {
    let body = ringmill_compression::compress_as(packing, payload)?;
    let head = records.get(..HEADER_BYTES).unwrap_or_default();
    let mut packed = Vec::with_capacity(head.len() + body.len());
    packed.extend_from_slice(head);
    packed.extend_from_slice(&body);
    let header = patch_compression(&mut packed, packing.compression).ok_or(io::ErrorKind::FileTooLarge)?;
    Ok(Judged { produced: Produced { header, ..*produced }, packed: Some(packed) })
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

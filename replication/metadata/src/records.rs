//! Records of the metadata journal, and their bytes.
//!
//! A frame, little-endian:
//!
//! ```text
//!  byte  0        4        8         8+length
//!        | length | crc    | payload |
//!        | u32    | u32    |         |
//! ```
//!
//! The length counts the payload, the CRC (CRC32C) covers it. Bit 31 of the length says that the record was appended
//! together with the one before it; then the CRC covers the length field, too, which stands before the payload. A payload
//! is `kind u8 | fields`. Strings and lists carry a `u32` count. Kinds are never reused; a field is never removed; what
//! a newer version adds to a kind stands at the end and is optional.

use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::collections::BTreeMap;
use std::fmt;

/// Overrides by name, as the user wrote them.
pub type Configs = BTreeMap<String, String>;

/// Whom quotas bind: `user` and `client-id` by type, `None` being the default entity of the type.
pub type QuotaEntity = BTreeMap<String, Option<String>>;

/// Limits by Kafka's names of them.
pub type Quotas = BTreeMap<String, Limit>;

/// The value of a quota, by its bits: records are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u64);

impl From<f64> for Limit {
    fn from(value: f64) -> Limit {
        Limit(value.to_bits())
    }
}

impl From<Limit> for f64 {
    fn from(limit: Limit) -> f64 {
        f64::from_bits(limit.0)
    }
}

/// Bytes before a payload.
pub const FRAME_HEAD_BYTES: usize = 8;
/// A longer payload is damage.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// In the length of a frame: appended together with the frame before it.
const TOGETHER: u32 = 1 << 31;
const _: () = assert!(PAYLOAD_BYTES_MAX < TOGETHER as usize);

/// One partition as a record has it; its index is its place in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    pub id: PartitionId,
    pub core: CoreId,
    pub epoch: LeaderEpoch,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    TopicCreated {
        name: String,
        id: TopicId,
        created_ms: i64,
        configs: Configs,
        partitions: Vec<PartitionRecord>,
    },
    /// The next partitions of the topic.
    PartitionsAdded {
        id: TopicId,
        partitions: Vec<PartitionRecord>,
    },
    TopicDeleted {
        id: TopicId,
    },
    /// All overrides of the topic, replacing those before.
    TopicConfigs {
        id: TopicId,
        configs: Configs,
    },
    /// All configs of something that is no topic, replacing those before: Kafka's code of the resource type and its
    /// name. None left forgets it.
    ResourceConfigs {
        kind: i8,
        name: String,
        configs: Configs,
    },
    /// All quotas of an entity, replacing those before; none left forgets it.
    ClientQuotas {
        entity: QuotaEntity,
        quotas: Quotas,
    },
    /// A feature has this level from now on (KIP-584); `epoch` counts such decisions.
    Feature {
        name: String,
        level: i16,
        epoch: i64,
    },
    /// Producer ids below this were given out or may have been.
    ProducerIds {
        next: i64,
    },
    /// Partition ids below this were given out. Written by snapshots: the topics that had them may be gone.
    PartitionIds {
        next: u64,
    },
    /// Partitions whose core changed, because the number of cores did.
    Placed {
        moves: Vec<(PartitionId, CoreId)>,
    },
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The bytes end within the frame.
    Torn,
    /// The CRC or the structure is wrong.
    Damaged,
    /// A kind from a newer version.
    UnknownKind(u8),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Torn => f.write_str("the record is cut off"),
            RecordError::Damaged => f.write_str("the record is damaged"),
            RecordError::UnknownKind(kind) => write!(
                f,
                "a record of kind {kind}, which this version does not know; it was written by a newer version: run that"
            ),
        }
    }
}

impl std::error::Error for RecordError {}

const TOPIC_CREATED: u8 = 1;
const PARTITIONS_ADDED: u8 = 2;
const TOPIC_DELETED: u8 = 3;
const TOPIC_CONFIGS: u8 = 4;
// 5 was never written.
const PRODUCER_IDS: u8 = 6;
const PARTITION_IDS: u8 = 7;
const PLACED: u8 = 8;
const RESOURCE_CONFIGS: u8 = 9;
const CLIENT_QUOTAS: u8 = 10;
const FEATURE: u8 = 11;

impl Record {
    /// Appends the frame of this record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_frame(out, 0);
    }

    /// Appends the frames of records that are written at once: if the first of them is not there, none of them is.
    pub fn encode_together(records: &[Record], out: &mut Vec<u8>) {
        for (at, record) in records.iter().enumerate() {
            record.encode_frame(out, if at == 0 { 0 } else { TOGETHER });
        }
    }

    fn encode_frame(&self, out: &mut Vec<u8>, flag: u32) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        self.encode_payload(out);
        let payload = out.get(start + FRAME_HEAD_BYTES..).unwrap_or_default();
        let word = payload.len() as u32 | flag;
        let crc = frame_crc(word, payload);
        if let Some(head) = out.get_mut(start..start + FRAME_HEAD_BYTES) {
            head[..4].copy_from_slice(&word.to_le_bytes());
            head[4..].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Record::TopicCreated { name, id, created_ms, configs, partitions } => {
                out.push(TOPIC_CREATED);
                put_text(out, name);
                out.extend_from_slice(&id.0);
                out.extend_from_slice(&created_ms.to_le_bytes());
                put_configs(out, configs);
                put_partitions(out, partitions);
            }
            Record::PartitionsAdded { id, partitions } => {
                out.push(PARTITIONS_ADDED);
                out.extend_from_slice(&id.0);
                put_partitions(out, partitions);
            }
            Record::TopicDeleted { id } => {
                out.push(TOPIC_DELETED);
                out.extend_from_slice(&id.0);
            }
            Record::TopicConfigs { id, configs } => {
                out.push(TOPIC_CONFIGS);
                out.extend_from_slice(&id.0);
                put_configs(out, configs);
            }
            Record::ResourceConfigs { kind, name, configs } => {
                out.push(RESOURCE_CONFIGS);
                out.extend_from_slice(&kind.to_le_bytes());
                put_text(out, name);
                put_configs(out, configs);
            }
            Record::ClientQuotas { entity, quotas } => {
                out.push(CLIENT_QUOTAS);
                put_quotas(out, entity, quotas);
            }
            Record::Feature { name, level, epoch } => {
                out.push(FEATURE);
                put_text(out, name);
                out.extend_from_slice(&level.to_le_bytes());
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Record::ProducerIds { next } => {
                out.push(PRODUCER_IDS);
                out.extend_from_slice(&next.to_le_bytes());
            }
            Record::PartitionIds { next } => {
                out.push(PARTITION_IDS);
                out.extend_from_slice(&next.to_le_bytes());
            }
            Record::Placed { moves } => {
                out.push(PLACED);
                out.extend_from_slice(&(moves.len() as u32).to_le_bytes());
                for (id, core) in moves {
                    out.extend_from_slice(&id.0.to_le_bytes());
                    out.extend_from_slice(&core.0.to_le_bytes());
                }
            }
        }
    }

    /// Reads the frame at the start of `bytes`: the record, and how long its frame is.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<(Record, usize), RecordError> {
        let word = u32::from_le_bytes(*bytes.first_chunk::<4>().ok_or(RecordError::Torn)?);
        let length = (word & !TOGETHER) as usize;
        if length == 0 || length > PAYLOAD_BYTES_MAX {
            return Err(RecordError::Damaged);
        }
        let crc = bytes
            .get(4..8)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
            .ok_or(RecordError::Torn)?;
        let end = FRAME_HEAD_BYTES + length;
        let payload = bytes.get(FRAME_HEAD_BYTES..end).ok_or(RecordError::Torn)?;
        if frame_crc(word, payload) != crc {
            return Err(RecordError::Damaged);
        }
        let mut reader = Reader { rest: payload };
        let record = reader.record()?;
        Ok((record, end))
    }
}

/// The frame at the start of `bytes` was appended together with the one before it.
pub(crate) fn is_together(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|word| u32::from_le_bytes(*word) & TOGETHER != 0)
}

/// All of `bytes` is one frame whose payload is as it was written, while the length before it is not.
pub(crate) fn has_only_a_wrong_length(bytes: &[u8]) -> bool {
    let Some((head, payload)) = bytes.split_at_checked(FRAME_HEAD_BYTES) else { return false };
    let crc = head.last_chunk::<4>().map(|crc| u32::from_le_bytes(*crc));
    let length = payload.len() as u32;
    !payload.is_empty()
        && [length, length | TOGETHER].iter().any(|word| crc == Some(frame_crc(*word, payload)))
}

fn frame_crc(word: u32, payload: &[u8]) -> u32 {
    if word & TOGETHER == 0 {
        return crc32c::crc32c(payload);
    }
    crc32c::crc32c_append(crc32c::crc32c(&word.to_le_bytes()), payload)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_configs(out: &mut Vec<u8>, configs: &Configs) {
    out.extend_from_slice(&(configs.len() as u32).to_le_bytes());
    for (name, value) in configs {
        put_text(out, name);
        put_text(out, value);
    }
}

/// The entity's parts with a byte for "a name follows", then the quotas.
fn put_quotas(out: &mut Vec<u8>, entity: &QuotaEntity, quotas: &Quotas) {
    out.extend_from_slice(&(entity.len() as u32).to_le_bytes());
    for (kind, name) in entity {
        put_text(out, kind);
        out.push(u8::from(name.is_some()));
        if let Some(name) = name {
            put_text(out, name);
        }
    }
    out.extend_from_slice(&(quotas.len() as u32).to_le_bytes());
    for (key, limit) in quotas {
        put_text(out, key);
        out.extend_from_slice(&limit.0.to_le_bytes());
    }
}

fn put_partitions(out: &mut Vec<u8>, partitions: &[PartitionRecord]) {
    out.extend_from_slice(&(partitions.len() as u32).to_le_bytes());
    for partition in partitions {
        out.extend_from_slice(&partition.id.0.to_le_bytes());
        out.extend_from_slice(&partition.core.0.to_le_bytes());
        out.extend_from_slice(&partition.epoch.0.to_le_bytes());
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Damaged)?;
        self.rest = rest;
        Ok(*head)
    }

    /// A count of items of at least `bytes_min` each: never more than the bytes that are left could hold.
    fn count(&mut self, bytes_min: usize) -> Result<usize, RecordError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.rest.len() / bytes_min { Err(RecordError::Damaged) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<String, RecordError> {
        let length = self.count(1)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Damaged)?;
        self.rest = rest;
        std::str::from_utf8(text).map(str::to_string).map_err(|_| RecordError::Damaged)
    }

    fn configs(&mut self) -> Result<Configs, RecordError> {
        let count = self.count(8)?;
        (0..count).map(|_| Ok((self.text()?, self.text()?))).collect()
    }

    fn entity(&mut self) -> Result<QuotaEntity, RecordError> {
        let count = self.count(5)?;
        let mut out = QuotaEntity::new();
        for _ in 0..count {
            let kind = self.text()?;
            let name = match self.array()? {
                [0] => None,
                [1] => Some(self.text()?),
                [_] => return Err(RecordError::Damaged),
            };
            out.insert(kind, name);
        }
        Ok(out)
    }

    fn quotas(&mut self) -> Result<Quotas, RecordError> {
        let count = self.count(12)?;
        (0..count).map(|_| Ok((self.text()?, Limit(u64::from_le_bytes(self.array()?))))).collect()
    }

    fn partitions(&mut self) -> Result<Vec<PartitionRecord>, RecordError> {
        let count = self.count(14)?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(PartitionRecord {
                id: PartitionId(u64::from_le_bytes(self.array()?)),
                core: CoreId(u16::from_le_bytes(self.array()?)),
                epoch: LeaderEpoch(i32::from_le_bytes(self.array()?)),
            });
        }
        Ok(out)
    }

    fn id(&mut self) -> Result<TopicId, RecordError> {
        self.array().map(TopicId)
    }

    fn record(&mut self) -> Result<Record, RecordError> {
        let [kind] = self.array()?;
        Ok(match kind {
            TOPIC_CREATED => Record::TopicCreated {
                name: self.text()?,
                id: self.id()?,
                created_ms: i64::from_le_bytes(self.array()?),
                configs: self.configs()?,
                partitions: self.partitions()?,
            },
            PARTITIONS_ADDED => Record::PartitionsAdded { id: self.id()?, partitions: self.partitions()? },
            TOPIC_DELETED => Record::TopicDeleted { id: self.id()? },
            TOPIC_CONFIGS => Record::TopicConfigs { id: self.id()?, configs: self.configs()? },
            RESOURCE_CONFIGS => Record::ResourceConfigs {
                kind: i8::from_le_bytes(self.array()?),
                name: self.text()?,
                configs: self.configs()?,
            },
            CLIENT_QUOTAS => Record::ClientQuotas { entity: self.entity()?, quotas: self.quotas()? },
            FEATURE => Record::Feature {
                name: self.text()?,
                level: i16::from_le_bytes(self.array()?),
                epoch: i64::from_le_bytes(self.array()?),
            },
            PRODUCER_IDS => Record::ProducerIds { next: i64::from_le_bytes(self.array()?) },
            PARTITION_IDS => Record::PartitionIds { next: u64::from_le_bytes(self.array()?) },
            PLACED => {
                let count = self.count(10)?;
                let mut moves = Vec::with_capacity(count);
                for _ in 0..count {
                    moves.push((
                        PartitionId(u64::from_le_bytes(self.array()?)),
                        CoreId(u16::from_le_bytes(self.array()?)),
                    ));
                }
                Record::Placed { moves }
            }
            kind => return Err(RecordError::UnknownKind(kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok())
            .collect()
    }

    /// Golden: frames that lie on disks, the second appended together with the first.
    #[test]
    fn frames_are_these_bytes() {
        let first = unhex("09000000d60d87c1060100000000000000");
        let second = unhex("090000802877f320070200000000000000");
        let records = [Record::ProducerIds { next: 1 }, Record::PartitionIds { next: 2 }];
        let mut bytes = Vec::new();
        Record::encode_together(&records, &mut bytes);
        assert_eq!(bytes, [first.clone(), second.clone()].concat());
        let [one, two] = records;
        assert_eq!(Record::decode(&bytes), Ok((one, first.len())));
        assert_eq!(Record::decode(&second), Ok((two.clone(), second.len())));
        assert!(!is_together(&bytes) && is_together(&second));
        // Alone, and in appends of before there was the bit.
        let mut alone = Vec::new();
        two.encode(&mut alone);
        assert_eq!(Record::decode(&alone), Ok((two, alone.len())));
        assert!(!is_together(&alone));
        for at in 0..second.len() * 8 {
            let mut flipped = second.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(Record::decode(&flipped).is_err(), "bit {at}");
        }
    }
}

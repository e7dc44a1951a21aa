//! Records of groups of the consumer protocol (KIP-848), as Kafka 4.3.1 writes them.
//!
//! ```text
//! key 3, 6     group                    the group's epoch; the epoch of its target
//! key 5, 7, 8  group, member            what a member says; its target; where it stands
//! key 16       group, pattern           what a pattern matched
//! 3   epoch i32, tag 0: hash of the topics i64
//! 5   instance?, rack?, client id, host, [topic], pattern?, rebalance timeout i32, assignor?,
//!     tag 0: none as byte 0, or byte 1, session timeout i32, [protocol, its metadata bytes]
//! 6   epoch i32, tag 0: time i64
//! 7   [topic id, [partition]]
//! 8   epoch i32, epoch before i32, progress i8, assigned, revoking: [topic id, [partition], tag 0: [epoch]]
//! 16  [topic], version i64, time i64
//! ```
//! Every value is of version 0 with compact lengths and tags.

use super::{Key, Reader, RecordError, put_i16, put_i32, put_i64, put_varint};
use crate::consumer::{About, Held, Partitions, Progress, Standing};
use crate::messages::Text;
use bytes::Bytes;
use ringmill_types::TopicId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of a length before a text, at most.
const LENGTH_BYTES_MAX: usize = 5;

/// What the record of a member says beside `About` when it speaks the classic protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicValue {
    pub session_timeout_ms: i32,
    /// In its order of preference, with what it says under each.
    pub protocols: Vec<(String, Bytes)>,
}

/// A value of one of these records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerValue {
    Epoch { epoch: i32, topics_hash: i64 },
    Member { instance: Option<String>, about: About, classic: Option<ClassicValue> },
    TargetEpoch { epoch: i32, at_ms: i64 },
    Target(Partitions),
    Standing(Standing),
    Pattern { topics: Arc<BTreeSet<Text>>, version: i64, at_ms: i64 },
}

impl ConsumerValue {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_i16(&mut out, 0);
        match self {
            ConsumerValue::Epoch { epoch, topics_hash: number }
            | ConsumerValue::TargetEpoch { epoch, at_ms: number } => {
                put_i32(&mut out, *epoch);
                put_number_tag(&mut out, *number);
            }
            ConsumerValue::Member { instance, about, classic } => {
                put_member(&mut out, instance.as_deref(), about, classic.as_ref());
            }
            ConsumerValue::Target(partitions) => return encode_target(partitions),
            ConsumerValue::Standing(standing) => return encode_standing(standing),
            ConsumerValue::Pattern { topics, version, at_ms } => {
                put_count(&mut out, topics.len());
                // Of thousands of topics, which would be moved again and again as it grows.
                out.reserve(topics.iter().map(|t| t.len() + LENGTH_BYTES_MAX).sum());
                topics.iter().for_each(|t| put_text(&mut out, t));
                put_i64(&mut out, *version);
                put_i64(&mut out, *at_ms);
                put_varint(&mut out, 0);
            }
        }
        Bytes::from(out)
    }

    /// The value of a record with this key.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<ConsumerValue, RecordError> {
        let mut from = Reader { rest: bytes, compact: true };
        let version = from.i16()?;
        if version != 0 {
            return Err(RecordError::Version(version));
        }
        let value = match key {
            Key::ConsumerGroup(_) => {
                let epoch = from.i32()?;
                ConsumerValue::Epoch { epoch, topics_hash: number_tag(&mut from)? }
            }
            Key::TargetEpoch(_) => {
                let epoch = from.i32()?;
                ConsumerValue::TargetEpoch { epoch, at_ms: number_tag(&mut from)? }
            }
            Key::ConsumerMember { .. } => member(&mut from)?,
            Key::Target { .. } => {
                let mut partitions = Partitions::new();
                for _ in 0..from.count()? {
                    let topic = TopicId(from.array()?);
                    partitions.insert(topic, numbers(&mut from)?.into_iter().collect());
                    from.tags(|_, _| Ok(()))?;
                }
                from.tags(|_, _| Ok(()))?;
                ConsumerValue::Target(partitions)
            }
            Key::Standing { .. } => standing(&mut from)?,
            Key::Pattern { .. } => {
                let mut topics = BTreeSet::new();
                for _ in 0..from.count()? {
                    topics.insert(Text::from(from.string()?));
                }
                let (version, at_ms) = (from.i64()?, from.i64()?);
                from.tags(|_, _| Ok(()))?;
                ConsumerValue::Pattern { topics: topics.into(), version, at_ms }
            }
            Key::Offset { .. } | Key::Group(_) => return Err(RecordError::Malformed),
        };
        from.end()?;
        Ok(value)
    }
}

/// Of [`ConsumerValue::Target`].
pub(crate) fn encode_target(partitions: &Partitions) -> Bytes {
    let mut out = Vec::new();
    put_i16(&mut out, 0);
    put_count(&mut out, partitions.len());
    for (topic, partitions) in partitions {
        out.extend_from_slice(&topic.0);
        put_count(&mut out, partitions.len());
        partitions.iter().for_each(|p| put_i32(&mut out, *p));
        put_varint(&mut out, 0);
    }
    put_varint(&mut out, 0);
    Bytes::from(out)
}

/// Of [`ConsumerValue::Standing`].
pub(crate) fn encode_standing(standing: &Standing) -> Bytes {
    let mut out = Vec::new();
    put_i16(&mut out, 0);
    put_i32(&mut out, standing.epoch);
    put_i32(&mut out, standing.previous_epoch);
    out.push(standing.progress as u8);
    put_held(&mut out, &standing.assigned);
    put_held(&mut out, &standing.revoking);
    put_varint(&mut out, 0);
    Bytes::from(out)
}

fn member(from: &mut Reader<'_>) -> Result<ConsumerValue, RecordError> {
    let instance = from.nullable()?;
    let mut about = About {
        rack: from.nullable()?,
        client_id: from.string()?,
        client_host: from.string()?,
        ..About::default()
    };
    let mut topics = BTreeSet::new();
    for _ in 0..from.count()? {
        topics.insert(Text::from(from.string()?));
    }
    about.topics = topics.into();
    about.regex = from.nullable()?;
    about.rebalance_timeout_ms = from.i32()?;
    about.assignor = from.nullable()?;
    let mut said = None;
    from.tags(|tag, bytes| {
        if tag == 0 {
            said = classic(&mut Reader { rest: bytes, compact: true })?;
        }
        Ok(())
    })?;
    Ok(ConsumerValue::Member { instance, about, classic: said })
}

fn classic(from: &mut Reader<'_>) -> Result<Option<ClassicValue>, RecordError> {
    match from.varint()? {
        0 => {
            from.end()?;
            return Ok(None);
        }
        1 => {}
        _ => return Err(RecordError::Malformed),
    }
    let mut value = ClassicValue { session_timeout_ms: from.i32()?, protocols: Vec::new() };
    for _ in 0..from.count()? {
        value.protocols.push((from.string()?, from.bytes()?));
        from.tags(|_, _| Ok(()))?;
    }
    from.tags(|_, _| Ok(()))?;
    from.end()?;
    Ok(Some(value))
}

fn standing(from: &mut Reader<'_>) -> Result<ConsumerValue, RecordError> {
    let (epoch, previous_epoch) = (from.i32()?, from.i32()?);
    let [progress] = from.array()?;
    let progress = Progress::of(progress).ok_or(RecordError::Malformed)?;
    let standing = Standing { epoch, previous_epoch, progress, assigned: held(from)?, revoking: held(from)? };
    from.tags(|_, _| Ok(()))?;
    Ok(ConsumerValue::Standing(standing))
}

/// Counts are not trusted with room: numbers are read one by one, and bytes end.
fn numbers(from: &mut Reader<'_>) -> Result<Vec<i32>, RecordError> {
    let mut numbers = Vec::new();
    for _ in 0..from.count()? {
        numbers.push(from.i32()?);
    }
    Ok(numbers)
}

fn held(from: &mut Reader<'_>) -> Result<Held, RecordError> {
    let mut held = Held::new();
    for _ in 0..from.count()? {
        let topic = TopicId(from.array()?);
        let partitions = numbers(from)?;
        let mut epochs = Vec::new();
        from.tags(|tag, bytes| {
            if tag == 0 {
                epochs = numbers(&mut Reader { rest: bytes, compact: true })?;
            }
            Ok(())
        })?;
        let epochs = epochs.into_iter().chain(std::iter::repeat(0));
        held.insert(topic, partitions.into_iter().zip(epochs).collect());
    }
    Ok(held)
}

fn put_member(out: &mut Vec<u8>, instance: Option<&str>, about: &About, classic: Option<&ClassicValue>) {
    put_optional(out, instance);
    put_optional(out, about.rack.as_deref());
    put_text(out, &about.client_id);
    put_text(out, &about.client_host);
    put_count(out, about.topics.len());
    about.topics.iter().for_each(|t| put_text(out, t));
    put_optional(out, about.regex.as_deref());
    put_i32(out, about.rebalance_timeout_ms);
    put_optional(out, about.assignor.as_deref());
    let mut said = Vec::new();
    match classic {
        Some(classic) => {
            put_varint(&mut said, 1);
            put_i32(&mut said, classic.session_timeout_ms);
            put_count(&mut said, classic.protocols.len());
            for (name, metadata) in &classic.protocols {
                put_text(&mut said, name);
                put_count(&mut said, metadata.len());
                said.extend_from_slice(metadata);
                put_varint(&mut said, 0);
            }
            put_varint(&mut said, 0);
        }
        None => put_varint(&mut said, 0),
    }
    put_varint(out, 1);
    put_varint(out, 0);
    put_varint(out, said.len() as u32);
    out.extend_from_slice(&said);
}

fn put_held(out: &mut Vec<u8>, held: &Held) {
    put_count(out, held.len());
    for (topic, partitions) in held {
        out.extend_from_slice(&topic.0);
        put_count(out, partitions.len());
        partitions.keys().for_each(|p| put_i32(out, *p));
        let mut epochs = Vec::new();
        put_count(&mut epochs, partitions.len());
        partitions.values().for_each(|e| put_i32(&mut epochs, *e));
        put_varint(out, 1);
        put_varint(out, 0);
        put_varint(out, epochs.len() as u32);
        out.extend_from_slice(&epochs);
    }
}

/// A number under tag 0; nothing for 0, its default.
fn put_number_tag(out: &mut Vec<u8>, number: i64) {
    if number == 0 {
        return put_varint(out, 0);
    }
    put_varint(out, 1);
    put_varint(out, 0);
    put_varint(out, 8);
    put_i64(out, number);
}

fn number_tag(from: &mut Reader<'_>) -> Result<i64, RecordError> {
    let mut number = 0;
    from.tags(|tag, bytes| {
        if tag == 0 {
            number = i64::from_be_bytes(bytes.try_into().map_err(|_| RecordError::Malformed)?);
        }
        Ok(())
    })?;
    Ok(number)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, count as u32 + 1);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => put_varint(out, 0),
    }
}

//! Records of `__consumer_offsets` in Kafka's formats, byte for byte as Kafka 4.3.1 writes them (`tests/golden.rs`).
//!
//! ```text
//! key    v0, v1  group string, topic string, partition i32                    an offset
//!        v2      group string                                                 a group
//! offset v0 offset i64, metadata string, commit time i64
//!        v1 … and expiry time i64    v2 as v0    v3 offset, leader epoch i32, metadata, commit time
//!        v4 as v3 with compact strings and the topic's id as tagged field 0
//! group  v0 protocol type string, generation i32, protocol string?, leader string?, [member]
//!        v2 … time of the state i64 before the members   v4 compact strings
//! member v0 id, client id, client host, session timeout i32, subscription bytes, assignment bytes
//!        v1 … rebalance timeout i32 before the session's   v3 … instance string? after the id
//! ```
//! Every key and value begins with its version as i16. Big-endian. A record without a value deletes.

mod consumer;

pub use consumer::{ClassicValue, ConsumerValue};
pub(crate) use consumer::{encode_standing, encode_target};

use bytes::Bytes;
use ringmill_types::TopicId;
use std::fmt;

/// Members that one group record may have: what is read is not trusted with more.
const MEMBERS_MAX: usize = 100_000;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Offset { group: String, topic: String, partition: i32 },
    Group(String),
    ConsumerGroup(String),
    ConsumerMember { group: String, member: String },
    TargetEpoch(String),
    Target { group: String, member: String },
    Standing { group: String, member: String },
    Pattern { group: String, pattern: String },
}

/// A committed offset as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1 when the consumer did not say.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    /// Only where a client asked for a time of its own.
    pub expire_ms: Option<i64>,
    /// Zero when it was not known.
    pub topic_id: TopicId,
}

/// A group as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// -1 when it was not known.
    pub state_ms: i64,
    pub members: Vec<MemberValue>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberValue {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// Bytes that are not a record of this topic as far as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A key or value of a version that is not known; a newer broker may have written it.
    Version(i16),
    /// Bytes are missing, are too many, or contradict themselves.
    Malformed,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Version(version) => write!(f, "unknown version {version}"),
            RecordError::Malformed => f.write_str("malformed bytes"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Key {
    fn version(&self) -> i16 {
        match self {
            Key::Offset { .. } => 1,
            Key::Group(_) => 2,
            Key::ConsumerGroup(_) => 3,
            Key::ConsumerMember { .. } => 5,
            Key::TargetEpoch(_) => 6,
            Key::Target { .. } => 7,
            Key::Standing { .. } => 8,
            Key::Pattern { .. } => 16,
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Key::Offset { group, topic, partition } => {
                put_i16(&mut out, self.version());
                put_string(&mut out, group);
                put_string(&mut out, topic);
                put_i32(&mut out, *partition);
            }
            Key::Group(group) | Key::ConsumerGroup(group) | Key::TargetEpoch(group) => {
                put_i16(&mut out, self.version());
                put_string(&mut out, group);
            }
            Key::ConsumerMember { group, member: of }
            | Key::Target { group, member: of }
            | Key::Standing { group, member: of }
            | Key::Pattern { group, pattern: of } => {
                put_i16(&mut out, self.version());
                put_string(&mut out, group);
                put_string(&mut out, of);
            }
        }
        Bytes::from(out)
    }

    /// # Errors
    /// [`RecordError`]
    pub fn decode(bytes: &[u8]) -> Result<Key, RecordError> {
        let mut from = Reader { rest: bytes, compact: false };
        let version = from.i16()?;
        let key = match version {
            0 | 1 => Key::Offset { group: from.string()?, topic: from.string()?, partition: from.i32()? },
            2 => Key::Group(from.string()?),
            3 => Key::ConsumerGroup(from.string()?),
            5 => Key::ConsumerMember { group: from.string()?, member: from.string()? },
            6 => Key::TargetEpoch(from.string()?),
            7 => Key::Target { group: from.string()?, member: from.string()? },
            8 => Key::Standing { group: from.string()?, member: from.string()? },
            16 => Key::Pattern { group: from.string()?, pattern: from.string()? },
            other => return Err(RecordError::Version(other)),
        };
        from.end()?;
        Ok(key)
    }
}

impl OffsetValue {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let version = match (self.expire_ms, self.topic_id) {
            (Some(_), _) => 1,
            (None, TopicId::ZERO) => 3,
            (None, _) => 4,
        };
        put_i16(&mut out, version);
        put_i64(&mut out, self.offset);
        if version >= 3 {
            put_i32(&mut out, self.leader_epoch);
        }
        if version >= 4 {
            put_varint(&mut out, self.metadata.len() as u32 + 1);
            out.extend_from_slice(self.metadata.as_bytes());
        } else {
            put_string(&mut out, &self.metadata);
        }
        put_i64(&mut out, self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            put_i64(&mut out, expire_ms);
        }
        if version >= 4 {
            put_varint(&mut out, 1);
            put_varint(&mut out, 0);
            put_varint(&mut out, 16);
            out.extend_from_slice(&self.topic_id.0);
        }
        Bytes::from(out)
    }

    /// # Errors
    /// [`RecordError`]
    pub fn decode(bytes: &[u8]) -> Result<OffsetValue, RecordError> {
        let mut from = Reader { rest: bytes, compact: false };
        let version = from.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::Version(version));
        }
        from.compact = version >= 4;
        let mut value = OffsetValue {
            offset: from.i64()?,
            leader_epoch: if version >= 3 { from.i32()? } else { -1 },
            metadata: from.string()?,
            commit_ms: from.i64()?,
            expire_ms: None,
            topic_id: TopicId::ZERO,
        };
        if version == 1 {
            value.expire_ms = Some(from.i64()?).filter(|ms| *ms != -1);
        }
        from.tags(|tag, bytes| {
            if tag == 0 {
                value.topic_id = TopicId(bytes.try_into().map_err(|_| RecordError::Malformed)?);
            }
            Ok(())
        })?;
        from.end()?;
        Ok(value)
    }
}

impl GroupValue {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_i16(&mut out, 3);
        put_string(&mut out, &self.protocol_type);
        put_i32(&mut out, self.generation);
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        put_i64(&mut out, self.state_ms);
        put_i32(&mut out, self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, &member.id);
            put_nullable(&mut out, member.instance.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            put_i32(&mut out, member.rebalance_timeout_ms);
            put_i32(&mut out, member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        Bytes::from(out)
    }

    /// # Errors
    /// [`RecordError`]
    pub fn decode(bytes: &[u8]) -> Result<GroupValue, RecordError> {
        let mut from = Reader { rest: bytes, compact: false };
        let version = from.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::Version(version));
        }
        from.compact = version >= 4;
        let mut value = GroupValue {
            protocol_type: from.string()?,
            generation: from.i32()?,
            protocol: from.nullable()?,
            leader: from.nullable()?,
            state_ms: if version >= 2 { from.i64()? } else { -1 },
            members: Vec::new(),
        };
        let count = from.count()?;
        if count > MEMBERS_MAX {
            return Err(RecordError::Malformed);
        }
        for _ in 0..count {
            value.members.push(member(&mut from, version)?);
        }
        from.tags(|_, _| Ok(()))?;
        from.end()?;
        Ok(value)
    }
}

fn member(from: &mut Reader<'_>, version: i16) -> Result<MemberValue, RecordError> {
    let mut member = MemberValue {
        id: from.string()?,
        instance: if version >= 3 { from.nullable()? } else { None },
        client_id: from.string()?,
        client_host: from.string()?,
        rebalance_timeout_ms: if version >= 1 { from.i32()? } else { -1 },
        session_timeout_ms: from.i32()?,
        subscription: from.bytes()?,
        assignment: from.bytes()?,
    };
    if version == 0 {
        member.rebalance_timeout_ms = member.session_timeout_ms;
    }
    from.tags(|_, _| Ok(()))?;
    Ok(member)
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Strings come from requests, whose own length fields have 16 bits, or are shorter than that by their limits.
fn put_string(out: &mut Vec<u8>, value: &str) {
    let value = clip(value);
    put_i16(out, value.len() as i16);
    out.extend_from_slice(value.as_bytes());
}

/// Flexible requests can carry longer strings than the record has room for; what is cut was no client's own.
fn clip(value: &str) -> &str {
    let mut end = value.len().min(i16::MAX as usize);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default()
}

fn put_nullable(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => put_string(out, value),
        None => put_i16(out, -1),
    }
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_i32(out, value.len() as i32);
    out.extend_from_slice(value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Lengths are varints of length + 1.
    compact: bool,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    fn nullable(&mut self) -> Result<Option<String>, RecordError> {
        let length = if self.compact { i64::from(self.varint()?) - 1 } else { i64::from(self.i16()?) };
        if length == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(length).map_err(|_| RecordError::Malformed)?)?;
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed)?;
        Ok(Some(text.to_string()))
    }

    fn string(&mut self) -> Result<String, RecordError> {
        self.nullable()?.ok_or(RecordError::Malformed)
    }

    fn count(&mut self) -> Result<usize, RecordError> {
        let count = if self.compact { i64::from(self.varint()?) - 1 } else { i64::from(self.i32()?) };
        usize::try_from(count).map_err(|_| RecordError::Malformed)
    }

    fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.count()?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    fn tags(
        &mut self,
        mut seen: impl FnMut(u32, &'a [u8]) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if !self.compact {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            seen(tag, self.take(length)?)?;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Malformed) }
    }
}

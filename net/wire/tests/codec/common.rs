//! Frames from the oracle, its decoder, and generators of names and tags.

use bytes::{Bytes, BytesMut};
use kafka_wire::{KafkaRequest, OutboundFrameLimits, encode_request, response_header_version_for};
use kafka_wire_core::{
    ApiVersion, DecodeLimits, Decoder, KafkaDecode, KafkaEncode, StrBytes, TaggedField, TaggedFields, Uuid,
};
use proptest::prelude::*;
use ringmill_types::TopicId;
use ringmill_wire::RequestHeader;

/// A request as the oracle sends it, without the length prefix.
pub fn frame<R: KafkaRequest + KafkaEncode>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    let client = Some(StrBytes::from("the-client"));
    let limits = OutboundFrameLimits::new(1 << 30);
    encode_request(&mut buffer, correlation_id, client, request, ApiVersion::new(version), limits).unwrap();
    let length = u32::from_be_bytes(buffer[..4].try_into().unwrap()) as usize;
    assert_eq!(length, buffer.len() - 4);
    buffer[4..].to_vec()
}

pub fn header(frame: &[u8]) -> RequestHeader<'_> {
    let header = RequestHeader::parse(frame).unwrap();
    assert_eq!(header.client_id, Some(&b"the-client"[..]));
    header
}

/// Reads an answer to `R` as the oracle's client would: length, header, body, nothing after it.
pub fn answer<R, A>(bytes: &[u8], version: i16, correlation_id: i32) -> A
where
    R: KafkaRequest,
    A: KafkaDecode,
{
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(length, bytes.len() - 4);
    let version = ApiVersion::new(version);
    let header_version = response_header_version_for::<R>(version).unwrap();
    let mut decoder = Decoder::new(Bytes::copy_from_slice(&bytes[4..]), DecodeLimits::default()).unwrap();
    let header = kafka_wire::ResponseHeader::decode(&mut decoder, ApiVersion::new(header_version)).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    let answer = A::decode(&mut decoder, version).unwrap();
    decoder.finish().unwrap();
    answer
}

pub fn uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

pub fn names() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-zA-Z0-9._-]{1,20}", 1 => "\\PC{0,12}", 1 => Just("x".repeat(249))]
}

pub fn ids() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(TopicId)
}

/// Tagged fields that no version knows: a decoder must pass over them wherever they stand.
pub fn unknown_tags() -> impl Strategy<Value = TaggedFields> {
    let tag = (100u32..100_000, prop::collection::vec(any::<u8>(), 0..40));
    prop::collection::btree_map(tag.clone().prop_map(|t| t.0), tag.prop_map(|t| t.1), 0..3).prop_map(|map| {
        let fields = map.into_iter().map(|(tag, data)| TaggedField::new(tag, Bytes::from(data)));
        TaggedFields::from_sorted(fields.collect()).unwrap()
    })
}

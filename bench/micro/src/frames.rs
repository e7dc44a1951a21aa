//! Requests as clients send them, for topic `bench` with the id [`TOPIC_ID`], without the length prefix.

use ringmill_types::TopicId;
use ringmill_wire::ApiKey;
use ringmill_wire::api::Encoding;
use ringmill_wire::writer::Writer;

pub const PRODUCE_VERSION: i16 = 12;
pub const FETCH_VERSION: i16 = 17;
pub const TOPIC_ID: TopicId = TopicId([7; 16]);

/// Header of a request in flexible form, then its body, without the length prefix.
fn request(key: ApiKey, version: i16, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut head = Writer::new(&mut frame, Encoding::Classic);
    head.i16(key.0);
    head.i16(version);
    head.i32(1);
    head.string("rdkafka");
    let mut writer = Writer::new(&mut frame, Encoding::Flexible);
    writer.no_tags();
    body(&mut writer);
    frame
}

/// One batch for each of the first partitions, acks=all.
pub fn produce_frame(partitions: usize, records: &[u8]) -> Vec<u8> {
    let mut frame = request(ApiKey::PRODUCE, PRODUCE_VERSION, |writer| {
        writer.nullable_string(None);
        writer.i16(-1);
        writer.i32(30_000);
        writer.array(1);
        writer.string("bench");
        writer.array(partitions);
    });
    for index in 0..partitions {
        let mut writer = Writer::new(&mut frame, Encoding::Flexible);
        writer.i32(index as i32);
        writer.bytes_length(records.len() as u32);
        frame.extend_from_slice(records);
        Writer::new(&mut frame, Encoding::Flexible).no_tags();
    }
    let mut writer = Writer::new(&mut frame, Encoding::Flexible);
    writer.no_tags();
    writer.no_tags();
    frame
}

/// What is fetched of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub offset: i64,
    pub bytes_max: i32,
}

/// Of each of the first partitions; `session` is its id and epoch (KIP-227).
pub fn fetch_frame(session: (i32, i32), asked: &[Asked]) -> Vec<u8> {
    request(ApiKey::FETCH, FETCH_VERSION, |writer| {
        writer.i32(500);
        writer.i32(1);
        writer.i32(50 << 20);
        writer.i8(0);
        writer.i32(session.0);
        writer.i32(session.1);
        writer.array(1);
        writer.uuid(TOPIC_ID);
        writer.array(asked.len());
        for (index, asked) in asked.iter().enumerate() {
            writer.i32(index as i32);
            writer.i32(0);
            writer.i64(asked.offset);
            writer.i32(-1);
            writer.i64(-1);
            writer.i32(asked.bytes_max);
            writer.no_tags();
        }
        writer.no_tags();
        writer.array(0);
        writer.string("");
        writer.no_tags();
    })
}

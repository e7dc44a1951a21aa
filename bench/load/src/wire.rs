//! The producer's side of Produce version 9, which every broker since Kafka 2.8 speaks.

use ringmill_wire::api::Encoding;
use ringmill_wire::reader::Reader;
use ringmill_wire::writer::Writer;
use ringmill_wire::{ApiKey, WireError};

const VERSION: i16 = 9;
pub const CLIENT_ID: &str = "ringmill-load";
const LENGTH_BYTES: usize = 4;

/// What goes before the batch of a request for one partition.
pub fn request_head(correlation: i32, topic: &str, partition: i32, acks: i16, batch_bytes: usize) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES];
    let mut head = Writer::new(&mut out, Encoding::Classic);
    head.i16(ApiKey::PRODUCE.0);
    head.i16(VERSION);
    head.i32(correlation);
    head.string(CLIENT_ID);
    let mut body = Writer::new(&mut out, Encoding::Flexible);
    body.no_tags();
    body.nullable_string(None);
    body.i16(acks);
    body.i32(30_000);
    body.array(1);
    body.string(topic);
    body.array(1);
    body.i32(partition);
    body.bytes_length(batch_bytes as u32);
    let length = (out.len() - LENGTH_BYTES + batch_bytes + TAIL.len()) as i32;
    if let Some(prefix) = out.get_mut(..LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    out
}

/// What goes behind it: the tags of partition, topic and request.
pub const TAIL: [u8; 3] = [0; 3];

/// Which request a frame (without its length) answers, and the error code of its partition.
pub fn answer(frame: &[u8]) -> Result<(i32, i16), WireError> {
    let mut reader = Reader::new(frame, 0, Encoding::Flexible);
    let correlation = reader.i32("correlation_id")?;
    reader.skip_tags("header")?;
    let mut error = 0;
    for _ in 0..reader.array("responses", 1)? {
        reader.string("name")?;
        for _ in 0..reader.array("partition_responses", 1)? {
            reader.i32("index")?;
            error = reader.i16("error_code")?;
            reader.i64("base_offset")?;
            reader.i64("log_append_time_ms")?;
            reader.i64("log_start_offset")?;
            for _ in 0..reader.array("record_errors", 1)? {
                reader.i32("batch_index")?;
                reader.nullable_string("batch_index_error_message")?;
                reader.skip_tags("record_error")?;
            }
            reader.nullable_string("error_message")?;
            reader.skip_tags("partition")?;
        }
        reader.skip_tags("topic")?;
    }
    Ok((correlation, error))
}

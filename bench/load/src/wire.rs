//! The producer's side of Produce version 9, which every broker since Kafka 2.8 speaks.

use ringmill_reactor::Buf;
use ringmill_wire::api::Encoding;
use ringmill_wire::reader::Reader;
use ringmill_wire::writer::Writer;
use ringmill_wire::{ApiKey, WireError};

const VERSION: i16 = 9;
const LENGTH_BYTES: usize = 4;
/// How long a broker may wait for its replicas.
const REPLICAS_MS: i32 = 30_000;
/// Batches of up to this many bytes together are copied behind the head: one piece is cheaper to send than several.
const COPIED_BYTES: usize = 4096;

/// What all requests of a plan have in common.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub topic: &'a str,
    pub client_id: &'a str,
    pub acks: i16,
}

/// A request for some partitions, in the pieces in which it is sent.
pub fn request(correlation: i32, terms: &Terms<'_>, batches: &[(i32, Buf)]) -> Vec<Buf> {
    let batch_bytes: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
    let copied = batch_bytes <= COPIED_BYTES;
    let room = if copied { batch_bytes } else { 0 };
    let mut out =
        Vec::with_capacity(room + 64 + terms.topic.len() + terms.client_id.len() + batches.len() * 16);
    out.resize(LENGTH_BYTES, 0);
    let mut head = Writer::new(&mut out, Encoding::Classic);
    head.i16(ApiKey::PRODUCE.0);
    head.i16(VERSION);
    head.i32(correlation);
    head.string(terms.client_id);
    let mut body = Writer::new(&mut out, Encoding::Flexible);
    body.no_tags();
    body.nullable_string(None);
    body.i16(terms.acks);
    body.i32(REPLICAS_MS);
    body.array(1);
    body.string(terms.topic);
    body.array(batches.len());
    let mut cuts = Vec::with_capacity(batches.len());
    for (partition, batch) in batches {
        let mut body = Writer::new(&mut out, Encoding::Flexible);
        body.i32(*partition);
        body.bytes_length(batch.len() as u32);
        if copied {
            out.extend_from_slice(batch);
        }
        cuts.push(out.len());
        Writer::new(&mut out, Encoding::Flexible).no_tags();
    }
    let mut tail = Writer::new(&mut out, Encoding::Flexible);
    tail.no_tags();
    tail.no_tags();
    let apart = if copied { 0 } else { batch_bytes };
    let length = (out.len() - LENGTH_BYTES + apart) as i32;
    if let Some(prefix) = out.get_mut(..LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    let (whole, end) = (Buf::from_vec(out), cuts.last().copied().unwrap_or(0));
    if copied {
        return vec![whole];
    }
    let mut pieces = Vec::with_capacity(batches.len() * 2 + 1);
    let mut from = 0;
    for ((_, batch), cut) in batches.iter().zip(&cuts) {
        pieces.push(whole.slice(from, *cut));
        pieces.push(batch.clone());
        from = *cut;
    }
    pieces.push(whole.slice(end, whole.len()));
    pieces
}

/// Which request a frame (without its length) answers; `each` gets index and error code of its partitions.
///
/// # Errors
/// [`WireError`] for bytes that are no such answer.
pub fn answer(frame: &[u8], each: &mut dyn FnMut(i32, i16)) -> Result<i32, WireError> {
    let mut reader = Reader::new(frame, 0, Encoding::Flexible);
    let correlation = reader.i32("correlation_id")?;
    reader.skip_tags("header")?;
    for _ in 0..reader.array("responses", 1)? {
        reader.string("name")?;
        for _ in 0..reader.array("partition_responses", 1)? {
            let index = reader.i32("index")?;
            let error = reader.i16("error_code")?;
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
            each(index, error);
        }
        reader.skip_tags("topic")?;
    }
    Ok(correlation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_wire::RequestHeader;
    use ringmill_wire::produce::ProduceRequest;

    proptest! {
        #[test]
        fn a_broker_finds_every_batch(sizes in prop::collection::vec(1usize..4000, 1..6)) {
            let batches: Vec<(i32, Buf)> =
                sizes.iter().enumerate().map(|(at, size)| (at as i32, Buf::from_vec(vec![at as u8; *size]))).collect();
            let terms = Terms { topic: "load", client_id: "x", acks: 1 };
            let frame: Vec<u8> = request(3, &terms, &batches).iter().flat_map(|b| b.to_vec()).collect();
            let length = u32::from_be_bytes(*frame.first_chunk::<4>().expect("a length"));
            prop_assert_eq!(length as usize, frame.len() - 4);
            let header = RequestHeader::parse(&frame[4..]).expect("a header");
            let parsed = ProduceRequest::parse(&header, &frame[4..]).expect("a request");
            prop_assert_eq!(parsed.acks, 1);
            let topic = parsed.topics().next().expect("a topic");
            let read: Vec<(i32, Vec<u8>)> =
                topic.partitions().map(|p| (p.index, p.records.unwrap_or_default().to_vec())).collect();
            let sent: Vec<(i32, Vec<u8>)> = batches.iter().map(|(at, b)| (*at, b.to_vec())).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&noise, &mut |_, _| {});
        }
    }
}

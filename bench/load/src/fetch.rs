//! The consumer's side of Fetch version 12, which every broker since Kafka 2.7 speaks, with sessions (KIP-227).

use ringmill_wire::api::Encoding;
use ringmill_wire::reader::Reader;
use ringmill_wire::writer::Writer;
use ringmill_wire::{ApiKey, WireError};

const VERSION: i16 = 12;
const LENGTH_BYTES: usize = 4;

/// What all fetches of a plan have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    pub topic: String,
    pub client_id: String,
    pub wait_ms: i32,
    pub bytes_min: i32,
    pub bytes_max: i32,
    pub partition_bytes_max: i32,
}

/// Where in a session a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: i32,
    pub epoch: i32,
}

impl Session {
    pub const NEW: Session = Session { id: 0, epoch: 0 };

    /// The next fetch of the session that the answer named.
    pub fn next(self, answered_id: i32) -> Session {
        if answered_id == 0 {
            // The broker keeps none: each fetch names everything.
            return Session::NEW;
        }
        let epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        Session { id: answered_id, epoch }
    }
}

/// A fetch of `partitions` (index and offset).
pub fn request(
    correlation: i32,
    terms: &Terms,
    session: Session,
    partitions: impl ExactSizeIterator<Item = (i32, i64)>,
) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES];
    let mut head = Writer::new(&mut out, Encoding::Classic);
    head.i16(ApiKey::FETCH.0);
    head.i16(VERSION);
    head.i32(correlation);
    head.string(&terms.client_id);
    let mut body = Writer::new(&mut out, Encoding::Flexible);
    body.no_tags();
    body.i32(-1);
    body.i32(terms.wait_ms);
    body.i32(terms.bytes_min);
    body.i32(terms.bytes_max);
    // Isolation level: read uncommitted, as Kafka's tool does by default.
    body.i8(0);
    body.i32(session.id);
    body.i32(session.epoch);
    if partitions.len() == 0 {
        body.array(0);
    } else {
        body.array(1);
        body.string(&terms.topic);
        body.array(partitions.len());
        for (partition, offset) in partitions {
            body.i32(partition);
            body.i32(-1);
            body.i64(offset);
            body.i32(-1);
            body.i64(-1);
            body.i32(terms.partition_bytes_max);
            body.no_tags();
        }
        body.no_tags();
    }
    body.array(0);
    body.string("");
    body.no_tags();
    let length = (out.len() - LENGTH_BYTES) as i32;
    if let Some(prefix) = out.get_mut(..LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    out
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub correlation: i32,
    pub error: i16,
    pub session_id: i32,
}

/// One partition of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub partition: i32,
    pub error: i16,
    pub records: &'a [u8],
}

/// Reads an answer (without its length), partition by partition.
///
/// # Errors
/// [`WireError`] for bytes that are no such answer.
pub fn answer<'a>(frame: &'a [u8], each: &mut dyn FnMut(Part<'a>)) -> Result<Head, WireError> {
    let mut reader = Reader::new(frame, 0, Encoding::Flexible);
    let correlation = reader.i32("correlation_id")?;
    reader.skip_tags("header")?;
    reader.i32("throttle_time_ms")?;
    let error = reader.i16("error_code")?;
    let session_id = reader.i32("session_id")?;
    for _ in 0..reader.array("responses", 1)? {
        reader.string("topic")?;
        for _ in 0..reader.array("partitions", 1)? {
            let partition = reader.i32("partition_index")?;
            let error = reader.i16("error_code")?;
            reader.i64("high_watermark")?;
            reader.i64("last_stable_offset")?;
            reader.i64("log_start_offset")?;
            aborted(&mut reader)?;
            reader.i32("preferred_read_replica")?;
            let records = reader.nullable_bytes("records")?.unwrap_or_default();
            reader.skip_tags("partition")?;
            each(Part { partition, error, records });
        }
        reader.skip_tags("topic")?;
    }
    Ok(Head { correlation, error, session_id })
}

/// Passes over the aborted transactions, an array that may be null.
fn aborted(reader: &mut Reader<'_>) -> Result<(), WireError> {
    const NULL_OR_EMPTY: u32 = 1;
    let mut ahead = reader.clone();
    let count = ahead.uvarint("aborted_transactions")?;
    if count <= NULL_OR_EMPTY {
        *reader = ahead;
        return Ok(());
    }
    for _ in 0..reader.array("aborted_transactions", 17)? {
        reader.i64("producer_id")?;
        reader.i64("first_offset")?;
        reader.skip_tags("aborted_transaction")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_wire::RequestHeader;
    use ringmill_wire::fetch::FetchRequest;

    #[test]
    fn a_broker_understands_the_request() {
        let terms = Terms {
            topic: "load".into(),
            client_id: "x".into(),
            wait_ms: 500,
            bytes_min: 1,
            bytes_max: 50,
            partition_bytes_max: 7,
        };
        let frame = request(9, &terms, Session { id: 5, epoch: 2 }, [(3, 40), (4, 0)].into_iter());
        let header = RequestHeader::parse(&frame[4..]).expect("a header");
        let parsed = FetchRequest::parse(&header, &frame[4..]).expect("a fetch");
        assert_eq!((parsed.session_id, parsed.session_epoch), (5, 2));
        let topic = parsed.topics().next().expect("a topic");
        let read: Vec<_> = topic.partitions().map(|p| (p.index, p.fetch_offset.0, p.max_bytes)).collect();
        assert_eq!(read, [(3, 40, 7), (4, 0, 7)]);
        let frame = request(9, &terms, Session { id: 5, epoch: 3 }, std::iter::empty());
        let header = RequestHeader::parse(&frame[4..]).expect("a header");
        assert_eq!(FetchRequest::parse(&header, &frame[4..]).expect("a fetch").topics().count(), 0);
    }

    proptest! {
        #[test]
        fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&noise, &mut |_| {});
        }
    }
}

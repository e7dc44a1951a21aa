//! Record batches, magic 2: building them from records, and reading records out of them.
//!
//! A batch that was read has passed its CRC and count checks; every length inside is checked against the bytes there are.

use crate::compression::{Codec, decompress};
use ringmill_record::batch::CRC_FROM;
use ringmill_record::records::varint;
use ringmill_record::write::{Sealing, put_record, seal};
use ringmill_record::{BatchHeader, HEADER_BYTES, Records};
use std::io;

/// A record header. Values may be null, and keys may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    pub timestamp_ms: i64,
}

impl Record {
    /// No more than this many bytes are added to a batch.
    pub fn bytes_max(&self) -> usize {
        // Attributes, and six numbers of at most ten bytes.
        const FRAME: usize = 61;
        let headers: usize =
            self.headers.iter().map(|h| 20 + h.key.len() + h.value.as_ref().map_or(0, Vec::len)).sum();
        FRAME + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// Who sends a batch, so that a repeated one is known for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer_id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

/// Gathers records into one batch.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    codec: Codec,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: i32,
    payload: Vec<u8>,
}

impl BatchBuilder {
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder { codec, ..BatchBuilder::default() }
    }

    /// Size before compression, the batch header included.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn push(&mut self, record: &Record) {
        if self.count == 0 {
            self.base_timestamp_ms = record.timestamp_ms;
            self.max_timestamp_ms = record.timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        put_record(
            &mut self.payload,
            record.timestamp_ms.wrapping_sub(self.base_timestamp_ms),
            self.count,
            record.key.as_deref(),
            record.value.as_deref(),
            record.headers.iter().map(|h| (h.key.as_bytes(), h.value.as_deref())),
        );
        self.count += 1;
    }

    /// The batch as it goes on the wire, with base offset 0.
    ///
    /// # Errors
    /// What the codec reports.
    pub fn finish(self, identity: Option<Identity>) -> io::Result<Vec<u8>> {
        let records = self.codec.compress(self.payload)?;
        let identity = identity.unwrap_or(Identity { producer_id: -1, epoch: -1, base_sequence: -1 });
        i32::try_from(HEADER_BYTES - 12 + records.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a batch above 2 GiB"))?;
        let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
        out.resize(HEADER_BYTES, 0);
        out.extend(records);
        let sealing = Sealing {
            attributes: self.codec.bits(),
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            base_sequence: identity.base_sequence,
            count: self.count,
        };
        seal(&mut out, &sealing);
        Ok(out)
    }
}

/// A record that was read, borrowed from its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub offset: i64,
    pub timestamp_ms: i64,
    /// The broker gave the timestamp, not the producer.
    pub log_append_time: bool,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<HeaderView<'a>>,
}

/// What a reader checks before it believes a batch: format and CRC. Counts are looser than on the way in, because
/// compaction leaves fewer records than offsets.
///
/// # Errors
/// What is wrong, in a few words.
pub fn check_stored(header: &BatchHeader, batch: &[u8]) -> Result<(), &'static str> {
    if header.magic != 2 {
        return Err("it has a message format that Kafka 4 no longer has");
    }
    let covered = batch.get(CRC_FROM..header.size_bytes).ok_or("it is shorter than its length field says")?;
    if crc32c::crc32c(covered) != header.crc {
        return Err("its CRC32C does not match its bytes");
    }
    if header.record_count < 0 || header.last_offset_delta < 0 {
        return Err("its counts are negative");
    }
    Ok(())
}

/// The records of a batch that was checked, decompressed once.
pub struct OpenBatch {
    header: BatchHeader,
    payload: Vec<u8>,
}

impl OpenBatch {
    /// # Errors
    /// A sentence, for a batch that does not decompress.
    pub fn new(header: BatchHeader, batch: &[u8]) -> Result<OpenBatch, String> {
        let body =
            batch.get(HEADER_BYTES..header.size_bytes).ok_or("the batch is shorter than its length")?;
        let compression = header.compression().ok_or("the batch has an unknown compression code")?;
        let payload = decompress(compression, body).map_err(|error| error.to_string())?;
        Ok(OpenBatch { header, payload })
    }

    /// Every record, in order; ends after the first that cannot be read.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordView<'_>, String>> {
        Records::of_payload(&self.payload, self.header.record_count).map(|record| {
            let record = record.map_err(|_| "a record contradicts the batch around it".to_string())?;
            let log_append_time = self.header.is_log_append_time();
            let timestamp_ms = if log_append_time {
                self.header.max_timestamp_ms
            } else {
                self.header.base_timestamp_ms.wrapping_add(record.timestamp_delta_ms)
            };
            Ok(RecordView {
                offset: self.header.base_offset.0.wrapping_add(i64::from(record.offset_delta)),
                timestamp_ms,
                log_append_time,
                key: record.key,
                value: record.value,
                headers: headers(record.headers).ok_or("the headers of a record cannot be read")?,
            })
        })
    }
}

/// Key and value, borrowed.
pub type HeaderView<'a> = (&'a str, Option<&'a [u8]>);

fn headers(mut from: &[u8]) -> Option<Vec<HeaderView<'_>>> {
    let count = varint(&mut from)?;
    // No room is made ahead for what a count claims.
    let mut out = Vec::new();
    for _ in 0..count {
        let key = field(&mut from)??;
        out.push((std::str::from_utf8(key).ok()?, field(&mut from)?));
    }
    Some(out)
}

fn field<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(from)?;
    if length == -1 {
        return Some(None);
    }
    let (value, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    Some(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_record::validate_batch;

    fn some_record() -> impl Strategy<Value = Record> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..80);
        let header = ("[a-zé]{0,6}", proptest::option::of(bytes.clone()));
        (
            proptest::option::of(bytes.clone()),
            proptest::option::of(bytes),
            proptest::collection::vec(header, 0..3),
            0i64..4_000_000_000_000,
        )
            .prop_map(|(key, value, headers, timestamp_ms)| Record {
                key,
                value,
                headers: headers.into_iter().map(|(key, value)| Header { key, value }).collect(),
                timestamp_ms,
            })
    }

    proptest! {
        #[test]
        fn records_come_back_from_their_batch(
            records in proptest::collection::vec(some_record(), 1..40),
            codec in proptest::sample::select(Codec::ALL.to_vec()),
        ) {
            let mut builder = BatchBuilder::new(codec);
            for record in &records {
                let before = builder.bytes();
                builder.push(record);
                prop_assert!(builder.bytes() - before <= record.bytes_max());
            }
            let identity = Identity { producer_id: 7, epoch: 1, base_sequence: 40 };
            let batch = builder.finish(Some(identity)).expect("encodes");
            let header = validate_batch(&batch).expect("a broker takes it");
            prop_assert_eq!(header.size_bytes, batch.len());
            prop_assert_eq!(header.base_sequence, 40);
            prop_assert_eq!(header.max_timestamp_ms, records.iter().map(|r| r.timestamp_ms).max().expect("some"));
            let open = OpenBatch::new(header, &batch).expect("opens");
            let read: Vec<_> = open.records().collect::<Result<_, _>>().expect("reads");
            prop_assert_eq!(read.len(), records.len());
            for (at, (read, sent)) in read.iter().zip(&records).enumerate() {
                prop_assert_eq!(read.offset, at as i64);
                prop_assert_eq!(read.timestamp_ms, sent.timestamp_ms);
                prop_assert_eq!(read.key, sent.key.as_deref());
                prop_assert_eq!(read.value, sent.value.as_deref());
                let headers: Vec<_> =
                    sent.headers.iter().map(|h| (h.key.as_str(), h.value.as_deref())).collect();
                prop_assert_eq!(&read.headers, &headers);
            }
        }

        #[test]
        fn a_payload_of_noise_ends(noise in proptest::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(&Record::default());
            let batch = builder.finish(None).expect("encodes");
            let mut header = validate_batch(&batch).expect("valid");
            header.record_count = count;
            let open = OpenBatch { header, payload: noise };
            let seen = open.records().count();
            prop_assert!(seen <= 201);
        }
    }
}

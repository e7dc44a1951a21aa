//! What the log has promised, kept apart from the log: the batches of each partition, byte for byte, and how far
//! acks and readers have come. Never asks the log what is right.

use ringmill_record::{BatchHeader, HEADER_BYTES};
use std::collections::BTreeMap;

/// A batch as readers must see it.
pub struct Stored {
    pub base: i64,
    pub last: i64,
    pub bytes: Vec<u8>,
    pub producer: Option<(i64, i32)>,
    /// How many batches its producer had sent to the partition with this one.
    pub sent: u64,
}

/// One partition.
#[derive(Default)]
pub struct Model {
    pub batches: Vec<Stored>,
    /// Everything below was acked or shown to a reader, and must outlive any cut.
    pub promised: i64,
    /// Batches sent by each producer, those that a cut took among them.
    sent: BTreeMap<i64, u64>,
}

impl Model {
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(0, |b| b.last + 1)
    }

    /// The sequence that the producer sends next.
    pub fn next_sequence(&self, producer: i64) -> i32 {
        let newest = self.batches.iter().rev().find_map(|b| match b.producer {
            Some((id, sequence)) if id == producer => Some(sequence + (b.last - b.base) as i32 + 1),
            _ => None,
        });
        newest.unwrap_or(0)
    }

    /// Counts one more batch of the producer.
    pub fn count_sent(&mut self, producer: Option<(i64, i32)>) -> u64 {
        let Some((id, _)) = producer else { return 0 };
        let sent = self.sent.entry(id).or_insert(0);
        *sent += 1;
        *sent
    }

    /// What the producer may still send again: it has at most five batches on their way, and a cut that takes the newer
    /// ones does not make an older one unheard of.
    pub fn may_retry(&self, producer: i64) -> Vec<&Stored> {
        let sent = self.sent.get(&producer).copied().unwrap_or(0);
        let of = |b: &&Stored| b.producer.is_some_and(|p| p.0 == producer);
        self.batches.iter().rev().filter(of).take_while(|b| b.sent + 5 > sent).collect()
    }

    /// What a recovery kept.
    pub fn recovered(&mut self, log_end: i64, high_watermark: i64) -> Result<(), String> {
        let (had, promised) = (self.end(), self.promised);
        if log_end < promised {
            return Err(format!(
                "acked records are lost: the log ends at {log_end}, promised up to {promised}"
            ));
        }
        if high_watermark < promised {
            return Err(format!("readers see up to {high_watermark}, promised up to {promised}"));
        }
        self.batches.retain(|b| b.base < log_end);
        if self.end() != log_end {
            return Err(format!("the log ends at {log_end}, which no batch of it does (it had {had})"));
        }
        self.promised = high_watermark;
        Ok(())
    }

    /// What a read from `offset` gave, below `high_watermark`; where the next one begins.
    pub fn check_read(&self, offset: i64, bytes: &[u8], high_watermark: i64) -> Result<i64, String> {
        let mut next = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).ok_or_else(|| format!("no batch at {next}"))?;
            let at = self.batches.partition_point(|b| b.last < next);
            let want =
                self.batches.get(at).ok_or_else(|| format!("a batch at {next} that was never sent"))?;
            let got = rest.get(..header.size_bytes).ok_or_else(|| format!("half a batch at {next}"))?;
            if got != want.bytes {
                let base = header.base_offset;
                return Err(format!("other bytes at {next}: batch {base} instead of {}", want.base));
            }
            if want.last >= high_watermark {
                return Err(format!(
                    "batch {} was shown above the high watermark {high_watermark}",
                    want.base
                ));
            }
            next = want.last + 1;
            rest = rest.get(header.size_bytes..).unwrap_or_default();
        }
        if next == offset && offset < high_watermark {
            return Err(format!("nothing at {offset}, below the high watermark {high_watermark}"));
        }
        Ok(next)
    }
}

/// A batch as a producer sends it.
pub fn batch(records: i32, payload: &[u8], timestamp_ms: i64, producer: Option<(i64, i32)>) -> Vec<u8> {
    let (id, epoch, sequence) = producer.map_or((-1, -1, -1), |(id, sequence)| (id, 0, sequence));
    let mut summed = Vec::with_capacity(HEADER_BYTES + payload.len());
    // Attributes 3: LZ4. Compressed records are not looked into when they are appended.
    summed.extend(3i16.to_be_bytes());
    summed.extend((records - 1).to_be_bytes());
    summed.extend(timestamp_ms.to_be_bytes());
    summed.extend(timestamp_ms.to_be_bytes());
    summed.extend(i64::to_be_bytes(id));
    summed.extend(i16::to_be_bytes(epoch));
    summed.extend(i32::to_be_bytes(sequence));
    summed.extend(records.to_be_bytes());
    summed.extend(payload);
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend(0i64.to_be_bytes());
    out.extend((summed.len() as i32 + 9).to_be_bytes());
    out.extend(0i32.to_be_bytes());
    out.push(2);
    out.extend(crc32c::crc32c(&summed).to_be_bytes());
    out.extend(summed);
    out
}

//! What the broker has promised so far, and what breaks it.

use crate::catalog::Place;
use ringmill_client::batch::{Header, Record};
use ringmill_log::segment::check_batch;
use ringmill_record::records::RecordView;
use ringmill_record::{BatchHeader, Batches, Records, validate_batch};
use ringmill_types::{PartitionId, TimestampType, TopicConfig};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

/// A broken promise, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record of the simulation: unique, and ordered within its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub producer: u32,
    pub number: u64,
    /// Where it was sent: it may appear nowhere else, not even in a later topic of that name.
    pub partition: u64,
    /// A retry may not make it appear twice, nor out of order.
    pub idempotent: bool,
}

const MARK_BYTES: usize = 21;
/// In front of the mark of a delete marker, which has no value to lie in: one header, its name, and its length.
const HEADER_OF_MARK: [u8; 4] = [2, 2, b'm', (2 * MARK_BYTES) as u8];
/// On compacted topics so many records are delete markers: one of three.
const MARKER_EVERY: u64 = 3;

impl Mark {
    /// Stamped with the life in which it is sent: a retry in a later life has another stamp, and is the same mark.
    fn key(self, life: u32) -> Vec<u8> {
        let mut out = self.producer.to_be_bytes().to_vec();
        out.extend(self.number.to_be_bytes());
        out.extend(life.to_be_bytes());
        out.extend((self.partition as u32).to_be_bytes());
        out.push(u8::from(self.idempotent));
        out
    }

    /// The mark, and the life in which the record was sent.
    fn read(key: &[u8]) -> Option<(Mark, u32)> {
        let (producer, rest) = key.split_at_checked(4)?;
        let (number, rest) = rest.split_at_checked(8)?;
        let (life, rest) = rest.split_at_checked(4)?;
        let (partition, rest) = rest.split_at_checked(4)?;
        let mark = Mark {
            producer: u32::from_be_bytes(producer.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
            partition: u32::from_be_bytes(partition.try_into().ok()?).into(),
            idempotent: rest == [1],
        };
        Some((mark, u32::from_be_bytes(life.try_into().ok()?)))
    }

    fn shared_key(self) -> SharedKey {
        // Every key has its time: what is newest of it then stays so, and grows old.
        let time = self.number / SharedKey::TIME;
        SharedKey { producer: self.producer, which: time * SharedKey::COUNT + self.number % SharedKey::COUNT }
    }

    /// On a compacted topic: the record deletes what its key had. Keys and markers are spread over each other, because
    /// their counts have no common factor.
    pub fn deletes(self) -> bool {
        self.number % MARKER_EVERY == 1
    }

    /// Its record. On a compacted topic marks share keys, and lie in front of the values, or in a header where there is no
    /// value.
    pub fn record(self, len: usize, life: u32, timestamp_ms: i64, compacted: bool) -> Record {
        let mark = self.key(life);
        let (key, value, headers) = if !compacted {
            (mark, Some(self.value(len)), Vec::new())
        } else if self.deletes() {
            let header = Header { key: "m".into(), value: Some(mark) };
            (self.shared_key().bytes(), None, vec![header])
        } else {
            (self.shared_key().bytes(), Some([mark, self.value(len)].concat()), Vec::new())
        };
        Record { key: Some(key), value, headers, timestamp_ms }
    }

    /// The mark of a record and the life in which it was sent, if it is what was sent.
    fn of_record(record: &RecordView<'_>, compacted: bool) -> Option<(Mark, u32)> {
        let key = record.key?;
        let (marked, value) = match record.value {
            Some(value) if compacted => value.split_at_checked(MARK_BYTES)?,
            Some(value) => (key, value),
            None => (record.headers.strip_prefix(&HEADER_OF_MARK)?, &[][..]),
        };
        let (mark, life) = Mark::read(marked)?;
        let deletes = compacted && mark.deletes();
        let is_whole = deletes == record.value.is_none()
            && (deletes || mark.value(value.len()) == value)
            && (!compacted || mark.shared_key().bytes() == key);
        is_whole.then_some((mark, life))
    }

    /// The value that goes with the key: what was read must be what was sent.
    fn value(self, len: usize) -> Vec<u8> {
        let start = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.producer);
        (0..len as u64).map(|at| (start.wrapping_add(at.wrapping_mul(0x0101_0101)) >> 11) as u8).collect()
    }
}

/// On compacted topics: the key of a record, which later ones of its producer have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SharedKey {
    producer: u32,
    which: u64,
}

impl SharedKey {
    /// So many of each producer at a time, which lasts for so many records.
    const COUNT: u64 = 5;
    const TIME: u64 = 40;

    fn bytes(self) -> Vec<u8> {
        let mut out = self.producer.to_be_bytes().to_vec();
        out.extend(self.which.to_be_bytes());
        out
    }
}

/// A record that was acked or seen.
#[derive(Clone, Copy)]
struct Known {
    mark: Mark,
    /// When it was first acked or seen, virtual time.
    since_ns: u64,
    timestamp_ms: i64,
    /// Its share of the bytes of its batch, rounded down.
    bytes: u64,
}

struct Partition {
    config: Arc<TopicConfig>,
    /// Acked or seen: there until retention takes it.
    known: BTreeMap<i64, Known>,
    places: HashMap<Mark, i64>,
    /// The largest log start heard of in this life.
    start: i64,
    /// Bytes that producers ever sent to it.
    sent_bytes: u64,
    /// Bytes that retention took, of records that were known; counted below `gone_until`.
    gone_bytes: u64,
    gone_until: i64,
    /// By base offset, on topics where the broker gives the time.
    stamps: BTreeMap<i64, i64>,
    /// Where the log ended when each life began. What lay at or beyond it was lost then, and may not come back.
    ends: BTreeMap<u32, i64>,
    /// What a reading of everything found.
    found: BTreeSet<i64>,
    /// Delete markers that were sent, and the earliest that the wall clock ever was since.
    markers: HashMap<Mark, i64>,
}

/// What one fetch of one partition gave.
pub(crate) struct Read<'a> {
    pub from: i64,
    pub high_watermark: i64,
    pub log_start: Option<i64>,
    pub records: &'a [u8],
}

/// Everything acked or seen, over all lives.
#[derive(Default)]
pub(crate) struct Model {
    partitions: BTreeMap<u64, Partition>,
    pub now_ns: u64,
    /// Counts the times that the logs were recovered.
    pub life: u32,
    /// The last reading is under way: each partition from its start to its end.
    pub reads_all: bool,
    /// The broker's wall clock, and the latest that it ever was.
    wall_ms: i64,
    wall_max_ms: i64,
    pub acked: u64,
    pub seen: u64,
    pub retired: u64,
    pub relaxed_lost: u64,
    /// Known records that compaction took.
    pub superseded: u64,
    /// Delete markers among them that were the newest of their keys.
    pub markers_gone: u64,
}

impl Model {
    pub fn begin(&mut self, id: PartitionId, config: &Arc<TopicConfig>) {
        self.partitions.entry(id.0).or_insert_with(|| Partition {
            config: config.clone(),
            known: BTreeMap::new(),
            places: HashMap::new(),
            start: 0,
            sent_bytes: 0,
            gone_bytes: 0,
            gone_until: 0,
            stamps: BTreeMap::new(),
            ends: BTreeMap::new(),
            found: BTreeSet::new(),
            markers: HashMap::new(),
        });
    }

    pub fn sent(&mut self, id: PartitionId, bytes: usize, marks: &[Mark]) {
        let wall_ms = self.wall_ms;
        if let Some(part) = self.partitions.get_mut(&id.0) {
            part.sent_bytes += bytes as u64;
            if part.config.compacted {
                for mark in marks.iter().filter(|mark| mark.deletes()) {
                    part.markers.entry(*mark).or_insert(wall_ms);
                }
            }
        }
    }

    /// What the broker's wall clock says now. It may go back.
    pub fn wall(&mut self, wall_ms: i64) {
        if wall_ms < self.wall_ms {
            for since in self.partitions.values_mut().flat_map(|part| part.markers.values_mut()) {
                *since = wall_ms.min(*since);
            }
        }
        self.wall_ms = wall_ms;
        self.wall_max_ms = self.wall_max_ms.max(wall_ms);
    }

    /// Nothing acked before is at risk any more: the broker stopped in order.
    pub fn flushed(&mut self) {
        for known in self.partitions.values_mut().flat_map(|p| p.known.values_mut()) {
            known.since_ns = 0;
        }
    }

    /// A life begins with this log: what was promised is in it. A relaxed topic may have lost its last second.
    pub fn recovered(
        &mut self,
        id: PartitionId,
        log_start: i64,
        log_end: i64,
        ended_ns: u64,
    ) -> Result<(), Violation> {
        let Some(part) = self.partitions.get_mut(&id.0) else { return Ok(()) };
        // Retention that was not durable yet may be undone.
        part.start = log_start;
        part.gone_bytes = 0;
        part.gone_until = log_start;
        let lost: Vec<(i64, Known)> = part.known.range(log_end..).map(|(o, k)| (*o, *k)).collect();
        for (offset, known) in lost {
            let sure_ns = known.since_ns + part.config.flush_ms.max(0) as u64 * 1_000_000;
            if part.config.is_durable() || sure_ns < ended_ns {
                return Err(Violation(format!(
                    "partition {}: {:?} at {offset} was acked or seen at {} ns, and the log ends at {log_end}",
                    id.0, known.mark, known.since_ns
                )));
            }
            part.known.remove(&offset);
            part.places.remove(&known.mark);
            self.relaxed_lost += 1;
        }
        part.stamps.split_off(&log_end);
        part.ends.insert(self.life, log_end);
        Ok(())
    }

    fn know(&mut self, id: u64, offset: i64, new: Known, how: &str) -> Result<(), Violation> {
        let Some(part) = self.partitions.get_mut(&id) else { return Ok(()) };
        let mark = new.mark;
        if mark.partition != id {
            return Err(Violation(format!("partition {id} offset {offset}: {how} {mark:?}")));
        }
        if let Some(before) = part.known.get(&offset) {
            if before.mark != mark {
                return Err(Violation(format!(
                    "partition {id} offset {offset}: {how} {mark:?}, was {:?}",
                    before.mark
                )));
            }
            return Ok(());
        }
        if let Some(place) = part.places.get(&mark)
            && *place != offset
        {
            return Err(Violation(format!("partition {id}: {mark:?} {how} at {offset} and at {place}")));
        }
        part.known.insert(offset, new);
        part.places.insert(mark, offset);
        Ok(())
    }

    /// The broker gave a batch this time; times do not step back along the log.
    fn stamped(&mut self, id: u64, base: i64, ms: i64) -> Result<(), Violation> {
        let Some(part) = self.partitions.get_mut(&id) else { return Ok(()) };
        if part.config.timestamp_type != TimestampType::LogAppendTime {
            return Ok(());
        }
        let before = part.stamps.range(..base).next_back();
        let after = part.stamps.range(base + 1..).next();
        if before.is_some_and(|(_, other)| *other > ms) || after.is_some_and(|(_, other)| *other < ms) {
            return Err(Violation(format!(
                "partition {id}: the batch at {base} was appended at {ms} ms, between {before:?} and {after:?}"
            )));
        }
        match part.stamps.insert(base, ms) {
            Some(was) if was != ms => Err(Violation(format!(
                "partition {id}: the batch at {base} was appended at {was} and at {ms} ms"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    pub fn acked(
        &mut self,
        place: &Place,
        base: i64,
        marks: &[Mark],
        (timestamp_ms, log_append_ms, bytes): (i64, i64, usize),
    ) -> Result<(), Violation> {
        if log_append_ms >= 0 {
            self.stamped(place.id.0, base, log_append_ms)?;
        }
        let bytes = bytes as u64 / marks.len().max(1) as u64;
        let timestamp_ms = timestamp_ms.max(log_append_ms);
        for (at, mark) in marks.iter().enumerate() {
            let known = Known { mark: *mark, since_ns: self.now_ns, timestamp_ms, bytes };
            self.know(place.id.0, base + at as i64, known, "acked")?;
        }
        self.acked += marks.len() as u64;
        Ok(())
    }

    /// Readers were told that the log begins at `start`.
    fn starts(&mut self, id: u64, start: i64) -> Result<(), Violation> {
        let wall_max_ms = self.wall_max_ms;
        let Some(part) = self.partitions.get_mut(&id) else { return Ok(()) };
        // An answer that was overtaken by another may be older.
        if start <= part.start {
            return Ok(());
        }
        part.start = start;
        let kept = part.known.split_off(&start);
        let gone = std::mem::replace(&mut part.known, kept);
        part.gone_bytes += gone.range(part.gone_until..).map(|(_, k)| k.bytes).sum::<u64>();
        part.gone_until = start;
        self.retired += gone.len() as u64;
        let (bytes, ms) = (part.config.retention_bytes, part.config.retention_ms);
        let left = part.sent_bytes.saturating_sub(part.gone_bytes);
        let too_large = bytes >= 0 && left >= bytes as u64;
        for (offset, known) in &gone {
            let too_old = ms >= 0 && wall_max_ms - known.timestamp_ms > ms;
            if !too_large && !too_old {
                return Err(Violation(format!(
                    "partition {id}: the log begins at {start}, but {:?} at {offset} ({} ms, at most {left} B after it) \
                     may be read: retention is {ms} ms (now {wall_max_ms} ms), {bytes} B",
                    known.mark, known.timestamp_ms
                )));
            }
        }
        Ok(())
    }

    /// Records as a fetch gave them. Returns the next offset.
    pub fn fetched(&mut self, place: &Place, read: &Read<'_>) -> Result<i64, Violation> {
        let id = place.id.0;
        if let Some(start) = read.log_start {
            self.starts(id, start)?;
        }
        let (from, end) = (read.from, read.high_watermark);
        let holes = self.partitions.get(&id).is_some_and(|part| part.config.compacted);
        let mut next = None;
        let mut batches = Batches::new(read.records);
        for (header, batch) in batches.by_ref() {
            // A compacted batch has fewer records than offsets.
            let is_sound = if holes { check_batch(batch).is_ok() } else { validate_batch(batch).is_ok() };
            if !is_sound {
                return Err(Violation(format!("partition {id}: a batch read at {from} is damaged")));
            }
            let base = header.base_offset.0;
            // Compaction leaves holes between batches.
            let fits = match next {
                Some(next) => base == next || holes && base > next,
                None => (base..=header.last_offset().0).contains(&from) || holes && base > from,
            };
            if !fits {
                return Err(Violation(format!(
                    "partition {id}: reading at {from} gave a batch at {base}, expected {next:?}"
                )));
            }
            next = Some(header.next_offset().0);
            if header.last_offset().0 >= end {
                return Err(Violation(format!("partition {id}: {base} is beyond the high watermark {end}")));
            }
            self.read_batch(id, &header, batch)?;
        }
        if !batches.rest().is_empty() {
            return Err(Violation(format!("partition {id}: a read at {from} ends inside a batch")));
        }
        Ok(next.unwrap_or(from))
    }

    fn read_batch(&mut self, id: u64, header: &BatchHeader, batch: &[u8]) -> Result<(), Violation> {
        let base = header.base_offset.0;
        let records = Records::new(header, batch)
            .map_err(|_| Violation(format!("partition {id}: a batch at {base} cannot be read")))?;
        let bytes = batch.len() as u64 / header.record_count.max(1) as u64;
        let compacted = self.partitions.get(&id).is_some_and(|part| part.config.compacted);
        for record in records {
            let at = record.as_ref().map_or(0, |record| i64::from(record.offset_delta));
            let read = record.ok().and_then(|record| Mark::of_record(&record, compacted));
            let Some((mark, life)) = read else {
                return Err(Violation(format!("partition {id} offset {base}+{at}: not what was sent")));
            };
            self.check_never_lost(id, base + at, mark, life)?;
            let timestamp_ms = header.max_timestamp_ms;
            let known = Known { mark, since_ns: self.now_ns, timestamp_ms, bytes };
            self.know(id, base + at, known, "read")?;
            self.find(id, base + at);
            self.seen += 1;
        }
        self.stamped(id, base, header.max_timestamp_ms)
    }

    /// A record that a recovery did not find is gone: were it to show up later, whoever read in between, or sent it again
    /// because it was not there, would have been told otherwise.
    fn check_never_lost(&self, id: u64, offset: i64, mark: Mark, life: u32) -> Result<(), Violation> {
        let Some(part) = self.partitions.get(&id) else { return Ok(()) };
        match part.ends.range(life + 1..).find(|(_, end)| **end <= offset) {
            Some((lost, end)) => Err(Violation(format!(
                "partition {id} offset {offset}: {mark:?} of life {life} is back, which was lost before life {lost} began \
                 with a log that ended at {end}"
            ))),
            None => Ok(()),
        }
    }

    fn find(&mut self, id: u64, offset: i64) {
        if let Some(part) = self.partitions.get_mut(&id).filter(|_| self.reads_all) {
            part.found.insert(offset);
        }
    }

    /// Of a compacted partition: what is known and gone was superseded by something newer of its key, or is a delete marker
    /// whose time was over; and where such a marker was the newest, nothing older of its key is there again. How much is
    /// gone, and how many of it are such markers.
    fn check_compacted(id: u64, part: &Partition, wall_max_ms: i64) -> Result<(u64, u64), Violation> {
        let is_over = |mark: &Mark| {
            let since = part.markers.get(mark);
            since.is_some_and(|since| wall_max_ms.saturating_sub(*since) >= part.config.delete_retention_ms)
        };
        // In offset order, so the last of each key stays.
        let newest: HashMap<SharedKey, (i64, Mark)> = (part.known.range(part.start..))
            .map(|(offset, known)| (known.mark.shared_key(), (*offset, known.mark)))
            .collect();
        // A marker that nobody heard of may have been stored, and have gone.
        let unheard: BTreeSet<SharedKey> = (part.markers.keys())
            .filter(|mark| !part.places.contains_key(*mark) && is_over(mark))
            .map(|mark| mark.shared_key())
            .collect();
        let (mut count, mut markers) = (0, 0);
        for (offset, known) in
            part.known.range(part.start..).filter(|(offset, _)| !part.found.contains(offset))
        {
            count += 1;
            let key = known.mark.shared_key();
            if newest.get(&key).is_some_and(|(newest, _)| newest > offset) {
                continue;
            }
            markers += 1;
            let may_go = known.mark.deletes() && is_over(&known.mark) || unheard.contains(&key);
            if !may_go {
                return Err(Violation(format!(
                    "partition {id}: {:?} at {offset} is gone, and no newer record of its key is there",
                    known.mark
                )));
            }
        }
        for (offset, known) in
            part.known.range(part.start..).filter(|(offset, _)| part.found.contains(offset))
        {
            match newest.get(&known.mark.shared_key()) {
                Some((newest, mark)) if !part.found.contains(newest) => {
                    return Err(Violation(format!(
                        "partition {id}: {:?} at {offset} is there, although {mark:?} at {newest} deleted its key",
                        known.mark
                    )));
                }
                Some(_) | None => {}
            }
        }
        Ok((count, markers))
    }

    /// The last word: everything known lies below `end`, dense, and idempotent producers are in order.
    pub fn check_whole(&mut self, id: PartitionId, end: i64) -> Result<(), Violation> {
        let Some(part) = self.partitions.get(&id.0) else { return Ok(()) };
        if part.config.compacted {
            let (gone, markers) = Self::check_compacted(id.0, part, self.wall_max_ms)?;
            self.superseded += gone;
            self.markers_gone += markers;
        }
        let mut newest: HashMap<u32, u64> = HashMap::new();
        for (at, (offset, known)) in (part.start..).zip(part.known.range(part.start..)) {
            let mark = known.mark;
            if *offset != at && !part.config.compacted {
                return Err(Violation(format!(
                    "partition {}: no record at {at}, the next is at {offset}",
                    id.0
                )));
            }
            if !mark.idempotent {
                continue;
            }
            if let Some(before) = newest.insert(mark.producer, mark.number)
                && before >= mark.number
            {
                return Err(Violation(format!(
                    "partition {} offset {offset}: {mark:?} after {before}",
                    id.0
                )));
            }
        }
        match part.known.last_key_value() {
            Some((last, known)) if *last >= end => Err(Violation(format!(
                "partition {}: {:?} at {last} was acked or seen, and the log ends at {end}",
                id.0, known.mark
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

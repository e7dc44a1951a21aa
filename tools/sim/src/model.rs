//! What the broker has promised so far, and what breaks it.

use ringmill_record::{Batches, Records, validate_batch};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

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
    /// A retry may not make it appear twice, nor out of order.
    pub idempotent: bool,
}

impl Mark {
    pub fn key(self) -> Vec<u8> {
        let mut out = self.producer.to_be_bytes().to_vec();
        out.extend(self.number.to_be_bytes());
        out.push(u8::from(self.idempotent));
        out
    }

    pub fn read(key: &[u8]) -> Option<Mark> {
        let (producer, rest) = key.split_at_checked(4)?;
        let (number, rest) = rest.split_at_checked(8)?;
        Some(Mark {
            producer: u32::from_be_bytes(producer.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
            idempotent: rest == [1],
        })
    }

    /// The value that goes with the key: what was read must be what was sent.
    pub fn value(self, len: usize) -> Vec<u8> {
        let start = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.producer);
        (0..len as u64).map(|at| (start.wrapping_add(at.wrapping_mul(0x0101_0101)) >> 11) as u8).collect()
    }
}

#[derive(Default)]
struct Partition {
    /// Acked or seen: there for ever.
    known: BTreeMap<i64, Mark>,
    places: HashMap<Mark, i64>,
}

/// Everything acked or seen, over all lives.
#[derive(Default)]
pub(crate) struct Model {
    partitions: Vec<Partition>,
    pub acked: u64,
    pub seen: u64,
}

impl Model {
    pub fn new(partitions: usize) -> Model {
        Model { partitions: (0..partitions).map(|_| Partition::default()).collect(), ..Model::default() }
    }

    fn know(&mut self, partition: usize, offset: i64, mark: Mark, how: &str) -> Result<(), Violation> {
        let Some(part) = self.partitions.get_mut(partition) else { return Ok(()) };
        if let Some(before) = part.known.get(&offset)
            && *before != mark
        {
            return Err(Violation(format!(
                "partition {partition} offset {offset}: {how} {mark:?}, was {before:?}"
            )));
        }
        if let Some(place) = part.places.get(&mark)
            && *place != offset
        {
            return Err(Violation(format!(
                "partition {partition}: {mark:?} {how} at {offset} and at {place}"
            )));
        }
        part.known.insert(offset, mark);
        part.places.insert(mark, offset);
        Ok(())
    }

    pub fn acked(&mut self, partition: usize, base: i64, marks: &[Mark]) -> Result<(), Violation> {
        for (at, mark) in marks.iter().enumerate() {
            self.know(partition, base + at as i64, *mark, "acked")?;
        }
        self.acked += marks.len() as u64;
        Ok(())
    }

    /// Records as a fetch at `from` gave them. Returns the next offset.
    pub fn fetched(&mut self, partition: usize, from: i64, end: i64, bytes: &[u8]) -> Result<i64, Violation> {
        let mut next = None;
        let mut batches = Batches::new(bytes);
        for (header, batch) in batches.by_ref() {
            if validate_batch(batch).is_err() {
                return Err(Violation(format!("partition {partition}: a batch read at {from} is damaged")));
            }
            let base = header.base_offset.0;
            if next.is_some_and(|n| n != base)
                || next.is_none() && !(base..=header.last_offset().0).contains(&from)
            {
                return Err(Violation(format!(
                    "partition {partition}: reading at {from} gave a batch at {base}, expected {next:?}"
                )));
            }
            next = Some(header.next_offset().0);
            if header.last_offset().0 >= end {
                return Err(Violation(format!(
                    "partition {partition}: {base} is beyond the high watermark {end}"
                )));
            }
            let records = Records::new(&header, batch)
                .map_err(|_| Violation(format!("partition {partition}: a batch at {base} cannot be read")))?;
            for (at, record) in records.enumerate() {
                let mark = record.ok().and_then(|r| {
                    let mark = Mark::read(r.key?)?;
                    (mark.value(r.value?.len()) == r.value?).then_some(mark)
                });
                let Some(mark) = mark else {
                    return Err(Violation(format!(
                        "partition {partition} offset {base}+{at}: not what was sent"
                    )));
                };
                self.know(partition, base + at as i64, mark, "read")?;
                self.seen += 1;
            }
        }
        if !batches.rest().is_empty() {
            return Err(Violation(format!("partition {partition}: a read at {from} ends inside a batch")));
        }
        Ok(next.unwrap_or(from))
    }

    /// The last word: everything known lies below `end`, dense, and idempotent producers are in order.
    pub fn check_whole(&self, partition: usize, end: i64) -> Result<(), Violation> {
        let Some(part) = self.partitions.get(partition) else { return Ok(()) };
        let mut newest: HashMap<u32, u64> = HashMap::new();
        for (at, (offset, mark)) in part.known.iter().enumerate() {
            if *offset != at as i64 {
                return Err(Violation(format!(
                    "partition {partition}: no record at {at}, the next is at {offset}"
                )));
            }
            if !mark.idempotent {
                continue;
            }
            if let Some(before) = newest.insert(mark.producer, mark.number)
                && before >= mark.number
            {
                return Err(Violation(format!(
                    "partition {partition} offset {offset}: {mark:?} after {before}"
                )));
            }
        }
        match part.known.last_key_value() {
            Some((last, mark)) if *last >= end => Err(Violation(format!(
                "partition {partition}: {mark:?} at {last} was acked or seen, and the log ends at {end}"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

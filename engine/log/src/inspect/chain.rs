//! The chain of flush groups across the files of a core log, walked as recovery does, and behind damage.

use super::ring_files::{CutOff, LogFile, PAGE, cut_off, first_elsewhere, log_file_numbers, log_path};
use crate::format::checkpoint::Checkpoint;
use crate::format::given_up::{self, Gap};
use crate::format::group::{
    DecodedGroup, Entry, EntryKind, GroupError, GroupHeader, decode_group, decode_table, salvage_group,
};
use ringmill_reactor::Fs;
use ringmill_types::{GroupSeq, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

const RING_FILES_MIN: u32 = 2;
/// A checkpoint that names a file beyond is damaged: a ring is configured with far fewer.
const RING_FILES_MAX: u32 = 100_000;

/// Where acked groups are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    pub path: PathBuf,
    pub position: u64,
    /// The group that should be there.
    pub sequence: GroupSeq,
    /// Highest sequence that was recorded as durable.
    pub durable: GroupSeq,
    pub what: String,
    /// Damaged entries of that group; `None` when its table is damaged too, so that nobody can say whose they were.
    pub damaged: Option<Vec<Entry>>,
    /// Where the chain goes on; `None` when no later group is left.
    pub gap: Option<Gap>,
    /// A repair gave these groups up.
    pub is_given_up: bool,
}

/// The chain of groups that recovery would replay, were the damage in it given up.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// In order; of those with damaged entries, what is good.
    pub groups: Vec<ChainGroup>,
    /// Files of the ring in order; gaps are missing files.
    pub files: Vec<PathBuf>,
    pub missing: Vec<PathBuf>,
    /// One that lacks its end.
    pub cut: Option<CutOff>,
    pub next_sequence: u64,
    pub end_file: u32,
    pub end_position: u64,
    /// In order. Behind all but the last one the chain goes on.
    pub holes: Vec<Hole>,
    /// Core-log files changed places: this one holds the chain's first group, at the place where it should be in another.
    pub exchanged: Option<PathBuf>,
}

/// What a partition loses by holes in the chain: offsets are dense, so all that comes behind its first lost batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEnd {
    pub partition: PartitionId,
    /// First lost offset.
    pub first: i64,
    /// Where the newest lost batch begins.
    pub newest: i64,
}

impl Chain {
    /// Damage that nobody has accepted.
    pub fn damage(&self) -> impl Iterator<Item = &Hole> {
        self.holes.iter().filter(|hole| !hole.is_given_up)
    }

    /// What partitions lose by [`damage`](Self::damage), by id, and the core-log files where what cannot follow any more lies.
    pub fn lost_ends(&self, start: &Checkpoint) -> (Vec<LostEnd>, BTreeSet<u32>) {
        let mut ends: BTreeMap<u64, i64> = start.partitions.iter().map(|p| (p.id, p.next_offset)).collect();
        let mut losses = Losses::default();
        let mut files = BTreeSet::new();
        let mut holes = self.holes.iter().peekable();
        let mut is_damaged = false;
        for group in &self.groups {
            while let Some(hole) = holes.next_if(|hole| hole.sequence < group.sequence) {
                is_damaged |= !hole.is_given_up;
                losses.take_hole(hole, &ends);
            }
            for (id, first, last) in &group.batches {
                let end = ends.entry(id.0).or_insert(0);
                if first == end {
                    *end = last.saturating_add(1);
                    losses.before.remove(&id.0);
                } else if first > end && losses.take(*id, *end, *first, !is_damaged) {
                    files.insert(group.file);
                }
            }
        }
        holes.for_each(|hole| losses.take_hole(hole, &ends));
        (losses.now.into_values().collect(), files)
    }
}

/// What partitions lose, by id.
#[derive(Default)]
struct Losses {
    now: BTreeMap<u64, LostEnd>,
    /// By a hole that was given up already: told then.
    before: BTreeSet<u64>,
}

impl Losses {
    /// A batch that begins at `first` cannot be had, or cannot follow on `end`; true where that is told now.
    fn take(&mut self, partition: PartitionId, end: i64, first: i64, is_given_up: bool) -> bool {
        if is_given_up {
            self.before.insert(partition.0);
        }
        if self.before.contains(&partition.0) {
            return false;
        }
        let lost = self.now.entry(partition.0).or_insert(LostEnd { partition, first: end, newest: first });
        lost.newest = first.max(lost.newest);
        true
    }

    fn take_hole(&mut self, hole: &Hole, ends: &BTreeMap<u64, i64>) {
        for entry in hole.damaged.iter().flatten().filter(|entry| entry.kind.holds_batch()) {
            let end = ends.get(&entry.partition.0).copied().unwrap_or(0);
            if entry.arg >= end {
                self.take(entry.partition, end, entry.arg, hole.is_given_up);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainGroup {
    pub sequence: GroupSeq,
    pub file: u32,
    pub position: u64,
    pub bytes: u64,
    /// Partition, first and last offset of each batch in it.
    pub batches: Vec<(PartitionId, i64, i64)>,
    /// Partitions of all its entries, each once.
    pub named: BTreeSet<PartitionId>,
    /// Those of them that it says were deleted.
    pub deleted: BTreeSet<PartitionId>,
    /// Where it says that a partition's log begins from then on.
    pub log_starts: Vec<(PartitionId, i64)>,
}

/// Walks the groups from where the checkpoint says, by sequence, incarnation and header CRC, as recovery does, and behind
/// damage from the next group on that can be found.
///
/// # Errors
/// Reads that fail. A hole is a result.
pub fn walk_chain(fs: &dyn Fs, dir: &Path, start: &Checkpoint) -> io::Result<Chain> {
    let mut walk = Walk::new(fs, dir, start)?;
    while walk.take(fs, decode_group)? {}
    if walk.chain.groups.is_empty() {
        walk.chain.exchanged = first_elsewhere(fs, dir, start)?;
    }
    // After an orderly stop everything is in segments, and the log is not needed.
    if start.clean || walk.chain.exchanged.is_some() {
        return Ok(walk.chain);
    }
    while walk.pass_over(fs)? {
        while walk.take(fs, decode_group)? {}
    }
    Ok(walk.chain)
}

/// A header of the chain's lives.
struct Found {
    sequence: u64,
    durable: u64,
    prev_header_crc: u32,
    file: u32,
    position: u64,
}

struct Walk {
    files: Vec<LogFile>,
    /// Number in the name of each of `files`.
    numbers: Vec<u32>,
    lives: Vec<(u128, u64)>,
    prev_header_crc: u32,
    durable: u64,
    given_up: Vec<Gap>,
    /// Behind the checkpoint, by sequence; looked for where the chain ends for the first time.
    headers: Option<Vec<Found>>,
    chain: Chain,
}

/// The life that group `sequence` belongs to.
fn owner_of(lives: &[(u128, u64)], sequence: u64) -> Option<u128> {
    lives.iter().rev().find(|(_, first)| *first <= sequence).map(|(life, _)| *life)
}

/// The chain's next group begins with this header.
pub(super) fn continues(
    header: &GroupHeader,
    next: u64,
    prev_header_crc: u32,
    lives: &[(u128, u64)],
) -> bool {
    header.sequence.0 == next
        && header.prev_header_crc == prev_header_crc
        && owner_of(lives, next) == Some(header.incarnation)
}

impl Walk {
    fn new(fs: &dyn Fs, dir: &Path, start: &Checkpoint) -> io::Result<Walk> {
        let numbers = log_file_numbers(fs, dir)?;
        let files =
            numbers.iter().map(|n| LogFile::open(fs, &log_path(dir, *n))).collect::<io::Result<Vec<_>>>()?;
        // A gap in the numbers is a lost file; so is the one that the checkpoint names. A ring has two at least.
        let named = start.start_file.saturating_add(1);
        let needed = numbers.last().map_or(0, |n| n + 1).max(named).clamp(RING_FILES_MIN, RING_FILES_MAX);
        let missing =
            (0..needed).filter(|n| numbers.binary_search(n).is_err()).map(|n| log_path(dir, n)).collect();
        let cut = cut_off(files.iter().map(|file| (file.path.as_path(), file.bytes)));
        Ok(Walk {
            lives: start.lives.clone(),
            prev_header_crc: start.prev_header_crc,
            durable: start.durable_group,
            given_up: given_up::read(fs, dir)?,
            headers: None,
            chain: Chain {
                files: files.iter().map(|f| f.path.clone()).collect(),
                missing,
                cut,
                next_sequence: start.next_group,
                end_file: start.start_file,
                end_position: start.start_offset,
                ..Chain::default()
            },
            files,
            numbers,
        })
    }

    /// Goes to the next group's header, at the end of the last one or at the start of another file.
    fn find_next(&mut self, fs: &dyn Fs) -> io::Result<Option<GroupHeader>> {
        let here = (self.chain.end_file, self.chain.end_position);
        let starts = self.numbers.iter().map(|n| (*n, 0)).filter(|place| *place != here);
        let places: Vec<(u32, u64)> = std::iter::once(here).chain(starts).collect();
        for (number, position) in places {
            let Ok(index) = self.numbers.binary_search(&number) else { continue };
            let Some(file) = self.files.get_mut(index) else { continue };
            if let Ok(header) = file.header(fs, position)?
                && continues(&header, self.chain.next_sequence, self.prev_header_crc, &self.lives)
            {
                (self.chain.end_file, self.chain.end_position) = (number, position);
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Takes the next group, if `decode` can read it.
    fn take(
        &mut self,
        fs: &dyn Fs,
        decode: fn(&[u8]) -> Result<DecodedGroup<'_>, GroupError>,
    ) -> io::Result<bool> {
        let Some(header) = self.find_next(fs)? else { return Ok(false) };
        let (number, position) = (self.chain.end_file, self.chain.end_position);
        let index = self.numbers.binary_search(&number).ok();
        let Some(file) = index.and_then(|index| self.files.get_mut(index)) else { return Ok(false) };
        let bytes = header.total_bytes() as u64;
        let end = position + bytes;
        self.chain.cut = self.chain.cut.take().or_else(|| CutOff::within_group(&file.path, file.bytes, end));
        let Ok(group) = decode(file.get(fs, position, bytes)?) else { return Ok(false) };
        let batches = batches_of(&group);
        let of_partitions = group.entries.iter().filter(|entry| entry.kind != EntryKind::NoOp);
        let named = of_partitions.map(|entry| entry.partition).collect();
        let tombstones = group.entries.iter().filter(|entry| entry.kind == EntryKind::Tombstone);
        let deleted = tombstones.map(|entry| entry.partition).collect();
        let log_starts = group.entries.iter().filter(|entry| entry.kind == EntryKind::LogStart);
        let log_starts = log_starts.map(|entry| (entry.partition, entry.arg)).collect();
        self.prev_header_crc = file.stored_crc(fs, position)?;
        self.durable = self.durable.max(header.durable.0);
        self.chain.groups.push(ChainGroup {
            sequence: header.sequence,
            file: number,
            position,
            bytes,
            batches,
            named,
            deleted,
            log_starts,
        });
        self.chain.next_sequence += 1;
        self.chain.end_position = end;
        Ok(true)
    }

    /// Where the chain ends although more was recorded as durable, notes the hole, and goes on behind it where something is
    /// left, with what is good of the group that should be there. False at the end of the chain.
    fn pass_over(&mut self, fs: &dyn Fs) -> io::Result<bool> {
        let next = self.chain.next_sequence;
        let known = self.given_up.iter().find(|gap| gap.first == next).copied();
        self.find_headers(fs)?;
        let later = || self.headers.iter().flatten().filter(|found| found.sequence > next);
        let durable = later().map(|found| found.durable).max().unwrap_or(0).max(self.durable);
        if known.is_none() && durable < next {
            return Ok(false);
        }
        let found = later().next().map(|found| Gap {
            first: next,
            next: found.sequence,
            file: found.file,
            position: found.position,
            prev_header_crc: found.prev_header_crc,
        });
        let (damaged, what) = self.at_end(fs)?;
        let hole = Hole {
            path: self.end_path(),
            position: self.chain.end_position,
            sequence: GroupSeq(next),
            durable: GroupSeq(durable),
            what,
            damaged,
            gap: known.or(found),
            is_given_up: known.is_some(),
        };
        let gap = hole.gap;
        self.chain.holes.push(hole);
        let Some(gap) = gap else { return Ok(false) };
        self.take(fs, salvage_group)?;
        (self.chain.end_file, self.chain.end_position) = (gap.file, gap.position);
        (self.chain.next_sequence, self.prev_header_crc) = (gap.next, gap.prev_header_crc);
        Ok(true)
    }

    /// Only groups of the life that owns their sequence count: what an earlier life left beyond its end was given up when
    /// the next one began.
    fn find_headers(&mut self, fs: &dyn Fs) -> io::Result<()> {
        if self.headers.is_some() {
            return Ok(());
        }
        let mut headers = Vec::new();
        for (file, number) in self.files.iter_mut().zip(&self.numbers) {
            let mut position = if *number == self.chain.end_file { self.chain.end_position } else { 0 };
            while position < file.bytes {
                if let Ok(header) = file.header(fs, position)?
                    && header.sequence.0 > self.chain.next_sequence
                    && owner_of(&self.lives, header.sequence.0) == Some(header.incarnation)
                {
                    headers.push(Found {
                        sequence: header.sequence.0,
                        durable: header.durable.0,
                        prev_header_crc: header.prev_header_crc,
                        file: *number,
                        position,
                    });
                }
                position += PAGE;
            }
        }
        headers.sort_unstable_by_key(|found| found.sequence);
        self.headers = Some(headers);
        Ok(())
    }

    fn end_path(&self) -> PathBuf {
        let index = self.numbers.binary_search(&self.chain.end_file).ok();
        let known = index.and_then(|i| self.files.get(i)).map(|f| f.path.clone());
        known.or_else(|| self.chain.missing.first().cloned()).unwrap_or_default()
    }

    /// What lies where the next group should be: its damaged entries, when its table is intact, and what is wrong.
    fn at_end(&mut self, fs: &dyn Fs) -> io::Result<(Option<Vec<Entry>>, String)> {
        let position = self.chain.end_position;
        let index = self.numbers.binary_search(&self.chain.end_file);
        let Some(file) = index.ok().and_then(|i| self.files.get_mut(i)) else {
            return Ok((None, "the file is missing".to_string()));
        };
        let header = match file.header(fs, position)? {
            Ok(header) => header,
            Err(error) => return Ok((None, error.to_string())),
        };
        if header.sequence.0 != self.chain.next_sequence {
            return Ok((None, format!("group {} lies there", header.sequence)));
        }
        let what = match file.group(fs, position, &header)? {
            Ok(_) => return Ok((None, "a group that does not continue the chain".to_string())),
            Err(error) => error.to_string(),
        };
        let bytes = file.get(fs, position, header.total_bytes() as u64)?;
        let (Ok(entries), Ok(good)) = (decode_table(&header, bytes), salvage_group(bytes)) else {
            return Ok((None, what));
        };
        let both = entries.into_iter().zip(good.entries);
        Ok((Some(both.filter(|(entry, good)| entry != good).map(|(entry, _)| entry).collect()), what))
    }
}

fn batches_of(group: &DecodedGroup<'_>) -> Vec<(PartitionId, i64, i64)> {
    let batches = group.payloads().filter(|(entry, _)| entry.kind.holds_batch());
    batches
        .filter_map(|(entry, bytes)| {
            let header = ringmill_record::BatchHeader::parse(bytes)?;
            Some((entry.partition, entry.arg, header.last_offset().0))
        })
        .collect()
}

/// The partitions that lose records, in a sentence. Others may, whose newest records nobody can see were there.
pub(crate) fn losers_of(names: &[String], are_all_known: bool) -> String {
    let named = if names.is_empty() { "not known".to_string() } else { names.join(", ") };
    let others = if are_all_known || names.is_empty() { "" } else { ", and perhaps others of this core" };
    format!("{named}{others}")
}

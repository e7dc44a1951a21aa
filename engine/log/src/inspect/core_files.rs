//! Our own files: core-log files, the chain of groups across them, checkpoints.

use super::rows::{CheckpointRow, EntryRow, GroupRow, PartitionRow, Row, SwapRow};
use super::{FileKind, InspectError, Report, at};
use crate::format::checkpoint::{self, Checkpoint, CheckpointError, Slot};
use crate::format::given_up::{self, Gap};
use crate::format::group::{
    DecodedGroup, Entry, EntryKind, GROUP_HEADER_BYTES, GroupError, GroupHeader, decode_group, decode_table,
    salvage_group,
};
use crate::format::swap::{self, SwapRecord};
use ringmill_reactor::{FileHandle, Fs, OpenMode};
use ringmill_types::limits::{CORE_LOG_FIRST_FILE_BYTES, PAGE_BYTES};
use ringmill_types::{GroupSeq, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

const PAGE: u64 = PAGE_BYTES as u64;
/// One read while looking for headers.
const READ_BYTES: u64 = 1 << 20;

const RING_FILES_MIN: u32 = 2;
/// A checkpoint that names a file beyond is damaged: a ring is configured with far fewer.
const RING_FILES_MAX: u32 = 100_000;

/// `000.log` is 0; three digits or more, so that no segment is mistaken for one.
pub(super) fn log_file_number(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".log")?;
    let canonical = stem.len() == 3 || stem.len() > 3 && !stem.starts_with('0');
    (canonical && stem.len() < 8 && stem.bytes().all(|b| b.is_ascii_digit()))
        .then(|| stem.parse().ok())
        .flatten()
}

pub(super) fn log_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:03}.log"))
}

/// Numbers of the core-log files in a folder, in order.
fn log_file_numbers(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = fs.list(dir)?.iter().filter_map(|e| log_file_number(&e.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A core-log file, read in large pieces.
pub(super) struct LogFile {
    pub path: PathBuf,
    pub bytes: u64,
    file: FileHandle,
    start: u64,
    held: Vec<u8>,
}

impl LogFile {
    pub fn open(fs: &dyn Fs, path: &Path) -> io::Result<LogFile> {
        let file = fs.open(path, OpenMode::Read)?;
        Ok(LogFile { path: path.to_path_buf(), bytes: fs.len(&file)?, file, start: 0, held: Vec::new() })
    }

    /// `len` bytes at `at`; fewer at the end of the file.
    pub fn get(&mut self, fs: &dyn Fs, at: u64, len: u64) -> io::Result<&[u8]> {
        let len = len.min(self.bytes.saturating_sub(at));
        if at < self.start || at + len > self.start + self.held.len() as u64 {
            let want = len.max(READ_BYTES.min(self.bytes.saturating_sub(at)));
            self.held.resize(want as usize, 0);
            let got = fs.read_at(&self.file, &mut self.held, at)?;
            self.held.truncate(got);
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let to = from.saturating_add(len as usize).min(self.held.len());
        Ok(self.held.get(from..to).unwrap_or_default())
    }

    pub fn header(&mut self, fs: &dyn Fs, at: u64) -> io::Result<Result<GroupHeader, GroupError>> {
        self.get(fs, at, GROUP_HEADER_BYTES as u64).map(GroupHeader::decode)
    }

    /// The group whose header is known to be at `at`.
    pub fn group(
        &mut self,
        fs: &dyn Fs,
        at: u64,
        header: &GroupHeader,
    ) -> io::Result<Result<DecodedGroup<'_>, GroupError>> {
        self.get(fs, at, header.total_bytes() as u64).map(decode_group)
    }

    /// The entry table of a group whose payload may be damaged.
    pub fn table(
        &mut self,
        fs: &dyn Fs,
        at: u64,
        header: &GroupHeader,
    ) -> io::Result<Result<Vec<Entry>, GroupError>> {
        self.get(fs, at, header.total_bytes() as u64).map(|bytes| decode_table(header, bytes))
    }

    fn stored_crc(&mut self, fs: &dyn Fs, at: u64) -> io::Result<u32> {
        let bytes = self.get(fs, at, GROUP_HEADER_BYTES as u64)?;
        Ok(bytes.try_into().map_or(0, GroupHeader::own_crc))
    }
}

pub(super) fn core_log(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let mut report = Report::new(path, FileKind::CoreLogFile);
    let mut file = LogFile::open(fs, path).map_err(at(path))?;
    report.file_bytes = file.bytes;
    let mut position = 0;
    while position < file.bytes {
        position += match file.header(fs, position).map_err(at(path))? {
            Ok(header) => group(fs, &mut file, position, &header, &mut report, emit).map_err(at(path))?,
            Err(GroupError::NoHeader) => PAGE,
            // A page of an older group's payload may begin with anything, but not with our magic by accident.
            Err(error) => {
                report.note(position, error.to_string());
                PAGE
            }
        };
    }
    Ok(report)
}

/// Reports one group; returns how far to step.
fn group(
    fs: &dyn Fs,
    file: &mut LogFile,
    position: u64,
    header: &GroupHeader,
    report: &mut Report,
    emit: &mut dyn FnMut(&Row),
) -> io::Result<u64> {
    let sequence = header.sequence.0;
    report.saw(sequence as i64, sequence as i64);
    emit(&Row::Group(GroupRow::new(header, position)));
    let total = header.total_bytes() as u64;
    report.used_bytes += total.min(file.bytes - position);
    let mut show =
        |entries: &[Entry]| entries.iter().for_each(|e| emit(&Row::Entry(EntryRow::new(sequence, e))));
    let error = match file.group(fs, position, header)? {
        Ok(group) => {
            show(&group.entries);
            return Ok(total);
        }
        Err(error) => error,
    };
    // A recycled file ends in remains of older groups, cut off by newer ones: whether this one matters only the chain
    // can tell.
    report.note(position, format!("group {sequence}: {error}"));
    if let Ok(entries) = file.table(fs, position, header)? {
        show(&entries);
    }
    Ok(PAGE)
}

/// A file of a core log that begins with a group. One is written only after the first checkpoint, so where no checkpoint
/// is, this says that they were lost.
pub(crate) fn first_with_groups(fs: &dyn Fs, dir: &Path) -> io::Result<Option<PathBuf>> {
    for number in log_file_numbers(fs, dir)? {
        let mut file = LogFile::open(fs, &log_path(dir, number))?;
        if file.header(fs, 0)?.is_ok() {
            return Ok(Some(file.path));
        }
    }
    Ok(None)
}

/// The sentence for it.
pub(crate) fn lost_checkpoints(file: &Path) -> String {
    format!("both slots are empty or missing, but {} holds groups that were acknowledged", file.display())
}

/// Asked where no group follows the checkpoint: the file that has the first one, at the place where it should be in
/// another. A life writes a group once, and only the start of a file is a place that the chain may jump to, so files
/// changed names then, and the end of the chain is none.
pub(crate) fn first_elsewhere(fs: &dyn Fs, dir: &Path, start: &Checkpoint) -> io::Result<Option<PathBuf>> {
    if start.clean || start.start_offset == 0 {
        return Ok(None);
    }
    for number in log_file_numbers(fs, dir)?.into_iter().filter(|number| *number != start.start_file) {
        let mut file = LogFile::open(fs, &log_path(dir, number))?;
        let header = file.header(fs, start.start_offset)?;
        if header
            .is_ok_and(|header| continues(&header, start.next_group, start.prev_header_crc, &start.lives))
        {
            return Ok(Some(file.path));
        }
    }
    Ok(None)
}

/// The sentence for it.
pub(crate) fn exchanged_files(start: &Checkpoint, dir: &Path, found: &Path) -> String {
    format!(
        "{} holds at byte {} what should be there in {} (flush group {}): core-log files changed places; exchange them again",
        found.display(),
        start.start_offset,
        log_path(dir, start.start_file).display(),
        start.next_group
    )
}

/// The core that wrote a `core-N` folder, when it is another than the folder's name says.
pub(super) fn foreign_core(dir: &Path, newest: &Checkpoint) -> Option<u16> {
    let name = dir.file_name()?.to_str()?.strip_prefix("core-")?;
    name.parse().ok().filter(|core: &u16| *core != newest.core).map(|_| newest.core)
}

/// The sentence for it.
pub(crate) fn exchanged_cores(dir: &Path, found: u16) -> String {
    format!(
        "{} holds what core {found} wrote: folders or files of cores changed places; put those of core {found} back where \
         they were",
        dir.display()
    )
}

/// A core-log file that lacks its end. A ring's files are whole, zero-filled and durable before they have their names, and
/// never change their length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    pub path: PathBuf,
    pub bytes: u64,
    /// What it had at least.
    pub whole_bytes: u64,
}

impl CutOff {
    /// A group of the chain would end at `end` of this file: one begins only where it fits.
    pub(crate) fn within_group(path: &Path, bytes: u64, end: u64) -> Option<CutOff> {
        (end > bytes).then(|| CutOff { path: path.to_path_buf(), bytes, whole_bytes: end })
    }
}

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, bytes) = (self.path.display(), self.bytes);
        write!(
            f,
            "core-log file {path} was cut off at {bytes} bytes, and may have held acked records behind that"
        )
    }
}

/// The first file of a ring that is shorter than any is made, judged by the others: nobody wrote their lengths down.
pub(crate) fn cut_off<'a>(files: impl Iterator<Item = (&'a Path, u64)> + Clone) -> Option<CutOff> {
    let shorter = |(at, (path, bytes)): (usize, (&'a Path, u64))| {
        let others = files.clone().enumerate().filter(|(other, _)| *other != at).map(|(_, (_, bytes))| bytes);
        let least = others.filter(|bytes| *bytes > 0).min();
        let is_short = least.is_some_and(|least| bytes < least) && bytes < CORE_LOG_FIRST_FILE_BYTES;
        let whole_bytes = least.unwrap_or(CORE_LOG_FIRST_FILE_BYTES);
        (bytes == 0 || is_short).then(|| CutOff { path: path.to_path_buf(), bytes, whole_bytes })
    };
    files.clone().enumerate().find_map(shorter)
}

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
        let mut lost: BTreeMap<u64, LostEnd> = BTreeMap::new();
        // By a hole that was given up already: told then.
        let mut was_lost = BTreeSet::new();
        let mut files = BTreeSet::new();
        let mut holes = self.holes.iter().peekable();
        let mut is_damaged = false;
        for group in &self.groups {
            while let Some(hole) = holes.next_if(|hole| hole.sequence < group.sequence) {
                is_damaged |= !hole.is_given_up;
                lose_damaged(hole, &ends, &mut lost, &mut was_lost);
            }
            for (id, first, last) in &group.batches {
                let end = ends.entry(id.0).or_insert(0);
                if first == end {
                    *end = last.saturating_add(1);
                    was_lost.remove(&id.0);
                } else if first > end && is_damaged && !was_lost.contains(&id.0) {
                    lose(&mut lost, *id, *end, *first);
                    files.insert(group.file);
                } else if first > end {
                    was_lost.insert(id.0);
                }
            }
        }
        for hole in holes {
            lose_damaged(hole, &ends, &mut lost, &mut was_lost);
        }
        (lost.into_values().collect(), files)
    }
}

fn lose_damaged(
    hole: &Hole,
    ends: &BTreeMap<u64, i64>,
    lost: &mut BTreeMap<u64, LostEnd>,
    was_lost: &mut BTreeSet<u64>,
) {
    for entry in hole.damaged.iter().flatten().filter(|entry| entry.kind.holds_batch()) {
        let (id, end) = (entry.partition.0, ends.get(&entry.partition.0).copied().unwrap_or(0));
        if entry.arg < end {
            continue;
        }
        if hole.is_given_up {
            was_lost.insert(id);
        } else if !was_lost.contains(&id) {
            lose(lost, entry.partition, end, entry.arg);
        }
    }
}

fn lose(lost: &mut BTreeMap<u64, LostEnd>, partition: PartitionId, first: i64, newest: i64) {
    let known = lost.entry(partition.0).or_insert(LostEnd { partition, first, newest });
    known.newest = newest.max(known.newest);
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
fn continues(header: &GroupHeader, next: u64, prev_header_crc: u32, lives: &[(u128, u64)]) -> bool {
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

/// The chain of a whole `core-N` folder.
pub(super) fn chain(fs: &dyn Fs, dir: &Path) -> Result<Report, InspectError> {
    let mut report = Report::new(dir, FileKind::CoreLogChain);
    let start = match checkpoint::read_newest(fs, dir) {
        Ok(Some(start)) => start,
        Ok(None) => {
            match first_with_groups(fs, dir).map_err(at(dir))? {
                Some(file) => report.find(super::Severity::Damage, None, lost_checkpoints(&file)),
                None => {
                    report.find(super::Severity::Note, None, "no checkpoint: no group was ever acked here");
                }
            }
            return Ok(report);
        }
        Err(CheckpointError::Io(error)) => return Err(at(dir)(error)),
        Err(error) => {
            let is_newer = matches!(error, CheckpointError::Newer { .. });
            let severity = if is_newer { super::Severity::Newer } else { super::Severity::Damage };
            report.find(severity, None, error.to_string());
            return Ok(report);
        }
    };
    if let Some(core) = foreign_core(dir, &start) {
        report.find(super::Severity::Damage, None, exchanged_cores(dir, core));
    }
    let chain = walk_chain(fs, dir, &start).map_err(at(dir))?;
    for group in &chain.groups {
        report.saw(group.sequence.0 as i64, group.sequence.0 as i64);
        report.used_bytes += group.bytes;
    }
    for file in &chain.files {
        report.file_bytes += fs.open(file, OpenMode::Read).and_then(|f| fs.len(&f)).map_err(at(file))?;
    }
    for file in &chain.missing {
        report.find(super::Severity::Damage, None, format!("core-log file {} is missing", file.display()));
    }
    if let Some(cut) = &chain.cut {
        report.find(super::Severity::Damage, None, cut.to_string());
    }
    if let Some(file) = &chain.exchanged {
        report.find(super::Severity::Damage, None, exchanged_files(&start, dir, file));
        return Ok(report);
    }
    for hole in chain.holes.iter().filter(|hole| hole.is_given_up) {
        let next = hole.gap.map_or(hole.sequence.0 + 1, |gap| gap.next);
        let place = hole.path.display();
        let what =
            format!("{place}: groups {}..{next} were given up by a repair ({})", hole.sequence, hole.what);
        report.note(hole.position, what);
    }
    let losers: Vec<String> =
        chain.lost_ends(&start).0.iter().map(|lost| super::repair::name_of(&start, lost.partition)).collect();
    for hole in chain.damage() {
        report.damage(
            hole.position,
            format!(
                "{}: group {} ({}), but groups up to {} were acked; partitions: {}",
                hole.path.display(),
                hole.sequence,
                hole.what,
                hole.durable,
                losers_of(&losers, hole.damaged.is_some())
            ),
        );
    }
    Ok(report)
}

/// The partitions that lose records, in a sentence. Others may, whose newest records nobody can see were there.
pub(crate) fn losers_of(names: &[String], are_all_known: bool) -> String {
    let named = if names.is_empty() { "not known".to_string() } else { names.join(", ") };
    let others = if are_all_known || names.is_empty() { "" } else { ", and perhaps others of this core" };
    format!("{named}{others}")
}

pub(super) fn checkpoint(
    fs: &dyn Fs,
    path: &Path,
    emit: &mut dyn FnMut(&Row),
) -> Result<Report, InspectError> {
    let mut report = Report::new(path, FileKind::Checkpoint);
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    report.file_bytes = fs.len(&file).map_err(at(path))?;
    match checkpoint::read_slot(fs, path) {
        Slot::Empty => report.note(0, "never written"),
        Slot::Damaged(CheckpointError::Io(error)) => return Err(at(path)(error)),
        Slot::Damaged(error @ CheckpointError::Newer { .. }) => report.newer(0, error.to_string()),
        // The slot that was being written when the power went is torn, and that is what the other one is for.
        Slot::Damaged(error) if other_slot_serves(fs, path) => {
            report.note(0, format!("{error}; the other slot serves"));
        }
        Slot::Damaged(error) => report.damage(0, error.to_string()),
        Slot::Valid(checkpoint) => {
            report.used_bytes = checkpoint::encode(&checkpoint).len() as u64;
            report.rows = checkpoint.partitions.len() as u64;
            emit(&Row::Checkpoint(CheckpointRow::new(&checkpoint)));
            for state in &checkpoint.partitions {
                emit(&Row::Partition(PartitionRow::new(state)));
                if let Some(what) = partition_fault(state) {
                    report
                        .damage(0, format!("partition {} {}-{}: {what}", state.id, state.topic, state.index));
                }
            }
        }
    }
    Ok(report)
}

/// `handed-on`: a start that cannot read it reads the segments instead.
pub(super) fn handed_on(
    fs: &dyn Fs,
    path: &Path,
    emit: &mut dyn FnMut(&Row),
) -> Result<Report, InspectError> {
    let mut report = Report::new(path, FileKind::HandedOn);
    let bytes = fs.read_all(path).map_err(at(path))?;
    report.file_bytes = bytes.len() as u64;
    match checkpoint::decode(&bytes) {
        Ok(words) => {
            report.used_bytes = checkpoint::encode(&words).len() as u64;
            report.rows = words.partitions.len() as u64;
            words.partitions.iter().for_each(|state| emit(&Row::Partition(PartitionRow::new(state))));
        }
        Err(error @ CheckpointError::Newer { .. }) => report.newer(0, error.to_string()),
        Err(error) => report.damage(0, format!("{error}; the next start reads the segments instead")),
    }
    Ok(report)
}

/// `core-N/swap`: there from the moment new segments count until two checkpoints know them.
pub(super) fn swap(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let mut report = Report::new(path, FileKind::SwapRecord);
    let bytes = fs.read_all(path).map_err(at(path))?;
    report.file_bytes = bytes.len() as u64;
    let text = String::from_utf8_lossy(&bytes);
    if let Some(newer) = swap::newer(&text) {
        report.newer(0, newer);
        return Ok(report);
    }
    let Some(record) = SwapRecord::parse(&text) else {
        report.damage(
            0,
            "the record of a compaction cannot be read: a start does not follow it, and a partition whose segments were \
             being exchanged goes offline when they are read",
        );
        return Ok(report);
    };
    report.used_bytes = report.file_bytes;
    for group in &record.groups {
        for base in &group.sources {
            report.first = report.first.or(Some(base.0));
            report.last = Some(base.0);
        }
        report.rows += 1;
        emit(&Row::Swap(SwapRow::new(record.partition, group)));
    }
    report.note(0, format!("the next start finishes a compaction of partition {}", record.partition));
    Ok(report)
}

/// `core-N/given-up`: there until the checkpoint is past all that it names.
pub(super) fn given_up(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let mut report = Report::new(path, FileKind::GivenUp);
    let bytes = fs.read_all(path).map_err(at(path))?;
    report.file_bytes = bytes.len() as u64;
    let text = String::from_utf8_lossy(&bytes);
    if let Some(newer) = given_up::newer(&text) {
        report.newer(0, newer);
        return Ok(report);
    }
    let Some(gaps) = given_up::parse(&text) else {
        report.damage(0, "what a repair gave up cannot be read: a start finds that damage again");
        return Ok(report);
    };
    report.used_bytes = report.file_bytes;
    for gap in gaps {
        report.saw(gap.first as i64, gap.next as i64 - 1);
        emit(&Row::Gap(gap));
    }
    Ok(report)
}

fn other_slot_serves(fs: &dyn Fs, path: &Path) -> bool {
    let own = path.file_name();
    let others =
        checkpoint::SLOT_NAMES.iter().map(|name| path.with_file_name(name)).filter(|p| p.file_name() != own);
    others.into_iter().any(|other| matches!(checkpoint::read_slot(fs, &other), Slot::Valid(_)))
}

/// What cannot be in a partition's state.
fn partition_fault(state: &checkpoint::PartitionState) -> Option<&'static str> {
    if state.log_start > state.next_offset {
        return Some("its log start is beyond its end");
    }
    let mut pairs = state.segments.iter().zip(state.segments.iter().skip(1));
    if pairs.any(|(a, b)| a.base_offset >= b.base_offset || !a.sealed) {
        return Some("its segments are not in order, or one before the last is not sealed");
    }
    let mut epochs = state.epochs.iter().zip(state.epochs.iter().skip(1));
    epochs.any(|(a, b)| a.0 >= b.0 || a.1 >= b.1).then_some("its leader epochs are not in order")
}

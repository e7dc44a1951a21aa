//! Offline, read-only looks at what is on disk: dumps, verification, and repair when someone accepts a loss.
//!
//! Looks at segments, `.index`, `.timeindex`, `partition.metadata`, `leader-epoch-checkpoint`, core-log files,
//! checkpoints and the records of compaction and repair, alone or as the folders they form. [`dump`] shows every row, [`verify`] only what is wrong; both check
//! everything they can. Nothing here changes a file except [`repair::apply`]. A broker that runs on the same folder is
//! not disturbed, but what it is writing may look torn.

mod chain;
mod contradiction;
mod core_files;
mod kafka_files;
mod lengths;
mod newer;
pub mod repair;
mod ring_files;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use chain::losers_of;
pub use chain::{Chain, Hole, LostEnd, walk_chain};
pub(crate) use ring_files::{
    CutOff, cut_off, exchanged_cores, exchanged_files, first_elsewhere, first_with_groups, lost_checkpoints,
};
pub use rows::{
    BatchRow, CheckpointRow, EntryRow, EpochRow, GroupRow, MetadataRow, OffsetRow, PartitionRow, Row,
    SwapOutput, SwapRow, TimeRow,
};

pub use lengths::compare;
pub(crate) use newer::newer_in_core;
pub use newer::{Newer, newer};

pub use contradiction::{Against, Contradiction, CoreKnows, Decisions, Depth, Known, refusal};

use crate::format::checkpoint::{HANDED_ON_NAME, SLOT_NAMES};
use crate::format::given_up::GIVEN_UP_NAME;
use crate::format::swap::SWAP_NAME;
use crate::segment::{SegmentFile, parse_file_name};
use ringmill_reactor::unfit::At;
use ringmill_reactor::{DirEntry, Fs, Unfit};
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A folder nested deeper than `DATA/topics/NAME-0` holds nothing of ours.
const DEPTH_MAX: usize = 4;

/// Findings kept per file: a file of garbage must not fill memory with complaints.
const FINDINGS_MAX: usize = 100;

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    Segment,
    OffsetIndex,
    TimeIndex,
    PartitionMetadata,
    LeaderEpochs,
    CoreLogFile,
    /// A `core-N` folder: the chain of groups across its files.
    CoreLogChain,
    Checkpoint,
    /// `core-N/swap`: what compaction puts in the place of what.
    SwapRecord,
    /// `core-N/given-up`: where the chain goes on behind groups that a repair gave up.
    GivenUp,
    /// `handed-on`: what the partitions were when the number of cores changed; a checkpoint without a core.
    HandedOn,
    /// `meta/journal`. Named here so that one kind of report fits all of a data folder; `replication/metadata` reads it.
    MetadataJournal,
    /// `node.toml`, which `net/broker` reads.
    NodeIdentity,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Expected after a crash or in a running broker; recovery deals with it.
    Note,
    /// A newer version wrote it: nobody here can say what it holds, and no broker of this version starts on it.
    Newer,
    /// Bytes are not what was written, or are missing.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Byte in the file, where there is one.
    pub position: Option<u64>,
    pub what: String,
}

/// What was found in one file, or in the chain of a core log.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub path: PathBuf,
    pub kind: FileKind,
    pub file_bytes: u64,
    /// Of `file_bytes`, those that mean something.
    pub used_bytes: u64,
    /// Batches, entries, groups or partitions.
    pub rows: u64,
    /// First offset or group sequence.
    pub first: Option<i64>,
    /// Last offset or group sequence. A recycled core-log file ends in groups of an earlier round, which come before.
    pub last: Option<i64>,
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
}

impl Report {
    pub fn new(path: &Path, kind: FileKind) -> Report {
        Report {
            path: path.to_path_buf(),
            kind,
            file_bytes: 0,
            used_bytes: 0,
            rows: 0,
            first: None,
            last: None,
            findings: Vec::new(),
            more_findings: 0,
        }
    }

    /// Of what cannot be looked at, because it is no file.
    pub fn unfit(path: &Path, kind: FileKind, error: &io::Error) -> Report {
        let mut report = Report::new(path, kind);
        report.find(Severity::Damage, None, error.to_string());
        report
    }

    /// Only so many are kept; the rest is counted.
    pub fn find(&mut self, severity: Severity, position: Option<u64>, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { severity, position, what: what.into() });
        } else {
            self.more_findings += 1;
        }
    }

    pub fn note(&mut self, position: u64, what: impl Into<String>) {
        self.find(Severity::Note, Some(position), what);
    }

    pub fn damage(&mut self, position: u64, what: impl Into<String>) {
        self.find(Severity::Damage, Some(position), what);
    }

    pub fn newer(&mut self, position: u64, what: impl Into<String>) {
        self.find(Severity::Newer, Some(position), what);
    }

    /// One more row, from `first` to `last`.
    pub fn saw(&mut self, first: i64, last: i64) {
        self.rows += 1;
        self.first = self.first.or(Some(first));
        self.last = self.last.max(Some(last));
    }

    /// Nothing is damaged or newer; notes do not count.
    pub fn is_sound(&self) -> bool {
        self.more_findings == 0 && self.findings.iter().all(|f| f.severity == Severity::Note)
    }

    /// All that is wrong is that a newer version wrote it.
    pub fn is_newer(&self) -> bool {
        self.more_findings == 0 && self.findings.iter().map(|f| f.severity).max() == Some(Severity::Newer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = match self.kind {
            FileKind::Segment => ("batch", "batches"),
            FileKind::CoreLogFile | FileKind::CoreLogChain | FileKind::SwapRecord => ("group", "groups"),
            FileKind::Checkpoint | FileKind::HandedOn => ("partition", "partitions"),
            FileKind::MetadataJournal => ("record", "records"),
            FileKind::GivenUp => ("gap", "gaps"),
            FileKind::OffsetIndex
            | FileKind::TimeIndex
            | FileKind::LeaderEpochs
            | FileKind::PartitionMetadata
            | FileKind::NodeIdentity => ("entry", "entries"),
        };
        let unit = if self.rows == 1 { one } else { many };
        let verdict = match (self.is_sound(), self.is_newer()) {
            (true, _) => "ok",
            (false, true) => "NEWER",
            (false, false) => "DAMAGED",
        };
        write!(f, "{}: {verdict}, {} {unit}", self.path.display(), self.rows)?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            // The end of a recycled core-log file is what is left of an earlier round.
            let recycled = self.kind == FileKind::CoreLogFile && self.rows as i64 > last - first + 1;
            write!(f, "{} {first}..={last}", if recycled { ", the newest" } else { "" })?;
        }
        write!(f, ", {} of {} bytes used", self.used_bytes, self.file_bytes)?;
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Note => "note",
                Severity::Newer => "newer",
                Severity::Damage => "damage",
            };
            match finding.position {
                Some(position) => write!(f, "\n  {word} at byte {position}: {}", finding.what)?,
                None => write!(f, "\n  {word}: {}", finding.what)?,
            }
        }
        if self.more_findings > 0 {
            write!(f, "\n  and {} more", self.more_findings)?;
        }
        Ok(())
    }
}

/// Why nothing could be looked at.
#[derive(Debug)]
pub enum InspectError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Neither a file nor a folder of a kind this knows.
    Unknown {
        path: PathBuf,
    },
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InspectError::Io { path, error } => At(path, error).fmt(f),
            InspectError::Unknown { path } => write!(
                f,
                "{}: not a segment, index, core-log file, checkpoint, journal, node.toml or a folder of these. \
                 Segments are named by 20 digits and .log, .index or .timeindex, core-log files by 3 digits and .log",
                path.display()
            ),
        }
    }
}

impl std::error::Error for InspectError {}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InspectError + '_ {
    move |error| InspectError::Io { path: path.to_path_buf(), error }
}

/// Shows every row of `path`, a file or a folder, to `emit`, and reports on each file.
///
/// # Errors
/// [`InspectError`]. Damage is no error: it is in the reports.
pub fn dump(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Vec<Report>, InspectError> {
    let mut reports = Vec::new();
    match fs.list(path) {
        Ok(_) => folder(fs, path, emit, &mut reports, 0)?,
        Err(_) => {
            let kind = kind_of(path).ok_or_else(|| InspectError::Unknown { path: path.to_path_buf() })?;
            reports.push(or_unfit(file(fs, path, kind, emit), path, kind)?);
        }
    }
    if reports.is_empty() {
        return Err(InspectError::Unknown { path: path.to_path_buf() });
    }
    Ok(reports)
}

/// Checks everything that [`dump`] would show.
///
/// # Errors
/// As [`dump`].
pub fn verify(fs: &dyn Fs, path: &Path) -> Result<Vec<Report>, InspectError> {
    dump(fs, path, &mut |_| {})
}

fn folder(
    fs: &dyn Fs,
    dir: &Path,
    emit: &mut dyn FnMut(&Row),
    reports: &mut Vec<Report>,
    depth: usize,
) -> Result<(), InspectError> {
    let mut has_core_log = false;
    for entry in fs.list(dir).map_err(at(dir))? {
        let path = dir.join(&entry.name);
        if leads_to_folder(fs, dir, &entry) {
            if depth < DEPTH_MAX && !is_set_aside(&entry.name) {
                folder(fs, &path, emit, reports, depth + 1)?;
            }
        } else if let Some(kind) = kind_of(&path) {
            has_core_log |= kind == FileKind::CoreLogFile;
            reports.push(or_unfit(file(fs, &path, kind, emit), &path, kind)?);
        }
    }
    if has_core_log {
        reports.push(or_unfit(core_files::chain(fs, dir), dir, FileKind::CoreLogChain)?);
    }
    Ok(())
}

/// What is no file at all, where one must be, is a finding like others: what lies beside it is still looked at.
fn or_unfit(
    looked: Result<Report, InspectError>,
    path: &Path,
    kind: FileKind,
) -> Result<Report, InspectError> {
    match looked {
        Err(InspectError::Io { error, .. }) if Unfit::of(&error).is_some() => {
            Ok(Report::unfit(path, kind, &error))
        }
        looked => looked,
    }
}

/// A folder, or a link to one, as `core-N` may be to a device of its own. One that has the name of a file is looked at as that.
fn leads_to_folder(fs: &dyn Fs, dir: &Path, entry: &DirEntry) -> bool {
    kind_of(Path::new(&entry.name)).is_none() && (entry.is_dir || fs.list(&dir.join(&entry.name)).is_ok())
}

/// What a repair replaced: damaged, or it would not be there. Looked at only when it is named itself.
pub fn is_set_aside(folder: &str) -> bool {
    folder == repair::SET_ASIDE_NAME || folder.contains(&format!(".{}-", repair::SET_ASIDE_NAME))
}

fn file(
    fs: &dyn Fs,
    path: &Path,
    kind: FileKind,
    emit: &mut dyn FnMut(&Row),
) -> Result<Report, InspectError> {
    match kind {
        FileKind::Segment => kafka_files::segment(fs, path, emit),
        FileKind::OffsetIndex => kafka_files::offset_index(fs, path, emit),
        FileKind::TimeIndex => kafka_files::time_index(fs, path, emit),
        FileKind::PartitionMetadata => kafka_files::metadata(fs, path, emit),
        FileKind::LeaderEpochs => kafka_files::epochs(fs, path, emit),
        FileKind::CoreLogFile | FileKind::CoreLogChain => core_files::core_log(fs, path, emit),
        FileKind::Checkpoint => core_files::checkpoint(fs, path, emit),
        FileKind::HandedOn => core_files::handed_on(fs, path, emit),
        FileKind::SwapRecord => core_files::swap(fs, path, emit),
        FileKind::GivenUp => core_files::given_up(fs, path, emit),
        FileKind::MetadataJournal | FileKind::NodeIdentity => {
            Err(InspectError::Unknown { path: path.to_path_buf() })
        }
    }
}

/// What a file is, by its name; `None` for files that are not looked at.
pub fn kind_of(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    if let Some((_, file)) = parse_file_name(name) {
        return Some(match file {
            SegmentFile::Log => FileKind::Segment,
            SegmentFile::Index => FileKind::OffsetIndex,
            SegmentFile::TimeIndex => FileKind::TimeIndex,
        });
    }
    if ring_files::log_file_number(name).is_some() {
        return Some(FileKind::CoreLogFile);
    }
    match name {
        crate::adopt::METADATA_NAME => Some(FileKind::PartitionMetadata),
        crate::adopt::EPOCHS_NAME => Some(FileKind::LeaderEpochs),
        name if SLOT_NAMES.contains(&name) => Some(FileKind::Checkpoint),
        SWAP_NAME => Some(FileKind::SwapRecord),
        GIVEN_UP_NAME => Some(FileKind::GivenUp),
        HANDED_ON_NAME => Some(FileKind::HandedOn),
        _ => None,
    }
}

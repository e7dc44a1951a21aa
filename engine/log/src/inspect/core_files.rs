//! Reports on our own files: core-log files, the chain of groups across them, checkpoints, small records.

use super::chain::{losers_of, walk_chain};
use super::ring_files::{
    LogFile, PAGE, exchanged_cores, exchanged_files, first_with_groups, foreign_core, lost_checkpoints,
};
use super::rows::{CheckpointRow, EntryRow, GroupRow, PartitionRow, Row, SwapRow};
use super::{FileKind, InspectError, Report, at};
use crate::format::checkpoint::{self, CheckpointError, Slot};
use crate::format::given_up;
use crate::format::group::{Entry, GroupError, GroupHeader};
use crate::format::swap::{self, SwapRecord};
use ringmill_reactor::{Fs, OpenMode};
use std::io;
use std::path::Path;

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

/// A record in text, and what it says; nothing where the report has why that cannot be told.
fn text_record<T>(
    fs: &dyn Fs,
    path: &Path,
    kind: FileKind,
    newer: fn(&str) -> Option<String>,
    parse: fn(&str) -> Option<T>,
    unreadable: &str,
) -> Result<(Report, Option<T>), InspectError> {
    let mut report = Report::new(path, kind);
    let bytes = fs.read_all(path).map_err(at(path))?;
    report.file_bytes = bytes.len() as u64;
    let text = String::from_utf8_lossy(&bytes);
    if let Some(newer) = newer(&text) {
        report.newer(0, newer);
        return Ok((report, None));
    }
    let record = parse(&text);
    match record {
        Some(_) => report.used_bytes = report.file_bytes,
        None => report.damage(0, unreadable),
    }
    Ok((report, record))
}

/// `core-N/swap`: there from the moment new segments count until two checkpoints know them.
pub(super) fn swap(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let (mut report, record) = text_record(
        fs,
        path,
        FileKind::SwapRecord,
        swap::newer,
        SwapRecord::parse,
        "the record of a compaction cannot be read: a start does not follow it, and a partition whose segments were \
         being exchanged goes offline when they are read",
    )?;
    let Some(record) = record else { return Ok(report) };
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
    let (mut report, gaps) = text_record(
        fs,
        path,
        FileKind::GivenUp,
        given_up::newer,
        given_up::parse,
        "what a repair gave up cannot be read: a start finds that damage again",
    )?;
    for gap in gaps.into_iter().flatten() {
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

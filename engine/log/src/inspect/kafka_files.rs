//! Kafka's files: segments, both indexes, and the two small text files.

use super::rows::{BatchRow, EpochRow, MetadataRow, OffsetRow, Row, TimeRow};
use super::{FileKind, InspectError, Report, at};
use crate::adopt::{AdoptError, read_epochs, read_partition_metadata};
use crate::index::{INDEX_BYTES_MAX, OFFSET_ENTRY_BYTES, SegmentIndex, TIME_ENTRY_BYTES};
use crate::segment::{ScanStop, SegmentFile, Verify, file_name, offsets_end, parse_file_name, salvage, scan};
use ringmill_reactor::{Fs, OpenMode};
use ringmill_record::BatchHeader;
use ringmill_types::Offset;
use std::ops::Range;
use std::path::Path;

fn base_of(path: &Path) -> Offset {
    path.file_name().and_then(|n| n.to_str()).and_then(parse_file_name).map_or(Offset::ZERO, |(base, _)| base)
}

/// Where the next segment that lies beside this one begins.
fn successor(fs: &dyn Fs, path: &Path, base: Offset) -> Option<Offset> {
    let entries = path.parent().and_then(|dir| fs.list(dir).ok()).unwrap_or_default();
    entries
        .iter()
        .filter_map(|e| parse_file_name(&e.name))
        .filter(|(other, file)| *file == SegmentFile::Log && *other > base)
        .map(|(other, _)| other)
        .min()
}

pub(super) fn segment(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let base = base_of(path);
    let mut report = Report::new(path, FileKind::Segment);
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    report.file_bytes = fs.len(&file).map_err(at(path))?;
    let mut early = None;
    let next = successor(fs, path, base);
    let bound = next.map_or(offsets_end(base), |next| next.min(offsets_end(base)));
    let verify = Verify::CrcBelow(bound);
    let found = scan(fs, &file, 0, report.file_bytes, verify, |header, position, _| {
        if header.base_offset < base {
            early = early.or(Some(position));
        }
        report.saw(header.base_offset.0, header.last_offset().0);
        emit(&Row::Batch(BatchRow::new(header, position)));
    });
    let found = found.map_err(at(path))?;
    report.used_bytes = found.end;
    if let Some(position) = early {
        report.damage(position, format!("an offset below the file's base {base}"));
    }
    let is_active = next.is_none();
    match found.stop {
        ScanStop::End => {}
        ScanStop::Zeros if is_active => {
            report.note(found.end, "room allocated ahead; an orderly stop cuts it off")
        }
        ScanStop::Torn if is_active => {
            report.note(found.end, "the last batch is torn; recovery writes it again from the core log")
        }
        ScanStop::Zeros => {
            report.damage(found.end, "zeros behind the last batch of a segment that is not the last")
        }
        ScanStop::Torn => report.damage(found.end, "the file ends within a batch"),
        ScanStop::OutOfOrder { base, expected } => {
            report.damage(found.end, format!("offset {base} where {expected} or more must be"));
        }
        ScanStop::Beyond { base, bound } => {
            report.damage(found.end, format!("offset {base} in a segment that ends before {bound}"));
        }
        ScanStop::Damaged(error) => report.damage(found.end, error.to_string()),
    }
    if matches!(found.stop, ScanStop::Damaged(_) | ScanStop::OutOfOrder { .. } | ScanStop::Beyond { .. }) {
        let offsets = found.next_offset.unwrap_or(base)..bound;
        beyond_damage(fs, path, &mut report, found.end, offsets, emit)?;
    }
    Ok(report)
}

/// Says how much of the segment behind the damage can still be read.
fn beyond_damage(
    fs: &dyn Fs,
    path: &Path,
    report: &mut Report,
    from: u64,
    offsets: Range<Offset>,
    emit: &mut dyn FnMut(&Row),
) -> Result<(), InspectError> {
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    let hints = index_positions(fs, path, report.file_bytes);
    let mut good = 0u64;
    let mut first = None;
    let expected = offsets.start;
    let saved = salvage(fs, &file, from, report.file_bytes, offsets, &hints, |header, position, _| {
        good += 1;
        first = first.or(Some((position, header.base_offset)));
        report.saw(header.base_offset.0, header.last_offset().0);
        emit(&Row::Batch(BatchRow::new(header, position)));
        Ok(())
    });
    report.used_bytes = saved.map_err(at(path))?;
    match first {
        Some((position, offset)) => {
            report.damage(
                from,
                format!(
                    "offsets {expected}..{offset} are lost; {good} good batches follow from byte {position}"
                ),
            );
        }
        None => report.damage(from, format!("nothing from offset {expected} on can be read")),
    }
    Ok(())
}

/// Places in a segment where its index says that batches begin.
pub(super) fn index_positions(fs: &dyn Fs, segment: &Path, segment_bytes: u64) -> Vec<u64> {
    let base = base_of(segment);
    let path = segment.with_file_name(file_name(base, SegmentFile::Index));
    let bytes = fs.open(&path, OpenMode::Read).ok().and_then(|f| fs.len(&f).ok());
    if bytes.is_none_or(|bytes| bytes > INDEX_BYTES_MAX) {
        return Vec::new();
    }
    let index = fs
        .read_all(&path)
        .ok()
        .and_then(|bytes| SegmentIndex::load(base, 0, &bytes, &[], segment_bytes).ok());
    index
        .map_or_else(Vec::new, |i| i.offset_rows().iter().map(|(_, position)| u64::from(*position)).collect())
}

/// Shows the headers of the segment beside an index; `None` when it is not there or cannot be read.
fn scan_beside(
    fs: &dyn Fs,
    index: &Path,
    base: Offset,
    visit: &mut dyn FnMut(&BatchHeader, u64),
) -> Option<u64> {
    let file = fs.open(&index.with_file_name(file_name(base, SegmentFile::Log)), OpenMode::Read).ok()?;
    scan(fs, &file, 0, u64::MAX, Verify::Headers, |header, position, _| visit(header, position))
        .ok()
        .map(|f| f.end)
}

/// The index's bytes; `None`, with a finding, when no index is that large.
fn index_bytes(fs: &dyn Fs, path: &Path, report: &mut Report) -> Result<Option<Vec<u8>>, InspectError> {
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    report.file_bytes = fs.len(&file).map_err(at(path))?;
    if report.file_bytes > INDEX_BYTES_MAX {
        report.damage(0, "far larger than any index");
        return Ok(None);
    }
    fs.read_all(path).map(Some).map_err(at(path))
}

pub(super) fn offset_index(
    fs: &dyn Fs,
    path: &Path,
    emit: &mut dyn FnMut(&Row),
) -> Result<Report, InspectError> {
    let base = base_of(path);
    let mut report = Report::new(path, FileKind::OffsetIndex);
    let Some(bytes) = index_bytes(fs, path, &mut report)? else { return Ok(report) };
    let index = match SegmentIndex::load(base, 0, &bytes, &[], u64::MAX) {
        Ok(index) => index,
        Err(error) => {
            report.damage(0, error.to_string());
            return Ok(report);
        }
    };
    for (relative, position) in index.offset_rows() {
        let offset = base.plus(i64::from(*relative)).0;
        report.saw(offset, offset);
        emit(&Row::Offset(OffsetRow { offset, position: *position }));
    }
    let no_batch = |position: u32| format!("no batch begins at byte {position} of the segment");
    let mut rows = (0u64..).step_by(OFFSET_ENTRY_BYTES).zip(index.offset_rows()).peekable();
    let scanned = scan_beside(fs, path, base, &mut |header, position| {
        while let Some((place, (relative, at))) = rows.next_if(|(_, (_, at))| u64::from(*at) <= position) {
            let offset = base.plus(i64::from(*relative));
            if u64::from(*at) < position {
                report.damage(place, no_batch(*at));
            } else if header.last_offset() != offset {
                let last = header.last_offset();
                report.damage(place, format!("the batch at byte {at} ends with offset {last}, not {offset}"));
            }
        }
    });
    match scanned {
        Some(_) => rows.for_each(|(place, (_, at))| report.damage(place, no_batch(*at))),
        None => report.note(0, "its segment cannot be read: entries were checked for order only"),
    }
    report.used_bytes = u64::from(index.offset_entries()) * OFFSET_ENTRY_BYTES as u64;
    note_unused(&mut report);
    Ok(report)
}

pub(super) fn time_index(
    fs: &dyn Fs,
    path: &Path,
    emit: &mut dyn FnMut(&Row),
) -> Result<Report, InspectError> {
    let base = base_of(path);
    let mut report = Report::new(path, FileKind::TimeIndex);
    let Some(bytes) = index_bytes(fs, path, &mut report)? else { return Ok(report) };
    let index = match SegmentIndex::load(base, 0, &[], &bytes, u64::MAX) {
        Ok(index) => index,
        Err(error) => {
            report.damage(0, error.to_string());
            return Ok(report);
        }
    };
    for (timestamp_ms, relative) in index.time_rows() {
        let offset = base.plus(i64::from(*relative)).0;
        report.saw(offset, offset);
        emit(&Row::Time(TimeRow { timestamp_ms: *timestamp_ms, offset }));
    }
    let mut newest = -1;
    let mut rows = (0u64..).step_by(TIME_ENTRY_BYTES).zip(index.time_rows()).peekable();
    let scanned = scan_beside(fs, path, base, &mut |header, _| {
        newest = newest.max(header.max_timestamp_ms);
        let reached = |relative: u32| base.plus(i64::from(relative)) <= header.last_offset();
        while let Some((place, (time, relative))) = rows.next_if(|(_, (_, relative))| reached(*relative)) {
            let found = header.max_timestamp_ms;
            if found != *time {
                let offset = base.plus(i64::from(*relative));
                report.damage(
                    place,
                    format!("the batch with offset {offset} reaches timestamp {found}, not {time}"),
                );
            }
        }
    });
    match scanned {
        Some(_) => rows.for_each(|(place, (_, relative))| {
            report.damage(place, format!("offset {} is not in the segment", base.plus(i64::from(*relative))));
        }),
        None => report.note(0, "its segment cannot be read: entries were checked for order only"),
    }
    report.used_bytes = u64::from(index.time_entries()) * TIME_ENTRY_BYTES as u64;
    note_unused(&mut report);
    check_newest(fs, path, base, newest, &index, &mut report);
    Ok(report)
}

/// A finished segment's time index ends with the largest timestamp, or searches by time would miss it.
fn check_newest(
    fs: &dyn Fs,
    path: &Path,
    base: Offset,
    newest: i64,
    index: &SegmentIndex,
    report: &mut Report,
) {
    if newest < 0 || index.time_rows().last().is_some_and(|(time, _)| *time == newest) {
        return;
    }
    let what = format!("the segment's largest timestamp {newest} is not its last entry");
    if successor(fs, path, base).is_some() {
        report.damage(report.used_bytes, what);
    } else {
        report.note(report.used_bytes, what);
    }
}

fn note_unused(report: &mut Report) {
    if report.used_bytes < report.file_bytes {
        report.note(
            report.used_bytes,
            "zeros behind the last entry: room that Kafka keeps while a segment is active",
        );
    }
}

pub(super) fn metadata(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let mut report = text_report(fs, path, FileKind::PartitionMetadata)?;
    match read_partition_metadata(fs, path.parent().unwrap_or(Path::new("."))) {
        Ok(Some(id)) => {
            report.rows = 1;
            emit(&Row::Metadata(MetadataRow { topic_id: id.to_base64() }));
        }
        Ok(None) => report.damage(0, "empty"),
        Err(AdoptError::Io { path, error }) => return Err(InspectError::Io { path, error }),
        Err(error) => report.damage(0, error.to_string()),
    }
    Ok(report)
}

pub(super) fn epochs(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(&Row)) -> Result<Report, InspectError> {
    let mut report = text_report(fs, path, FileKind::LeaderEpochs)?;
    match read_epochs(fs, path.parent().unwrap_or(Path::new("."))) {
        Ok(cache) => {
            for (epoch, start) in cache.unwrap_or_default().entries() {
                report.saw(start.0, start.0);
                emit(&Row::Epoch(EpochRow { leader_epoch: epoch.0, start_offset: start.0 }));
            }
        }
        Err(AdoptError::Io { path, error }) => return Err(InspectError::Io { path, error }),
        Err(error) => report.damage(0, error.to_string()),
    }
    Ok(report)
}

fn text_report(fs: &dyn Fs, path: &Path, kind: FileKind) -> Result<Report, InspectError> {
    let mut report = Report::new(path, kind);
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    report.file_bytes = fs.len(&file).map_err(at(path))?;
    report.used_bytes = report.file_bytes;
    Ok(report)
}

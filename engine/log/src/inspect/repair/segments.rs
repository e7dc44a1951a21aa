//! Segments, for a repair: which batches of one are good, and a new file with only those.
//!
//! Owns the look at every byte of the segments that a checkpoint names, and the rewriting of damaged ones. A compaction
//! that was cut off is followed first, on paper: what it wrote may still lie under its `.cleaned` name.

use super::{Action, Aside, Loss, Plan, change_checkpoint};
use crate::compact::cleaned_path;
use crate::compaction::follow_swap;
use crate::folder::is_foreign;
use crate::format::checkpoint::{self, Checkpoint, PartitionState};
use crate::format::swap::SwapRecord;
use crate::index::SegmentIndex;
use crate::inspect::{InspectError, at, kafka_files};
use crate::segment::{SegmentFile, Verify, file_name, offsets_end, salvage, scan};
use ringmill_reactor::{Fs, OpenMode};
use ringmill_record::BatchHeader;
use ringmill_types::{Offset, TopicId};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Kafka's `index.interval.bytes` default; the topic's own is not on disk, and a coarser index is only slower.
const INDEX_INTERVAL_BYTES: u32 = 4096;

pub(super) fn plan(
    fs: &dyn Fs,
    data_dir: &Path,
    core_dir: &Path,
    mut start: Checkpoint,
    swap: Option<&SwapRecord>,
    plan: &mut Plan,
) -> Result<(), InspectError> {
    for state in &mut start.partitions {
        let swap = swap.filter(|record| record.partition.0 == state.id);
        swap.into_iter().for_each(|record| follow_swap(record, state));
        let dir = crate::partition::partition_dir(data_dir, &state.topic, state.index);
        if is_foreign(fs, &dir, TopicId(state.topic_id)).map_err(at(&dir))? {
            // Deleted since; what is there belongs to the next topic of its name.
            continue;
        }
        let before = plan.actions.len();
        for segment in &state.segments {
            let base = Offset(segment.base_offset);
            let end = segment_end(state, segment.base_offset);
            let found = good_batches(fs, &lies_at(fs, &dir, base, swap), base..Offset(end), segment.bytes)?;
            if found.good_bytes == segment.bytes {
                continue;
            }
            let path = dir.join(file_name(base, SegmentFile::Log));
            let partition = format!("{}-{}", state.topic, state.index);
            for (first, end) in found.gaps(segment.base_offset, end) {
                let why = format!("{} is damaged", path.display());
                let partition = Some(partition.clone());
                plan.losses.push(Loss { partition, first: Some(first), end: Some(end), why });
            }
            plan.actions.push(Action::RewriteSegment {
                path,
                core_dir: core_dir.to_path_buf(),
                partition: state.id,
                bytes: found.good_bytes,
            });
        }
        // Without damage a start does it, and there is nothing to repair.
        if swap.is_some() && plan.actions.len() > before {
            let finish = Action::FinishSwap { core_dir: core_dir.to_path_buf(), topic_dir: dir };
            plan.actions.insert(before, finish);
        }
    }
    Ok(())
}

/// Where a segment is now: what compaction wrote may not have its name yet.
pub(in crate::inspect) fn lies_at(
    fs: &dyn Fs,
    dir: &Path,
    base: Offset,
    swap: Option<&SwapRecord>,
) -> PathBuf {
    let mut outputs = swap.into_iter().flat_map(|record| &record.groups).filter_map(|group| group.output);
    let cleaned = cleaned_path(dir, base, "log");
    if outputs.any(|output| output.base == base) && fs.exists(&cleaned) {
        return cleaned;
    }
    dir.join(file_name(base, SegmentFile::Log))
}

/// The good batches of a segment.
#[derive(Default)]
struct Salvaged {
    good_bytes: u64,
    /// Offset ranges that are there, joined where they touch.
    ranges: Vec<(i64, i64)>,
}

impl Salvaged {
    fn add(&mut self, header: &BatchHeader) {
        self.good_bytes += header.size_bytes as u64;
        let (first, end) = (header.base_offset.0, header.next_offset().0);
        match self.ranges.last_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ => self.ranges.push((first, end)),
        }
    }

    /// What is missing between `from` and `to`.
    fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut at = from;
        for (first, end) in &self.ranges {
            if *first > at {
                gaps.push((at, *first));
            }
            at = at.max(*end);
        }
        if to > at {
            gaps.push((at, to));
        }
        gaps
    }
}

/// No offset of the segment at `base` reaches this one: the next segment's, or the end of what was destaged.
fn segment_end(state: &PartitionState, base: i64) -> i64 {
    let next = state.segments.iter().map(|s| s.base_offset).filter(|b| *b > base).min();
    next.unwrap_or(state.next_offset).min(offsets_end(Offset(base)).0)
}

/// None of them when the file is not there.
fn good_batches(
    fs: &dyn Fs,
    path: &Path,
    offsets: Range<Offset>,
    bytes: u64,
) -> Result<Salvaged, InspectError> {
    let mut found = Salvaged::default();
    let looked = each_good_batch(fs, path, offsets, bytes, &mut |header, _| {
        found.add(header);
        Ok(())
    });
    match looked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(path)(error)),
    }
    Ok(found)
}

/// Shows the good batches among the first `bytes` of a segment, in order.
fn each_good_batch(
    fs: &dyn Fs,
    path: &Path,
    offsets: Range<Offset>,
    bytes: u64,
    visit: &mut dyn FnMut(&BatchHeader, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut failed = None;
    let verify = Verify::CrcBelow(offsets.end);
    let found = scan(fs, &file, 0, bytes, verify, |header, _, batch| {
        if failed.is_none() {
            failed = visit(header, batch).err();
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if found.end < bytes {
        let hints = kafka_files::index_positions(fs, path, bytes);
        let behind = found.next_offset.unwrap_or(offsets.start)..offsets.end;
        salvage(fs, &file, found.end, bytes, behind, &hints, |header, _, batch| visit(header, batch))?;
    }
    Ok(())
}

/// Writes the good batches to a new file, and new indexes; the original is kept aside.
pub(super) fn rewrite(
    fs: &dyn Fs,
    aside: &mut Aside,
    path: &Path,
    core_dir: &Path,
    partition: u64,
) -> Result<(), InspectError> {
    let newest =
        checkpoint::read_newest(fs, core_dir).map_err(|e| at(core_dir)(io::Error::other(e.to_string())))?;
    let state = newest.as_ref().and_then(|c| c.partitions.iter().find(|p| p.id == partition));
    let base = path.file_name().and_then(|n| n.to_str()).and_then(crate::segment::parse_file_name);
    let (Some(state), Some((base, _))) = (state, base) else { return Ok(()) };
    let Some(known) = state.segments.iter().find(|s| s.base_offset == base.0) else { return Ok(()) };
    // Not `.tmp`: replacing the indexes uses that name.
    let temporary = path.with_extension("log.new");
    let out = fs.open(&temporary, OpenMode::Create).map_err(at(&temporary))?;
    fs.set_len(&out, 0).map_err(at(&temporary))?;
    let mut index = SegmentIndex::new(base, INDEX_INTERVAL_BYTES);
    let mut end = 0u64;
    let exists = fs.exists(path);
    if exists {
        let offsets = base..Offset(segment_end(state, base.0));
        let copied = each_good_batch(fs, path, offsets, known.bytes, &mut |header, batch| {
            index.append(header, u32::try_from(end).unwrap_or(u32::MAX));
            fs.write_at(&out, batch, end)?;
            end += batch.len() as u64;
            Ok(())
        });
        copied.and_then(|()| fs.sync_data(&out)).map_err(at(&temporary))?;
        aside.keep(fs, path)?;
    }
    let (max_timestamp_ms, offset_of_max) = index.max_timestamp();
    index.finish(max_timestamp_ms, offset_of_max);
    // Indexes first: with the old segment they are merely wrong, and a broker does not start between these steps.
    for (file, bytes) in
        [(SegmentFile::Index, index.offset_bytes()), (SegmentFile::TimeIndex, index.time_bytes())]
    {
        let path = path.with_file_name(file_name(base, file));
        fs.replace(&path, &bytes).map_err(at(&path))?;
    }
    fs.rename(&temporary, path).map_err(at(path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs.sync_dir(dir).map_err(at(dir))?;
    change_checkpoint(fs, core_dir, |checkpoint| {
        let state = checkpoint.partitions.iter_mut().find(|p| p.id == partition);
        let Some(state) = state else { return };
        if let Some(segment) = state.segments.iter_mut().find(|s| s.base_offset == base.0) {
            segment.bytes = end;
            segment.max_timestamp_ms = max_timestamp_ms;
            segment.offset_of_max_timestamp = offset_of_max.0;
            segment.index_entries = index.offset_entries();
            segment.time_entries = index.time_entries();
        }
    })
}

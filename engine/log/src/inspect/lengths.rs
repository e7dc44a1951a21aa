//! Segment files beside what the newest checkpoint says of them: one that is missing, or shorter than that. What a look at the
//! file alone cannot tell, as the active one may end anywhere, and a sealed one behind any batch.
//!
//! Judged as a start judges, with its code, and as uptight nowhere: what retention has unlinked may be gone, what a compaction
//! puts in place may lie under its other name, and what the journal no longer has belongs to nobody.

use super::chain::walk_chain;
use super::repair::lies_at;
use super::{Decisions, FileKind, Finding, InspectError, Report, Severity, at};
use crate::compaction::{SwapError, follow_swap, read_swap};
use crate::folder::is_foreign;
use crate::format::checkpoint::{self, CheckpointError, PartitionState};
use crate::format::swap::SwapRecord;
use crate::partition::{MISSES_ACTIVE, Partition, is_shorter, segment_path};
use ringmill_reactor::{Fs, OpenMode, Unfit};
use ringmill_types::{Offset, PartitionId};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// Adds what the segments in `data_dir` lack of what the checkpoint in `core_dir` says, to the reports on them or as ones of
/// their own. A core log that cannot be followed says that itself.
///
/// # Errors
/// [`InspectError::Io`].
pub fn compare(
    fs: &dyn Fs,
    data_dir: &Path,
    core_dir: &Path,
    decisions: &Decisions,
    reports: &mut Vec<Report>,
) -> Result<(), InspectError> {
    let first = lacking(fs, data_dir, core_dir, decisions)?;
    if first.is_empty() {
        return Ok(());
    }
    // A broker that runs removes and exchanges segments while it is looked at.
    let second = lacking(fs, data_dir, core_dir, decisions)?;
    for (path, what) in first.into_iter().filter(|found| second.contains(found)) {
        let finding = Finding { severity: Severity::Damage, position: None, what };
        match reports.iter_mut().find(|report| report.path == path) {
            Some(report) => report.findings.push(finding),
            None => {
                let mut report = Report::new(&path, FileKind::Segment);
                report.findings.push(finding);
                reports.push(report);
            }
        }
    }
    Ok(())
}

/// The files, and what each lacks.
fn lacking(
    fs: &dyn Fs,
    data_dir: &Path,
    core_dir: &Path,
    decisions: &Decisions,
) -> Result<Vec<(PathBuf, String)>, InspectError> {
    let mut found = Vec::new();
    let start = match checkpoint::read_newest(fs, core_dir) {
        Ok(Some(start)) => start,
        Err(CheckpointError::Io(error)) if Unfit::of(&error).is_none() => return Err(at(core_dir)(error)),
        Ok(None) | Err(_) => return Ok(found),
    };
    let chain = match walk_chain(fs, core_dir, &start) {
        Ok(chain) => chain,
        Err(error) if Unfit::of(&error).is_some() => return Ok(found),
        Err(error) => return Err(at(core_dir)(error)),
    };
    // What came behind may have moved log starts.
    let is_cut = chain.cut.is_some() || chain.exchanged.is_some() || !chain.missing.is_empty();
    if is_cut || chain.damage().next().is_some() {
        return Ok(found);
    }
    let swap = match read_swap(fs, core_dir) {
        Ok(swap) => swap,
        Err(SwapError::Io(error)) if Unfit::of(&error).is_none() => return Err(at(core_dir)(error)),
        Err(SwapError::Io(_) | SwapError::Unreadable(_)) => None,
    };
    let mut log_starts: HashMap<PartitionId, i64> = HashMap::new();
    for (id, log_start) in chain.groups.iter().flat_map(|group| &group.log_starts) {
        let newest = log_starts.entry(*id).or_insert(0);
        *newest = (*newest).max(*log_start);
    }
    for mut state in start.partitions {
        let is_own = decisions.owner(state.id).is_some_and(|owner| owner.0 == start.core);
        if !is_own {
            continue;
        }
        let swap = swap.as_ref().filter(|record| record.partition.0 == state.id);
        swap.into_iter().for_each(|record| follow_swap(record, &mut state));
        let log_start = log_starts.get(&PartitionId(state.id)).copied().unwrap_or(0);
        let lacks = of_partition(fs, data_dir, &state, Offset(log_start), swap);
        found.extend(lacks.map_err(|(path, error)| at(&path)(error))?);
    }
    Ok(found)
}

fn of_partition(
    fs: &dyn Fs,
    data_dir: &Path,
    state: &PartitionState,
    log_start: Offset,
    swap: Option<&SwapRecord>,
) -> Result<Vec<(PathBuf, String)>, (PathBuf, io::Error)> {
    let mut part = Partition::named(state, data_dir);
    part.restore(state, 0, false);
    part.log_start = part.log_start.max(log_start);
    part.drop_below_start(fs);
    let mut found = Vec::new();
    // Another topic's, by its name: a start says so when it is written to.
    if matches!(is_foreign(fs, &part.dir, part.topic_id), Ok(true)) {
        return Ok(found);
    }
    let misses_active = part.misses_active(fs);
    let ends = part.segments.iter().skip(1).map(|next| next.base).chain([part.destaged]);
    for (segment, end) in part.segments.iter().zip(ends).filter(|(segment, _)| segment.bytes > 0) {
        let path = segment_path(&part.dir, segment.base, "log");
        let lies_at = lies_at(fs, &part.dir, segment.base, swap);
        let is_active = !segment.sealed;
        match fs.open(&lies_at, OpenMode::Read).and_then(|file| fs.len(&file)) {
            Ok(file_bytes) => {
                let shorter = is_shorter(&lies_at, file_bytes, segment.bytes);
                found.extend(shorter.map(|what| (path, what)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = format!("{}-{}", part.topic, part.index);
                if is_active && misses_active {
                    found.push((
                        path,
                        format!("it is missing: {name} goes offline at a start, because {MISSES_ACTIVE}"),
                    ));
                } else if !is_active && end > part.log_start {
                    let bytes = segment.bytes;
                    found.push((
                        path,
                        format!("it is missing: by the checkpoint it holds {bytes} bytes of {name}"),
                    ));
                }
            }
            // No file at all, which its own report says.
            Err(error) if Unfit::of(&error).is_some() => {}
            Err(error) => return Err((lies_at, error)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::compact::{Group, Output, cleaned_path};
    use crate::format::checkpoint::SegmentState;
    use crate::format::group::EntryKind;
    use crate::format::swap::SWAP_NAME;
    use crate::inspect::tests::Home;
    use ringmill_reactor::stdfs::StdFs;
    use ringmill_types::CoreId;

    const BYTES: u64 = 100;

    fn t_0(home: &Home) -> PathBuf {
        home.dir.path().join("topics/t-0")
    }

    fn put(path: &Path, bytes: u64) {
        std::fs::write(path, vec![1; bytes as usize]).unwrap();
    }

    /// Two sealed segments and an active one, of ten offsets and [`BYTES`] each; the active one's file is longer.
    fn three() -> Home {
        let home = Home::new();
        let segment = |base_offset, sealed| SegmentState {
            base_offset,
            bytes: BYTES,
            max_timestamp_ms: 1,
            offset_of_max_timestamp: base_offset,
            created_ms: 1,
            index_entries: 0,
            time_entries: 0,
            sealed,
        };
        home.checkpoint(|checkpoint| {
            let state = checkpoint.partitions.first_mut().unwrap();
            state.next_offset = 30;
            state.segments = vec![segment(0, true), segment(10, true), segment(20, false)];
        });
        std::fs::create_dir_all(t_0(&home)).unwrap();
        for (base, bytes) in [(0, BYTES), (10, BYTES), (20, 4096)] {
            put(&segment_path(&t_0(&home), Offset(base), "log"), bytes);
        }
        home
    }

    /// What is found where `owner` has the partition, if it has not been deleted: bases and sentences.
    fn found_of(home: &Home, owner: Option<u16>) -> Vec<(i64, String)> {
        let decisions = Decisions::new(6, owner.map(|core| (PartitionId(5), CoreId(core))));
        // Reports on the files themselves take what is found about them.
        let mut reports = crate::inspect::verify(&StdFs, &home.core()).unwrap();
        let own = reports.len();
        reports.push(Report::new(&segment_path(&t_0(home), Offset(10), "log"), FileKind::Segment));
        compare(&StdFs, home.dir.path(), &home.core(), &decisions, &mut reports).unwrap();
        let found = reports.into_iter().skip(own);
        let found = found.flat_map(|report| {
            let base = crate::segment::parse_file_name(report.path.file_name().unwrap().to_str().unwrap())
                .unwrap()
                .0;
            report.findings.into_iter().map(move |finding| (base.0, finding.what))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found
    }

    fn bases(home: &Home) -> Vec<i64> {
        found_of(home, Some(0)).into_iter().map(|(base, _)| base).collect()
    }

    fn remove(home: &Home, base: i64) {
        std::fs::remove_file(segment_path(&t_0(home), Offset(base), "log")).unwrap();
    }

    #[test]
    fn segments_that_lack_what_the_checkpoint_says_are_found() {
        assert!(bases(&three()).is_empty());
        for (base, says) in
            [(10, "by the checkpoint it holds 100 bytes of t-0"), (20, "its active segment is missing")]
        {
            let home = three();
            remove(&home, base);
            let found = found_of(&home, Some(0));
            assert!(found.len() == 1 && found[0].0 == base && found[0].1.contains(says), "{found:?}");
        }
        for base in [0, 10, 20] {
            let home = three();
            put(&segment_path(&t_0(&home), Offset(base), "log"), BYTES - 1);
            let found = found_of(&home, Some(0));
            assert!(found.len() == 1 && found[0].0 == base, "{found:?}");
            assert!(found[0].1.ends_with(" holds 99 bytes, the checkpoint says 100"), "{found:?}");
        }
        let home = three();
        std::fs::remove_dir_all(t_0(&home)).unwrap();
        assert_eq!(bases(&home), [0, 10, 20]);
    }

    /// The files may be gone, as they may be there still.
    #[test]
    fn what_retention_has_unlinked_is_not_missed() {
        for (log_start, gone) in [(10, &[0][..]), (20, &[0, 10]), (30, &[0, 10, 20])] {
            let mut home = three();
            home.append(5, EntryKind::LogStart, Vec::new(), log_start);
            assert!(bases(&home).is_empty());
            for base in gone {
                remove(&home, *base);
            }
            assert!(bases(&home).is_empty(), "{log_start}");
            if log_start == 10 {
                remove(&home, 10);
                assert_eq!(bases(&home), [10], "records behind the log start were in it");
            }
        }
    }

    #[test]
    fn what_the_journal_has_not_on_this_core_is_nobodys() {
        let home = three();
        remove(&home, 10);
        assert_eq!(bases(&home), [10]);
        assert!(found_of(&home, None).is_empty(), "deleted");
        assert!(found_of(&home, Some(1)).is_empty(), "another core's by now");
    }

    /// The record is there, and the new segment has its name already or not.
    #[test]
    fn a_compaction_that_was_cut_off_is_followed() {
        let output = Output {
            base: Offset(0),
            bytes: 50,
            max_timestamp_ms: 1,
            offset_of_max: Offset(0),
            created_ms: 1,
            index_entries: 0,
            time_entries: 0,
        };
        let groups = vec![Group { sources: vec![Offset(0), Offset(10)], output: Some(output) }];
        let record = SwapRecord { partition: PartitionId(5), groups };
        for named in [false, true] {
            let home = three();
            StdFs.replace(&home.core().join(SWAP_NAME), record.to_text().as_bytes()).unwrap();
            let cleaned = cleaned_path(&t_0(&home), Offset(0), "log");
            put(&cleaned, 50);
            remove(&home, 10);
            let last = segment_path(&t_0(&home), Offset(0), "log");
            if named {
                std::fs::rename(&cleaned, &last).unwrap();
            }
            assert!(bases(&home).is_empty());
            put(if named { &last } else { &cleaned }, 49);
            assert_eq!(bases(&home), [0]);
        }
    }

    /// A look at the file says so itself; and a core log that cannot be followed to its end does not say where logs begin.
    #[test]
    fn what_is_told_elsewhere_is_not_told_here() {
        let home = three();
        remove(&home, 10);
        std::fs::create_dir(segment_path(&t_0(&home), Offset(10), "log")).unwrap();
        assert!(bases(&home).is_empty());
        let home = three();
        remove(&home, 10);
        std::fs::remove_file(home.core().join("001.log")).unwrap();
        assert!(bases(&home).is_empty());
    }
}

//! Which segments are sealed, seen from outside: every `.log` of a partition folder but the newest.

use crate::ScrubRequest;
use ringmill_log::segment::offsets_end;
use ringmill_types::Offset;
use std::io;
use std::path::{Path, PathBuf};

/// Digits of a segment's file name, as Kafka writes it.
const NAME_DIGITS: usize = 20;

/// Partition folders under `topics`, in name order; those being deleted are left out.
///
/// # Errors
/// What reading the folder says; a folder that does not exist holds none.
pub fn partitions(topics: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    let entries = match std::fs::read_dir(topics) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folders),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_partition = name
            .rsplit_once('-')
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        if is_partition && entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// The sealed segments of one partition folder, oldest first.
///
/// # Errors
/// What reading the folder says; a folder that went away meanwhile holds none.
pub fn sealed_segments(folder: &Path) -> io::Result<Vec<ScrubRequest>> {
    let mut segments = segments(folder)?;
    segments.sort_unstable();
    let partition = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let followed = segments.iter().zip(segments.iter().skip(1));
    Ok(followed
        .map(|((base, path), (next, _))| ScrubRequest {
            path: path.clone(),
            partition: partition.clone(),
            base_offset: *base,
            bound: (*next).min(offsets_end(*base)),
        })
        .collect())
}

/// Where a segment's offsets end by what its folder holds now: compaction joins segments, and the one behind it may be
/// part of it since the request was made.
pub fn bound_of(path: &Path, base: Offset) -> Offset {
    let folder = path.parent().unwrap_or(path);
    // A folder that cannot be read says nothing against the segment.
    let behind = segments(folder).unwrap_or_default().into_iter().map(|(other, _)| other);
    behind.filter(|other| *other > base).chain([offsets_end(base)]).min().unwrap_or(offsets_end(base))
}

/// Bases and paths of the segments in a folder, in no order.
fn segments(folder: &Path) -> io::Result<Vec<(Offset, PathBuf)>> {
    let mut segments = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let base = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        let Some(base) = base.filter(|base| base.len() == NAME_DIGITS) else { continue };
        let Ok(base) = base.parse::<i64>() else { continue };
        segments.push((Offset(base), path));
    }
    Ok(segments)
}

#[cfg(test)]
pub(crate) mod tests_support {
    /// One sound batch of one record's worth of `body` arbitrary bytes.
    pub fn batch(base_offset: i64, body: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; 61 + body];
        let length = (bytes.len() - 12) as i32;
        bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
        for (at, byte) in bytes.iter_mut().enumerate().skip(61) {
            *byte = (at * 31) as u8;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `count` sound batches from `base` on.
    pub fn segment(base: i64, count: i64, body: usize) -> Vec<u8> {
        (0..count).flat_map(|n| batch(base + n, body)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sealed_segments_of_live_partitions_are_found() {
        let dir = tempfile::tempdir().expect("temp folder");
        for (folder, files) in [
            (
                "orders-0",
                &["00000000000000000000.log", "00000000000000000900.log", "00000000000000000100.log"][..],
            ),
            (
                "orders-0",
                &["00000000000000000000.index", "00000000000000000050.log.deleted", "7.log", "x.log"],
            ),
            ("quiet-topic-12", &["00000000000000000000.log"]),
            ("orders-1.0b6f-delete", &["00000000000000000000.log", "00000000000000000001.log"]),
        ] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("made");
            for file in files {
                std::fs::write(dir.path().join(folder).join(file), b"").expect("written");
            }
        }
        let found = partitions(dir.path()).expect("readable");
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().expect("named").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["orders-0", "quiet-topic-12"]);
        let sealed: Vec<i64> =
            sealed_segments(&found[0]).expect("readable").iter().map(|s| s.base_offset.0).collect();
        assert_eq!(sealed, [0, 100]);
        let bounds: Vec<i64> =
            sealed_segments(&found[0]).expect("readable").iter().map(|s| s.bound.0).collect();
        assert_eq!(bounds, [100, 900]);
        let first = found[0].join("00000000000000000000.log");
        assert_eq!(bound_of(&first, Offset(0)), Offset(100));
        std::fs::remove_file(found[0].join("00000000000000000100.log")).expect("joined to the one before it");
        assert_eq!(bound_of(&first, Offset(0)), Offset(900));
        assert_eq!(bound_of(&first, Offset(900)), Offset(900 + (1 << 31)), "nothing behind it");
        assert!(sealed_segments(&found[1]).expect("readable").is_empty());
        assert!(partitions(&dir.path().join("absent")).expect("none").is_empty());
        assert!(sealed_segments(&dir.path().join("absent")).expect("none").is_empty());
    }
}

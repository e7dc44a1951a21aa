//! The journal: where records become durable. A file today; a replicated log takes its place behind the same trait.
//!
//! The file only grows, so a crash during an append leaves of it the whole, an early end of the file, or sectors that are
//! still zeros, and nothing of any later append. That tells a torn tail, which nobody was answered for and which is
//! dropped, from damage, which is refused: `kernel-notes/decisions/2026-11-21-journal-tail.md`.

use crate::image::Image;
use crate::records::{Record, RecordError, has_only_a_wrong_length, is_together};
use ringmill_reactor::unfit::At;
use ringmill_reactor::{FileHandle, Fs, OpenMode};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rewritten as a snapshot when it is this large and four times what a snapshot would be.
const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// Why the journal cannot be used. Each sentence says what to do.
#[derive(Debug)]
pub enum JournalError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Damage that no crash leaves: what lies there was decided and acknowledged.
    Damaged {
        path: PathBuf,
        offset: u64,
        error: RecordError,
        /// [`Frame::may_be_given_up`].
        is_last: bool,
    },
    /// A whole record of a kind that this version does not know. What else may be wrong, one that knows it has to say.
    Newer {
        path: PathBuf,
        offset: u64,
        kind: u8,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { path, error } => write!(f, "metadata journal {}", At(path, error)),
            JournalError::Damaged { path, offset, error, .. } => {
                let path = path.display();
                write!(
                    f,
                    "metadata journal {path} is damaged at byte {offset} ({error}) where acknowledged records lie; `ringmill log dump {path}` \
                     shows what can be read. Restore it from a copy"
                )
            }
            JournalError::Newer { path, offset, kind } => write!(
                f,
                "metadata journal {} has at byte {offset} {}",
                path.display(),
                RecordError::UnknownKind(*kind)
            ),
        }
    }
}

impl std::error::Error for JournalError {}

/// Makes records durable, in order.
pub trait Journal {
    /// Returns when the records survive a power cut. A crash before that keeps the first few of them, or none.
    ///
    /// # Errors
    /// [`JournalError`]: nothing was decided; after a failed sync the journal refuses everything.
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError>;
}

/// Folder and name of the journal in the data folder.
pub const JOURNAL_DIR: &str = "meta";
pub const JOURNAL_NAME: &str = "journal";

/// The journal as one file: `DATA/meta/journal`.
pub struct FileJournal {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: FileHandle,
    end: u64,
    snapshot_bytes: u64,
    failed: bool,
}

impl FileJournal {
    /// Opens or makes the journal and replays it into an image.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(fs: Arc<dyn Fs>, data_dir: &Path) -> Result<(FileJournal, Image), JournalError> {
        let dir = data_dir.join(JOURNAL_DIR);
        let path = dir.join(JOURNAL_NAME);
        let at = |error| JournalError::Io { path: path.clone(), error };
        fs.create_dir_all(&dir).map_err(at)?;
        let file = fs.open(&path, OpenMode::Create).map_err(at)?;
        fs.sync_dir(&dir).map_err(at)?;
        fs.sync_dir(data_dir).map_err(at)?;
        let bytes = fs.read_all(&path).map_err(at)?;
        check_known(&path, &bytes)?;
        let mut image = Image::new();
        let mut end = 0;
        for frame in frames(&bytes) {
            let is_last = frame.may_be_given_up(bytes.len());
            match frame.holds {
                Ok(record) => {
                    image.apply(&record);
                    end = frame.at + frame.bytes;
                }
                Err(Flaw::TornTail) => {
                    tracing::warn!(path = %path.display(), offset = end, "the journal's last append was cut off by a crash before it was answered; dropped");
                    fs.set_len(&file, end as u64).map_err(at)?;
                    fs.sync_data(&file).map_err(at)?;
                }
                Err(Flaw::Damage(error)) => {
                    return Err(JournalError::Damaged { path, offset: frame.at as u64, error, is_last });
                }
                Err(Flaw::Newer(kind)) => {
                    return Err(JournalError::Newer { path, offset: frame.at as u64, kind });
                }
            }
        }
        let journal = FileJournal { fs, path, file, end: end as u64, snapshot_bytes: 0, failed: false };
        Ok((journal, image))
    }

    /// Rewrites the journal as a snapshot of `image` when it has grown well beyond one.
    ///
    /// # Errors
    /// [`JournalError`]; the old journal stays.
    pub fn compact_if_large(&mut self, image: &Image) -> Result<(), JournalError> {
        if self.end < COMPACT_FROM_BYTES || self.end < self.snapshot_bytes * 4 {
            return Ok(());
        }
        self.compact(image)
    }

    /// Rewrites the journal as a snapshot of `image`.
    ///
    /// # Errors
    /// [`JournalError`]; the old journal stays.
    pub fn compact(&mut self, image: &Image) -> Result<(), JournalError> {
        let bytes = snapshot(image);
        self.snapshot_bytes = bytes.len() as u64;
        let at = |error| JournalError::Io { path: self.path.clone(), error };
        self.fs.replace(&self.path, &bytes).map_err(at)?;
        self.file = self.fs.open(&self.path, OpenMode::Write).map_err(at)?;
        self.end = bytes.len() as u64;
        Ok(())
    }
}

/// Refuses a journal in which a newer version wrote what this one does not know. Changes nothing, not even a torn tail.
///
/// # Errors
/// [`JournalError::Newer`]; [`JournalError::Io`].
pub fn look(fs: &dyn Fs, data_dir: &Path) -> Result<(), JournalError> {
    let path = data_dir.join(JOURNAL_DIR).join(JOURNAL_NAME);
    if !fs.exists(&path) {
        return Ok(());
    }
    match fs.read_all(&path) {
        Ok(bytes) => check_known(&path, &bytes),
        Err(error) => Err(JournalError::Io { path, error }),
    }
}

fn check_known(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let newer = frames(bytes).find_map(|frame| match frame.holds {
        Err(Flaw::Newer(kind)) => Some((frame.at as u64, kind)),
        Ok(_) | Err(Flaw::TornTail | Flaw::Damage(_)) => None,
    });
    match newer {
        Some((offset, kind)) => Err(JournalError::Newer { path: path.to_path_buf(), offset, kind }),
        None => Ok(()),
    }
}

/// A journal that makes this image out of nothing.
pub fn snapshot(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.to_records().iter().for_each(|record| record.encode(&mut bytes));
    bytes
}

/// A stretch of the journal: a record, or bytes that are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub at: usize,
    pub bytes: usize,
    pub holds: Result<Record, Flaw>,
}

impl Frame {
    /// Damage of the decisions that were written last, whatever program wrote them: without them a start can go on.
    pub fn may_be_given_up(&self, journal_bytes: usize) -> bool {
        matches!(self.holds, Err(Flaw::Damage(RecordError::Torn | RecordError::Damaged)))
            && self.at + self.bytes == journal_bytes
    }
}

/// Why a stretch of the journal is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// What a crash leaves of the last append, up to the end of the file. Nobody was answered.
    TornTail,
    /// The stretch ends where the next record begins, or with the file.
    Damage(RecordError),
    /// A record of a kind that this version does not know, and such behind it as were written with it or after it.
    Newer(u8),
}

/// All of a journal's bytes, in order and without a gap. The one way to read it: at a start, and when it is looked at.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let (bytes, holds) = match Record::decode(rest) {
            Ok((record, length)) => (length, Ok(record)),
            Err(RecordError::UnknownKind(kind)) => {
                (next_record(rest).unwrap_or(rest.len()), Err(Flaw::Newer(kind)))
            }
            Err(error) if is_torn_tail(rest, at, error) => (rest.len(), Err(Flaw::TornTail)),
            Err(error) => (next_record(rest).unwrap_or(rest.len()), Err(Flaw::Damage(error))),
        };
        let frame = Frame { at, bytes, holds };
        at += bytes;
        Some(frame)
    })
}

/// The smallest piece that a device writes whole.
const SECTOR_BYTES: usize = 512;

/// Where a record begins again, be it of a kind that is not known, behind bytes that are none.
fn next_record(rest: &[u8]) -> Option<usize> {
    let is_record = |rest: &[u8]| matches!(Record::decode(rest), Ok(_) | Err(RecordError::UnknownKind(_)));
    (1..rest.len()).find(|at| rest.get(*at..).is_some_and(is_record))
}

/// A crash left this of the append that was under way; `rest` begins at `at` of the file with bytes that are no record.
fn is_torn_tail(rest: &[u8], at: usize, error: RecordError) -> bool {
    let next = next_record(rest);
    // An append begins only when the one before it is on disk.
    if next.and_then(|next| rest.get(next..)).is_some_and(begins_an_append) {
        return false;
    }
    match error {
        RecordError::UnknownKind(_) => false,
        RecordError::Torn if next.is_none() => !has_only_a_wrong_length(rest),
        RecordError::Torn | RecordError::Damaged => {
            has_zero_sector(rest.get(..next.unwrap_or(rest.len())).unwrap_or_default(), at)
        }
    }
}

/// Somewhere from here on a record is the first of its append.
fn begins_an_append(mut rest: &[u8]) -> bool {
    loop {
        let step = match Record::decode(rest) {
            Ok(_) | Err(RecordError::UnknownKind(_)) if !is_together(rest) => return true,
            Ok((_, bytes)) => bytes,
            Err(_) => match next_record(rest) {
                Some(bytes) => bytes,
                None => return false,
            },
        };
        rest = rest.get(step..).unwrap_or_default();
    }
}

/// What lies of `bytes` in one of the file's sectors is nothing but zeros: that sector may never have been written.
fn has_zero_sector(bytes: &[u8], at: usize) -> bool {
    let (first, others) = bytes.split_at(bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
    std::iter::once(first).chain(others.chunks(SECTOR_BYTES)).any(|piece| piece.iter().all(|byte| *byte == 0))
}

impl Journal for FileJournal {
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let at = |error| JournalError::Io { path: self.path.clone(), error };
        if self.failed {
            return Err(at(io::Error::other("an earlier write failed; restart the broker")));
        }
        let mut bytes = Vec::new();
        Record::encode_together(records, &mut bytes);
        let written = self.fs.write_at(&self.file, &bytes, self.end);
        if let Err(error) = written {
            // A full disk: cut off what may have been written, so that the next append finds a clean end.
            let error = at(error);
            self.failed = self.fs.set_len(&self.file, self.end).is_err();
            return Err(error);
        }
        if let Err(error) = self.fs.sync_data(&self.file) {
            self.failed = true;
            return Err(JournalError::Io { path: self.path.clone(), error });
        }
        self.end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Configs, FRAME_HEAD_BYTES, PartitionRecord};
    use ringmill_reactor::stdfs::StdFs;
    use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};

    fn created(name: &str, id: u8) -> Record {
        Record::TopicCreated {
            name: name.into(),
            id: TopicId([id; 16]),
            created_ms: 5,
            configs: Configs::new(),
            partitions: Vec::new(),
        }
    }

    #[test]
    fn survives_a_torn_tail_and_refuses_damage() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let fs: Arc<dyn Fs> = Arc::new(StdFs);
        let (mut journal, _) = FileJournal::open(fs.clone(), dir.path()).expect("fresh");
        journal.append(&[created("a", 1), created("b", 2)]).expect("append");
        let path = dir.path().join("meta/journal");
        let whole = std::fs::read(&path).expect("read");
        for cut in 1..20 {
            let mut torn = whole.clone();
            let mut next = Vec::new();
            created("c", 3).encode(&mut next);
            torn.extend_from_slice(next.get(..cut).expect("longer than that"));
            std::fs::write(&path, &torn).expect("write");
            let (_, image) = FileJournal::open(fs.clone(), dir.path()).expect("a torn tail is no damage");
            assert_eq!(image.topics().count(), 2);
            assert_eq!(std::fs::read(&path).expect("read"), whole, "cut back to the last record");
        }
        // Inside the payload; in the length, which then says more than there is, or more than a record has.
        for at in [12, 1, 3] {
            let mut damaged = whole.clone();
            *damaged.get_mut(at).expect("inside the first record") ^= 0x7f;
            std::fs::write(&path, &damaged).expect("write");
            let opened = FileJournal::open(fs.clone(), dir.path());
            assert!(matches!(opened, Err(JournalError::Damaged { offset: 0, .. })), "byte {at}");
            assert_eq!(std::fs::read(&path).expect("read"), damaged, "nothing was changed");
        }
    }

    /// A record as a newer version may write it: all is right but that nobody here knows its kind.
    fn newer(kind: u8) -> Vec<u8> {
        let payload = [kind, 1, 2, 3];
        let words = [payload.len() as u32, crc32c::crc32c(&payload)];
        words.into_iter().flat_map(u32::to_le_bytes).chain(payload).collect()
    }

    /// It was acknowledged, so neither is it damage nor is what lies before it a torn tail.
    #[test]
    fn a_record_of_a_newer_version_is_refused_as_that_wherever_it_is() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let fs: Arc<dyn Fs> = Arc::new(StdFs);
        let (mut journal, _) = FileJournal::open(fs.clone(), dir.path()).expect("fresh");
        journal.append(&[created("a", 1)]).expect("append");
        let path = dir.path().join("meta/journal");
        let one = std::fs::read(&path).expect("read");
        let mut damaged = one.clone();
        *damaged.last_mut().expect("not empty") ^= 1;
        let mut wide_one = Vec::new();
        wide("b", 2).encode(&mut wide_one);
        let mut zeros = [one.clone(), wide_one].concat();
        zeros.get_mut(SECTOR_BYTES..2 * SECTOR_BYTES).expect("inside the second").fill(0);
        let behind: [(&[u8], &[u8]); 5] =
            [(&one, &[]), (&one, &one), (&one, &[40, 0, 0, 0, 1]), (&damaged, &one), (&zeros, &[])];
        for (number, (before, after)) in behind.into_iter().enumerate() {
            let bytes = [before, &newer(200), after].concat();
            std::fs::write(&path, &bytes).expect("write");
            for refused in
                [look(fs.as_ref(), dir.path()).err(), FileJournal::open(fs.clone(), dir.path()).err()]
            {
                let offset = before.len() as u64;
                assert!(
                    matches!(refused, Some(JournalError::Newer { offset: at, kind: 200, .. }) if at == offset),
                    "{number}: {refused:?}"
                );
            }
            assert_eq!(std::fs::read(&path).expect("read"), bytes, "{number}: nothing was changed");
        }
    }

    #[test]
    fn what_lies_behind_damage_is_still_shown() {
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            starts.push(bytes.len());
            created(name, id).encode(&mut bytes);
        }
        let whole: Vec<Frame> = frames(&bytes).collect();
        assert_eq!(whole.iter().map(|f| f.at).collect::<Vec<_>>(), starts);
        assert!(whole.iter().all(|f| f.holds.is_ok()));
        let mut damaged = bytes.clone();
        *damaged.get_mut(starts[1] + 10).expect("in the second") ^= 1;
        damaged.extend_from_slice(&[9, 0, 0]);
        let found: Vec<Frame> = frames(&damaged).collect();
        assert_eq!(found.iter().map(|f| f.bytes).sum::<usize>(), damaged.len(), "no gap");
        let kinds: Vec<_> = found.iter().map(|f| f.holds.as_ref().err().copied()).collect();
        assert_eq!(kinds, [None, Some(Flaw::Damage(RecordError::Damaged)), None, Some(Flaw::TornTail)]);
        assert_eq!(found.get(2).map(|f| f.at), starts.get(2).copied());
    }

    /// A topic whose record is longer than two sectors.
    fn wide(name: &str, id: u8) -> Record {
        let partition = |at: u64| PartitionRecord {
            id: PartitionId(at + 0x0101_0101_0101_0101),
            core: CoreId(7),
            epoch: LeaderEpoch(i32::MAX),
        };
        match created(name, id) {
            Record::TopicCreated { name, id, created_ms, configs, .. } => Record::TopicCreated {
                name,
                id,
                created_ms,
                configs,
                partitions: (1..100).map(partition).collect(),
            },
            other => other,
        }
    }

    /// Where each record begins, and where the last one ends.
    fn places(bytes: &[u8]) -> Vec<usize> {
        frames(bytes).map(|f| f.at).chain([bytes.len()]).collect()
    }

    fn flaws(bytes: &[u8]) -> Vec<Option<Flaw>> {
        frames(bytes).map(|f| f.holds.err()).collect()
    }

    /// Nobody can say whether it was answered: it is there to its last byte, so it may have been.
    #[test]
    fn a_damaged_last_record_is_refused_whichever_bit_it_is() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let fs: Arc<dyn Fs> = Arc::new(StdFs);
        let (mut journal, _) = FileJournal::open(fs.clone(), dir.path()).expect("fresh");
        journal.append(&[created("a", 1)]).expect("append");
        journal.append(&[created("b", 2), created("c", 3)]).expect("append");
        let path = dir.path().join("meta/journal");
        let whole = std::fs::read(&path).expect("read");
        let begins = *places(&whole).get(2).expect("three records");
        for at in begins..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                *damaged.get_mut(at).expect("inside") ^= 1 << bit;
                let flaw = flaws(&damaged).pop().flatten();
                assert!(matches!(flaw, Some(Flaw::Damage(_))), "byte {at}, bit {bit}: {flaw:?}");
            }
        }
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, &damaged).expect("write");
        let Err(refused) = FileJournal::open(fs, dir.path()) else { panic!("it is taken") };
        assert!(
            matches!(refused, JournalError::Damaged { offset, is_last: true, .. } if offset == begins as u64),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).expect("read"), damaged, "nothing was changed");
    }

    /// What a power cut leaves of an append that it met: any of its sectors, the others zeros.
    #[test]
    fn zeros_where_a_sector_should_be_are_a_torn_tail_only_in_the_last_append() {
        let mut before = Vec::new();
        Record::encode_together(&[created("a", 1)], &mut before);
        let mut whole = before.clone();
        Record::encode_together(&[wide("b", 2), wide("c", 3), wide("d", 4)], &mut whole);
        let begins = places(&whole);
        let torn = Some(Flaw::TornTail);
        for sector in 0..whole.len().div_ceil(SECTOR_BYTES) {
            let from = (sector * SECTOR_BYTES).max(before.len());
            let to = ((sector + 1) * SECTOR_BYTES).min(whole.len());
            let mut lost = whole.clone();
            lost.get_mut(from..to).expect("inside").fill(0);
            // Records before the hole stay, those behind it go with it, readable or not.
            let kept = begins.iter().skip(1).filter(|end| **end <= from).count();
            let found = flaws(&lost);
            assert_eq!(found.len(), kept + 1, "sector {sector}");
            assert_eq!(found.last(), Some(&torn), "sector {sector}");
            // A later append began only because this one was on disk.
            Record::encode_together(&[created("e", 5), created("f", 6)], &mut lost);
            let found = flaws(&lost);
            assert!(!found.contains(&torn), "sector {sector}: {found:?}");
            assert_eq!(found.iter().filter(|f| f.is_some()).count(), 1, "sector {sector}: {found:?}");
        }
    }

    /// The limit of it: where the last bytes of the damaged record, in their own sector, are zeros anyway.
    #[test]
    fn damage_beside_zeros_that_belong_there_still_passes_for_a_torn_tail() {
        let mut bytes = Vec::new();
        let tail = Record::ProducerIds { next: 1 };
        // Four zeros of its eight bytes lie behind a sector's end.
        let fill = SECTOR_BYTES + 4 - FRAME_HEAD_BYTES - 9;
        let text = "x".repeat(fill - FRAME_HEAD_BYTES - 1 - 4 - 16 - 8 - 4 - 4);
        created(&text, 1).encode(&mut bytes);
        assert_eq!(bytes.len(), fill);
        tail.encode(&mut bytes);
        assert_eq!(bytes.len(), SECTOR_BYTES + 4);
        *bytes.get_mut(fill + FRAME_HEAD_BYTES + 1).expect("inside") ^= 2;
        assert_eq!(flaws(&bytes), [None, Some(Flaw::TornTail)]);
    }
}

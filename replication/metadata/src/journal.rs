//! The journal: where records become durable. A file today; a replicated log takes its place behind the same trait.

use crate::image::Image;
use crate::records::{Record, RecordError};
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
    /// Damage before the end: what follows it was decided and acknowledged.
    Damaged {
        path: PathBuf,
        offset: u64,
        error: RecordError,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io { path, error } => write!(f, "metadata journal {}: {error}", path.display()),
            JournalError::Damaged { path, offset, error } => write!(
                f,
                "metadata journal {} is damaged at byte {offset} ({error}) where acknowledged records lie; `ringmill log dump {}` shows what \
                 can be read. Restore it from a copy",
                path.display(),
                path.display()
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
        let mut image = Image::new();
        let mut end = 0;
        for frame in frames(&bytes) {
            match frame.holds {
                Ok(record) => {
                    image.apply(&record);
                    end = frame.at + frame.bytes;
                }
                Err(Flaw::TornTail) => {
                    tracing::warn!(path = %path.display(), offset = end, "the journal's last record was cut off by a crash before it was answered; dropped");
                    fs.set_len(&file, end as u64).map_err(at)?;
                    fs.sync_data(&file).map_err(at)?;
                }
                Err(Flaw::Damage(error)) => {
                    return Err(JournalError::Damaged { path, offset: frame.at as u64, error });
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
        let mut bytes = Vec::new();
        for record in image.to_records() {
            record.encode(&mut bytes);
        }
        self.snapshot_bytes = bytes.len() as u64;
        let at = |error| JournalError::Io { path: self.path.clone(), error };
        self.fs.replace(&self.path, &bytes).map_err(at)?;
        self.file = self.fs.open(&self.path, OpenMode::Write).map_err(at)?;
        self.end = bytes.len() as u64;
        Ok(())
    }
}

/// A stretch of the journal: a record, or bytes that are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub at: usize,
    pub bytes: usize,
    pub holds: Result<Record, Flaw>,
}

/// Why a stretch of the journal is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// What a crash leaves of the last append: nothing readable anywhere behind it. Nobody was answered.
    TornTail,
    /// The stretch ends where the next record begins, or with the file.
    Damage(RecordError),
}

/// All of a journal's bytes, in order and without a gap. The one way to read it: at a start, and when it is looked at.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let (bytes, holds) = match Record::decode(rest) {
            Ok((record, length)) => (length, Ok(record)),
            Err(error) => {
                let flaw = if is_torn_tail(rest, error) { Flaw::TornTail } else { Flaw::Damage(error) };
                (next_record(rest).unwrap_or(rest.len()), Err(flaw))
            }
        };
        let frame = Frame { at, bytes, holds };
        at += bytes;
        Some(frame)
    })
}

/// Where a record can be read again, behind bytes that are none.
fn next_record(rest: &[u8]) -> Option<usize> {
    (1..rest.len()).find(|at| rest.get(*at..).is_some_and(|r| Record::decode(r).is_ok()))
}

/// A damaged length looks like a cut, too: only what lies behind tells them apart.
fn is_torn_tail(rest: &[u8], error: RecordError) -> bool {
    match error {
        RecordError::Torn | RecordError::Damaged => next_record(rest).is_none(),
        RecordError::UnknownKind(_) => false,
    }
}

impl Journal for FileJournal {
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let at = |error| JournalError::Io { path: self.path.clone(), error };
        if self.failed {
            return Err(at(io::Error::other("an earlier write failed; restart the broker")));
        }
        let mut bytes = Vec::new();
        for record in records {
            record.encode(&mut bytes);
        }
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
    use crate::records::Configs;
    use ringmill_reactor::stdfs::StdFs;
    use ringmill_types::TopicId;

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
}

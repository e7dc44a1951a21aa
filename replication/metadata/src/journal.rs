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
                "metadata journal {} is damaged at byte {offset} ({error}), and records follow: restore it from a copy",
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
        let dir = data_dir.join("meta");
        let path = dir.join("journal");
        let at = |error| JournalError::Io { path: path.clone(), error };
        fs.create_dir_all(&dir).map_err(at)?;
        let file = fs.open(&path, OpenMode::Create).map_err(at)?;
        fs.sync_dir(&dir).map_err(at)?;
        fs.sync_dir(data_dir).map_err(at)?;
        let bytes = fs.read_all(&path).map_err(at)?;
        let mut image = Image::new();
        let mut end = 0;
        while end < bytes.len() {
            let rest = bytes.get(end..).unwrap_or_default();
            match Record::decode(rest) {
                Ok((record, length)) => {
                    image.apply(&record);
                    end += length;
                }
                Err(error) if is_torn_tail(rest, error) => {
                    tracing::warn!(path = %path.display(), offset = end, "the journal's last record was cut off by a crash before it was answered; dropped");
                    fs.set_len(&file, end as u64).map_err(at)?;
                    fs.sync_data(&file).map_err(at)?;
                    break;
                }
                Err(error) => return Err(JournalError::Damaged { path, offset: end as u64, error }),
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

/// Whether the rest of the file is what a crash leaves of the last append: nothing readable anywhere behind it.
fn is_torn_tail(rest: &[u8], error: RecordError) -> bool {
    match error {
        RecordError::Torn => true,
        RecordError::UnknownKind(_) => false,
        RecordError::Damaged => {
            !(1..rest.len()).any(|at| rest.get(at..).is_some_and(|r| Record::decode(r).is_ok()))
        }
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
        let mut damaged = whole.clone();
        *damaged.get_mut(12).expect("inside the first record") ^= 0xff;
        std::fs::write(&path, &damaged).expect("write");
        assert!(matches!(FileJournal::open(fs, dir.path()), Err(JournalError::Damaged { offset: 0, .. })));
    }
}

//! Batches and folders for this crate's tests.
#![allow(clippy::unwrap_used)]

use crate::format::group::{
    ENTRY_CRC_BYTES, Entry, EntryKind, GROUP_HEADER_BYTES, GroupHeader, table_at, total_bytes,
};
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{DirEntry, FileHandle, Fs, OpenMode};
use ringmill_record::batch::HEADER_BYTES;
use ringmill_types::{LeaderEpoch, PartitionId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Compares with a file in `tests/golden`; `RINGMILL_BLESS=1` writes it instead, for a new version of a format only.
pub fn check_golden(name: &str, bytes: &[u8]) {
    let path = golden(name);
    if std::env::var_os("RINGMILL_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    let differs = golden.iter().zip(bytes).position(|(a, b)| a != b);
    assert!(
        golden == bytes,
        "{name}: {} bytes, now {}; first difference at {differs:?}",
        golden.len(),
        bytes.len()
    );
}

pub fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn golden_text(name: &str) -> String {
    std::fs::read_to_string(golden(name)).unwrap()
}

/// A copy of a golden folder that a test may change, under its own name.
pub fn golden_copy(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let from = golden(name);
    let to = home.path().join(from.file_name().unwrap());
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    (home, to)
}

/// What a test says of a batch; the rest has plain defaults.
#[derive(Clone, Copy, Debug)]
pub struct BatchSpec {
    pub base_offset: i64,
    pub records: i32,
    pub epoch: i32,
    pub timestamp_ms: i64,
    pub producer: Option<(i64, i16, i32)>,
    pub attributes: i16,
    pub payload_bytes: usize,
}

impl Default for BatchSpec {
    fn default() -> BatchSpec {
        BatchSpec {
            base_offset: 0,
            records: 1,
            epoch: 0,
            timestamp_ms: 1_700_000_000_000,
            producer: None,
            attributes: 1,
            payload_bytes: 30,
        }
    }
}

impl BatchSpec {
    pub fn bytes(&self) -> Vec<u8> {
        let (id, epoch, sequence) = self.producer.unwrap_or((-1, -1, -1));
        let mut out = Vec::with_capacity(HEADER_BYTES + self.payload_bytes);
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&((HEADER_BYTES + self.payload_bytes - 12) as i32).to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.attributes.to_be_bytes());
        out.extend_from_slice(&(self.records - 1).to_be_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.records.to_be_bytes());
        out.extend(
            (0..self.payload_bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(self.base_offset as u8)),
        );
        seal(&mut out);
        out
    }

    pub fn header(&self) -> ringmill_record::BatchHeader {
        ringmill_record::BatchHeader::parse(&self.bytes()).unwrap()
    }
}

/// Makes the CRC right again.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A group as the writer lays it out.
pub fn group_of(header: GroupHeader, parts: &[(u64, EntryKind, Vec<u8>, i64)]) -> Vec<u8> {
    let mut bytes = vec![0; GROUP_HEADER_BYTES];
    let mut table = Vec::new();
    for (partition, kind, payload, arg) in parts {
        let epoch = if kind.holds_batch() {
            LeaderEpoch(i32::from_be_bytes(payload[12..16].try_into().unwrap()))
        } else {
            LeaderEpoch(0)
        };
        let entry = Entry {
            partition: PartitionId(*partition),
            arg: *arg,
            len: payload.len() as u32,
            crc: crc32c::crc32c(&payload[..payload.len().min(ENTRY_CRC_BYTES)]),
            epoch,
            kind: *kind,
        };
        table.extend_from_slice(&entry.encode());
        bytes.extend_from_slice(payload);
    }
    let payload_bytes = bytes.len() - GROUP_HEADER_BYTES;
    bytes.resize(table_at(payload_bytes), 0);
    bytes.extend_from_slice(&table);
    bytes.resize(total_bytes(payload_bytes, parts.len()), 0);
    let header = GroupHeader {
        entry_count: parts.len() as u32,
        payload_bytes: payload_bytes as u32,
        table_crc: crc32c::crc32c(&table),
        ..header
    };
    bytes[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
    bytes
}

/// A file system whose power goes after a number of changes. The write that is cut off leaves half of its bytes.
pub struct FuseFs {
    left: AtomicU32,
    /// Where another device is mounted.
    mount: Option<PathBuf>,
}

impl FuseFs {
    pub fn new(changes: u32) -> FuseFs {
        FuseFs { left: AtomicU32::new(changes), mount: None }
    }

    /// One with a mount, and power enough.
    pub fn mounted(mount: PathBuf) -> FuseFs {
        FuseFs { left: AtomicU32::new(u32::MAX), mount: Some(mount) }
    }

    fn burn(&self) -> io::Result<()> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(|_| ()).map_err(|_| io::Error::other("the power is gone"))
    }
}

impl Fs for FuseFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<FileHandle> {
        if matches!(mode, OpenMode::Create | OpenMode::CreateDirect) && !StdFs.exists(path) {
            self.burn()?;
        }
        StdFs.open(path, mode)
    }

    fn read_at(&self, file: &FileHandle, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        StdFs.read_at(file, buf, offset)
    }

    fn write_at(&self, file: &FileHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let last = self.left.load(Ordering::Relaxed) == 1;
        self.burn()?;
        if last {
            StdFs.write_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("the power went during a write"));
        }
        StdFs.write_at(file, bytes, offset)
    }

    fn sync_data(&self, file: &FileHandle) -> io::Result<()> {
        self.burn()?;
        StdFs.sync_data(file)
    }

    fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> io::Result<()> {
        self.burn()?;
        StdFs.allocate(file, offset, len)
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> io::Result<()> {
        self.burn()?;
        StdFs.set_len(file, len)
    }

    fn len(&self, file: &FileHandle) -> io::Result<u64> {
        StdFs.len(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        StdFs.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        StdFs.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.mount.as_ref().is_some_and(|mount| from.starts_with(mount) != to.starts_with(mount)) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        self.burn()?;
        StdFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        StdFs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        StdFs.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        StdFs.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        StdFs.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        StdFs.free_bytes(path)
    }
}

//! The files of a core log's ring: their names, what lies where in them, and what is wrong with them as files.

use super::chain::continues;
use crate::format::checkpoint::Checkpoint;
use crate::format::group::{
    DecodedGroup, Entry, GROUP_HEADER_BYTES, GroupError, GroupHeader, decode_group, decode_table,
};
use ringmill_reactor::{FileHandle, Fs, OpenMode};
use ringmill_types::limits::{CORE_LOG_FIRST_FILE_BYTES, PAGE_BYTES};
use std::io;
use std::path::{Path, PathBuf};

pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// One read while looking for headers.
const READ_BYTES: u64 = 1 << 20;

/// `000.log` is 0; three digits or more, so that no segment is mistaken for one.
pub(super) fn log_file_number(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".log")?;
    let canonical = stem.len() == 3 || stem.len() > 3 && !stem.starts_with('0');
    (canonical && stem.len() < 8 && stem.bytes().all(|b| b.is_ascii_digit()))
        .then(|| stem.parse().ok())
        .flatten()
}

pub(super) fn log_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:03}.log"))
}

/// Numbers of the core-log files in a folder, in order.
pub(super) fn log_file_numbers(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = fs.list(dir)?.iter().filter_map(|e| log_file_number(&e.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A core-log file, read in large pieces.
pub(super) struct LogFile {
    pub path: PathBuf,
    pub bytes: u64,
    file: FileHandle,
    start: u64,
    held: Vec<u8>,
}

impl LogFile {
    pub fn open(fs: &dyn Fs, path: &Path) -> io::Result<LogFile> {
        let file = fs.open(path, OpenMode::Read)?;
        Ok(LogFile { path: path.to_path_buf(), bytes: fs.len(&file)?, file, start: 0, held: Vec::new() })
    }

    /// `len` bytes at `at`; fewer at the end of the file.
    pub fn get(&mut self, fs: &dyn Fs, at: u64, len: u64) -> io::Result<&[u8]> {
        let len = len.min(self.bytes.saturating_sub(at));
        if at < self.start || at + len > self.start + self.held.len() as u64 {
            let want = len.max(READ_BYTES.min(self.bytes.saturating_sub(at)));
            self.held.resize(want as usize, 0);
            let got = fs.read_at(&self.file, &mut self.held, at)?;
            self.held.truncate(got);
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let to = from.saturating_add(len as usize).min(self.held.len());
        Ok(self.held.get(from..to).unwrap_or_default())
    }

    pub fn header(&mut self, fs: &dyn Fs, at: u64) -> io::Result<Result<GroupHeader, GroupError>> {
        self.get(fs, at, GROUP_HEADER_BYTES as u64).map(GroupHeader::decode)
    }

    /// The group whose header is known to be at `at`.
    pub fn group(
        &mut self,
        fs: &dyn Fs,
        at: u64,
        header: &GroupHeader,
    ) -> io::Result<Result<DecodedGroup<'_>, GroupError>> {
        self.get(fs, at, header.total_bytes() as u64).map(decode_group)
    }

    /// The entry table of a group whose payload may be damaged.
    pub fn table(
        &mut self,
        fs: &dyn Fs,
        at: u64,
        header: &GroupHeader,
    ) -> io::Result<Result<Vec<Entry>, GroupError>> {
        self.get(fs, at, header.total_bytes() as u64).map(|bytes| decode_table(header, bytes))
    }

    pub fn stored_crc(&mut self, fs: &dyn Fs, at: u64) -> io::Result<u32> {
        let bytes = self.get(fs, at, GROUP_HEADER_BYTES as u64)?;
        Ok(bytes.try_into().map_or(0, GroupHeader::own_crc))
    }
}

/// A file of a core log that begins with a group. One is written only after the first checkpoint, so where no checkpoint
/// is, this says that they were lost.
pub(crate) fn first_with_groups(fs: &dyn Fs, dir: &Path) -> io::Result<Option<PathBuf>> {
    for number in log_file_numbers(fs, dir)? {
        let mut file = LogFile::open(fs, &log_path(dir, number))?;
        if file.header(fs, 0)?.is_ok() {
            return Ok(Some(file.path));
        }
    }
    Ok(None)
}

/// The sentence for it.
pub(crate) fn lost_checkpoints(file: &Path) -> String {
    format!("both slots are empty or missing, but {} holds groups that were acknowledged", file.display())
}

/// Asked where no group follows the checkpoint: the file that has the first one, at the place where it should be in
/// another. A life writes a group once, and only the start of a file is a place that the chain may jump to, so files
/// changed names then, and the end of the chain is none.
pub(crate) fn first_elsewhere(fs: &dyn Fs, dir: &Path, start: &Checkpoint) -> io::Result<Option<PathBuf>> {
    if start.clean || start.start_offset == 0 {
        return Ok(None);
    }
    for number in log_file_numbers(fs, dir)?.into_iter().filter(|number| *number != start.start_file) {
        let mut file = LogFile::open(fs, &log_path(dir, number))?;
        let header = file.header(fs, start.start_offset)?;
        if header
            .is_ok_and(|header| continues(&header, start.next_group, start.prev_header_crc, &start.lives))
        {
            return Ok(Some(file.path));
        }
    }
    Ok(None)
}

/// The sentence for it.
pub(crate) fn exchanged_files(start: &Checkpoint, dir: &Path, found: &Path) -> String {
    format!(
        "{} holds at byte {} what should be there in {} (flush group {}): core-log files changed places; exchange them again",
        found.display(),
        start.start_offset,
        log_path(dir, start.start_file).display(),
        start.next_group
    )
}

/// The core that wrote a `core-N` folder, when it is another than the folder's name says.
pub(super) fn foreign_core(dir: &Path, newest: &Checkpoint) -> Option<u16> {
    let name = dir.file_name()?.to_str()?.strip_prefix("core-")?;
    name.parse().ok().filter(|core: &u16| *core != newest.core).map(|_| newest.core)
}

/// The sentence for it.
pub(crate) fn exchanged_cores(dir: &Path, found: u16) -> String {
    format!(
        "{} holds what core {found} wrote: folders or files of cores changed places; put those of core {found} back where \
         they were",
        dir.display()
    )
}

/// A core-log file that lacks its end. A ring's files are whole, zero-filled and durable before they have their names, and
/// never change their length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    pub path: PathBuf,
    pub bytes: u64,
    /// What it had at least.
    pub whole_bytes: u64,
}

impl CutOff {
    /// A group of the chain would end at `end` of this file: one begins only where it fits.
    pub(crate) fn within_group(path: &Path, bytes: u64, end: u64) -> Option<CutOff> {
        (end > bytes).then(|| CutOff { path: path.to_path_buf(), bytes, whole_bytes: end })
    }
}

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, bytes) = (self.path.display(), self.bytes);
        write!(
            f,
            "core-log file {path} was cut off at {bytes} bytes, and may have held acked records behind that"
        )
    }
}

/// The first file of a ring that is shorter than any is made, judged by the others: nobody wrote their lengths down.
pub(crate) fn cut_off<'a>(files: impl Iterator<Item = (&'a Path, u64)> + Clone) -> Option<CutOff> {
    let shorter = |(at, (path, bytes)): (usize, (&'a Path, u64))| {
        let others = files.clone().enumerate().filter(|(other, _)| *other != at).map(|(_, (_, bytes))| bytes);
        let least = others.filter(|bytes| *bytes > 0).min();
        let is_short = least.is_some_and(|least| bytes < least) && bytes < CORE_LOG_FIRST_FILE_BYTES;
        let whole_bytes = least.unwrap_or(CORE_LOG_FIRST_FILE_BYTES);
        (bytes == 0 || is_short).then(|| CutOff { path: path.to_path_buf(), bytes, whole_bytes })
    };
    files.clone().enumerate().find_map(shorter)
}

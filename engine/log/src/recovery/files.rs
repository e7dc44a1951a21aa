//! The files of a core-log ring: found and opened at a start, made, enlarged in operation, and read in stretches by
//! replay. A file is zero-filled and durable before it has its final name, so one that is there is whole.

use super::error::{RecoveryError, at};
use crate::core_log::RingFile;
use crate::inspect::cut_off;
use crate::jobs::{JobDone, JobFor};
use crate::log::Log;
use crate::open_files::is_shortage;
use crate::options::LogOptions;
use crate::token::{self, token};
use ringmill_reactor::{Backend, Errno, FileHandle, Fs, Op, OpenMode};
use ringmill_types::GroupSeq;
use std::io;
use std::path::{Path, PathBuf};

/// Several groups of the usual size: one that a stretch ends in is read again with the next.
pub(super) const READ_CHUNK_BYTES: usize = 16 << 20;

/// One core-log file during recovery.
pub(super) struct LogFile {
    pub path: PathBuf,
    pub handle: FileHandle,
    pub bytes: u64,
}

/// A stretch of one file in memory, so that many small groups cost few reads.
#[derive(Default)]
pub(super) struct Window {
    file: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `len` bytes at `offset` of the file, fewer at its end.
    pub fn get<'a>(
        &'a mut self,
        fs: &dyn Fs,
        files: &[LogFile],
        file: usize,
        offset: u64,
        len: usize,
    ) -> Result<&'a [u8], RecoveryError> {
        let held = self.file == file
            && offset >= self.start
            && offset + len as u64 <= self.start + self.bytes.len() as u64;
        if !held && let Some(log) = files.get(file) {
            let want = len.max(READ_CHUNK_BYTES).min((log.bytes.saturating_sub(offset)) as usize);
            self.bytes.resize(want, 0);
            let got = fs.read_at(&log.handle, &mut self.bytes, offset).map_err(at(&log.path))?;
            self.bytes.truncate(got);
            self.file = file;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..self.bytes.len().min(from + len)).unwrap_or_default())
    }
}

/// Opens the ring's files in order; makes the first two of a fresh folder. Without a checkpoint no group was ever
/// written, so whatever a first start left behind is simply completed.
pub(super) fn open_files(
    fs: &dyn Fs,
    options: &LogOptions,
    lived: bool,
) -> Result<Vec<LogFile>, RecoveryError> {
    let mut files = Vec::new();
    loop {
        let path = log_path(&options.log_dir, files.len());
        if !fs.exists(&path) {
            break;
        }
        let handle = fs.open(&path, OpenMode::CreateDirect).map_err(at(&path))?;
        let bytes = fs.len(&handle).map_err(at(&path))?;
        files.push(LogFile { path, handle, bytes });
    }
    let later = fs.list(&options.log_dir).map_err(at(&options.log_dir))?.into_iter();
    let later = later.filter_map(|e| e.name.strip_suffix(".log").and_then(|n| n.parse::<usize>().ok())).max();
    if later.is_some_and(|n| n >= files.len()) || lived && files.len() < 2 {
        let path = log_path(&options.log_dir, files.len());
        return Err(RecoveryError::MissingFile { data_dir: options.data_dir.clone(), path });
    }
    let whole = files.iter().map(|file: &LogFile| (file.path.as_path(), file.bytes));
    if let Some(cut) = lived.then(|| cut_off(whole)).flatten() {
        return Err(RecoveryError::CutOff { data_dir: options.data_dir.clone(), what: cut.to_string() });
    }
    while files.len() < 2 {
        let path = log_path(&options.log_dir, files.len());
        let handle = make_file(fs, &path, options.first_file_bytes).map_err(at(&path))?;
        files.push(LogFile { path, handle, bytes: options.first_file_bytes });
    }
    Ok(files)
}

fn log_path(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("{index:03}.log"))
}

/// A zero-filled file under its final name, durable: appends to it later neither extend nor convert anything. Where there is
/// no room for it none is taken: segments need what there is, and what stayed of it would keep the disk full.
fn make_file(fs: &dyn Fs, path: &Path, bytes: u64) -> io::Result<FileHandle> {
    let temporary = path.with_extension("new");
    let free_bytes = fs.free_bytes(path.parent().unwrap_or(Path::new("."))).unwrap_or(u64::MAX);
    if free_bytes < bytes && !fs.exists(&temporary) {
        return Err(io::Error::from_raw_os_error(Errno::NO_SPACE.0));
    }
    fill(fs, &temporary, path, bytes).inspect_err(|_| {
        // If this cannot, the next file that is made takes its place.
        let _ = fs.remove_file(&temporary);
    })
}

fn fill(fs: &dyn Fs, temporary: &Path, path: &Path, bytes: u64) -> io::Result<FileHandle> {
    let file = fs.open(temporary, OpenMode::CreateDirect)?;
    let zeros = vec![0; (1 << 20).min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let step = zeros.len().min((bytes - done) as usize);
        fs.write_at(&file, zeros.get(..step).unwrap_or_default(), done)?;
        done += step as u64;
    }
    fs.sync_data(&file)?;
    fs.rename(temporary, path)?;
    if let Some(dir) = path.parent() {
        fs.sync_dir(dir)?;
    }
    Ok(file)
}

impl Log {
    /// Grows the ring when it is short of files; the file thread zero-fills, the core never waits for it.
    pub(crate) fn poll_files<B: Backend>(&mut self, io: &mut B) {
        let short = self.core_log.free_bytes() < self.core_log.capacity_bytes() * 3 / 4
            || self.core_log.wants_larger();
        if self.adding_file || self.stopping || !short || self.core_log.files.len() >= self.options.files_max
        {
            return;
        }
        self.adding_file = true;
        let serial = self.serial();
        let path = log_path(&self.options.log_dir, self.core_log.files.len());
        let bytes = self.options.file_bytes;
        self.jobs.insert(serial, JobFor::AddFile);
        let job = move |fs: &dyn Fs| -> ringmill_reactor::JobOutput {
            Box::new(JobDone::FileAdded(make_file(fs, &path, bytes).map(|handle| (handle, bytes))))
        };
        io.push(Op::Run { job: Box::new(job) }, token(token::JOB, serial));
    }

    pub(crate) fn file_added<B: Backend>(&mut self, io: &mut B, result: io::Result<(FileHandle, u64)>) {
        match result {
            Ok((handle, bytes)) => {
                self.adding_file = false;
                let file = io.attach_file(handle);
                self.core_log.files.push(RingFile { file, bytes, last_group: GroupSeq(0) });
            }
            Err(error) if is_shortage(&error) => {
                self.say_short(&error);
                self.core_log_waits(io.now_ns());
            }
            // `adding_file` stays set: the ring works with the files it has, and trying again would only repeat this.
            Err(error) => {
                tracing::warn!(%error, folder = %self.options.log_dir.display(), "the core log could not be enlarged; it goes on with the files it has")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ringmill_reactor::sim::{SimOptions, SimWorld};

    /// Room for it all, for none of it, and for some of it: what the disk says to be free may be gone a moment later.
    #[test]
    fn a_file_that_finds_no_room_leaves_none_taken() {
        const BYTES: u64 = 1 << 20;
        let world = SimWorld::new(1, SimOptions::default());
        let fs = world.fs();
        let dir = Path::new("/core-0");
        fs.create_dir_all(dir).unwrap();
        let path = log_path(dir, 0);
        let before = world.disk_used_bytes();
        for free_bytes in [0, BYTES / 2] {
            world.set_disk_bytes(before + free_bytes);
            for done in [make_file(&fs, &path, BYTES), fill_and_fail(&fs, &path, BYTES)] {
                assert_eq!(done.err().unwrap().raw_os_error(), Some(Errno::NO_SPACE.0));
            }
            assert!(fs.list(dir).unwrap().is_empty());
        }
        world.set_disk_bytes(before + 2 * BYTES);
        make_file(&fs, &path, BYTES).unwrap();
        assert_eq!(fs.list(dir).unwrap().len(), 1);
    }

    /// As if the disk had been found to have room: what an earlier start left is written on.
    fn fill_and_fail(fs: &dyn Fs, path: &Path, bytes: u64) -> io::Result<FileHandle> {
        fs.open(&path.with_extension("new"), OpenMode::Create).unwrap();
        make_file(fs, path, bytes)
    }
}

//! Removing large files without a stall for everybody else on the device.
//!
//! Unlinking a file of a gigabyte frees all of its blocks in one journal transaction and, on a file system mounted with
//! `discard`, tells the device about all of them at once: flushes beside it waited 182 to 210 ms at p99, beside nothing
//! 19 to 41 (kernel-notes/deleting.md). So the name goes at once, as the caller expects, and the blocks go step by step,
//! from one thread of the process.
//!
//! A file is only shortened when nobody else has it open: a reader that began before the removal reads on undisturbed.
//! The kernel answers that question: a write lease is granted to the only opener of a file and to nobody else
//! (fcntl(2), `F_SETLEASE`). The name is gone by then, so no opener can come. After a crash there is nothing to clean up:
//! a file without a name goes when its last opener does.
//!
//! Whoever would rather have the space than the quiet says so ([`give_back_within`]).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

/// One step is taken every so often, and is at least so large: 320 MiB a second. Flushes beside steps of 16 MiB waited
/// 143 ms at p99, beside steps of 1 MiB 7 to 17 ms, beside none 19 to 41 (kernel-notes/deleting.md).
const STEP_EVERY: Duration = Duration::from_micros(3125);
const STEP_BYTES_MIN: u64 = 1 << 20;
/// Smaller files go at once.
const LARGE_BYTES: u64 = 1 << 20;
/// Where more waits, steps are larger, so that it is given back within about this, unless [`give_back_within`] says
/// otherwise; Kafka, too, keeps what it deletes for a minute.
const DRAIN_MS: u64 = 60_000;
/// At most this where less than a tenth of the file system is free: there, space is worth more than quiet.
const DRAIN_MS_SCARCE: u64 = 4_000;
/// A file that somebody still reads is looked at again after this.
const BUSY_LOOK: Duration = Duration::from_millis(100);
/// Of the descriptors the process may have, one in this many may be held for files that are being given back.
const DESCRIPTORS_SHARE: u64 = 16;
const HELD_MAX: u64 = 1024;

static PENDING_BYTES: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);
static WITHIN_MS: AtomicU64 = AtomicU64::new(DRAIN_MS);
static THREAD: LazyLock<Option<mpsc::Sender<Doomed>>> = LazyLock::new(|| {
    let (sender, doomed) = mpsc::channel();
    let thread = std::thread::Builder::new().name("reclaim".into()).spawn(move || {
        // Whoever came first may be pinned to a core's CPU.
        let _ = crate::thread::pin(&crate::thread::process_cpus());
        work(&doomed);
    });
    match thread {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "large files are removed at once, which may hold up flushes: no thread to do it slowly");
            None
        }
    }
});

/// Bytes of removed files that the file system has not got back yet.
pub fn pending_bytes() -> u64 {
    PENDING_BYTES.load(Ordering::Relaxed)
}

/// From now on removed files are given back within about `ms`, and at once where that is 0. A pace of 320 MiB a second is
/// taken all the same.
pub fn give_back_within(ms: u64) {
    WITHIN_MS.store(ms, Ordering::Relaxed);
}

/// Removes the name; the blocks of a large file follow step by step.
///
/// # Errors
/// As `unlink(2)`.
pub fn remove_file(path: &Path) -> io::Result<()> {
    let doomed = Doomed::open(path);
    std::fs::remove_file(path)?;
    if let Some(doomed) = doomed {
        doomed.hand_over();
    }
    Ok(())
}

/// Removes a folder and all in it; its own large files as [`remove_file`] does, those of folders below at once.
///
/// # Errors
/// As `unlink(2)` and `rmdir(2)`; what is left then can be asked for again.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            remove_file(&entry.path())?;
        }
    }
    std::fs::remove_dir_all(path)
}

/// A large file that has lost its name, or is about to.
struct Doomed {
    file: File,
    /// Of its length, what is still there.
    bytes: u64,
    /// Nobody else has it open, and nobody can.
    alone: bool,
}

impl Doomed {
    /// `None` for what may as well go at once: small, with another name, not openable, or one too many.
    fn open(path: &Path) -> Option<Doomed> {
        let is_large =
            |meta: &std::fs::Metadata| meta.is_file() && meta.nlink() == 1 && meta.len() >= LARGE_BYTES;
        if !std::fs::symlink_metadata(path).is_ok_and(|meta| is_large(&meta)) {
            return None;
        }
        if WITHIN_MS.load(Ordering::Relaxed) == 0 || HELD.load(Ordering::Relaxed) >= held_max() {
            return None;
        }
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)
            .ok()?;
        let meta = file.metadata().ok().filter(is_large)?;
        HELD.fetch_add(1, Ordering::Relaxed);
        PENDING_BYTES.fetch_add(meta.len(), Ordering::Relaxed);
        Some(Doomed { file, bytes: meta.len(), alone: false })
    }

    fn hand_over(self) {
        let Some(thread) = &*THREAD else { return };
        let sent = thread.send(self).is_ok();
        assert!(sent, "the thread lives as long as the process");
    }

    /// Whether nobody else has the file open. An error: this file system cannot tell.
    fn is_alone(&mut self) -> io::Result<bool> {
        if !self.alone {
            self.alone = match lease(&self.file, libc::F_WRLCK) {
                Ok(()) => true,
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => false,
                Err(error) => return Err(error),
            };
        }
        Ok(self.alone)
    }

    /// Gives back up to `bytes` of its end, and says how many. An error ends it: closing the file frees the rest.
    fn shorten(&mut self, bytes: u64) -> io::Result<u64> {
        let bytes = bytes.min(self.bytes);
        self.file.set_len(self.bytes - bytes)?;
        PENDING_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
        Ok(bytes)
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
        PENDING_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn held_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / DESCRIPTORS_SHARE).min(HELD_MAX)
}

fn lease(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on a descriptor that `file` keeps open; it takes no pointer.
    let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Until the process ends, and with it what is left to do: the kernel closes the files.
fn work(orders: &mpsc::Receiver<Doomed>) {
    let mut waiting: VecDeque<Doomed> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Ok(doomed) = orders.recv() else { return };
            waiting.push_back(doomed);
        }
        waiting.extend(orders.try_iter());
        let within_ms = WITHIN_MS.load(Ordering::Relaxed);
        let is_scarce = waiting.front().is_some_and(|doomed| is_space_scarce(&doomed.file));
        let bytes =
            step_bytes(pending_bytes(), if is_scarce { within_ms.min(DRAIN_MS_SCARCE) } else { within_ms });
        let done = step(&mut waiting, bytes);
        std::thread::sleep(if done { STEP_EVERY } else { BUSY_LOOK });
    }
}

/// Gives back so many bytes, of as many files as that is; false when everything that waits is being read.
fn step(waiting: &mut VecDeque<Doomed>, bytes: u64) -> bool {
    let mut left = bytes;
    while left > 0 {
        let Some(doomed) = first_alone(waiting) else { break };
        match doomed.shorten(left) {
            Ok(bytes) if doomed.bytes > 0 => left -= bytes,
            Ok(bytes) => {
                left -= bytes;
                waiting.pop_front();
            }
            Err(error) => {
                tracing::warn!(%error, "a removed file could not be shortened; it goes at once");
                waiting.pop_front();
            }
        }
    }
    left < bytes
}

/// The first that nobody reads any more, brought to the front. Where the file system cannot tell, a file is let go of at
/// once.
fn first_alone(waiting: &mut VecDeque<Doomed>) -> Option<&mut Doomed> {
    let mut at = 0;
    while let Some(doomed) = waiting.get_mut(at) {
        match doomed.is_alone() {
            Ok(true) => {
                waiting.swap(0, at);
                return waiting.front_mut();
            }
            Ok(false) => at += 1,
            Err(error) => {
                tracing::debug!(%error, "no lease on a removed file; it goes at once");
                waiting.remove(at);
            }
        }
    }
    None
}

/// How large a step is while `pending` bytes wait and are to be gone within `within_ms`.
fn step_bytes(pending: u64, within_ms: u64) -> u64 {
    let steps = u128::from(within_ms) * 1_000_000 / STEP_EVERY.as_nanos();
    (u128::from(pending) / steps.max(1)).max(u128::from(STEP_BYTES_MIN)) as u64
}

fn is_space_scarce(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|stat| stat.f_bavail < stat.f_blocks / 10)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_pace_follows_what_waits() {
        let per_second = |pending: u64, within_ms| {
            (step_bytes(pending, within_ms) as f64 / STEP_EVERY.as_secs_f64() / MIB as f64).round() as u64
        };
        assert_eq!(per_second(0, DRAIN_MS), 320);
        assert_eq!(per_second(18 << 30, DRAIN_MS), 320, "a minute's worth");
        assert_eq!(per_second(180 << 30, DRAIN_MS), 3072);
        assert_eq!(per_second(1 << 30, DRAIN_MS_SCARCE), 320);
        assert_eq!(per_second(18 << 30, DRAIN_MS_SCARCE), 4608, "space is short");
        assert_eq!(
            step_bytes(18 << 30, 0),
            18 << 30,
            "what was on its way when nobody wanted to wait any more"
        );
        assert_eq!(step_bytes(18 << 30, u64::MAX), STEP_BYTES_MIN);
    }

    fn large_file(path: &Path, bytes: u64) {
        let file = File::create(path).unwrap();
        file.write_all_at(&[7; 4096], bytes - 4096).unwrap();
    }

    /// The queue is this test's own, so that it decides when a step is taken.
    #[test]
    fn what_somebody_reads_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        large_file(&path, 3 * MIB);
        let reader = File::open(&path).unwrap();
        let mut waiting = VecDeque::from([Doomed::open(&path).unwrap()]);
        std::fs::remove_file(&path).unwrap();

        assert!(!step(&mut waiting, MIB), "only readers are here");
        assert_eq!(reader.metadata().unwrap().len(), 3 * MIB);
        drop(reader);
        for left in [2, 1] {
            assert!(step(&mut waiting, MIB));
            assert_eq!(waiting[0].file.metadata().unwrap().len(), left * MIB);
        }
        assert!(step(&mut waiting, MIB));
        assert!(waiting.is_empty());
    }

    #[test]
    fn one_that_is_read_does_not_hold_up_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..4).map(|n| folder.path().join(n.to_string())).collect();
        paths.iter().for_each(|path| large_file(path, 2 * MIB));
        let reader = File::open(&paths[0]).unwrap();
        let mut waiting: VecDeque<_> = paths.iter().map(|path| Doomed::open(path).unwrap()).collect();

        assert!(step(&mut waiting, 4 * MIB), "two small ones are one step");
        assert_eq!(waiting.len(), 2);
        assert!(step(&mut waiting, 4 * MIB));
        assert!(!step(&mut waiting, 4 * MIB));
        assert_eq!(reader.metadata().unwrap().len(), 2 * MIB);
        drop(reader);
        assert!(step(&mut waiting, 4 * MIB));
        assert!(waiting.is_empty());
    }

    #[test]
    fn small_files_links_and_what_has_two_names_go_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        large_file(&at("small"), LARGE_BYTES - 1);
        large_file(&at("large"), LARGE_BYTES);
        assert!(Doomed::open(&at("small")).is_none());
        assert!(Doomed::open(&at("large")).is_some());
        std::os::unix::fs::symlink(at("large"), at("link")).unwrap();
        assert!(Doomed::open(&at("link")).is_none());
        std::fs::hard_link(at("large"), at("twice")).unwrap();
        assert!(Doomed::open(&at("large")).is_none(), "its bytes are somebody else's too");
        assert_eq!(remove_file(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Through the thread: what is removed is given back in the end, and until then it counts.
    #[test]
    fn a_folder_goes_with_its_large_files() {
        let folder = tempfile::tempdir().unwrap();
        let doomed = folder.path().join("orders-0");
        std::fs::create_dir_all(doomed.join("deeper")).unwrap();
        large_file(&doomed.join("segment"), 5 * MIB);
        large_file(&doomed.join("deeper/other"), MIB);
        let reader = File::open(doomed.join("segment")).unwrap();
        remove_dir_all(&doomed).unwrap();
        assert!(!doomed.exists());
        assert!(pending_bytes() >= 5 * MIB, "it is being read");
        drop(reader);
        let begun = std::time::Instant::now();
        while pending_bytes() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} bytes are still held", pending_bytes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

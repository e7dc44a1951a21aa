//! Rounds, quantiles, files and rings shared by the measurements.

use io_uring::{IoUring, squeue};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const ROUNDS: usize = 3;

/// CPU time of this process, user and system.
pub fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Calls `step` until the span is over; the time of each call.
pub fn repeat(span: Duration, mut step: impl FnMut()) -> Vec<Duration> {
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let start = Instant::now();
        step();
        times.push(start.elapsed());
    }
    times
}

pub fn heading() {
    println!(
        "{:<34} {:>9} {:>10} {:>9} {:>9} {:>9} {:>10}",
        "way", "per s", "p50 us", "p99 us", "p99.9 us", "max us", "CPU us/op"
    );
}

/// Runs each way once in every round and prints a line for each: all its times together.
pub fn alternate<W>(mut ways: Vec<(String, W)>, mut run: impl FnMut(&mut W) -> Vec<Duration>) {
    let mut results: Vec<(Vec<Duration>, Duration)> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for ((_, way), (times, used)) in ways.iter_mut().zip(&mut results) {
            let before = cpu();
            times.extend(run(way));
            *used += cpu().saturating_sub(before);
        }
    }
    for ((name, _), (mut times, used)) in ways.into_iter().zip(results) {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        println!(
            "{name:<34} {:>9.0} {:>10.1} {:>9.1} {:>9.1} {:>9.1} {:>10.2}",
            times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            used.as_secs_f64() * 1e6 / times.len() as f64
        );
    }
}

/// The set-up that the reactor uses.
pub fn ring() -> IoUring {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(1024).unwrap()
}

/// Submits the entries, waits for one completion of each; their results with their user data.
pub fn complete(ring: &mut IoUring, entries: &[squeue::Entry]) -> Vec<(u64, i32)> {
    for entry in entries {
        // SAFETY: every caller keeps buffers and descriptors until this function has seen the completions.
        unsafe { ring.submission().push(entry).unwrap() };
    }
    let mut results = Vec::with_capacity(entries.len());
    while results.len() < entries.len() {
        ring.submit_and_wait(entries.len() - results.len()).unwrap();
        results.extend(ring.completion().map(|done| (done.user_data(), done.result())));
    }
    results
}

/// As `complete`, and every operation has to succeed.
pub fn succeed(ring: &mut IoUring, entries: &[squeue::Entry]) {
    for (_, result) in complete(ring, entries) {
        assert!(result >= 0, "{}", std::io::Error::from_raw_os_error(-result));
    }
}

/// Memory at page boundaries, from the kernel.
pub struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    /// Nothing is touched yet; huge pages are asked for or refused.
    pub fn untouched(len: usize, huge: bool) -> Memory {
        const HUGE: usize = 2 << 20;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice, larger than asked for by one huge page
        // so that a boundary lies within; it stays until the process ends, which these measurements can afford.
        unsafe {
            let base = libc::mmap(std::ptr::null_mut(), len + HUGE, protection, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            let start = base.cast::<u8>().add(base.cast::<u8>().align_offset(HUGE));
            let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            assert_eq!(libc::madvise(start.cast(), len, advice), 0);
            Memory { start, len }
        }
    }

    pub fn new(len: usize) -> Memory {
        let mut memory = Memory::untouched(len, false);
        memory.bytes().fill(0x5a);
        memory
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours, of this length, and borrowed through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub fn ptr(&self) -> *const u8 {
        self.start
    }

    pub fn unmap(self) {
        // SAFETY: the range is within the mapping made above, and nothing uses it any more.
        assert_eq!(unsafe { libc::munmap(self.start.cast(), self.len) }, 0);
    }
}

pub fn open(path: &Path, flags: i32) -> OwnedFd {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a path that ends in zero; a new descriptor, or an error that the assertion shows.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags | libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// A file without a name in the folder, opened for direct I/O and filled with zeros.
pub fn zeroed(folder: &Path, bytes: u64) -> OwnedFd {
    let fd = unnamed(folder, "zeroed");
    let zeros = {
        let mut memory = Memory::untouched(1 << 20, false);
        memory.bytes().fill(0);
        memory
    };
    for at in (0..bytes).step_by(1 << 20) {
        let len = (bytes - at).min(1 << 20) as usize;
        // SAFETY: the memory is at least as long.
        let wrote = unsafe { libc::pwrite(fd.as_raw_fd(), zeros.ptr().cast(), len, at as i64) };
        assert_eq!(wrote, len as isize);
    }
    // SAFETY: a plain call on a descriptor of ours.
    assert_eq!(unsafe { libc::fsync(fd.as_raw_fd()) }, 0);
    zeros.unmap();
    fd
}

/// A direct file whose name is gone, so that nothing stays behind.
pub fn unnamed(folder: &Path, name: &str) -> OwnedFd {
    let path = folder.join(format!("kernel-notes-{}-{name}", std::process::id()));
    let fd = open(&path, libc::O_DIRECT);
    std::fs::remove_file(&path).unwrap();
    fd
}

/// A thread that does nothing but use a CPU, until dropped.
pub struct Spinner(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Spinner {
    pub fn start() -> Spinner {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        Spinner(stop, Some(thread))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

pub fn pin(cpu: usize) {
    // SAFETY: a set on the stack, for the calling thread only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set), 0);
    }
}

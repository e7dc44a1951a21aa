//! What registered buffers and files are worth: CPU and latency of one durable write at a time, with and without.
//!
//! `cargo run --release -p ringmill-reactor --example registered -- FOLDER [SECONDS [small]]`
//!
//! The memory is a region of the pool, on huge pages where the kernel has them; `small` keeps it on small ones.
//! Rounds of the four ways alternate, so that a drift of the machine meets all of them. CPU is that of the whole
//! process (the kernel's own threads are not in it), per write, flush included.
#![allow(clippy::unwrap_used)]

use io_uring::{IoUring, opcode, squeue, types};
use ringmill_reactor::{BufMut, Fs, OpenMode, Pool, stdfs::StdFs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;
const SIZES_BYTES: [usize; 4] = [4 << 10, 16 << 10, 256 << 10, 1 << 20];
const ROUNDS: usize = 5;
const WAYS: [(&str, bool, bool); 4] =
    [("plain", false, false), ("buffer", true, false), ("file", false, true), ("both", true, true)];

fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// One way of writing, one size, for a while: latencies in ns, and CPU ns per write.
fn run(
    ring: &mut IoUring,
    fd: i32,
    memory: &[u8],
    size: usize,
    way: (bool, bool),
    span: Duration,
) -> (Vec<u64>, u64) {
    let (fixed_buffer, fixed_file) = way;
    let mut latencies = Vec::new();
    let (begin, cpu) = (Instant::now(), cpu_ns());
    let mut offset = 0;
    while begin.elapsed() < span {
        let started = Instant::now();
        let (start, len) = (memory.as_ptr(), size as u32);
        let (target, slot) = (types::Fd(fd), types::Fixed(0));
        let write = match (fixed_buffer, fixed_file) {
            (false, false) => opcode::Write::new(target, start, len).offset(offset).build(),
            (false, true) => opcode::Write::new(slot, start, len).offset(offset).build(),
            (true, false) => opcode::WriteFixed::new(target, start, len, 0).offset(offset).build(),
            (true, true) => opcode::WriteFixed::new(slot, start, len, 0).offset(offset).build(),
        };
        let flags = types::FsyncFlags::DATASYNC;
        let sync = if fixed_file {
            opcode::Fsync::new(slot).flags(flags).build()
        } else {
            opcode::Fsync::new(target).flags(flags).build()
        };
        // SAFETY: the memory outlives both completions, which are waited for below.
        unsafe {
            ring.submission().push(&write.flags(squeue::Flags::IO_LINK).user_data(1)).unwrap();
            ring.submission().push(&sync.user_data(2)).unwrap();
        }
        ring.submit_and_wait(2).unwrap();
        let mut left = 2;
        while left > 0 {
            for done in ring.completion() {
                assert!(done.result() >= 0, "{}", std::io::Error::from_raw_os_error(-done.result()));
                left -= 1;
            }
            if left > 0 {
                ring.submit_and_wait(1).unwrap();
            }
        }
        latencies.push(started.elapsed().as_nanos() as u64);
        offset = (offset + size as u64) % FILE_BYTES;
    }
    let cpu = (cpu_ns() - cpu) / latencies.len() as u64;
    (latencies, cpu)
}

/// A mebibyte of the pool, written to once.
fn filled_memory(pool: &Pool, small: bool) -> BufMut {
    let mut memory = pool.take(1 << 20).unwrap();
    if small {
        let whole = memory.as_mut_full();
        // SAFETY: advice about memory of ours, which nothing was written to yet.
        let status = unsafe { libc::madvise(whole.as_mut_ptr().cast(), whole.len(), libc::MADV_NOHUGEPAGE) };
        assert_eq!(status, 0);
    }
    memory.as_mut_full().fill(0x5a);
    memory.set_len(1 << 20);
    memory
}

/// The file, every block of it written, so that a write later converts nothing; open for direct I/O.
fn written_file(path: &Path, memory: &[u8]) -> OwnedFd {
    let file = StdFs.open(path, OpenMode::CreateDirect).unwrap();
    assert!(file.is_direct(), "a file system with direct I/O");
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        StdFs.write_at(&file, memory, at).unwrap();
    }
    StdFs.sync_data(&file).unwrap();
    // SAFETY: a new descriptor, or an error that the assertion shows.
    unsafe {
        let fd = libc::open(
            std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap().as_ptr(),
            libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC,
        );
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// One line: what a way of writing took in all its rounds together.
fn show(size: usize, way: &str, mut latencies: Vec<u64>, mut cpus: Vec<u64>, seconds: f64) {
    latencies.sort_unstable();
    cpus.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize] as f64 / 1_000.0;
    println!(
        "{size:>9} {way:>7} {:>9.0} {:>9.1} {:>9.1} {:>9.1} {:>12.2}",
        latencies.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        cpus[ROUNDS / 2] as f64 / 1_000.0
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder to write in"));
    let seconds: f64 = arguments.next().map_or(1.0, |s| s.parse().expect("seconds of each round"));
    let small = arguments.next().is_some_and(|pages| pages == "small");
    let path = folder.join(format!("registered-{}", std::process::id()));
    let pool = Pool::new(16 << 20);
    let mut memory = filled_memory(&pool, small);
    let fd = written_file(&path, &memory);
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(64)
        .unwrap();
    let begin = Instant::now();
    let vector =
        libc::iovec { iov_base: memory.as_mut_full().as_mut_ptr().cast(), iov_len: memory.capacity() };
    // SAFETY: the memory outlives the ring's use of it.
    unsafe { ring.submitter().register_buffers(&[vector]).unwrap() };
    println!("registering {} KiB took {:?}", memory.capacity() >> 10, begin.elapsed());
    ring.submitter().register_files(&[fd.as_raw_fd()]).unwrap();
    println!(
        "{:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "bytes", "way", "writes/s", "p50 us", "p99 us", "p99.9 us", "CPU us/write"
    );
    for size in SIZES_BYTES {
        let mut results = WAYS.map(|_| (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            for ((latencies, cpus), (_, buffer, fixed)) in results.iter_mut().zip(WAYS) {
                let (got, cpu) = run(
                    &mut ring,
                    fd.as_raw_fd(),
                    &memory,
                    size,
                    (buffer, fixed),
                    Duration::from_secs_f64(seconds),
                );
                latencies.extend(got);
                cpus.push(cpu);
            }
        }
        for ((latencies, cpus), (way, ..)) in results.into_iter().zip(WAYS) {
            show(size, way, latencies, cpus, seconds * ROUNDS as f64);
        }
    }
    std::fs::remove_file(&path).unwrap();
}

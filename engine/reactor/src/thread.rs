//! The thread a core runs on: pinning, names, CPU time.

use std::io;

/// CPUs the calling thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    cpus_of(0)
}

/// CPUs the process was given: those of its first thread, which nobody pins.
pub fn process_cpus() -> Vec<usize> {
    cpus_of(std::process::id() as libc::pid_t)
}

/// `thread` 0: the caller.
fn cpus_of(thread: libc::pid_t) -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set, and the call writes at most its size into it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return vec![0];
        }
        set
    };
    // SAFETY: CPU_ISSET only reads the set, for indexes below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Runs the calling thread on these CPUs only.
///
/// # Errors
/// What the kernel says: a CPU that does not exist or is not allowed.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: as above; CPU_SET writes within the set for indexes below its size, which the filter ensures.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time of the calling thread, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Monotonic time, nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

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
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// CPU time of a process, nanoseconds: of every thread it has or had, its kernel workers included. `None` when there is
/// no such process.
pub fn process_cpu_ns(process: u32) -> Option<u64> {
    let process = libc::pid_t::try_from(process).ok()?;
    let mut clock = 0;
    // SAFETY: writes one clock id, which is ours.
    if unsafe { libc::clock_getcpuclockid(process, &raw mut clock) } != 0 {
        return None;
    }
    // The process may be gone by now.
    read_clock(clock)
}

/// Monotonic time, nanoseconds.
pub fn monotonic_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

fn read_clock(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    read.then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_ended_count_too() {
        let me = std::process::id();
        let before = process_cpu_ns(me).expect("this process");
        let used = std::thread::spawn(|| {
            let begun = thread_cpu_ns();
            while thread_cpu_ns() - begun < 20_000_000 {}
            thread_cpu_ns() - begun
        });
        let used = used.join().expect("it only counts");
        let after = process_cpu_ns(me).expect("this process");
        assert!(after - before >= used, "{before} then {after}, the thread took {used}");
    }

    #[test]
    fn a_process_that_is_not_there_has_no_time() {
        assert_eq!(process_cpu_ns(u32::MAX), None);
        let mut child = std::process::Command::new("true").spawn().expect("true is everywhere");
        let id = child.id();
        child.wait().expect("it ends");
        assert_eq!(process_cpu_ns(id), None);
    }
}

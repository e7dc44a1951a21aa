//! The flush probe: which way to make a 4 KiB write durable is faster on this device, with idle and with busy CPUs.
//!
//! Owns one scratch file, which it removes. Runs on a thread of its own, once a folder and kernel, at a quiet moment; a
//! disturbed measurement is thrown away and made again later. It decides for `dsync` only where that was clearly faster
//! in both states: without FUA a `RWF_DSYNC` write ends in a kernel worker that waits for a scheduler tick when CPUs are
//! busy, and idle CPUs hide that (kernel-notes/flush-method.md).

use crate::identity::{Method, ProbeResult, Quantiles};
use ringmill_core::heartbeat::Heartbeat;
use ringmill_reactor::{Backend, Buf, FileId, Flush, Fs, Op, OpenMode, Token};
use ringmill_types::limits::PAGE_BYTES;
use std::hint::spin_loop;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Size of the scratch file: the probe rewrites it in a circle, as a core log does.
const SCRATCH_BYTES: u64 = 2 << 20;
/// Durable writes of one method in one state: enough for a p99 that is not one sample.
const SAMPLES: usize = 240;
/// Both methods take turns in slices, so that a drifting device is unfair to neither.
const SLICES: usize = 4;
/// A slow disk gives fewer samples, not a long probe.
const SLICE_TIME: Duration = Duration::from_millis(250);
/// Fewer samples than this in a state say nothing.
const SAMPLES_MIN: usize = 8;
/// Cores that turn more often than this in a second are at work.
const QUIET_TURNS_PER_SECOND: u64 = 20;

/// Why there is no result.
#[derive(Debug)]
pub enum ProbeError {
    /// The process is stopping.
    Stopped,
    /// Not possible here; the sentence says why.
    Failed(String),
}

/// Measures both methods on a scratch file in `folder`. Keeps every CPU busy for about a second of it.
///
/// # Errors
/// [`ProbeError`]; the scratch file is removed in any case.
pub fn run(
    io: &mut dyn Backend,
    folder: &Path,
    kernel: &str,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<ProbeResult, ProbeError> {
    let path = folder.join("flush-probe.tmp");
    let result = measure(io, &path, kernel, cpus, stop);
    // Left behind it would be overwritten by the next probe; the result does not depend on it.
    let _ = io.fs().remove_file(&path);
    result
}

fn measure(
    io: &mut dyn Backend,
    path: &Path,
    kernel: &str,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<ProbeResult, ProbeError> {
    let failed = |error: std::io::Error| ProbeError::Failed(format!("{}: {error}", path.display()));
    let file = zero_filled(io.fs(), path).map_err(failed)?;
    let id = io.attach_file(file);
    let mut page = io.pool().take(PAGE_BYTES).ok_or_else(|| ProbeError::Failed("no buffer".into()))?;
    page.set_len(PAGE_BYTES);
    let mut scratch = Scratch { io, file: id, page: page.freeze(), offset: 0 };
    let result = both_states(&mut scratch, kernel, cpus, stop);
    scratch.io.detach_file(id);
    result
}

fn both_states(
    scratch: &mut Scratch<'_>,
    kernel: &str,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<ProbeResult, ProbeError> {
    let (idle_fdatasync, idle_dsync) = compare(scratch, stop)?;
    let hogs = Hogs::start(cpus).map_err(|error| ProbeError::Failed(format!("threads: {error}")))?;
    let busy = compare(scratch, stop);
    drop(hogs);
    let (busy_fdatasync, busy_dsync) = busy?;
    Ok(ProbeResult {
        method: choose(idle_fdatasync, idle_dsync, busy_fdatasync, busy_dsync),
        idle_fdatasync,
        idle_dsync,
        busy_fdatasync,
        busy_dsync,
        kernel: kernel.to_string(),
    })
}

/// `dsync` only where it wins at the median in both states, by a tenth with busy CPUs, and is not worse at the tail there.
fn choose(
    idle_fdatasync: Quantiles,
    idle_dsync: Quantiles,
    busy_fdatasync: Quantiles,
    busy_dsync: Quantiles,
) -> Method {
    let idle_wins = idle_dsync.p50_us <= idle_fdatasync.p50_us;
    let busy_wins = u64::from(busy_dsync.p50_us) * 10 <= u64::from(busy_fdatasync.p50_us) * 9;
    let tail_holds = busy_dsync.p99_us <= busy_fdatasync.p99_us;
    if idle_wins && busy_wins && tail_holds { Method::Dsync } else { Method::Fdatasync }
}

/// A file whose blocks are allocated and written: what a core log's files are.
fn zero_filled(fs: &dyn Fs, path: &Path) -> std::io::Result<ringmill_reactor::FileHandle> {
    let file = fs.open(path, OpenMode::CreateDirect)?;
    fs.allocate(&file, 0, SCRATCH_BYTES)?;
    fs.write_at(&file, &vec![0; SCRATCH_BYTES as usize], 0)?;
    fs.sync_data(&file)?;
    Ok(file)
}

struct Scratch<'a> {
    io: &'a mut dyn Backend,
    file: FileId,
    page: Buf,
    offset: u64,
}

impl Scratch<'_> {
    /// One durable write; how long it took.
    fn write(&mut self, flush: Flush) -> Result<Duration, ProbeError> {
        let token = Token(self.offset);
        let op = Op::Write { file: self.file, buf: self.page.clone(), offset: self.offset, flush };
        self.offset = (self.offset + PAGE_BYTES as u64) % SCRATCH_BYTES;
        let begun = Instant::now();
        self.io.push(op, token);
        loop {
            self.io.enter(None);
            while let Some(completion) = self.io.pop() {
                if completion.token == token {
                    let taken = begun.elapsed();
                    return completion
                        .result
                        .map(|_| taken)
                        .map_err(|errno| ProbeError::Failed(format!("a durable write: {errno}")));
                }
            }
        }
    }
}

/// (linked fdatasync, dsync) under whatever load there is.
fn compare(scratch: &mut Scratch<'_>, stop: &AtomicBool) -> Result<(Quantiles, Quantiles), ProbeError> {
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..SLICES {
        for (flush, samples) in [Flush::Linked, Flush::Dsync].into_iter().zip(&mut taken) {
            let until = Instant::now() + SLICE_TIME;
            for _ in 0..SAMPLES / SLICES {
                if stop.load(Ordering::Relaxed) {
                    return Err(ProbeError::Stopped);
                }
                samples.push(scratch.write(flush)?);
                if Instant::now() >= until {
                    break;
                }
            }
        }
    }
    let [fdatasync, dsync] = taken.map(quantiles);
    match (fdatasync, dsync) {
        (Some(fdatasync), Some(dsync)) => Ok((fdatasync, dsync)),
        _ => Err(ProbeError::Failed("the device is too slow to measure".into())),
    }
}

fn quantiles(mut taken: Vec<Duration>) -> Option<Quantiles> {
    if taken.len() < SAMPLES_MIN {
        return None;
    }
    taken.sort_unstable();
    let at = |quantile: f64| {
        let index = ((taken.len() - 1) as f64 * quantile).round() as usize;
        taken.get(index).map(|time| u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
    };
    Some(Quantiles { p50_us: at(0.5)?, p99_us: at(0.99)? })
}

/// A thread per CPU that only burns it.
struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Hogs {
    fn start(count: usize) -> std::io::Result<Hogs> {
        let mut hogs = Hogs { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for _ in 0..count {
            let stop = Arc::clone(&hogs.stop);
            hogs.threads.push(std::thread::Builder::new().name("flush-probe-hog".into()).spawn(
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        spin_loop();
                    }
                },
            )?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // They only spin; there is nothing to panic.
            let _ = thread.join();
        }
    }
}

/// Sum of all cores' turns: tells whether anything went on between two looks.
pub fn turns(cores: &[Arc<Heartbeat>]) -> u64 {
    cores.iter().fold(0, |sum, core| sum.wrapping_add(core.look().turns))
}

/// Whether so few turns in `time` mean that no client is being served.
pub fn was_quiet(turns: u64, time: Duration, cores: usize) -> bool {
    let allowed = QUIET_TURNS_PER_SECOND * cores as u64;
    (turns as f64) <= allowed as f64 * time.as_secs_f64().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(p50_us: u32, p99_us: u32) -> Quantiles {
        Quantiles { p50_us, p99_us }
    }

    #[test]
    fn dsync_must_win_in_both_states() {
        // A virtio disk without FUA, as measured: better when idle, twenty times worse when busy.
        assert_eq!(choose(us(48, 92), us(40, 79), us(39, 149), us(830, 4100)), Method::Fdatasync);
        // A drive with FUA: one command instead of two.
        assert_eq!(choose(us(90, 200), us(40, 80), us(95, 300), us(42, 90)), Method::Dsync);
        // No difference is no reason to move.
        assert_eq!(choose(us(40, 80), us(40, 80), us(40, 80), us(40, 80)), Method::Fdatasync);
        // A better median does not buy a worse tail.
        assert_eq!(choose(us(90, 200), us(40, 80), us(95, 300), us(42, 900)), Method::Fdatasync);
    }

    #[test]
    fn a_real_file_is_measured_and_nothing_is_left() {
        use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
        let dir = tempfile::tempdir().expect("temp folder");
        let options = RingOptions { pool_limit_bytes: 1 << 20, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).expect("tests need io_uring");
        let stop = AtomicBool::new(false);
        let result = run(&mut io, dir.path(), "6.1", 1, &stop).expect("measured");
        for measured in [result.idle_fdatasync, result.idle_dsync, result.busy_fdatasync, result.busy_dsync] {
            assert!(measured.p50_us <= measured.p99_us);
            assert!(measured.p99_us > 0);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(run(&mut io, dir.path(), "6.1", 1, &stop), Err(ProbeError::Stopped)));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        assert!(matches!(
            run(&mut io, &dir.path().join("absent"), "6.1", 1, &stop),
            Err(ProbeError::Failed(_))
        ));
    }

    #[test]
    fn quantiles_need_samples() {
        assert_eq!(quantiles(vec![Duration::from_micros(5); SAMPLES_MIN - 1]), None);
        let taken = (1..=101).map(Duration::from_micros).collect();
        assert_eq!(quantiles(taken), Some(us(51, 100)));
    }

    #[test]
    fn quiet_is_a_rate() {
        assert!(was_quiet(0, Duration::from_secs(1), 2));
        assert!(was_quiet(40, Duration::from_secs(1), 2));
        assert!(!was_quiet(41, Duration::from_secs(1), 2));
        assert!(was_quiet(80, Duration::from_secs(2), 2));
    }
}

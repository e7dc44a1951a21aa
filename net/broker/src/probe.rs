//! The flush probe: which way to make a 4 KiB write durable is faster on this device, with idle and with busy CPUs.
//!
//! Owns one scratch file, which it removes. Runs on a thread of its own, once a folder and kernel, in rounds at quiet
//! moments; a disturbed round is thrown away and made again later. It decides for `dsync` only where that was clearly
//! faster in both states of every round, and never on a device with a volatile cache and no FUA: there a `RWF_DSYNC` write
//! ends in a kernel worker that waits for its CPU, and a quiet machine hides that (kernel-notes/flush-method.md). The wrong
//! `dsync` costs a factor of ten, the wrong `fdatasync` some tens of per cent: what is near stays.

use crate::identity::{Method, Quantiles, Round};
use ringmill_core::heartbeat::Heartbeat;
use ringmill_device::{Identity as Device, WriteCache};
use ringmill_reactor::{Backend, Buf, FileId, Flush, Fs, Op, OpenMode, Token};
use ringmill_types::limits::PAGE_BYTES;
use std::hint::spin_loop;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Size of the scratch file: the probe rewrites it in a circle, as a core log does.
const SCRATCH_BYTES: u64 = 2 << 20;
/// Rounds that must all speak for `dsync`: one that does not ends the probe.
const ROUNDS: usize = 3;
/// Durable writes of one method in one state of a round: enough for a p99 that is not one sample.
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

/// Whether `device` alone decides for `fdatasync`, so that there is nothing to measure.
pub fn rules_out_dsync(device: Option<&Device>) -> bool {
    device.is_some_and(|device| device.write_cache == WriteCache::WriteBack && !device.fua)
}

/// What follows from the rounds so far; `None` where another has to be measured.
pub fn choose(device: Option<&Device>, rounds: &[Round]) -> Option<Method> {
    if rules_out_dsync(device) || !rounds.iter().all(speaks_for_dsync) {
        return Some(Method::Fdatasync);
    }
    (rounds.len() >= ROUNDS).then_some(Method::Dsync)
}

fn speaks_for_dsync(round: &Round) -> bool {
    is_clearly_better(round.idle_dsync, round.idle_fdatasync)
        && is_clearly_better(round.busy_dsync, round.busy_fdatasync)
}

/// By a fifth at the median and for nine in ten, and not worse at the tail, which is too noisy to ask more of.
fn is_clearly_better(dsync: Quantiles, fdatasync: Quantiles) -> bool {
    let by_a_fifth = |better: u32, than: u32| u64::from(better) * 5 <= u64::from(than) * 4;
    by_a_fifth(dsync.p50_us, fdatasync.p50_us)
        && by_a_fifth(dsync.p90_us, fdatasync.p90_us)
        && dsync.p99_us <= fdatasync.p99_us
}

/// Measures both methods on a scratch file in `folder`; which of them begins changes with `round`. Keeps every CPU busy for
/// about a second of it.
///
/// # Errors
/// [`ProbeError`]; the scratch file is removed in any case.
pub fn run(
    io: &mut dyn Backend,
    folder: &Path,
    round: usize,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<Round, ProbeError> {
    let path = folder.join("flush-probe.tmp");
    let result = measure(io, &path, round, cpus, stop);
    // Left behind it would be overwritten by the next probe; the result does not depend on it.
    let _ = io.fs().remove_file(&path);
    result
}

fn measure(
    io: &mut dyn Backend,
    path: &Path,
    round: usize,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<Round, ProbeError> {
    let failed = |error: std::io::Error| ProbeError::Failed(format!("{}: {error}", path.display()));
    let file = zero_filled(io.fs(), path).map_err(failed)?;
    let id = io.attach_file(file);
    let mut page = io.pool().take(PAGE_BYTES).ok_or_else(|| ProbeError::Failed("no buffer".into()))?;
    page.set_len(PAGE_BYTES);
    let mut scratch = Scratch { io, file: id, page: page.freeze(), offset: 0 };
    let result = both_states(&mut scratch, round, cpus, stop);
    scratch.io.detach_file(id);
    result
}

fn both_states(
    scratch: &mut Scratch<'_>,
    round: usize,
    cpus: usize,
    stop: &AtomicBool,
) -> Result<Round, ProbeError> {
    let (idle_fdatasync, idle_dsync) = compare(scratch, round, stop)?;
    let hogs = Hogs::start(cpus).map_err(|error| ProbeError::Failed(format!("threads: {error}")))?;
    let busy = compare(scratch, round, stop);
    drop(hogs);
    let (busy_fdatasync, busy_dsync) = busy?;
    Ok(Round { idle_fdatasync, idle_dsync, busy_fdatasync, busy_dsync })
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

/// (linked fdatasync, dsync) under whatever load there is. Each begins every second time.
fn compare(
    scratch: &mut Scratch<'_>,
    round: usize,
    stop: &AtomicBool,
) -> Result<(Quantiles, Quantiles), ProbeError> {
    let mut fdatasync = Vec::new();
    let mut dsync = Vec::new();
    for slice in 0..SLICES {
        let mut turns = [(Flush::Linked, &mut fdatasync), (Flush::Dsync, &mut dsync)];
        if (round + slice) % 2 == 1 {
            turns.reverse();
        }
        for (flush, samples) in turns {
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
    match (quantiles(fdatasync), quantiles(dsync)) {
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
    Some(Quantiles { p50_us: at(0.5)?, p90_us: at(0.9)?, p99_us: at(0.99)? })
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

    fn us(p50_us: u32, p90_us: u32, p99_us: u32) -> Quantiles {
        Quantiles { p50_us, p90_us, p99_us }
    }

    /// All quantiles at the medians: the tails would only speak against dsync.
    fn medians(idle: (u32, u32), busy: (u32, u32)) -> Round {
        let flat = |time| us(time, time, time);
        Round {
            idle_fdatasync: flat(idle.0),
            idle_dsync: flat(idle.1),
            busy_fdatasync: flat(busy.0),
            busy_dsync: flat(busy.1),
        }
    }

    fn disk(write_cache: WriteCache, fua: bool) -> Device {
        let (name, model) = ("vda".into(), String::new());
        Device { name, model, write_cache, fua, rotational: false, size_bytes: 1 << 40 }
    }

    /// A drive with FUA: one command instead of two.
    const CLEAR: Round = Round {
        idle_fdatasync: Quantiles { p50_us: 90, p90_us: 130, p99_us: 200 },
        idle_dsync: Quantiles { p50_us: 40, p90_us: 52, p99_us: 80 },
        busy_fdatasync: Quantiles { p50_us: 95, p90_us: 150, p99_us: 300 },
        busy_dsync: Quantiles { p50_us: 42, p90_us: 61, p99_us: 90 },
    };

    #[test]
    fn dsync_must_win_every_round() {
        let with_fua = disk(WriteCache::WriteBack, true);
        for device in [Some(&with_fua), Some(&disk(WriteCache::WriteThrough, false)), None] {
            assert_eq!(choose(device, &[]), None);
            assert_eq!(choose(device, &[CLEAR; 2]), None);
            assert_eq!(choose(device, &[CLEAR; 3]), Some(Method::Dsync));
            let doubtful = medians((100, 81), (100, 40));
            for rounds in [vec![doubtful], vec![CLEAR, doubtful], vec![CLEAR, CLEAR, doubtful]] {
                assert_eq!(choose(device, &rounds), Some(Method::Fdatasync), "{rounds:?}");
            }
        }
    }

    #[test]
    fn what_is_near_stays() {
        let decided = |round: Round| choose(None, &[round; 3]).expect("three rounds decide");
        // No difference is no reason to move, and a fifth is the least that is one: in both states, for nine in ten too.
        assert_eq!(decided(medians((40, 40), (40, 40))), Method::Fdatasync);
        assert_eq!(decided(medians((100, 80), (100, 80))), Method::Dsync);
        assert_eq!(decided(medians((100, 81), (100, 80))), Method::Fdatasync);
        assert_eq!(decided(medians((100, 80), (100, 81))), Method::Fdatasync);
        assert_eq!(decided(Round { busy_dsync: us(42, 121, 300), ..CLEAR }), Method::Fdatasync);
        assert_eq!(decided(Round { idle_dsync: us(40, 105, 200), ..CLEAR }), Method::Fdatasync);
        // A better median does not buy a worse tail.
        assert_eq!(decided(Round { busy_dsync: us(42, 61, 301), ..CLEAR }), Method::Fdatasync);
        assert_eq!(decided(Round { idle_dsync: us(40, 52, 201), ..CLEAR }), Method::Fdatasync);
    }

    /// Medians of fresh starts on one virtio disk with a volatile cache and no FUA, for which the first rule took dsync.
    #[test]
    fn without_fua_no_figures_move_it() {
        let without = disk(WriteCache::WriteBack, false);
        let measured = [
            medians((145, 131), (371, 153)),
            medians((187, 162), (236, 191)),
            medians((301, 196), (1073, 387)),
        ];
        for round in measured {
            assert_eq!(choose(Some(&without), &[round; 3]), Some(Method::Fdatasync), "{round:?}");
        }
        assert_eq!(choose(Some(&without), &[]), Some(Method::Fdatasync), "nothing to measure");
        // Nor would they where the kernel does not tell: the first two are near.
        let unknown = disk(WriteCache::Unknown, false);
        assert_eq!(choose(Some(&unknown), &measured), Some(Method::Fdatasync));
        assert!(measured.iter().take(2).all(|round| !speaks_for_dsync(round)));
    }

    #[test]
    fn a_real_file_is_measured_and_nothing_is_left() {
        use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
        let dir = tempfile::tempdir().expect("temp folder");
        let options = RingOptions { pool_limit_bytes: 1 << 20, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).expect("tests need io_uring");
        let stop = AtomicBool::new(false);
        for number in 0..2 {
            let round = run(&mut io, dir.path(), number, 1, &stop).expect("measured");
            for measured in [round.idle_fdatasync, round.idle_dsync, round.busy_fdatasync, round.busy_dsync] {
                assert!(measured.p50_us <= measured.p90_us);
                assert!(measured.p90_us <= measured.p99_us);
                assert!(measured.p99_us > 0);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(run(&mut io, dir.path(), 0, 1, &stop), Err(ProbeError::Stopped)));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        assert!(matches!(run(&mut io, &dir.path().join("absent"), 0, 1, &stop), Err(ProbeError::Failed(_))));
    }

    #[test]
    fn quantiles_need_samples() {
        assert_eq!(quantiles(vec![Duration::from_micros(5); SAMPLES_MIN - 1]), None);
        let taken = (1..=101).map(Duration::from_micros).collect();
        assert_eq!(quantiles(taken), Some(us(51, 91, 100)));
    }

    #[test]
    fn quiet_is_a_rate() {
        assert!(was_quiet(0, Duration::from_secs(1), 2));
        assert!(was_quiet(40, Duration::from_secs(1), 2));
        assert!(!was_quiet(41, Duration::from_secs(1), 2));
        assert!(was_quiet(80, Duration::from_secs(2), 2));
    }
}

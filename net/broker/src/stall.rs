//! The stall watch: says so when a core has not turned its loop, and what it was doing.
//!
//! One thread that looks at every core's [`Heartbeat`] and never touches a core. A warning names the core, the stretch of
//! its loop and how long; when the core moves again, a second line says how long it was in all. Each core is heard at most
//! once in [`QUIET`]; what was not said is counted in the next line.
//!
//! [`watch_step`] is the whole judgement, without clock or thread.

use ringmill_core::heartbeat::{Beat, Heartbeat, Phase, SUBMIT_WAIT_NS_MAX};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A core that has not turned for this long, with something to do, is stalled.
pub const STALL: Duration = Duration::from_millis(25);
/// One core is warned about at most once in this time.
pub const QUIET: Duration = Duration::from_secs(10);
/// Between two looks while any core is at work; half of [`STALL`], so a stall is seen at 25 to 38 ms.
const LOOK_BUSY: Duration = Duration::from_micros(12_500);
/// Between two looks while all cores wait in the kernel: the watch must not be what keeps an idle machine awake.
const LOOK_IDLE: Duration = Duration::from_millis(100);

const _: () = assert!(LOOK_BUSY.as_nanos() * 2 <= STALL.as_nanos());
// A core without work is no stall while it waits where it submitted.
const _: () = assert!(SUBMIT_WAIT_NS_MAX as u128 * 2 <= STALL.as_nanos());

/// What the watch remembers of one core between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    beat: Beat,
    /// When this beat was first seen.
    seen_at: Instant,
    /// A stall of this beat was noticed (said or counted).
    stalled: bool,
    said: bool,
    spoke_at: Option<Instant>,
    unsaid: u64,
}

/// What the watch has to say about one core after one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    Nothing,
    /// Not turned for this long, in this phase; `unsaid` stalls went unmentioned since the last warning.
    Stalled {
        phase: Phase,
        for_at_least: Duration,
        unsaid: u64,
    },
    /// The stall that was warned about is over.
    Over {
        lasted_about: Duration,
    },
}

impl Watched {
    pub fn new(beat: Beat, now: Instant) -> Watched {
        Watched { beat, seen_at: now, stalled: false, said: false, spoke_at: None, unsaid: 0 }
    }
}

/// One look at one core.
pub fn watch_step(core: &mut Watched, beat: Beat, now: Instant) -> Remark {
    let moved = beat.turns != core.beat.turns || beat.phase.may_rest();
    if moved {
        let remark = if core.said {
            Remark::Over { lasted_about: now.duration_since(core.seen_at) }
        } else {
            Remark::Nothing
        };
        (core.beat, core.seen_at, core.stalled, core.said) = (beat, now, false, false);
        return remark;
    }
    core.beat = beat;
    let for_at_least = now.duration_since(core.seen_at);
    if for_at_least < STALL || core.stalled {
        return Remark::Nothing;
    }
    core.stalled = true;
    if core.spoke_at.is_some_and(|spoke_at| now.duration_since(spoke_at) < QUIET) {
        core.unsaid += 1;
        return Remark::Nothing;
    }
    core.spoke_at = Some(now);
    core.said = true;
    Remark::Stalled { phase: beat.phase, for_at_least, unsaid: std::mem::take(&mut core.unsaid) }
}

/// The watch's thread; ends when dropped.
pub struct StallWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StallWatch {
    /// Watches `cores`, in core order.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(cores: Vec<Arc<Heartbeat>>) -> std::io::Result<StallWatch> {
        let (stop, stopped) = channel();
        let thread =
            std::thread::Builder::new().name("stall-watch".into()).spawn(move || watch(&cores, &stopped))?;
        Ok(StallWatch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panicked watch has said so itself; the cores are not concerned.
            let _ = thread.join();
        }
    }
}

fn watch(cores: &[Arc<Heartbeat>], stopped: &Receiver<()>) {
    let now = Instant::now();
    let mut watched: Vec<Watched> = cores.iter().map(|core| Watched::new(core.look(), now)).collect();
    loop {
        let idle = watched.iter().all(|core| core.beat.phase.may_rest());
        match stopped.recv_timeout(if idle { LOOK_IDLE } else { LOOK_BUSY }) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        for (number, (memory, core)) in watched.iter_mut().zip(cores).enumerate() {
            match watch_step(memory, core.look(), now) {
                Remark::Nothing => {}
                Remark::Stalled { phase, for_at_least, unsaid } => tracing::warn!(
                    core = number,
                    stalled_ms = for_at_least.as_millis() as u64,
                    unsaid,
                    "core {number} has not turned its loop for {} ms; it is {}",
                    for_at_least.as_millis(),
                    phase.text()
                ),
                Remark::Over { lasted_about } => tracing::info!(
                    core = number,
                    stalled_ms = lasted_about.as_millis() as u64,
                    "core {number} turns again after about {} ms",
                    lasted_about.as_millis()
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 12.5 ms at a core whose turn counter and phase are given, one pair a look; returns the remarks.
    fn looks(beats: &[(u64, Phase)]) -> Vec<(usize, Remark)> {
        let start = Instant::now();
        let beat = |&(turns, phase)| Beat { turns, phase, turn_since_ns: 0 };
        let mut core = Watched::new(beat(&beats[0]), start);
        let mut out = Vec::new();
        for (at, pair) in beats.iter().enumerate() {
            let remark = watch_step(&mut core, beat(pair), start + LOOK_BUSY * at as u32);
            if remark != Remark::Nothing {
                out.push((at, remark));
            }
        }
        out
    }

    #[test]
    fn a_turning_or_waiting_core_is_not_mentioned() {
        assert!(looks(&(0..100).map(|n| (n, Phase::Requests)).collect::<Vec<_>>()).is_empty());
        assert!(looks(&[(5, Phase::Waiting); 100]).is_empty());
        assert!(looks(&[(0, Phase::Recovering); 100]).is_empty());
    }

    #[test]
    fn a_stall_is_said_once_with_its_phase_and_its_end() {
        let mut beats = vec![(7, Phase::Submitting); 6];
        beats.push((8, Phase::Requests));
        assert_eq!(
            looks(&beats),
            [
                (2, Remark::Stalled { phase: Phase::Submitting, for_at_least: STALL, unsaid: 0 }),
                (6, Remark::Over { lasted_about: LOOK_BUSY * 6 }),
            ]
        );
    }

    #[test]
    fn a_core_that_goes_to_rest_ends_its_stall() {
        let mut beats = vec![(7, Phase::Requests); 4];
        beats.extend([(7, Phase::Waiting); 50]);
        assert_eq!(looks(&beats).len(), 2);
        assert!(matches!(looks(&beats)[1], (4, Remark::Over { .. })));
    }

    #[test]
    fn repeated_stalls_are_counted_not_repeated() {
        // 800 looks are 10 s: 267 stalls of two looks each, then one past the quiet time.
        let beats: Vec<(u64, Phase)> = (0..815).map(|look| (look / 3, Phase::Requests)).collect();
        let remarks = looks(&beats);
        let warnings: Vec<_> = remarks.iter().filter(|(_, r)| matches!(r, Remark::Stalled { .. })).collect();
        assert_eq!(warnings.len(), 2, "{remarks:?}");
        assert!(matches!(warnings[1].1, Remark::Stalled { unsaid: 260.., .. }), "{warnings:?}");
    }

    #[test]
    fn the_thread_ends_when_dropped() {
        let beat = Arc::new(Heartbeat::default());
        let watch = StallWatch::start(vec![Arc::clone(&beat)]).expect("started");
        drop(watch);
        assert_eq!(Arc::strong_count(&beat), 1);
    }
}

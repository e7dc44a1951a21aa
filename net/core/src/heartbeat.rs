//! What a core was doing when it last said anything: written by the core, read by the stall watch and the admin port.
//!
//! Owned by one core (the only writer) through an `Arc`; readers sample it. Three relaxed stores a turn, no read-modify-write
//! and no clock of its own, so it costs the core nothing measurable. A sample may mix two neighbouring turns; a core
//! that does not move always reads the same, which is all a reader asks. Never used to decide anything on a core.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

macro_rules! phases {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// A stretch of the core loop.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Phase {
            $(#[doc = $text] $name = $number,)*
        }

        impl Phase {
            pub const ALL: &[Phase] = &[$(Phase::$name),*];

            /// What the core does then, to be read after "core 3 is …".
            pub fn text(self) -> &'static str {
                match self { $(Phase::$name => $text,)* }
            }
        }
    };
}

/// Submitting and waiting are one call of the kernel, in which nobody can tell them apart: so a core waits no longer than this in a
/// call that submits, and for the rest in another one. What takes longer is a submission that blocks.
pub const SUBMIT_WAIT_NS_MAX: u64 = 10_000_000;

phases! {
    Starting = 0, "starting";
    Recovering = 1, "replaying its core log";
    Waiting = 2, "waiting in the kernel for work";
    Submitting = 3, "submitting operations to the kernel";
    Completions = 4, "taking completions and their requests";
    Requests = 5, "looking at waiting fetches again";
    Control = 6, "handling messages of control and other cores";
    Log = 7, "working on its log: flush groups, destage, checkpoints, retention";
    Answering = 8, "sending answers";
    Timers = 9, "running timers";
    Stopping = 10, "stopping";
}

impl Phase {
    /// A core may stay here as long as it likes: it has nothing to do, or does what has its own deadline.
    pub fn may_rest(self) -> bool {
        matches!(self, Phase::Starting | Phase::Recovering | Phase::Waiting | Phase::Stopping)
    }

    fn of(number: u8) -> Phase {
        Phase::ALL.iter().copied().find(|phase| *phase as u8 == number).unwrap_or(Phase::Starting)
    }
}

/// One core's sign of life.
#[derive(Debug, Default)]
pub struct Heartbeat {
    turns: AtomicU64,
    phase: AtomicU8,
    turn_since_ns: AtomicU64,
}

/// One look at a [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Turns of the loop so far.
    pub turns: u64,
    pub phase: Phase,
    /// When this turn began, on the core's own monotonic clock.
    pub turn_since_ns: u64,
}

impl Heartbeat {
    /// A turn begins: `now_ns` is the clock the core reads once a turn anyway.
    pub fn turn(&self, now_ns: u64) {
        // The core is the only writer, so load and store need not be one operation.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.turn_since_ns.store(now_ns, Ordering::Relaxed);
    }

    /// The core enters another stretch of its loop.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub fn look(&self) -> Beat {
        Beat {
            turns: self.turns.load(Ordering::Relaxed),
            phase: Phase::of(self.phase.load(Ordering::Relaxed)),
            turn_since_ns: self.turn_since_ns.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_survive_the_atomic_and_numbers_are_dense() {
        let beat = Heartbeat::default();
        assert_eq!(beat.look().phase, Phase::Starting);
        for (at, phase) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, at);
            beat.set_phase(*phase);
            assert_eq!(beat.look().phase, *phase);
        }
        beat.turn(7);
        beat.turn(9);
        assert_eq!((beat.look().turns, beat.look().turn_since_ns), (2, 9));
    }
}

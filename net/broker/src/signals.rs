//! SIGTERM and SIGINT: the first asks for an orderly stop, one that comes later ends the process at once.
//!
//! One that comes with the first is the same request: GNU `timeout` signals its child and then its group, a terminal and a
//! supervisor may both pass a Ctrl-C on.
//! Everything the main thread waits for arrives through one channel of [`Event`]s. SIGPIPE is ignored by Rust's runtime, SIGXFSZ
//! here: a write beyond a limit on file sizes then fails with EFBIG, and is treated as any other that fails.

use crate::exit::{Failure, Reason};
use crate::identity::ProbeResult;
use ringmill_upkeep::Report;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What follows the first signal within this time says the same once more.
pub const SAME_REQUEST: Duration = Duration::from_secs(1);

/// What wakes the main thread of a serving broker.
pub enum Event {
    /// The first SIGTERM or SIGINT.
    Stop { signal: &'static str },
    /// A thread that must not end did, or a core met what must not be survived.
    Fatal(Failure),
    /// Every core has drained, flushed, destaged and checkpointed.
    Stopped,
    /// Upkeep finished a job.
    Scrubbed(Report),
    /// The flush probe has a result.
    Probed(ProbeResult),
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    /// The request that is being followed.
    Same,
    EndAtOnce,
}

/// `first`: when the first signal came.
fn asked(first: &mut Option<Instant>, now: Instant) -> Asked {
    match *first {
        None => {
            *first = Some(now);
            Asked::Stop
        }
        Some(first) if now.saturating_duration_since(first) < SAME_REQUEST => Asked::Same,
        Some(_) => Asked::EndAtOnce,
    }
}

/// Listens from now on, for the rest of the process.
///
/// # Errors
/// [`Reason::Internal`] when the kernel refuses the handlers or the thread.
pub fn listen(events: Sender<Event>) -> Result<(), Failure> {
    let internal = |error: std::io::Error| {
        Failure::new(
            Reason::Internal,
            format!("Signals cannot be received ({error}); the process could not be stopped in order."),
        )
    };
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(internal)?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(internal)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut first = None;
            for number in signals.forever() {
                let (signal, second) = match number {
                    SIGINT => ("SIGINT", Reason::Interrupted),
                    _ => ("SIGTERM", Reason::Terminated),
                };
                match asked(&mut first, Instant::now()) {
                    Asked::Stop => {
                        if events.send(Event::Stop { signal }).is_err() {
                            return;
                        }
                    }
                    Asked::Same => tracing::debug!("{signal}: the same request as the first signal"),
                    Asked::EndAtOnce => {
                        tracing::warn!(
                            "{signal} again: ending at once; the next start replays the core logs"
                        );
                        std::process::exit(i32::from(second.code()));
                    }
                }
            }
        })
        .map_err(internal)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_the_first_is_the_same_request() {
        let begun = Instant::now();
        let mut first = None;
        for (after_ms, wanted) in [
            (0, Asked::Stop),
            (0, Asked::Same),
            (999, Asked::Same),
            (1_000, Asked::EndAtOnce),
            (70_000, Asked::EndAtOnce),
        ] {
            let now = begun + Duration::from_millis(after_ms);
            assert_eq!(asked(&mut first, now), wanted, "after {after_ms} ms");
        }
    }
}

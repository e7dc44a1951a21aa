//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.
//!
//! Everything the main thread waits for arrives through one channel of [`Event`]s. SIGPIPE is ignored by Rust's runtime.

use crate::exit::{Failure, Reason};
use crate::identity::ProbeResult;
use ringmill_upkeep::Report;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::mpsc::Sender;

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
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(internal)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut asked = false;
            for number in signals.forever() {
                let (signal, second) = match number {
                    SIGINT => ("SIGINT", Reason::Interrupted),
                    _ => ("SIGTERM", Reason::Terminated),
                };
                if asked {
                    tracing::warn!("{signal} again: ending at once; the next start replays the core logs");
                    std::process::exit(i32::from(second.code()));
                }
                asked = true;
                if events.send(Event::Stop { signal }).is_err() {
                    return;
                }
            }
        })
        .map_err(internal)?;
    Ok(())
}

//! `ringmill tune`: finds settings by measuring.
//!
//! Every policy is tried by a broker of its own on the device in question, under the load that is asked for; what to
//! try next is decided by `ringmill-tune`, which knows no broker.

mod bench;
mod explore;
mod findings;
mod flush;
mod goal;
mod html;
mod plot;
mod probe;
mod progress;
mod report;
mod sweep;

use crate::exit::Failed;
use clap::Subcommand;

/// Find settings by measuring
#[derive(Subcommand)]
pub enum Tune {
    /// Find the flush policy for a goal, or show what each gives
    Flush(Box<flush::Flush>),
}

impl Tune {
    pub fn run(self) -> Result<(), Failed> {
        ringmill_broker::host::raise_limits();
        match self {
            Tune::Flush(flush) => flush.run(),
        }
    }
}

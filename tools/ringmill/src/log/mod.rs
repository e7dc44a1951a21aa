//! `ringmill log`: files on disk, looked at offline; and the one command that changes them.

mod look;
mod own;
mod repair;

use crate::exit::{Code, Failed};
use clap::Subcommand;
use ringmill_log::inspect::InspectError;

#[derive(Subcommand)]
pub enum Log {
    /// Show every batch, entry, group and decision of segments, indexes, core logs, checkpoints and the metadata journal
    Dump(look::Dump),
    /// Check every byte of the same files; exit code 1 when something is damaged
    Verify(look::Verify),
    /// Say what damage keeps a broker from starting, and go on without what it cost
    Repair(repair::Repair),
}

impl Log {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Log::Dump(dump) => dump.run(),
            Log::Verify(verify) => verify.run(),
            Log::Repair(repair) => repair.run(),
        }
    }
}

fn failed(error: InspectError) -> Failed {
    Failed::new(Code::Local, error.to_string())
}

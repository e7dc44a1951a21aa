//! Work that the file thread does for the log: what each job was for, what it gives, and who takes that.

use crate::checkpointing::DiskError;
use crate::log::{Log, LogEvent, Slot};
use crate::open_files::is_shortage;
use crate::time::TimeFound;
use ringmill_reactor::{Backend, FileHandle, Payload};

/// What a job was for; its output is a `JobDone`.
pub(crate) enum JobFor {
    Prepare(u32),
    Seal(u32),
    Checkpoint,
    AddFile,
    OpenCold(u32, u64),
    Remove,
    FindTime(Slot, Option<i64>, u64),
    Swap,
    ClearSwap,
}

pub(crate) enum JobDone {
    Prepared(std::io::Result<Option<crate::destage::Prepared>>),
    Sealed(Result<(), DiskError>),
    Checkpointed(Result<(), DiskError>),
    FileAdded(std::io::Result<(FileHandle, u64)>),
    ColdOpened(std::io::Result<crate::cold::ColdOpened>),
    Removed(std::io::Result<()>),
    TimeFound(std::io::Result<Option<TimeFound>>),
    Swapped(Result<(), DiskError>),
    SwapCleared(std::io::Result<()>),
}

impl Log {
    pub(crate) fn job_done<B: Backend>(&mut self, io: &mut B, serial: u64, payload: Payload) {
        let Payload::Job(output) = payload else { return };
        let (Some(purpose), Ok(done)) = (self.jobs.remove(&serial), output.downcast::<JobDone>()) else {
            return;
        };
        match (purpose, *done) {
            (JobFor::Prepare(slot), JobDone::Prepared(result)) => self.destage_prepared(io, slot, result),
            (JobFor::Seal(slot), JobDone::Sealed(result)) => self.segment_sealed(io, slot, result),
            (JobFor::Checkpoint, JobDone::Checkpointed(result)) => self.checkpointed(result, io.now_ns()),
            (JobFor::AddFile, JobDone::FileAdded(result)) => self.file_added(io, result),
            (JobFor::OpenCold(slot, uid), JobDone::ColdOpened(result)) => {
                self.cold_opened(io, slot, uid, result)
            }
            (JobFor::Swap, JobDone::Swapped(result)) => self.swapped(io, result),
            (JobFor::ClearSwap, JobDone::SwapCleared(result)) => self.swap_cleared(result, io.now_ns()),
            (JobFor::Remove, JobDone::Removed(result)) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "removing files of a deleted partition or segment failed; they stay until the next start");
                }
            }
            (JobFor::FindTime(slot, time_ms, ticket), JobDone::TimeFound(Err(error)))
                if is_shortage(&error) =>
            {
                self.say_short(&error);
                self.search_waits(io.now_ns(), slot, time_ms, ticket);
            }
            (JobFor::FindTime(_, _, ticket), JobDone::TimeFound(result)) => {
                let found = result.unwrap_or_else(|error| {
                    tracing::warn!(%error, "looking up an offset by time failed");
                    None
                });
                self.events.push_back(LogEvent::Found { ticket, found });
            }
            _ => unreachable!("a job returns the output of its own kind"),
        }
    }
}

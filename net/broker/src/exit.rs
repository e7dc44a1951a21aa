//! How the process ends: one reason, one documented exit code, one sentence that says what to do.
//!
//! Owns the numbers; service managers and scripts rely on them, so a number is never given a second meaning. Everything
//! that can stop a start is a [`Failure`]; what must stop a running broker goes through [`fatal`]. Nothing here retries.

use ringmill_log::Fatal;
use ringmill_types::CoreId;
use std::fmt;
use std::process::ExitCode;

macro_rules! reasons {
    ($($name:ident = $code:literal, $restart:ident, $text:literal, $action:literal;)*) => {
        /// Why the process ends with something else than success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $name = $code,)*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// What happened, in a sentence.
            pub fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// What the operator does about it.
            pub fn action(self) -> &'static str {
                match self { $(Reason::$name => $action,)* }
            }

            /// Whether starting again, unchanged, can help: what a service manager wants to know.
            pub fn restart(self) -> Restart {
                match self { $(Reason::$name => Restart::$restart,)* }
            }
        }
    };
}

/// Whether to start again after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The same would happen again.
    Futile,
    /// The cause may have gone, or recovery puts it right.
    Sensible,
}

reasons! {
    Internal = 1, Sensible,
        "A thread of the broker ended although nothing told it to.",
        "Start again (recovery replays the core logs) and report it with the log and the text of /v1/cores.";
    Config = 2, Futile,
        "The command line or the configuration cannot be used.",
        "Change what the message names; every key is in CONFIG.md. Nothing was touched.";
    DataInUse = 3, Futile,
        "Another process holds the lock of the data folder.",
        "Stop that process or choose another --data. The lock goes with the process; do not delete LOCK.";
    AddressInUse = 4, Sensible,
        "A listener could not be bound.",
        "Free the port, or choose another --listen or --admin; port 0 takes a free one. Nothing was touched.";
    NewerFormat = 5, Futile,
        "The data folder was written by a newer version whose format this one does not know.",
        "Run the newer version. Nothing was touched.";
    IoUringForbidden = 6, Futile,
        "io_uring cannot be used here: the kernel is too old, or it is forbidden by a sysctl, a seccomp profile or a limit.",
        "See `ringmill check`: kernel 6.1 or newer, kernel.io_uring_disabled=0, in a container a seccomp profile that allows io_uring.";
    DataUnusable = 7, Futile,
        "The data folder cannot be created, read or written, or its file system cannot keep the promises.",
        "Give the service's user a folder it may write, on ext4, XFS or btrfs.";
    DataDamaged = 8, Futile,
        "The data folder is damaged where acknowledged data lies.",
        "Read the message: it names file, offset and partitions. `ringmill log verify --only-findings DIR` shows more, DIR being the data folder; `ringmill log repair --data DIR --accept-loss` goes on without what is lost, and says first what that is.";
    DiskFull = 9, Sensible,
        "There is no room to start: the first core-log files could not be reserved, or what core logs hold has no room in segments, where it has to go before a change of --cores or core.log.dir.",
        "Free what the message says on the device of the data folder, start as before the change, or lower core.log.bytes.";
    FlushFailed = 10, Sensible,
        "Writing or flushing the core log failed. What the device holds is unknown, and the kernel reports such an error once, so the broker does not go on; what was not acknowledged by then was not acknowledged at all.",
        "Read the kernel log (`dmesg`, `journalctl -k`) for the device of the folder named. If the device is failing, copy the data folder off it before anything else. A start recovers all that was acknowledged, or refuses with code 8 and names what cannot be read.";
    JournalFailed = 12, Sensible,
        "The metadata journal could not be read or written.",
        "Look at the kernel log for the device and at the space left. A restart replays the journal.";
    LimitsTooLow = 13, Futile,
        "A limit of the process is too low to serve at all.",
        "Raise the limit the message names (ulimit, or LimitNOFILE= and LimitMEMLOCK= of the unit).";
    IdentityMismatch = 14, Futile,
        "The data folder belongs to another broker: its node.id or cluster.id is not the configured one.",
        "Correct the configuration, or point --data to this broker's folder. Nothing was touched.";
    StopTimedOut = 15, Sensible,
        "The orderly stop did not finish in time.",
        "Nothing acknowledged is lost: the next start replays the core logs. Report it with the log.";
    SegmentSyncFailed = 16, Sensible,
        "Syncing segments or writing a checkpoint failed. The core log still holds what the device may have lost, and is not written over.",
        "Read the kernel log (`dmesg`, `journalctl -k`) for the device of the data folder. A start writes the segments again from the core log, or refuses with code 8 and names what cannot be read.";
    Interrupted = 130, Sensible,
        "A SIGINT a second or more after the signal that began the orderly stop ended the process before it was done.",
        "Nothing acknowledged is lost: the next start replays the core logs.";
    Terminated = 143, Sensible,
        "A SIGTERM a second or more after the signal that began the orderly stop ended the process before it was done.",
        "Nothing acknowledged is lost: the next start replays the core logs.";
}

impl Reason {
    /// The number the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A start, or a running broker, that cannot go on: the reason and the particulars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// One sentence with names, numbers and what to do.
    pub detail: String,
}

impl Failure {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Failure {
        Failure { reason, detail: detail.into() }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.reason.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// What a core must not survive, as the process's end.
pub fn core_failure(core: CoreId, what: &Fatal) -> Failure {
    let reason = match what {
        Fatal::CoreLog { .. } => Reason::FlushFailed,
        Fatal::Segments { .. } => Reason::SegmentSyncFailed,
    };
    Failure::new(reason, format!("Core {core}: {what}."))
}

/// Ends a running process at once: logs the reason, runs no destructors, flushes nothing.
///
/// For what must not be survived. Recovery at the next start is the only way on, so nothing here tries to be orderly.
pub fn fatal(failure: &Failure) -> ! {
    tracing::error!(
        code = failure.reason.code(),
        reason = ?failure.reason,
        "{} {} {}", failure.detail, failure.reason.text(), failure.reason.action()
    );
    std::process::exit(i32::from(failure.reason.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_leave_room_for_signals() {
        let mut codes: Vec<u8> = Reason::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(code != 0, "{reason:?} would look like success");
            assert!(
                code < 64 || matches!(reason, Reason::Interrupted | Reason::Terminated),
                "{reason:?}: above 128 the shell means signals"
            );
            assert!(reason.text().ends_with('.'), "{reason:?}");
            assert!(reason.action().ends_with('.'), "{reason:?}");
        }
    }

    /// The systemd unit must not start again what starting again cannot help.
    #[test]
    fn the_unit_knows_which_exits_are_final() {
        let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/dist/ringmill.service");
        let unit = std::fs::read_to_string(unit).expect("the unit is in the tree");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("RestartPreventExitStatus="))
            .expect("the unit has the line");
        let futile: Vec<String> = Reason::ALL
            .iter()
            .filter(|r| r.restart() == Restart::Futile)
            .map(|r| r.code().to_string())
            .collect();
        assert_eq!(line, futile.join(" "));
    }
}

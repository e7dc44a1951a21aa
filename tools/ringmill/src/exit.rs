//! How a command ends: a code for scripts, a sentence for people.

use ringmill_client::ClientError;
use ringmill_reactor::Unfit;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

/// Exit codes of every command but `serve`. The numbers are promised in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Refused = 1,
    Usage = 2,
    Unreachable = 3,
    Garbled = 4,
    Local = 5,
    Interrupted = 130,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failed {
    pub code: Code,
    /// Empty when everything was said already.
    pub sentence: String,
    /// The reader of our output went away: nobody is left to tell, and nothing is wrong.
    quiet: bool,
}

impl Failed {
    pub fn new(code: Code, sentence: impl Into<String>) -> Failed {
        Failed { code, sentence: sentence.into(), quiet: false }
    }

    /// The report was the output; only the code is left to give.
    pub fn said(code: Code) -> Failed {
        Failed::new(code, "")
    }

    /// A failure of something on this machine, such as a file.
    pub fn local(what: impl Display, error: &io::Error) -> Failed {
        match Unfit::of(error) {
            // It names the file itself.
            Some(unfit) => Failed::new(Code::Local, unfit.to_string()),
            None => Failed::new(Code::Local, format!("{what}: {error}")),
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Failed {
        let code = match &error {
            ClientError::Unreachable { .. } | ClientError::Lost { .. } | ClientError::TimedOut { .. } => {
                Code::Unreachable
            }
            ClientError::Garbled { .. } | ClientError::Damaged(_) => Code::Garbled,
            ClientError::Unsupported { .. } | ClientError::Refused { .. } | ClientError::Records(_) => {
                Code::Refused
            }
        };
        Failed::new(code, error.to_string())
    }
}

/// A failed write to stdout or stderr.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Failed { quiet, ..Failed::local("the output cannot be written", &error) }
    }
}

/// Tells the person and the shell.
pub fn report(result: Result<(), Failed>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) if failed.quiet => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.sentence.is_empty() {
                crate::output::complain(&failed.sentence);
            }
            ExitCode::from(failed.code as u8)
        }
    }
}

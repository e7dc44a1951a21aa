//! The log: stderr, one line an event, for people or as JSON.
//!
//! Stdout stays empty for scripts. ERROR means that a person must look.

use crate::exit::{Failure, Reason};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process.
///
/// # Errors
/// [`Reason::Config`] when `level` is neither a level nor a list of directives.
pub fn start(level: Option<&str>, json: bool) -> Result<(), Failure> {
    let level = level.unwrap_or("info");
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        Failure::new(
            Reason::Config,
            format!("--log-level {level}: {error}; write error, warn, info, debug or trace, or target=level pairs."),
        )
    })?;
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let started = if json {
        tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
    } else {
        tracing::subscriber::set_global_default(builder.with_target(false).finish())
    };
    // A second broker in one process (tests) keeps the first one's log.
    drop(started);
    Ok(())
}

//! The log: stderr, one line an event, for people or as JSON.
//!
//! Stdout stays empty for scripts. ERROR means that a person must look.

use crate::exit::{Failure, Reason};
use ringmill_control::loggers::{Loggers, ROOT};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// The level at start, and what puts other directives in force: of the process, like its log.
static STARTED: OnceLock<(String, Reload)> = OnceLock::new();

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Starts logging for the whole process.
///
/// # Errors
/// [`Reason::Config`] when `level` is neither a level nor a list of directives.
pub fn start(level: Option<&str>, json: bool) -> Result<(), Failure> {
    let level = level.unwrap_or("info");
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(
            Reason::Config,
            format!(
                "--log-level {level}: {error}; write off, error, warn, info, debug or trace, or target=level pairs."
            ),
        )
    };
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_directive(word)) {
        return Err(refused(&format!("{word:?} is no level")));
    }
    let filter = EnvFilter::builder().parse(level).map_err(|error| refused(&error))?;
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colour);
    // A line that cannot be written, because the disk is full or the reader has gone, is lost; saying so in the same place
    // would be a panic.
    let builder = builder.log_internal_errors(false);
    let (started, reload): (_, Reload) = if json {
        let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (tracing::subscriber::set_global_default(builder.finish()), Box::new(reload))
    } else {
        let builder = builder.with_target(false).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (tracing::subscriber::set_global_default(builder.finish()), Box::new(reload))
    };
    // A second broker in one process (tests) keeps the first one's log.
    if started.is_ok() {
        STARTED.get_or_init(|| (level.to_string(), reload));
    }
    Ok(())
}

/// The filter takes any word for the name of a target, which would silence all others: a word alone must be a level.
fn is_directive(word: &str) -> bool {
    !word.is_empty()
        && (word.contains(['=', '[']) || word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok())
}

/// For control: what changes levels while the process runs.
pub fn loggers() -> Loggers {
    let Some((level, reload)) = STARTED.get() else { return Loggers::fixed() };
    Loggers::new(
        level,
        Box::new(move |levels| {
            let text = directives(level, levels);
            let filter = EnvFilter::builder().parse(&text).map_err(|error| error.to_string())?;
            reload(filter)
        }),
    )
}

/// What the process was started with, and the levels set since; later directives go before earlier ones.
fn directives(at_start: &str, levels: &BTreeMap<String, String>) -> String {
    let root = levels.get(ROOT).map_or(at_start, String::as_str);
    let parts =
        levels.iter().filter(|(name, _)| *name != ROOT).map(|(name, level)| format!("{name}={level}"));
    std::iter::once(root.to_string()).chain(parts).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_set_later_go_before_those_of_the_start() {
        let levels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, level)| (name.to_string(), level.to_string())).collect()
        };
        assert_eq!(directives("info", &levels(&[])), "info");
        assert_eq!(
            directives("info,ringmill_log=warn", &levels(&[("ringmill_log", "debug")])),
            "info,ringmill_log=warn,ringmill_log=debug"
        );
        assert_eq!(
            directives("info", &levels(&[("root", "warn"), ("ringmill_core", "trace")])),
            "warn,ringmill_core=trace"
        );
    }

    #[test]
    fn a_word_alone_must_be_a_level() {
        for good in ["off", "error", "INFO", "trace", "ringmill_log=debug", "tokio[span]"] {
            assert!(is_directive(good), "{good}");
        }
        for bad in ["", "verbose", "ringmill_log"] {
            assert!(!is_directive(bad), "{bad:?}");
        }
        let failure = start(Some("info,verbose"), false).expect_err("a misspelt level is refused");
        assert!(failure.to_string().contains("\"verbose\" is no level"), "{failure}");
    }
}

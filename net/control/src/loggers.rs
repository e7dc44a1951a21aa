//! Levels of the log, by its parts: BROKER_LOGGER resources. Kept for the life of the process, as Kafka does.

use std::collections::BTreeMap;

/// What everything else is below.
pub const ROOT: &str = "root";

/// Parts of the broker that have a level of their own, by the names of their crates.
const PARTS: [&str; 9] = [
    "ringmill_broker",
    "ringmill_control",
    "ringmill_core",
    "ringmill_groups",
    "ringmill_log",
    "ringmill_metadata",
    "ringmill_reactor",
    "ringmill_upkeep",
    "ringmill_wire",
];

/// Kafka's names of levels, with ours.
const LEVELS: [(&str, &str); 6] = [
    ("FATAL", "error"),
    ("ERROR", "error"),
    ("WARN", "warn"),
    ("INFO", "info"),
    ("DEBUG", "debug"),
    ("TRACE", "trace"),
];

/// Puts levels in force: by part, `root` being all that are not named.
pub type SetLevels = Box<dyn Fn(&BTreeMap<String, String>) -> Result<(), String> + Send>;

/// Owned by control.
pub struct Loggers {
    /// As they were set, in Kafka's words.
    set: BTreeMap<String, String>,
    /// The level of the process at start, in Kafka's words.
    at_start: String,
    apply: SetLevels,
}

impl Loggers {
    pub fn new(at_start: &str, apply: SetLevels) -> Loggers {
        let level = LEVELS.iter().rev().find(|(_, ours)| at_start.eq_ignore_ascii_case(ours));
        let at_start = level.map_or("INFO", |(kafka, _)| kafka).to_string();
        Loggers { set: BTreeMap::new(), at_start, apply }
    }

    /// Nothing can be changed: for tests.
    pub fn fixed() -> Loggers {
        Loggers::new("info", Box::new(|_| Ok(())))
    }

    pub fn is_known(name: &str) -> bool {
        name == ROOT || PARTS.contains(&name)
    }

    /// Every part with its level, and whether that was set for itself.
    pub fn levels(&self) -> Vec<(&'static str, String)> {
        let root = self.set.get(ROOT).unwrap_or(&self.at_start);
        let of = |name: &'static str| (name, self.set.get(name).unwrap_or(root).clone());
        [ROOT].into_iter().chain(PARTS).map(of).collect()
    }

    /// Checks a change without making it.
    ///
    /// # Errors
    /// A sentence in Kafka's words.
    pub fn check(name: &str, level: &str) -> Result<(), String> {
        if !Loggers::is_known(name) {
            return Err(format!("Logger {name} does not exist!"));
        }
        if !LEVELS.iter().any(|(kafka, _)| *kafka == level) {
            let known: Vec<&str> = LEVELS.iter().map(|(kafka, _)| *kafka).collect();
            let known = known.join(", ");
            return Err(format!(
                "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid log levels \
                 are {known}"
            ));
        }
        Ok(())
    }

    /// Changes levels that were checked; `None` goes back to the root's.
    ///
    /// # Errors
    /// Why the process could not do it; nothing is changed then.
    pub fn change(&mut self, changes: &[(String, Option<String>)]) -> Result<(), String> {
        let mut set = self.set.clone();
        for (name, level) in changes {
            match level {
                Some(level) => set.insert(name.clone(), level.clone()),
                None => set.remove(name),
            };
        }
        let ours = set.iter().filter_map(|(name, level)| {
            let (_, ours) = LEVELS.iter().find(|(kafka, _)| kafka == level)?;
            Some((name.clone(), (*ours).to_string()))
        });
        (self.apply)(&ours.collect())?;
        self.set = set;
        Ok(())
    }
}

//! From a TOML file and `--set` options to [`Settings`]: every mistake is found before the first is reported.
//!
//! Owns names, overriding and the relations between keys. Never touches anything but the file it is told to read.

use super::table::{KEYS, Key, Settings, Value};
use super::units::show_bytes;
use ringmill_types::{TopicConfig, limits};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Everything wrong with a configuration, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Largest configuration file: what is larger, or has no end, is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys as they were written, by name, from one or several places. Later places override earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Given {
    texts: BTreeMap<String, (String, String)>,
    errors: Vec<String>,
}

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Config {
    pub settings: Settings,
    /// Keys that were given, with the text they were given as: what is not a default.
    pub given: BTreeMap<String, String>,
    /// What works but is probably not meant; one sentence each.
    pub warnings: Vec<String>,
}

/// Keys of Kafka's that a copied configuration may hold, with what stands in their place here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("broker.id", "write node.id"),
    ("log.segment.ms", "the broker's key for a topic's segment.ms is log.roll.ms"),
    ("segment.bytes", "the broker's key for a topic's segment.bytes is log.segment.bytes"),
    ("retention.ms", "the broker's key for a topic's retention.ms is log.retention.ms"),
    ("retention.bytes", "the broker's key for a topic's retention.bytes is log.retention.bytes"),
    ("flush.messages", "the broker's key for a topic's flush.messages is log.flush.interval.messages"),
    ("flush.ms", "the broker's key for a topic's flush.ms is log.flush.interval.ms"),
    ("max.message.bytes", "the broker's key for a topic's max.message.bytes is message.max.bytes"),
    ("zookeeper.connect", "there is no ZooKeeper here; remove the line"),
    ("process.roles", "one process does everything; remove the line"),
    ("controller.quorum.voters", "one process does everything; remove the line"),
    ("controller.quorum.bootstrap.servers", "one process does everything; remove the line"),
    ("controller.listener.names", "one process does everything; remove the line"),
    ("num.network.threads", "one kind of thread serves all; use cores"),
    ("num.io.threads", "one kind of thread serves all; use cores"),
    ("num.recovery.threads.per.data.dir", "recovery runs on the cores; remove the line"),
    ("socket.send.buffer.bytes", "the kernel sizes socket buffers; remove the line"),
    ("socket.receive.buffer.bytes", "the kernel sizes socket buffers; remove the line"),
    ("default.replication.factor", "there is one replica for now; remove the line"),
    ("offsets.topic.replication.factor", "there is one replica for now; remove the line"),
    ("transaction.state.log.replication.factor", "there is one replica for now; remove the line"),
    ("transaction.state.log.min.isr", "there is one replica for now; remove the line"),
    ("metadata.log.dir", "metadata lives in the data folder; remove the line"),
];

impl Given {
    /// Reads a TOML file. Tables, dotted and quoted keys mean the same.
    pub fn read_file(&mut self, path: &Path) {
        match read_bounded(path) {
            Ok(Some(text)) => self.read_toml(&text, &path.display().to_string()),
            Ok(None) => self.errors.push(format!(
                "The configuration file {} is larger than {}; give --config a file of keys and values.",
                path.display(),
                show_bytes(FILE_BYTES_MAX as i64)
            )),
            Err(error) => {
                let path = path.display();
                self.errors.push(format!("The configuration file {path} cannot be read ({error}); check the path and its permissions."));
            }
        }
    }

    /// Reads TOML text; `source` names it in errors.
    pub fn read_toml(&mut self, text: &str, source: &str) {
        match text.parse::<toml::Table>() {
            Ok(table) => {
                let mut flat = Vec::new();
                flatten("", table, &mut flat);
                for (name, value) in flat {
                    match scalar_text(&value) {
                        Some(text) => self.put_once(name, text, source),
                        None => self.errors.push(format!(
                            "{name} in {source}: the value must be a string, a whole number, true or false, or a list of strings."
                        )),
                    }
                }
            }
            Err(error) => {
                let line = error
                    .span()
                    .map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
                let what = error.message().trim_end_matches('.').replace('\n', ", ");
                if let Some(number) =
                    error.span().and_then(|span| text.get(span)).filter(|part| is_number(part))
                {
                    self.errors.push(format!(
                        "{source} line {line}: {number} is out of range; whole numbers are {} to {}.",
                        i64::MIN,
                        i64::MAX
                    ));
                    return;
                }
                self.errors.push(format!(
                    "{source} line {line} is not TOML ({what}); strings need quotes, as in log.dirs = \"/data\"."
                ));
            }
        }
    }

    fn put_once(&mut self, name: String, text: String, source: &str) {
        if self.texts.get(&name).is_some_and(|(_, from)| from == source) {
            self.errors.push(format!("{name} is given twice in {source}; keep one."));
        }
        self.texts.insert(name, (text, source.to_string()));
    }

    /// Reads one `KEY=VALUE` of `--set`; the last of several counts.
    pub fn read_set(&mut self, assignment: &str) {
        match assignment.split_once('=') {
            Some((name, text)) if !name.trim().is_empty() => {
                self.texts.insert(name.trim().to_string(), (text.trim().to_string(), "--set".into()));
            }
            _ => self.errors.push(format!("--set {assignment}: write --set KEY=VALUE.")),
        }
    }

    /// What a command-line option of its own says; `flag` names it in errors.
    pub fn read_flag(&mut self, name: &str, flag: &str, text: &str) {
        self.texts.insert(name.to_string(), (text.to_string(), flag.to_string()));
    }

    /// Checks every key and the relations between them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn check(self) -> Result<Config, ConfigErrors> {
        let (config, errors) = self.look();
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// As [`Given::check`], with defaults in the place of what is wrong, so that who goes on looking finds the rest.
    pub fn look(self) -> (Config, Vec<String>) {
        let mut errors = self.errors;
        let mut values: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, (text, source)) in &self.texts {
            match find(name) {
                Some(key) => match key.parse(text) {
                    Ok(value) => {
                        values.insert(key.name, value);
                    }
                    Err(why) => errors.push(format!("{name} ({source}): {why}.")),
                },
                None => errors.push(unknown(name, source)),
            }
        }
        for key in KEYS {
            if let Some(default) = key.default {
                values
                    .entry(key.name)
                    .or_insert_with(|| key.parse(default).expect("a test parses every default"));
            }
        }
        let mut settings = Settings::build(|name| values.get(name));
        let mut warnings = Vec::new();
        relate(&mut settings, &mut errors, &mut warnings);
        let given = self.texts.into_iter().map(|(name, (text, _))| (name, text)).collect();
        (Config { settings, given, warnings }, errors)
    }
}

/// The row of a key.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The text of a file, or `None` where it is larger than [`FILE_BYTES_MAX`].
fn read_bounded(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64;
    Ok((read <= FILE_BYTES_MAX).then_some(text))
}

/// A whole number of TOML, of any size, in any of its bases.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn flatten(prefix: &str, table: toml::Table, out: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let full = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&full, inner, out),
            other => out.push((full, other)),
        }
    }
}

fn scalar_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    toml::Value::String(text) => Some(text.clone()),
                    toml::Value::Integer(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn unknown(name: &str, source: &str) -> String {
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(kafka, _)| *kafka == name) {
        return format!("{name} ({source}) is not a key here: {advice}.");
    }
    match nearest(name) {
        Some(near) => format!("{name} ({source}) is not a key; did you mean {near}? CONFIG.md lists all."),
        None => format!(
            "{name} ({source}) is not a key; CONFIG.md lists all, and so does `ringmill serve --help`."
        ),
    }
}

/// The known key that takes the fewest edits to reach, if few enough to be meant.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(['_', '-'], ".");
    let (edits, key) = KEYS.iter().map(|key| (edit_distance(&name, key.name), key.name)).min()?;
    (edits <= 1 + name.len() / 4).then_some(key)
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let up = *cell;
            let best = (diagonal + usize::from(from != *to)).min(up + 1).min(left + 1);
            (diagonal, left, *cell) = (up, best, best);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Checks what no single key can know, and fills in what follows from other keys.
fn relate(settings: &mut Settings, errors: &mut Vec<String>, warnings: &mut Vec<String>) {
    for (name, dirs) in [("log.dirs", &settings.log_dirs), ("log.dir", &settings.log_dir)] {
        if dirs.as_ref().is_some_and(|dirs| dirs.contains(',')) {
            errors.push(format!(
                "{name} names several folders; there is one data folder: join the devices below the file system, or start a broker for each."
            ));
        }
    }
    if let (Some(dirs), Some(dir)) = (&settings.log_dirs, &settings.log_dir)
        && dirs != dir
    {
        errors.push("log.dirs and log.dir differ; keep log.dirs.".into());
    }

    // The largest batch must fit a flush group, and a group must fit a file of the core log: a legal batch that does
    // not would wait for room for ever.
    let batch = settings.message_max_bytes;
    let needed = round_up(batch + limits::GROUP_OVERHEAD_BYTES_MAX as u64, 1 << 20);
    let file = settings.core_log_file_bytes.unwrap_or(limits::CORE_LOG_FILE_BYTES_DEFAULT.max(needed));
    if file < needed {
        errors.push(format!(
            "message.max.bytes = {batch} does not fit a file of the core log; set core.log.file.bytes to {} or more.",
            show_bytes(needed as i64)
        ));
    }
    if !file.is_multiple_of(limits::PAGE_BYTES as u64) {
        errors.push(format!("core.log.file.bytes = {file} is not a multiple of {}.", limits::PAGE_BYTES));
    }
    let log = settings.core_log_bytes.unwrap_or(file * limits::CORE_LOG_FILES_DEFAULT as u64);
    if log < 2 * file {
        errors.push(format!(
            "core.log.bytes = {} holds fewer than two files of {}; raise it to {} or more, or lower core.log.file.bytes.",
            show_bytes(log as i64),
            show_bytes(file as i64),
            show_bytes(2 * file as i64)
        ));
    }
    settings.core_log_file_bytes = Some(file);
    settings.core_log_bytes = Some(log);

    if settings.socket_request_max_bytes <= batch {
        warnings.push(format!(
            "socket.request.max.bytes = {} closes connections that send a batch as large as message.max.bytes = {batch} allows.",
            settings.socket_request_max_bytes
        ));
    }
    if settings.log_flush_interval_messages > 1 && !settings.relaxed_topics_enable {
        warnings.push(
            "log.flush.interval.messages is above 1, but relaxed.topics.enable is false: topics stay durable and acks wait for the flush.".into(),
        );
    }
    if let (Some(tail), Some(cache), Some(memory)) =
        (settings.tail_bytes, settings.cache_bytes, settings.memory)
        && tail + cache > memory as u64
    {
        errors.push("tail.bytes and cache.bytes together exceed memory; lower them or raise memory.".into());
    }
    if settings.cluster_id.as_ref().is_some_and(|id| {
        id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    }) {
        errors.push(
            "cluster.id has up to 64 letters, digits, - and _; write such a name or leave it out.".into(),
        );
    }
}

fn round_up(bytes: u64, to: u64) -> u64 {
    bytes.div_ceil(to) * to
}

impl Settings {
    /// All defaults: what an empty file gives.
    pub fn defaults() -> Settings {
        Given::default().check().expect("a test checks that the defaults agree with each other").settings
    }

    /// Milliseconds after which a segment is deleted; -1: never. Kafka's precedence: ms, minutes, hours.
    pub fn retention_ms(&self) -> i64 {
        let ms = self
            .log_retention_ms
            .or_else(|| self.log_retention_minutes.map(|minutes| times(minutes, 60_000)))
            .unwrap_or_else(|| times(self.log_retention_hours, 3_600_000));
        if ms < 0 { -1 } else { ms }
    }

    /// Milliseconds after which a segment is sealed.
    pub fn segment_ms(&self) -> i64 {
        self.log_roll_ms.unwrap_or_else(|| times(self.log_roll_hours, 3_600_000))
    }

    /// What a topic without configs of its own gets.
    pub fn topic_defaults(&self) -> TopicConfig {
        TopicConfig {
            flush_messages: if self.relaxed_topics_enable { self.log_flush_interval_messages } else { 1 },
            flush_ms: self.log_flush_interval_ms,
            segment_bytes: self.log_segment_bytes,
            segment_ms: self.segment_ms(),
            index_interval_bytes: self.log_index_interval_bytes,
            segment_index_bytes: self.log_index_size_max_bytes,
            retention_bytes: self.log_retention_bytes,
            retention_ms: self.retention_ms(),
            file_delete_delay_ms: self.log_segment_delete_delay_ms,
            max_message_bytes: self.message_max_bytes,
            timestamp_type: self.log_message_timestamp_type,
            timestamp_before_max_ms: self.log_message_timestamp_before_max_ms,
            timestamp_after_max_ms: self.log_message_timestamp_after_max_ms,
            compacted: self.log_cleanup_policy.iter().any(|word| word == "compact"),
            delete: self.log_cleanup_policy.iter().any(|word| word == "delete"),
            ..TopicConfig::default()
        }
    }
}

fn times(count: i64, ms: i64) -> i64 {
    if count < 0 { -1 } else { count.saturating_mul(ms) }
}

impl Config {
    /// Every key with the value in force and whether it was given, for `/v1/config` and DescribeConfigs.
    pub fn entries(&self) -> Vec<(&'static Key, Option<String>, bool)> {
        KEYS.iter()
            .map(|key| match self.given.get(key.name) {
                Some(text) => (key, Some(plain(key, text)), true),
                None => (key, key.default.map(|text| plain(key, text)), false),
            })
            .collect()
    }
}

/// A value as Kafka's tools would show it: numbers without units.
fn plain(key: &Key, text: &str) -> String {
    match key.parse(text) {
        Ok(Value::Int(number)) => number.to_string(),
        Ok(Value::Bool(yes)) => yes.to_string(),
        Ok(Value::Words(words)) => words.join(","),
        Ok(Value::Cpus(cpus)) => super::units::show_cpus(&cpus),
        Ok(Value::Text(text)) => text,
        Err(_) => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(toml: &str, sets: &[&str]) -> Result<Config, ConfigErrors> {
        let mut given = Given::default();
        given.read_toml(toml, "broker.toml");
        for set in sets {
            given.read_set(set);
        }
        given.check()
    }

    fn errors(toml: &str, sets: &[&str]) -> Vec<String> {
        check(toml, sets).expect_err("must be refused").0
    }

    #[test]
    fn tables_dotted_and_quoted_keys_mean_the_same() {
        let ways = [
            "[log]\nsegment.bytes = 2097152\n[log.retention]\nms = 5\n",
            "log.segment.bytes = 2097152\nlog.retention.ms = 5\n",
            "\"log.segment.bytes\" = \"2MiB\"\n\"log.retention.ms\" = \"5ms\"\n",
            "[\"log.segment\"]\nbytes = 2097152\n[log]\nretention = { ms = 5 }\n",
        ];
        for way in ways {
            let config = check(way, &[]).expect(way);
            assert_eq!(
                (config.settings.log_segment_bytes, config.settings.retention_ms()),
                (2 << 20, 5),
                "{way}"
            );
        }
    }

    #[test]
    fn set_overrides_the_file_and_the_last_set_counts() {
        let config = check("num.partitions = 2", &["num.partitions=3", "num.partitions = 4"]).expect("legal");
        assert_eq!(config.settings.num_partitions, 4);
        assert_eq!(config.given.get("num.partitions").map(String::as_str), Some("4"));
    }

    #[test]
    fn defaults_are_kafkas_where_the_keys_are() {
        let settings = Settings::defaults();
        let kafka = TopicConfig::default();
        assert_eq!(settings.topic_defaults(), kafka);
        assert_eq!(settings.connections_max_idle_ms, 600_000);
        assert_eq!(settings.core_log_bytes, Some(512 << 20));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let found = errors(
            "num.partition = 3\nmessage.max.bytes = \"lots\"\n[log]\ndirs = \"/a,/b\"\nsegment.ms = 4\nretention.hours = 1.5\n",
            &["flush.method=fast", "nonsense", "flush.depth=0"],
        );
        for part in [
            "num.partition (broker.toml) is not a key; did you mean num.partitions?",
            "message.max.bytes (broker.toml): `lots` is not a size",
            "log.dirs names several folders",
            "log.segment.ms (broker.toml) is not a key here: the broker's key for a topic's segment.ms is log.roll.ms.",
            "log.retention.hours in broker.toml: the value must be",
            "flush.method (--set): `fast` is not one of auto, fdatasync, dsync.",
            "--set nonsense: write --set KEY=VALUE.",
            "flush.depth (--set): 0 is below the minimum, 1.",
        ] {
            assert_eq!(found.iter().filter(|e| e.contains(part)).count(), 1, "{part} in {found:#?}");
        }
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn a_key_twice_and_broken_toml_are_named() {
        let found = errors("\"log.segment.bytes\" = 1048576\n[log]\nsegment.bytes = 1048576\n", &[]);
        assert!(found.iter().any(|e| e.contains("given twice")), "{found:?}");
        let found = errors("node.id = 1\nlog.dirs=/tmp/kafka\n", &[]);
        assert!(found.iter().any(|e| e.starts_with("broker.toml line 2 is not TOML")), "{found:?}");
    }

    #[test]
    fn a_number_too_large_for_any_key_is_called_that() {
        for number in [
            "9999999999999999999",
            "-9999999999999999999",
            "99_999_999_999_999_999_999",
            "0xffffffffffffffff",
            &"9".repeat(60),
        ] {
            let found = errors(&format!("node.id = 1\nlog.retention.ms = {number}\n"), &[]);
            let start = format!("broker.toml line 2: {number} is out of range; ");
            assert!(found.len() == 1 && found.iter().all(|e| e.starts_with(&start)), "{found:?}");
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        let dir = tempfile::tempdir().expect("temp folder");
        let large = dir.path().join("large.toml");
        let read = |path: &Path| {
            let mut given = Given::default();
            given.read_file(path);
            given.errors
        };
        let fits = "#".repeat(FILE_BYTES_MAX as usize);
        std::fs::write(&large, &fits).expect("written");
        assert_eq!(read(&large), Vec::<String>::new());
        std::fs::write(&large, fits + "#").expect("written");
        for path in [large.as_path(), Path::new("/dev/zero")] {
            let found = read(path);
            assert!(found.len() == 1 && found.iter().all(|e| e.contains("is larger than 1MiB")), "{found:?}");
        }
    }

    #[test]
    fn a_large_batch_raises_the_core_log_or_says_how() {
        let config =
            check("", &["message.max.bytes=104857600", "socket.request.max.bytes=200MiB"]).expect("legal");
        assert!(config.settings.core_log_file_bytes.expect("derived") > 104_857_600);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let found = errors("", &["message.max.bytes=104857600", "core.log.file.bytes=64MiB"]);
        assert!(found.iter().any(|e| e.contains("set core.log.file.bytes to 101MiB or more")), "{found:?}");
        let found = errors("", &["core.log.file.bytes=64MiB", "core.log.bytes=100MiB"]);
        assert!(found.iter().any(|e| e.contains("raise it to 128MiB")), "{found:?}");
    }

    #[test]
    fn copied_relaxed_default_stays_durable_with_a_warning() {
        let copied = "log.flush.interval.messages=9223372036854775807";
        let config = check("", &[copied]).expect("legal");
        assert!(config.settings.topic_defaults().is_durable());
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        let config = check("", &[copied, "relaxed.topics.enable=true"]).expect("legal");
        assert!(!config.settings.topic_defaults().is_durable());
    }

    #[test]
    fn retention_units_follow_kafkas_precedence() {
        let of = |sets: &[&str]| check("", sets).expect("legal").settings.retention_ms();
        assert_eq!(of(&["log.retention.hours=2"]), 7_200_000);
        assert_eq!(of(&["log.retention.hours=2", "log.retention.minutes=3"]), 180_000);
        assert_eq!(of(&["log.retention.minutes=3", "log.retention.ms=4"]), 4);
        assert_eq!(of(&["log.retention.hours=-1"]), -1);
    }

    proptest! {
        #[test]
        fn any_file_and_any_set_are_answered(toml in "\\PC{0,80}", set in "\\PC{0,40}") {
            let _ = check(&toml, &[&set]);
        }

        #[test]
        fn edit_distance_is_a_distance(a in "[a-c.]{0,8}", b in "[a-c.]{0,8}") {
            prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
            prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
        }
    }
}

//! Kafka's own tools, from Maven Central: topics, configs, the producer with its defaults and with every codec, offsets,
//! the console consumer; and, after a clean stop, DumpLogSegments over every file that the broker wrote.

use super::Report;
use super::broker::Broker;
use super::stored::{self, CODECS};
use super::tool::{both, need, talk, timed};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const SCRIPT: &str = "bench/peers/kafka.sh";
const RECORDS: i64 = 20_000;
const PARTITIONS: i64 = 3;
/// Small enough for each partition to fill several segments, so that closed ones are dumped too.
const SEGMENT_CONFIG: &str = "segment.bytes=1048576";
const SECONDS: u32 = 120;
/// Reads, commits and leaves.
const GROUP: &str = "dumped";

/// What DumpLogSegments prints when something is not as it should be, in lower case.
const COMPLAINTS: [&str; 8] = [
    "mismatch",
    "isvalid: false",
    "invalid",
    "corrupt",
    "couldn't find",
    "could not open",
    "error",
    "exception",
];

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("java", "default-jre-headless"), ("mvn", "maven")])?;
    talk(timed(1800, SCRIPT).arg("setup"), "")?;
    let mut broker = Broker::start(&["log.segment.bytes=1048576"])?;
    let at = broker.address.clone();
    report.check("topic-create-list-describe", || topic(&at));
    report.check("producer-perf-defaults", || produce(&at, "java", &[]));
    for codec in &CODECS[1..] {
        let name = format!("java-{codec}");
        let property = format!("compression.type={codec}");
        report.check(&format!("producer-perf-{codec}"), || produce(&at, &name, &[&property]));
    }
    report.check("get-offsets", || offsets(&at));
    report.check("config-alter-describe-delete", || configs(&at));
    report.check("console-consumer", || console(&at));
    report.check("console-consumer-group", || group(&at));
    report.check("topic-alter-delete", || change(&at));
    report.check("clean-stop", || broker.stop());
    for codec in &CODECS[1..] {
        report.check(&format!("stored-codec-{codec}"), || {
            stored::check(&broker.topics().join(format!("java-{codec}-0")), RECORDS, codec)
        });
    }
    report.check("dump-log-segments", || dump(&broker));
    report.check("dump-consumer-offsets", || dump_offsets(&broker));
    Ok(())
}

/// A tool of Kafka's, told not to optimize: it is gone before that pays.
pub fn java(class: &str) -> Command {
    let mut command = timed(SECONDS, SCRIPT);
    command.env("KAFKA_RUN_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC").args(["run", class]);
    command
}

fn tool(class: &str, arguments: &[&str]) -> Result<String, String> {
    let (out, err) = both(java(class).args(arguments), "")?;
    Ok(out + &err)
}

pub fn expect(what: &str, said: &str, wanted: &str) -> Result<(), String> {
    if said.contains(wanted) { Ok(()) } else { Err(format!("{what}: no \"{wanted}\" in\n{said}")) }
}

pub fn topics(at: &str, arguments: &[&str]) -> Result<String, String> {
    tool("org.apache.kafka.tools.TopicCommand", &[&["--bootstrap-server", at], arguments].concat())
}

fn create(at: &str, name: &str, partitions: i64) -> Result<(), String> {
    let partitions = partitions.to_string();
    let arguments = ["--create", "--topic", name, "--partitions", &partitions, "--config", SEGMENT_CONFIG];
    expect("--create", &topics(at, &arguments)?, &format!("Created topic {name}."))
}

fn topic(at: &str) -> Result<(), String> {
    create(at, "java", PARTITIONS)?;
    expect("--list", &topics(at, &["--list"])?, "java")?;
    let said = topics(at, &["--describe", "--topic", "java"])?;
    expect("--describe", &said, &format!("PartitionCount: {PARTITIONS}"))?;
    expect("--describe", &said, SEGMENT_CONFIG)
}

/// More partitions, then none at all.
fn change(at: &str) -> Result<(), String> {
    create(at, "short-lived", 1)?;
    topics(at, &["--alter", "--topic", "short-lived", "--partitions", "4"])?;
    let said = topics(at, &["--describe", "--topic", "short-lived"])?;
    expect("--describe", &said, "PartitionCount: 4")?;
    topics(at, &["--delete", "--topic", "short-lived"])?;
    let left = topics(at, &["--list"])?;
    if left.contains("short-lived") { Err(format!("still there after --delete:\n{left}")) } else { Ok(()) }
}

fn produce(at: &str, topic: &str, properties: &[&str]) -> Result<(), String> {
    let (records, server) = (RECORDS.to_string(), format!("bootstrap.servers={at}"));
    let mut arguments =
        vec!["--topic", topic, "--num-records", &records, "--record-size", "500", "--throughput", "-1"];
    arguments.extend(["--command-property", &server]);
    arguments.extend(properties);
    let said = tool("org.apache.kafka.tools.ProducerPerformance", &arguments)?;
    expect("ProducerPerformance", &said, &format!("{RECORDS} records sent"))
}

fn offsets(at: &str) -> Result<(), String> {
    let class = "org.apache.kafka.tools.GetOffsetShell";
    let sum = |time: &str| -> Result<i64, String> {
        let said = tool(class, &["--bootstrap-server", at, "--topic", "java", "--time", time])?;
        let ends: Vec<i64> =
            said.lines().filter_map(|l| l.strip_prefix("java:")?.split(':').nth(1)?.parse().ok()).collect();
        if ends.len() as i64 != PARTITIONS {
            return Err(format!("GetOffsetShell --time {time} printed\n{said}"));
        }
        Ok(ends.iter().sum())
    };
    match (sum("latest")?, sum("earliest")?) {
        (RECORDS, 0) => Ok(()),
        (latest, earliest) => Err(format!("latest adds up to {latest}, earliest to {earliest}")),
    }
}

fn configs(at: &str) -> Result<(), String> {
    let config = |arguments: &[&str]| {
        let topic = ["--bootstrap-server", at, "--entity-type", "topics", "--entity-name", "java"];
        tool("kafka.admin.ConfigCommand", &[&topic, arguments].concat())
    };
    config(&["--alter", "--add-config", "retention.ms=100000"])?;
    expect("--describe", &config(&["--describe"])?, "retention.ms=100000")?;
    config(&["--alter", "--delete-config", "retention.ms"])?;
    let said = config(&["--describe"])?;
    if said.contains("retention.ms=100000") { Err(format!("still set:\n{said}")) } else { Ok(()) }
}

fn console(at: &str) -> Result<(), String> {
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    for topic in ["java", "java-zstd"] {
        let from = ["--bootstrap-server", at, "--topic", topic, "--partition", "0", "--offset", "earliest"];
        let read = talk(java(class).args(from).args(["--max-messages", "500"]), "")?;
        let whole = read.lines().filter(|line| line.len() == 500).count();
        if whole != 500 {
            return Err(format!("{topic}: {whole} whole records of 500 printed"));
        }
    }
    Ok(())
}

/// A member that commits what it read.
fn group(at: &str) -> Result<(), String> {
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let from = ["--bootstrap-server", at, "--topic", "java", "--group", GROUP, "--from-beginning"];
    let read = talk(java(class).args(from).args(["--max-messages", "500"]), "")?;
    let count = read.lines().count();
    if count == 500 { Ok(()) } else { Err(format!("{count} records of 500 printed")) }
}

/// Kafka's own decoder reads what the group's coordinator keeps.
fn dump_offsets(broker: &Broker) -> Result<(), String> {
    let folders = std::fs::read_dir(broker.topics()).map_err(|e| e.to_string())?;
    let mut logs = Vec::new();
    for folder in folders.flatten().map(|entry| entry.path()).filter(|path| is_offsets(path)) {
        logs.extend(stored::files(&folder, "log")?);
    }
    if logs.is_empty() {
        return Err("the coordinator wrote no segment".into());
    }
    let said = dumped(&logs, &["--offsets-decoder"])?;
    let of_group = format!("\"group\":\"{GROUP}\"");
    expect("a committed offset", &said, &format!("{of_group},\"topic\":\"java\""))?;
    expect("the group", &said, "\"protocolType\":\"consumer\"")
}

fn is_offsets(folder: &Path) -> bool {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    name.is_some_and(|name| name.starts_with("__consumer_offsets-"))
}

/// Every .log by deep iteration, every index by its sanity check and entry by entry against its log.
fn dump(broker: &Broker) -> Result<(), String> {
    let folders = std::fs::read_dir(broker.topics()).map_err(|e| e.to_string())?;
    let (mut logs, mut indexes) = (Vec::new(), Vec::new());
    for folder in folders.flatten().map(|entry| entry.path()).filter(|path| !is_offsets(path)) {
        let files = stored::files(&folder, "log")?;
        indexes.extend(stored::files(&folder, "index")?);
        indexes.extend(stored::files(&folder, "timeindex")?);
        logs.extend(files);
    }
    let segments_min = 2 * PARTITIONS as usize;
    if logs.len() < segments_min || indexes.len() != 2 * logs.len() {
        return Err(format!("{} logs and {} indexes lie on disk", logs.len(), indexes.len()));
    }
    let said = dumped(&logs, &["--deep-iteration"])?;
    let records = said.lines().filter(|line| line.contains("| offset: ")).count() as i64;
    let sent = RECORDS * CODECS.len() as i64;
    if records != sent {
        return Err(format!("{records} records in {} logs, {sent} were sent", logs.len()));
    }
    dumped(&indexes, &[])?;
    let said = dumped(&indexes, &["--index-sanity-check"])?;
    let sound = said.lines().filter(|line| line.ends_with("passed sanity check.")).count();
    if sound == indexes.len() { Ok(()) } else { Err(format!("{sound} of {} indexes passed", indexes.len())) }
}

pub fn dumped(files: &[PathBuf], options: &[&str]) -> Result<String, String> {
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let list = names.join(",");
    let said = tool("org.apache.kafka.tools.DumpLogSegments", &[&["--files", &list], options].concat())?;
    match complaint(&said) {
        Some(line) => Err(format!("DumpLogSegments {options:?}: {line}")),
        None => Ok(said),
    }
}

/// The first line that says something is wrong. One is no complaint: the tool begins each file as if offset -1 had come
/// before, and so says of every segment but the first, Kafka's own too, that -1 is followed by the segment's base offset.
fn complaint(said: &str) -> Option<String> {
    let mut gap_in: Option<&str> = None;
    for line in said.lines() {
        if let Some(file) = line.strip_prefix("Non-consecutive offsets in ") {
            gap_in = Some(file);
            continue;
        }
        if let (Some(file), Some((before, after))) = (gap_in, line.trim().split_once(" is followed by ")) {
            let name = std::path::Path::new(file).file_stem().and_then(|name| name.to_str());
            let base: Option<i64> = name.and_then(|name| name.parse().ok());
            if before != "-1" || base.is_none() || after.parse().ok() != base {
                return Some(format!("{file}: {line}"));
            }
            continue;
        }
        let lower = line.to_lowercase();
        if COMPLAINTS.iter().any(|word| lower.contains(word)) {
            return Some(line.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn a_gap_is_a_complaint_and_the_start_of_a_segment_is_not() {
        let said = |before: i64, after: i64| {
            format!(
                "Non-consecutive offsets in /d/t-0/00000000000000002048.log\n  {before} is followed by {after}\n"
            )
        };
        assert_eq!(complaint(&said(-1, 2048)), None);
        assert!(complaint(&said(-1, 2049)).is_some());
        assert!(complaint(&said(2050, 2052)).is_some());
        assert!(complaint("Mismatches in :/d/t-0/00000000000000000000.index").is_some());
        assert!(complaint("baseOffset: 0 lastOffset: 5 count: 6 crc: 7 isvalid: false").is_some());
        assert_eq!(complaint("baseOffset: 0 lastOffset: 5 count: 6 crc: 7 isvalid: true"), None);
    }
}

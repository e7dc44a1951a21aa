//! Consumer groups through librdkafka's group consumer, with every assignor it has: nothing is lost between members, and
//! what was committed stays committed when the broker is killed.

use super::Report;
use super::broker::{Broker, binary};
use super::tool::{need, talk, timed};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const RECORDS: u32 = 200;
const SECONDS: u32 = 60;
const JOIN_MAX: Duration = Duration::from_secs(12);
const JOIN_LOOK_EVERY: Duration = Duration::from_millis(100);
const ASSIGNORS: [&str; 3] = ["range", "roundrobin", "cooperative-sticky"];

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("kcat", "kcat")])?;
    let mut broker = Broker::start(&["num.partitions=4", "group.initial.rebalance.delay.ms=500"])?;
    for assignor in ASSIGNORS {
        report.check(&format!("two-members-{assignor}"), || two_members(&broker.address, assignor));
    }
    report.check("commit-and-go-on", || {
        read(&broker.address, 0..RECORDS)?;
        read(&broker.address, RECORDS..2 * RECORDS)
    });
    report.check("commit-survives-kill", || {
        broker.kill()?;
        broker.start_again()?;
        read(&broker.address, 2 * RECORDS..3 * RECORDS)
    });
    report.check("clean-stop", || broker.stop());
    Ok(())
}

/// Records that say their number.
pub fn produce(at: &str, topic: &str, numbers: std::ops::Range<u32>) -> Result<(), String> {
    let lines: String = numbers.map(|n| format!("{n}:{n}\n")).collect();
    let mut command = timed(SECONDS, "kcat");
    // Spread over the partitions by key, one by one.
    command.args(["-P", "-q", "-b", at, "-t", topic, "-K:", "-X", "topic.partitioner=murmur2"]);
    talk(&mut command, &lines).map(drop)
}

/// These records, and no others, are what the group has not seen yet.
fn read(at: &str, numbers: std::ops::Range<u32>) -> Result<(), String> {
    produce(at, "kept", numbers.clone())?;
    let mut command = timed(SECONDS, "kcat");
    command.args(["-q", "-b", at, "-G", "keeps", "-X", "auto.offset.reset=earliest"]);
    command.args(["-c", &RECORDS.to_string(), "kept"]);
    same(&talk(&mut command, "")?, numbers)
}

/// That these records came, each once.
pub fn same(out: &str, numbers: std::ops::Range<u32>) -> Result<(), String> {
    let lines: Vec<u32> = out.lines().filter_map(|line| line.parse().ok()).collect();
    let seen: BTreeSet<u32> = lines.iter().copied().collect();
    if seen.iter().copied().eq(numbers.clone()) && lines.len() == seen.len() {
        return Ok(());
    }
    Err(format!("{} records, {} different ones, came back for {numbers:?}", lines.len(), seen.len()))
}

/// Until the group is stable with so many members.
fn wait_for_members(at: &str, group: &str, count: usize) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let mut describe = timed(SECONDS, &binary().to_string_lossy());
        describe.args(["group", "describe", "--json", "-b", at, group]);
        // A group that nobody has joined yet is an error here.
        let said = talk(&mut describe, "").unwrap_or_default();
        if said.contains("\"Stable\"") && said.matches("\"member\":").count() == count {
            return Ok(());
        }
        if begun.elapsed() > JOIN_MAX {
            return Err(format!("after {} s the group is: {said}", JOIN_MAX.as_secs()));
        }
        std::thread::sleep(JOIN_LOOK_EVERY);
    }
}

/// Two members share four partitions: each gets records, together they get all, and none twice.
fn two_members(at: &str, assignor: &str) -> Result<(), String> {
    let topic = format!("shared-{assignor}");
    produce(at, &topic, 0..1)?;
    let member = || {
        let mut command = timed(SECONDS, "sh");
        let kcat = format!(
            "timeout 15 kcat -q -b {at} -G {topic} -X partition.assignment.strategy={assignor} \
             -X auto.offset.reset=earliest -X session.timeout.ms=6000 -X heartbeat.interval.ms=500 {topic}; true"
        );
        command.args(["-c", &kcat]);
        std::thread::spawn(move || talk(&mut command, ""))
    };
    let members = [member(), member()];
    wait_for_members(at, &topic, 2)?;
    produce(at, &topic, 1..RECORDS)?;
    let mut all = String::new();
    for member in members {
        let out = member.join().map_err(|_| "a thread of this suite panicked".to_string())??;
        if out.lines().count() < 10 {
            return Err(format!("a member got {} records", out.lines().count()));
        }
        all.push_str(&out);
    }
    same(&all, 0..RECORDS)
}

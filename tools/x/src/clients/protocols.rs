//! Both group protocols with real members: the consumer protocol (KIP-848) of librdkafka 2.12 and of Java's console
//! consumer, each alone and beside the other, static members of both, and groups that go over from the classic protocol to
//! the consumer's and back: between members, with them, one by one, and by a static member that changes its protocol. Java's
//! assignors, too: sticky is one that librdkafka does not have.
//! `AT=HOST:PORT` tries another broker: with Kafka 4.3.1 there, every check passes as well.

use super::Report;
use super::broker::{Broker, binary};
use super::groups;
use super::kafka;
use super::librdkafka;
use super::tool::{need, talk, timed};
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RECORDS: u32 = 200;
const MEMBER_SECONDS: u32 = 120;
const TOOL_SECONDS: u32 = 60;
/// Java starts for seconds, and a member that left the hard way is missed for longer.
const CHANGE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
enum Client {
    Librdkafka,
    Java,
}

#[derive(Clone, Copy)]
enum Protocol {
    Classic,
    Consumer,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

use Client::{Java, Librdkafka};
use Protocol::{Classic, Consumer};

/// Where the members are, and what they share.
struct Stage<'a> {
    at: &'a str,
    /// Of the group and its topic.
    name: String,
    dir: &'a Path,
    /// Whatever members printed that are gone.
    printed: String,
}

/// A process that consumes until it is told to stop.
struct Member {
    child: Child,
    out: PathBuf,
}

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("kcat", "kcat"), ("java", "default-jre-headless"), ("mvn", "maven")])?;
    talk(timed(1800, kafka::SCRIPT).arg("setup"), "")?;
    talk(timed(1800, librdkafka::SCRIPT).arg("setup"), "")?;
    let given = std::env::var("AT").ok();
    let settings = ["num.partitions=4", "group.initial.rebalance.delay.ms=500"];
    let mut broker = if given.is_none() { Some(Broker::start(&settings)?) } else { None };
    let at = given.or_else(|| broker.as_ref().map(|broker| broker.address.clone())).unwrap_or_default();
    let dir = std::env::temp_dir().join(format!("ringmill-members-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let pairs = [
        ("librdkafka-alone", [Librdkafka, Librdkafka]),
        ("java-alone", [Java, Java]),
        ("librdkafka-beside-java", [Librdkafka, Java]),
    ];
    for (name, clients) in pairs {
        report.check(&format!("consumer-protocol-{name}"), || share(Stage::new(&at, name, &dir)?, clients));
    }
    for (name, client) in [("librdkafka", Librdkafka), ("java", Java)] {
        for protocol in [Classic, Consumer] {
            let name = format!("static-{name}-{}", protocol.name());
            report.check(&name, || statics(Stage::new(&at, &name, &dir)?, client, protocol));
        }
        let back = format!("there-and-back-{name}");
        report.check(&back, || there_and_back(Stage::new(&at, &back, &dir)?, client));
        let over = format!("static-goes-over-{name}");
        report.check(&over, || static_goes_over(Stage::new(&at, &over, &dir)?, client));
    }
    for (assignor, keeps) in
        [("Range", false), ("RoundRobin", false), ("Sticky", true), ("CooperativeSticky", true)]
    {
        let name = format!("java-{}", assignor.to_lowercase());
        report.check(&name, || assigned_by(Stage::new(&at, &name, &dir)?, assignor, keeps));
    }
    for (name, stay, comes) in [
        ("librdkafka", Librdkafka, Librdkafka),
        ("java", Java, Java),
        ("librdkafka-for-java", Librdkafka, Java),
        ("java-for-librdkafka", Java, Librdkafka),
    ] {
        let name = format!("over-with-members-{name}");
        report.check(&name, || over_with_members(Stage::new(&at, &name, &dir)?, stay, comes));
    }
    let name = "one-by-one-librdkafka";
    report.check(name, || one_by_one(Stage::new(&at, name, &dir)?, Librdkafka));
    if let Some(broker) = &mut broker {
        let name = "killed-with-members-of-both";
        report.check(name, || killed(Stage::new(&at, name, &dir)?, broker));
        report.check("clean-stop", || broker.stop());
    }
    // Outputs of members; whoever looks for them finds the check's message instead.
    let _ = std::fs::remove_dir_all(&dir);
    Ok(())
}

/// Two members of the consumer protocol share the partitions, and between them get every record once.
fn share(mut stage: Stage<'_>, clients: [Client; 2]) -> Result<(), String> {
    let members = [stage.member(clients[0], Consumer, None)?, stage.member(clients[1], Consumer, None)?];
    stage.wait_for(Consumer, 2)?;
    stage.produce(1..RECORDS)?;
    stage.wait_for_records(&members, RECORDS)?;
    for member in members {
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..RECORDS)
}

/// Two members share by one of Java's assignors, a third comes: at each time every partition has one owner, and
/// every record comes once. A sticky assignor takes from who stays only what the one who comes gets.
fn assigned_by(mut stage: Stage<'_>, assignor: &str, keeps: bool) -> Result<(), String> {
    let class = format!("org.apache.kafka.clients.consumer.{assignor}Assignor");
    let property = [format!("partition.assignment.strategy={class}")];
    let join = |stage: &Stage<'_>, name| stage.member_with(Java, Classic, Some(name), &property);
    let mut members = vec![join(&stage, "a")?, join(&stage, "b")?];
    let two = owners(&stage.wait_for(Classic, 2)?)?;
    stage.read(&members, 1..60)?;
    members.push(join(&stage, "c")?);
    let three = owners(&stage.wait_for(Classic, 3)?)?;
    stage.read(&members, 60..RECORDS)?;
    for member in members {
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..RECORDS)?;
    let moved =
        three.iter().filter(|(partition, owner)| *owner != "c" && two.get(*partition) != Some(*owner));
    if keeps && moved.count() > 0 {
        return Err(format!("{two:?} before, {three:?} with one more"));
    }
    Ok(())
}

/// Who has which of the four partitions, of what members have by their instance: `TOPIC[0-1,3]`.
fn owners(rows: &BTreeSet<(String, String)>) -> Result<BTreeMap<u32, String>, String> {
    let mut owners = BTreeMap::new();
    for (instance, has) in rows {
        let runs = has.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']')).unwrap_or_default();
        for run in runs.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
                return Err(format!("what are the partitions in {has}?"));
            };
            for partition in first..=last {
                if let Some(other) = owners.insert(partition, instance.clone()) {
                    return Err(format!("partition {partition} is {other}'s and {instance}'s"));
                }
            }
        }
    }
    if owners.keys().copied().eq(0..4) { Ok(owners) } else { Err(format!("not four partitions: {rows:?}")) }
}

/// A static member that goes and comes back has what it had, and the other one is not disturbed.
fn statics(mut stage: Stage<'_>, client: Client, protocol: Protocol) -> Result<(), String> {
    let stays = stage.member(client, protocol, Some("stays"))?;
    let goes = stage.member(client, protocol, Some("goes"))?;
    let before = stage.wait_for(protocol, 2)?;
    stage.stop(goes)?;
    let members = [stays, stage.member(client, protocol, Some("goes"))?];
    stage.produce(1..RECORDS)?;
    // Only when it is back does anybody read its partitions.
    stage.wait_for_records(&members, RECORDS)?;
    let after = stage.wait_for(protocol, 2)?;
    for member in members {
        stage.stop(member)?;
    }
    if before != after {
        return Err(format!("{before:?} before, {after:?} after"));
    }
    groups::same(&stage.printed, 0..RECORDS)
}

/// A group that is empty goes over to the protocol of whoever comes, and back, and goes on where it was.
fn there_and_back(mut stage: Stage<'_>, client: Client) -> Result<(), String> {
    for (protocol, from, to) in [(Classic, 1, 50), (Consumer, 50, 100), (Classic, 100, RECORDS)] {
        let member = stage.member(client, protocol, None)?;
        stage.wait_for(protocol, 1)?;
        stage.produce(from..to)?;
        stage.wait_for_records(std::slice::from_ref(&member), to)?;
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..RECORDS)
}

/// A group goes over with its members when one of the consumer protocol comes, and back when that one goes.
fn over_with_members(mut stage: Stage<'_>, stay: Client, comes: Client) -> Result<(), String> {
    let mut members = vec![stage.member(stay, Classic, None)?, stage.member(stay, Classic, None)?];
    stage.wait_for(Classic, 2)?;
    stage.read(&members, 1..50)?;
    members.push(stage.member(comes, Consumer, None)?);
    stage.wait_for(Consumer, 3)?;
    stage.read(&members, 50..100)?;
    if let Some(member) = members.pop() {
        stage.stop(member)?;
    }
    stage.wait_for(Classic, 2)?;
    stage.read(&members, 100..RECORDS)?;
    for member in members {
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..RECORDS)
}

/// As an application is upgraded while it runs, and taken back: each member is replaced by one of the other protocol.
fn one_by_one(mut stage: Stage<'_>, client: Client) -> Result<(), String> {
    let mut members = vec![stage.member(client, Classic, None)?, stage.member(client, Classic, None)?];
    stage.wait_for(Classic, 2)?;
    let mut next = 1;
    for (protocol, between) in
        [(Consumer, Consumer), (Consumer, Consumer), (Classic, Consumer), (Classic, Classic)]
    {
        members.push(stage.member(client, protocol, None)?);
        stage.wait_for(Consumer, 3)?;
        let oldest = members.remove(0);
        stage.stop(oldest)?;
        stage.wait_for(between, 2)?;
        stage.read(&members, next..next + 40)?;
        next += 40;
    }
    for member in members {
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..next)
}

/// A broker that is killed knows a group with members of both protocols again: they go on as if nothing had been, with what
/// they had and from where they were. kcat ends by itself when it has no connection, Java's consumer waits.
fn killed(mut stage: Stage<'_>, broker: &mut Broker) -> Result<(), String> {
    let mut members = vec![stage.member(Java, Classic, None)?, stage.member(Java, Classic, None)?];
    stage.wait_for(Classic, 2)?;
    members.push(stage.member(Java, Consumer, None)?);
    let before = stage.wait_for(Consumer, 3)?;
    stage.read(&members, 1..50)?;
    broker.kill()?;
    broker.start_again()?;
    stage.read(&members, 50..RECORDS)?;
    let after = stage.wait_for(Consumer, 3)?;
    if before != after {
        return Err(format!("{before:?} before, {after:?} after"));
    }
    for member in members {
        stage.stop(member)?;
    }
    groups::same(&stage.printed, 0..RECORDS)
}

/// A static member comes back with the other protocol, to what it had; the group goes with it, there and back.
fn static_goes_over(mut stage: Stage<'_>, client: Client) -> Result<(), String> {
    let stays = stage.member(client, Classic, Some("stays"))?;
    let mut goes = stage.member(client, Classic, Some("goes"))?;
    let before = stage.wait_for(Classic, 2)?;
    stage.read(&[&stays, &goes], 1..50)?;
    for (protocol, records) in [(Consumer, 50..100), (Classic, 100..RECORDS)] {
        stage.stop(goes)?;
        goes = stage.member(client, protocol, Some("goes"))?;
        stage.produce(records.clone())?;
        stage.wait_for_records(&[&stays, &goes], records.end)?;
        let after = stage.wait_for(protocol, 2)?;
        if before != after {
            return Err(format!("{before:?} before, {after:?} with the {} protocol", protocol.name()));
        }
    }
    stage.stop(stays)?;
    stage.stop(goes)?;
    groups::same(&stage.printed, 0..RECORDS)
}

impl<'a> Stage<'a> {
    /// Its topic has one record.
    fn new(at: &'a str, name: &str, dir: &'a Path) -> Result<Stage<'a>, String> {
        let stage = Stage { at, name: name.to_string(), dir, printed: String::new() };
        stage.produce(0..1)?;
        Ok(stage)
    }

    fn produce(&self, numbers: std::ops::Range<u32>) -> Result<(), String> {
        groups::produce(self.at, &self.name, numbers)
    }

    fn member(&self, client: Client, protocol: Protocol, instance: Option<&str>) -> Result<Member, String> {
        self.member_with(client, protocol, instance, &[])
    }

    fn member_with(
        &self,
        client: Client,
        protocol: Protocol,
        instance: Option<&str>,
        more: &[String],
    ) -> Result<Member, String> {
        let mut properties = vec![format!("group.protocol={}", protocol.name())];
        properties.extend_from_slice(more);
        properties.push("auto.offset.reset=earliest".into());
        properties.extend(instance.map(|id| format!("group.instance.id={id}")));
        let mut command = match client {
            Librdkafka => {
                let mut command = timed(MEMBER_SECONDS, "kcat");
                command.env("LD_LIBRARY_PATH", librdkafka::library()?);
                command.args(["-q", "-u", "-b", self.at, "-G", &self.name]);
                command.args(properties.iter().flat_map(|property| ["-X", property]));
                command.arg(&self.name);
                command
            }
            Java => {
                let mut command = timed(MEMBER_SECONDS, kafka::SCRIPT);
                command.env("KAFKA_RUN_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
                command.args(["run", "org.apache.kafka.tools.consumer.ConsoleConsumer"]);
                command.args(["--bootstrap-server", self.at, "--topic", &self.name, "--group", &self.name]);
                command.args(properties.iter().flat_map(|property| ["--command-property", property]));
                command
            }
        };
        let number = std::fs::read_dir(self.dir).map_err(|e| e.to_string())?.count();
        let out = self.dir.join(format!("{}-{number}", self.name));
        let file = std::fs::File::create(&out).map_err(|e| e.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn();
        Ok(Member { child: child.map_err(|e| format!("{command:?}: {e}"))?, out })
    }

    /// Ends a member in order, and keeps what it printed.
    fn stop(&mut self, mut member: Member) -> Result<(), String> {
        let id = member.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().map_err(|e| e.to_string())?;
        member.child.wait().map_err(|e| e.to_string())?;
        self.printed += &member.printed();
        Ok(())
    }

    /// Until the group has so many members with partitions, and this protocol; who has what then, by instance.
    fn wait_for(&self, protocol: Protocol, members: usize) -> Result<BTreeSet<(String, String)>, String> {
        let begun = Instant::now();
        loop {
            let mut describe = timed(TOOL_SECONDS, &binary().to_string_lossy());
            // A group that nobody has joined yet is an error here.
            let said =
                talk(describe.args(["group", "describe", "-b", self.at, &self.name]), "").unwrap_or_default();
            let head = said.lines().next().unwrap_or_default();
            let rows = said.lines().skip(2).filter_map(|row| {
                let words: Vec<&str> = row.split_whitespace().collect();
                // Member, instance, client, host, partitions.
                Some((words.get(1)?.to_string(), words.get(4)?.to_string())).filter(|(_, has)| has != "-")
            });
            let rows: Vec<(String, String)> = rows.collect();
            let is_so =
                head.contains(": Stable, ") && head.contains(&format!(" {} protocol", protocol.name()));
            if is_so && rows.len() == members {
                return Ok(rows.into_iter().collect());
            }
            if begun.elapsed() > CHANGE_MAX {
                let (protocol, seconds) = (protocol.name(), CHANGE_MAX.as_secs());
                return Err(format!(
                    "not {members} members of the {protocol} protocol after {seconds} s: {said}"
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// These members read these records, the next ones.
    fn read<M: Borrow<Member>>(&self, members: &[M], numbers: std::ops::Range<u32>) -> Result<(), String> {
        self.produce(numbers.clone())?;
        self.wait_for_records(members, numbers.end)
    }

    /// Until these members, and those before them, have printed so many.
    fn wait_for_records<M: Borrow<Member>>(&self, members: &[M], count: u32) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let printed: String = members.iter().map(|member| member.borrow().printed()).collect();

            let lines = self.printed.lines().count() + printed.lines().count();
            if lines >= count as usize {
                return Ok(());
            }
            if begun.elapsed() > CHANGE_MAX {
                return Err(format!("{lines} of {count} records after {} s", CHANGE_MAX.as_secs()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Member {
    fn printed(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A check that failed leaves its members; `timeout` passes this on to what it runs.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

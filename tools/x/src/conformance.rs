//! `cargo x conformance`: test suites that nobody here wrote, run the same way against ringmill and against Kafka, and
//! what Kafka's own tools print of both.
//!
//! What a run found is kept in `bench/suites/{ringmill,kafka-4.3.1}`, and goes from there into COMPATIBILITY.md. A test
//! that passes on Kafka and not here fails the run, unless `differences.txt` names it with its reason. A reason whose
//! test passes fails it as well: the list says what is, not what was.

use crate::clients::broker::{self, Broker};
use crate::clients::tool::{need, talk, timed};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "bench/suites";
const KAFKA: &str = "kafka-4.3.1";
const SETUP_SECONDS: u32 = 3_600;
const RUN_SECONDS: u32 = 7_200;
const KAFKA_START_MAX: Duration = Duration::from_secs(60);

struct Suite {
    name: &'static str,
    script: &'static str,
    /// `KEY=VALUE` of both brokers.
    settings: &'static [&'static str],
    /// Of the script.
    environment: &'static [(&'static str, &'static str)],
    needs: &'static [(&'static str, &'static str)],
    prints: Prints,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prints {
    /// `PASS|FAIL|SKIP TEST SECONDS` a line.
    Results,
    /// `$ command`, then what it printed. A command passes here when it prints what it prints of Kafka.
    Transcript,
}

const C: &[(&str, &str)] = &[("c++", "g++"), ("make", "make")];
const JAVA: &[(&str, &str)] = &[("java", "default-jre-headless"), ("mvn", "maven")];

const SUITES: [Suite; 6] = [
    Suite {
        name: "rskafka",
        script: "rskafka.sh",
        settings: &["auto.create.topics.enable=false"],
        environment: &[],
        needs: &[("javac", "default-jdk-headless"), ("c++", "g++"), ("make", "make")],
        prints: Prints::Results,
    },
    Suite {
        name: "kgo",
        script: "kgo.sh",
        settings: &["num.partitions=4"],
        environment: &[],
        needs: &[("go", "golang-go")],
        prints: Prints::Results,
    },
    Suite {
        name: "rdkafka-rs",
        script: "rdkafka-rs.sh",
        settings: &["node.id=0", "num.partitions=3", "group.min.session.timeout.ms=1000"],
        environment: &[],
        needs: C,
        prints: Prints::Results,
    },
    Suite {
        name: "librdkafka",
        script: "librdkafka.sh",
        settings: &["num.partitions=4"],
        environment: &[],
        needs: C,
        prints: Prints::Results,
    },
    Suite {
        name: "librdkafka-noautocreate",
        script: "librdkafka.sh",
        settings: &["num.partitions=4", "auto.create.topics.enable=false"],
        environment: &[("SCENARIO", "noautocreate")],
        needs: C,
        prints: Prints::Results,
    },
    Suite {
        name: "tools",
        script: "tools.sh",
        settings: &["num.partitions=4", "group.initial.rebalance.delay.ms=0"],
        environment: &[],
        needs: JAVA,
        prints: Prints::Transcript,
    },
];

/// One line per suite, for the usage text.
pub fn list() -> String {
    SUITES.iter().map(|suite| format!("              {}\n", suite.name)).collect()
}

/// Runs the named suites, all when none is named. `KAFKA=1` runs them against Kafka.
pub fn run(names: &[&str]) -> Result<(), String> {
    if let Some(unknown) = names.iter().find(|name| !SUITES.iter().any(|suite| suite.name == **name)) {
        return Err(format!("no suite is called {unknown}; there are\n{}", list()));
    }
    let kafka = std::env::var_os("KAFKA").is_some();
    if !kafka {
        broker::build()?;
    }
    let mut failed = Vec::new();
    for suite in SUITES.iter().filter(|suite| names.is_empty() || names.contains(&suite.name)) {
        need(suite.needs)?;
        let results = if kafka { against_kafka(suite)? } else { against_ringmill(suite)? };
        let (kept, compared) =
            if kafka { (KAFKA, Vec::new()) } else { ("ringmill", compare(suite, &results)?) };
        keep(suite, kept, &results)?;
        println!("{}: {}", suite.name, totals(&results));
        failed.extend(compared);
    }
    crate::run::command("UPDATE=1 cargo test -q -p ringmill-wire --test compatibility")?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// What was printed, and by test what became of it.
struct Results {
    printed: String,
    tests: BTreeMap<String, String>,
}

fn against_ringmill(suite: &Suite) -> Result<Results, String> {
    set_up(suite)?;
    let mut broker = Broker::start(suite.settings)?;
    let printed = run_script(suite, &broker.address)?;
    broker.stop()?;
    read(suite, printed)
}

fn against_kafka(suite: &Suite) -> Result<Results, String> {
    set_up(suite)?;
    let kafka = Kafka::start(suite.settings)?;
    let printed = run_script(suite, &kafka.address)?;
    read(suite, printed)
}

fn script(suite: &Suite, seconds: u32) -> Command {
    let mut command = timed(seconds, &format!("{FOLDER}/{}", suite.script));
    command.envs(suite.environment.iter().copied());
    command
}

fn set_up(suite: &Suite) -> Result<(), String> {
    talk(script(suite, SETUP_SECONDS).arg("setup"), "").map(drop)
}

fn run_script(suite: &Suite, address: &str) -> Result<String, String> {
    talk(script(suite, RUN_SECONDS).arg(address), "")
}

fn read(suite: &Suite, printed: String) -> Result<Results, String> {
    let tests = match suite.prints {
        Prints::Results => results_of(&printed),
        Prints::Transcript => {
            let kafka = std::fs::read_to_string(file(suite, KAFKA)).unwrap_or_else(|_| printed.clone());
            compare_transcripts(&kafka, &printed)
        }
    };
    if tests.is_empty() {
        return Err(format!("{} printed no results:\n{printed}", suite.name));
    }
    Ok(Results { printed, tests })
}

fn results_of(printed: &str) -> BTreeMap<String, String> {
    let lines = printed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (state, test) = (words.next()?, words.next()?);
        matches!(state, "PASS" | "FAIL" | "SKIP").then(|| (test.to_string(), state.to_string()))
    });
    lines.collect()
}

/// Commands in order, each with what it printed; of a repeated command the place counts.
fn blocks(transcript: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for line in transcript.lines() {
        match (line.strip_prefix("$ "), out.last_mut()) {
            (Some(command), _) => {
                let command = command.trim_end();
                let times = out.iter().filter(|(have, _)| have.split(" #").next() == Some(command)).count();
                let number = if times == 0 { String::new() } else { format!(" #{}", times + 1) };
                out.push((format!("{command}{number}"), String::new()));
            }
            (None, Some((_, printed))) => *printed += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    out
}

fn compare_transcripts(kafka: &str, ours: &str) -> BTreeMap<String, String> {
    let kafka: BTreeMap<String, String> = blocks(kafka).into_iter().collect();
    let verdict = |(command, printed): (String, String)| {
        let state = if kafka.get(&command) == Some(&printed) { "PASS" } else { "FAIL" };
        (command, state.to_string())
    };
    blocks(ours).into_iter().map(verdict).collect()
}

fn file(suite: &Suite, kept: &str) -> PathBuf {
    let ending = if suite.prints == Prints::Transcript { "transcript" } else { "txt" };
    Path::new(FOLDER).join(kept).join(format!("{}.{ending}", suite.name))
}

fn keep(suite: &Suite, kept: &str, results: &Results) -> Result<(), String> {
    let path = file(suite, kept);
    std::fs::write(&path, &results.printed).map_err(|e| format!("{}: {e}", path.display()))?;
    if suite.prints == Prints::Transcript {
        // Beside the transcript, what became of each command, as the other suites have it.
        let path = path.with_extension("txt");
        let lines: String = results.tests.iter().map(|(test, state)| format!("{state} {test}\n")).collect();
        std::fs::write(&path, lines).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn totals(results: &Results) -> String {
    let count = |wanted: &str| results.tests.values().filter(|state| *state == wanted).count();
    format!("{} passed, {} failed, {} skipped", count("PASS"), count("FAIL"), count("SKIP"))
}

/// Tests that pass on Kafka and not here without a reason, and reasons without a test.
fn compare(suite: &Suite, results: &Results) -> Result<Vec<String>, String> {
    let path = format!("{FOLDER}/differences.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let reasons = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (of, test) = (parts.next()?, parts.next()?);
        (of == suite.name).then(|| test.to_string())
    });
    let reasons: Vec<String> = reasons.collect();
    let explained = |test: &str| reasons.iter().any(|reason| covers(reason, test));
    let kafka = match suite.prints {
        Prints::Results => results_of(
            &std::fs::read_to_string(file(suite, KAFKA))
                .map_err(|e| format!("{}: {e}", file(suite, KAFKA).display()))?,
        ),
        Prints::Transcript => results.tests.keys().map(|test| (test.clone(), "PASS".to_string())).collect(),
    };
    let passes = |test: &str| results.tests.get(test).is_some_and(|state| state == "PASS");
    let lost = kafka.iter().filter(|(test, state)| *state == "PASS" && !passes(test) && !explained(test));
    let mut out: Vec<String> =
        lost.map(|(test, _)| format!("{} {test}: passes on Kafka, not here", suite.name)).collect();
    for reason in reasons {
        if !kafka.keys().any(|test| covers(&reason, test) && !passes(test)) {
            out.push(format!("{} {reason}: passes, and {path} has a reason for it", suite.name));
        }
    }
    Ok(out)
}

/// A name, or the start of some with `*` behind it.
pub fn covers(reason: &str, test: &str) -> bool {
    match reason.strip_suffix('*') {
        Some(start) => test.starts_with(start),
        None => reason == test,
    }
}

/// Kafka in a folder of its own; ends, with its process group, when it is dropped.
struct Kafka {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Kafka {
    fn start(settings: &[&str]) -> Result<Kafka, String> {
        let port = free_ports()?;
        let dir = std::env::temp_dir().join(format!("kafka-conformance-{}", std::process::id()));
        let mut command = Command::new("bench/peers/kafka.sh");
        command.arg("serve").arg(port.to_string()).arg(&dir).args(settings);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        let kafka = Kafka { child, address: format!("127.0.0.1:{port}"), dir };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&kafka.address).is_err() {
            if begun.elapsed() > KAFKA_START_MAX {
                return Err("Kafka did not start; `bench/peers/kafka.sh serve` says why".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // It listens a moment before it can create topics: its own tools ask until it can.
        let list = ["--bootstrap-server", &kafka.address, "--list"];
        let mut tool = timed(60, "bench/peers/kafka.sh");
        talk(tool.args(["run", "org.apache.kafka.tools.TopicCommand"]).args(list), "")?;
        Ok(kafka)
    }
}

/// A port that is free, and the next one too: Kafka's controller listens there.
fn free_ports() -> Result<u16, String> {
    for _ in 0..100 {
        let first = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let port = first.local_addr().map_err(|e| e.to_string())?.port();
        if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err("no two free ports beside each other".into())
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        // It may be gone already; nothing is left behind either way.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_transcripts_are_read() {
        let results = results_of("PASS a::b 1.2\nFAIL c 0.1\nnoise\n2 passed, 1 failed\nSKIP d 0\n");
        let states: Vec<&str> = results.values().map(String::as_str).collect();
        assert_eq!((results.len(), states), (3, vec!["PASS", "FAIL", "SKIP"]));

        let kafka = "$ list\na\nexit 0\n$ list\na\nb\n";
        let same = compare_transcripts(kafka, kafka);
        assert!(same.len() == 2 && same.values().all(|state| state == "PASS"), "{same:?}");
        let other = compare_transcripts(kafka, "$ list\na\nexit 0\n$ list\na\nc\n$ more\n");
        assert_eq!(other.get("list").map(String::as_str), Some("PASS"));
        assert_eq!(other.get("list #2").map(String::as_str), Some("FAIL"));
        assert_eq!(other.get("more").map(String::as_str), Some("FAIL"));
    }

    #[test]
    fn a_reason_covers_a_test_or_a_family() {
        assert!(covers("TestTxn*", "TestTxnEtl/x") && covers("0055", "0055"));
        assert!(!covers("0055", "00551") && !covers("TestTxn*", "TestGroup"));
    }
}

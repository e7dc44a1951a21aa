//! `ringmill perf` against a real broker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ringmill_client::admin::LATEST;
use ringmill_client::client::{Absent, Client, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Broker {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Broker {
    fn start() -> Broker {
        Broker::with(&["--cores", "1", "--memory", "256MiB"])
    }

    fn with(args: &[&str]) -> Broker {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringmill"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(args)
            .arg("--data")
            .arg(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|l| l.trim().strip_prefix("listens").map(|a| a.trim().to_string()));
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, address: address.unwrap(), _data: data }
    }

    fn produce(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
        command.args(["perf", "produce", "--topic", "t", "--record-size", "100"]).args(args);
        command.args(["--bootstrap-server", &self.address]);
        command
    }

    fn consume(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
        command.args(["perf", "consume", "--topic", "t", "--bootstrap-server", &self.address]).args(args);
        command.output().unwrap()
    }

    /// Until that many records are in the topic: the load is under way.
    fn wait_for_records(&self, count: i64) {
        let begun = Instant::now();
        let mut client = Client::connect(&self.address, Options::default()).unwrap();
        loop {
            let topic = client.topic("t", Absent::Leave);
            let ends = topic.and_then(|topic| client.offsets(&[topic], LATEST)).unwrap_or_default();
            if ends.values().filter_map(|end| end.ok()).sum::<i64>() >= count {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the load never came");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

#[test]
fn the_result_line_is_kafkas() {
    let broker = Broker::start();
    let args = ["--num-records", "5000", "--throughput", "-1", "--producer-props", "acks=1", "linger.ms=2"];
    let output = broker.produce(&args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let line = said.lines().next().unwrap();
    let shape: String = line.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
    assert_eq!(
        shape,
        " records sent,  records/sec ( MB/sec),  ms avg latency,  ms max latency,  ms th,  ms th,  ms th,  ms th"
    );
    assert!(line.starts_with("5000 records sent, "), "{line}");
    assert!(said.contains("from intended time"), "{said}");
}

#[test]
fn a_broker_stopped_for_half_a_second_shows_in_the_intended_latencies() {
    let broker = Broker::start();
    let args =
        ["--num-records", "3000", "--throughput", "1000", "--command-property", "linger.ms=0", "--json"];
    let mut command = broker.produce(&args);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    broker.wait_for_records(1000);
    broker.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(500));
    broker.signal(Signal::CONT);
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["records"], 3000);
    assert_eq!(report["errors"], 0);
    // About 500 of 3,000 records were meant for that time; the slowest percent waited nearly all of it.
    assert!(report["intended_ms"]["p99"].as_f64().unwrap() > 400.0, "{report}");
    assert!(report["intended_ms"]["p90"].as_f64().unwrap() > 100.0, "{report}");
}

#[test]
fn what_cannot_be_done_is_a_sentence() {
    let broker = Broker::start();
    for (args, code, words) in [
        (&["--num-records", "10", "--transactional-id", "x"][..], 2, "transactions"),
        (&["--num-records", "10", "--command-property", "compression.lz4.level=9"], 2, "one level"),
        (&["--num-records", "10", "--command-property", "interceptor.classes=x"], 2, "does not honour"),
        (&["--num-records", "10", "--command-property", "acks=1", "enable.idempotence=true"], 2, "acks=all"),
        (&["--num-records", "10", "--keys", "normal:5"], 2, "zipf"),
        (&["--num-records", "10", "--html", "/no/such/folder/x.html"], 2, "no such folder"),
        (&["--num-records", "10", "--hdr", "/proc/self/stat"], 2, "--force"),
        (&["--num-records", "10", "--warmup-records", "10"], 2, "less than"),
        (&["--num-records", "10", "--throughput", "0"], 2, "schedule"),
    ] {
        let output = broker.produce(args).args(["--timeout", "1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn what_the_broker_refuses_is_told_with_its_reason_and_without_figures_of_nothing() {
    let broker = Broker::start();
    let large = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args(["perf", "produce", "--topic", "t", "--num-records", "2", "--record-size", "2000000"])
        .args(["--bootstrap-server", &broker.address])
        .output()
        .unwrap();
    assert_eq!(large.status.code(), Some(1), "{}", text(&large.stderr));
    assert!(text(&large.stderr).contains("larger than the topic allows (MESSAGE_TOO_LARGE)"));
    let told = text(&large.stdout);
    assert!(
        told.contains("0 records sent") && !told.contains("p50") && !told.contains("per record"),
        "{told}"
    );
    let many = broker.consume(&["--num-records", "1", "--consumers", "3"]);
    assert_eq!(many.status.code(), Some(2));
    assert!(text(&many.stderr).contains("topic t has 1 partition,"), "{}", text(&many.stderr));
}

#[test]
fn a_broker_that_dies_leaves_the_results_so_far() {
    let broker = Broker::start();
    let args = ["--num-records", "100000", "--throughput", "2000", "--json"];
    let mut command = broker.produce(&args);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    broker.wait_for_records(1000);
    broker.signal(Signal::KILL);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["complete"], false);
    assert!(report["records"].as_u64().unwrap() > 100, "{report}");
    assert!(text(&output.stderr).contains("connection"), "{}", text(&output.stderr));
}

#[test]
fn what_was_produced_is_consumed_whoever_reads() {
    let broker = Broker::start();
    let made = broker.produce(&["--num-records", "20000", "--command-property", "acks=1"]).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let read = broker.consume(&["--messages", "20000"]);
    assert!(read.status.success(), "{}", text(&read.stderr));
    let said = text(&read.stdout);
    let (header, line) = said.split_once('\n').unwrap();
    assert_eq!(
        header,
        "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
         fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
    );
    let cells: Vec<&str> = line.trim().split(", ").collect();
    assert_eq!((cells.len(), cells[2], cells[4]), (10, "1.9073", "20000"), "{line}");

    // Several readers, each of which gets everything; small answers, so that many are needed.
    let args = ["--num-records", "60000", "--consumers", "3", "--fan-out", "--fetch-size", "5000", "--json"];
    let read = broker.consume(&args);
    assert!(read.status.success(), "{}", text(&read.stderr));
    let report = json(&read);
    assert_eq!((&report["records"], &report["bytes"]), (&60_000.into(), &6_000_000.into()));
    assert!(report["fetches"].as_u64().unwrap() > 100, "{report}");
}

#[test]
fn reading_what_is_not_there_is_a_sentence_and_the_results_so_far() {
    let broker = Broker::start();
    let made = broker.produce(&["--num-records", "100"]).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let read = broker.consume(&["--num-records", "200", "--timeout", "300", "--json"]);
    assert_eq!(read.status.code(), Some(1), "{}", text(&read.stderr));
    assert_eq!((&json(&read)["records"], &json(&read)["complete"]), (&100.into(), &false.into()));
    assert!(text(&read.stderr).contains("no record came for 0.3 s"), "{}", text(&read.stderr));
    for (args, code, words) in [
        (&["--num-records", "1", "--consumers", "2"][..], 2, "--fan-out"),
        (&["--num-records", "1", "--include", "t.*"], 2, "by its name"),
        (
            &["--num-records", "1", "--command-property", "isolation.level=read_committed"],
            2,
            "does not honour",
        ),
        (&["--num-records", "1", "--date-format", "G"], 2, "date format"),
        (&["--num-records", "1", "--topic", "absent"], 2, "--topic"),
    ] {
        let read = broker.consume(args);
        assert_eq!(read.status.code(), Some(code), "{args:?}: {}", text(&read.stderr));
        assert!(text(&read.stderr).contains(words), "{args:?}: {}", text(&read.stderr));
    }
}

#[test]
fn the_broker_is_found_as_kafkas_tools_find_it() {
    let broker = Broker::start();
    let (here, list) = (broker.address.as_str(), format!("{},127.0.0.1:1", broker.address));
    let setting = |address: &str| format!("bootstrap.servers={address}");
    let (good, bad) = (setting(&list), setting("127.0.0.1:1"));
    for (args, code) in [
        (&["--bootstrap-server", here, "--command-property", &bad][..], 0),
        (&["--bootstrap-server", &list], 0),
        (&["--broker-list", here], 0),
        (&["--command-property", &good], 0),
        (&["--command-property", &bad], 3),
        (&["--command-property", "bootstrap.servers=:1"], 2),
    ] {
        for (what, more) in [("produce", &["--record-size", "9"][..]), ("consume", &[])] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
            command.args(["perf", what, "--topic", "t", "--num-records", "1"]).args(more).args(args);
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{what} {args:?}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn what_kafkas_tool_would_ignore_is_ignored_and_a_pattern_is_refused_without_a_topic_too() {
    let broker = Broker::start();
    let args = ["--num-records", "10", "--payload-delimiter", ";", "--throughput", "-1.0"];
    let made = broker.produce(&args).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
    let read = command.args(["perf", "consume", "--include", "t.*", "--num-records", "1"]).output().unwrap();
    assert_eq!(read.status.code(), Some(2));
    assert!(text(&read.stderr).contains("by its name"), "{}", text(&read.stderr));
}

#[test]
fn pipelining_producers_that_fill_the_room_of_a_broker_all_go_on() {
    // Two cores, so that connections move between them with half a frame; little memory, so that there is no room at
    // times and requests stall behind each other.
    let broker = Broker::with(&["--cores", "2", "--memory", "256MiB"]);
    let load =
        ["--num-records", "200000", "--record-size", "1000", "--partitions", "4", "--keys", "zipf:1000:1.1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
    command.args([
        "perf",
        "mixed",
        "--topic",
        "t",
        "--producers",
        "20",
        "--consumers",
        "4",
        "--timeout",
        "15",
    ]);
    command.args(load).args(["--json", "--bootstrap-server", &broker.address]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["produce"]["records"], &report["produce"]["errors"]), (&200_000.into(), &0.into()));
}

#[test]
fn a_group_shares_the_partitions_and_goes_on_where_it_left_off() {
    let broker = Broker::start();
    let load = ["--num-records", "30000", "--partitions", "4"];
    let made = broker.produce(&load).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let read = broker.consume(&["--num-records", "30000", "--group", "g", "--consumers", "3", "--json"]);
    assert!(read.status.success(), "{}", text(&read.stderr));
    let report = json(&read);
    assert_eq!((&report["records"], &report["bytes"]), (&30_000.into(), &3_000_000.into()));
    assert!(report["rebalance_seconds"].as_f64().unwrap() > 0.0, "{report}");
    // All of it is committed: a second time there is nothing, and what is new is read once.
    let read = broker.consume(&["--num-records", "1", "--group", "g", "--timeout", "500", "--json"]);
    assert_eq!(read.status.code(), Some(1), "{}", text(&read.stderr));
    assert_eq!(json(&read)["records"], 0);
    let made = broker.produce(&["--num-records", "100"]).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let read = broker.consume(&["--num-records", "100", "--group", "g", "--consumers", "6"]);
    assert!(read.status.success(), "{}", text(&read.stderr));
    assert!(text(&read.stdout).contains(", 100, "), "{}", text(&read.stdout));
}

#[test]
fn end_to_end_every_record_is_delivered_and_files_are_not_overwritten() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let (hdr, html) = (folder.path().join("a.hlog"), folder.path().join("a.html"));
    let run = |force: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
        command.args(["perf", "e2e", "--topic", "t", "--partitions", "3", "--num-records", "4000", "--json"]);
        command.args(["--record-size", "24:400", "--throughput", "poisson:4000", "--warmup-records", "500"]);
        command.args(["--consumers", "2", "--command-property", "compression.type=lz4", "linger.ms=1"]);
        command.args(["--bootstrap-server", &broker.address]).arg("--hdr").arg(&hdr).arg("--html").arg(&html);
        if force { command.arg("--force").output().unwrap() } else { command.output().unwrap() }
    };
    let output = run(false);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["delivered"], &report["not_delivered"]), (&3500.into(), &0.into()));
    assert_eq!(report["produce"]["warmup_records"], 500);
    let delivery = report["delivery_ms"]["p50"].as_f64().unwrap();
    let acked = report["produce"]["actual_ms"]["p50"].as_f64().unwrap();
    assert!(delivery > 0.0 && acked > 0.0, "{report}");
    let log = std::fs::read_to_string(&hdr).unwrap();
    assert!(log.contains("Tag=delivery,") && log.contains("Tag=intended,"), "{log}");
    assert!(std::fs::read_to_string(&html).unwrap().ends_with("</html>\n"));

    let again = run(false);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    assert!(run(true).status.success());
}

#[test]
fn an_embedded_broker_needs_nothing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args([
            "perf",
            "produce",
            "--embedded",
            "--topic",
            "t",
            "--num-records",
            "2000",
            "--record-size",
            "100",
        ])
        .arg("--json")
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["records"], 2000);
    assert!(report["broker_cpu_seconds"].as_f64().is_some(), "it runs here, so its CPU is seen: {report}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_suite_reports_every_workload() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args([
            "perf",
            "suite",
            "--embedded",
            "--scale",
            "0.004",
            "--only",
            "seed-read,lat1,closed1",
            "--json",
        ])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = json(&output);
    let told: Vec<(&str, u64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["workload"].as_str().unwrap(), row["records"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("seed", 2000), ("seed-read", 2000), ("lat1", 80), ("closed1", 120)]);
    assert!(rows.as_array().unwrap().iter().all(|row| row["complete"] == true), "{rows}");
}

//! The commands as a person or a script meets them: the built binary against a broker of its own, by exit code and output.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const DONE: i32 = 0;
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const DAMAGED: i32 = 8;
const UNREACHABLE: i32 = 3;

/// A broker on ports of its own; it ends with the value.
struct Broker {
    child: Child,
    address: String,
    admin: String,
    data: PathBuf,
}

impl Broker {
    fn start(data: &Path) -> Broker {
        Broker::start_at("127.0.0.1:0", data)
    }

    fn start_at(listen: &str, data: &Path) -> Broker {
        Broker::start_with(listen, data, &[], Stdio::null())
    }

    fn start_with(listen: &str, data: &Path, more: &[&str], log: Stdio) -> Broker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringmill"))
            .args(["serve", "--listen", listen, "--admin", "127.0.0.1:0", "--cores", "2"])
            .args(["--memory", "256MiB", "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value_of = |key: &str| {
            let line = lines.find_map(|line| line.unwrap().trim().strip_prefix(key).map(str::to_string));
            line.unwrap_or_else(|| panic!("the banner has no line {key}")).trim().to_string()
        };
        let address = value_of("listens");
        let admin = value_of("admin").split_whitespace().next().unwrap().to_string();
        // Keep reading, so that the broker never meets a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, address, admin, data: data.to_path_buf() }
    }

    /// Runs a command that talks to this broker.
    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        run_with(&[args, &["--bootstrap-server", &self.address]].concat(), stdin)
    }

    fn stop(&mut self) {
        signal(&self.child, Signal::TERM);
        assert!(self.child.wait().unwrap().success(), "SIGTERM is an orderly end");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Stopped already, or the test failed: either way nothing is left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// How a command ended.
#[derive(Debug)]
struct Ran {
    args: String,
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "`ringmill {}`: {self:#?}", self.args);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

fn run(args: &[&str]) -> Ran {
    run_with(args, "")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run_with(args: &[&str], stdin: &str) -> Ran {
    let mut child = command(args).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = stdin.to_string();
    // A command that fails early does not read all of it.
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        args: args.join(" "),
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_topic_lives_and_dies() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let topic = |args: &[&str]| broker.run(&[&["topic"], args].concat());

    assert_eq!(topic(&["list", "--json"]).ends(DONE).json(), serde_json::json!([]));
    topic(&["create", "orders", "--partitions", "3", "--config", "retention.ms=86400000"]).ends(DONE);
    let again = topic(&["create", "orders"]).ends(REFUSED);
    assert!(again.err.contains("TOPIC_ALREADY_EXISTS"), "{again:#?}");
    let kept = topic(&["create", "orders", "--if-not-exists", "--json"]).ends(DONE).json();
    assert_eq!(kept["created"], false);
    topic(&["create", "tried", "--dry-run"]).ends(DONE);
    topic(&["create", "odd", "--config", "no.such.config=1"]).ends(REFUSED);
    topic(&["create", "no/slash"]).ends(REFUSED);

    let listed = topic(&["list", "--json"]).ends(DONE).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["name"], &listed[0]["partitions"]), (&"orders".into(), &3.into()));
    let table = topic(&["list"]).ends(DONE).out;
    assert!(table.lines().any(|line| line.split_whitespace().eq(["orders", "3", "1"])), "{table}");

    let sent = broker.run_with(&["produce", "orders", "--partition", "1", "--json"], "one\ntwo\n").ends(DONE);
    let (told, acks) = (sent.json(), "all".into());
    assert_eq!((&told["topic"], &told["acks"]), (&"orders".into(), &acks));
    let [two, bytes] = [2, 6].map(Value::from);
    assert_eq!((&told["lines"], &told["records"], &told["bytes"]), (&two, &two, &bytes));
    assert_eq!(sent.err, "", "no summary for people besides");
    let described = topic(&["describe", "orders", "--json", "--admin", &broker.admin]).ends(DONE).json();
    assert_eq!(described[0]["ack"], "durable");
    assert_eq!(described[0]["id"], listed[0]["id"]);
    assert_eq!(described[0]["configs"][0]["name"], "retention.ms");
    assert_eq!(described[0]["configs"][0]["value"], "86400000");
    let second = &described[0]["partitions"][1];
    assert_eq!((&second["log_start"], &second["high_watermark"]), (&0.into(), &2.into()), "{second}");
    assert_eq!(second["durable"], 2, "acked means durable");
    assert!(second["core"].as_u64().unwrap() < 2 && second["size_bytes"].as_u64().unwrap() > 0, "{second}");
    let nope = topic(&["describe", "nope"]).ends(REFUSED);
    assert!(nope.err.contains("no such topic") && !nope.err.contains("admin"), "{nope:#?}");

    let change = ["alter", "orders", "-p", "4", "-c", "retention.bytes=9", "-d", "retention.ms", "--json"];
    let altered = topic(&change).ends(DONE).json();
    let set = serde_json::json!({"retention.bytes": "9"});
    let all = serde_json::json!({"name": "orders", "set": set, "deleted": ["retention.ms"], "partitions": 4});
    assert_eq!(altered, all);
    // The configs were changed before the partitions were refused.
    let half = topic(&["alter", "orders", "-p", "2", "-c", "retention.bytes=8", "--json"]).ends(REFUSED);
    assert_eq!(
        (&half.json()["set"]["retention.bytes"], &half.json()["partitions"]),
        (&"8".into(), &Value::Null)
    );
    assert!(half.err.contains("INVALID_PARTITIONS"), "{half:#?}");
    topic(&["alter", "orders", "--partitions", "5", "--delete-config", "retention.bytes"]).ends(DONE);
    let none = topic(&["alter", "orders", "--partitions", "2", "--json"]).ends(REFUSED);
    assert_eq!(none.out, "", "nothing was done");
    topic(&["alter", "orders", "--partitions", "2"]).ends(REFUSED);
    topic(&["alter", "orders"]).ends(USAGE);
    let described = topic(&["describe", "orders", "--json"]).ends(DONE).json();
    assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 5);
    assert_eq!(described[0]["configs"], serde_json::json!([]));

    topic(&["delete", "orders"]).ends(USAGE);
    let gone = topic(&["delete", "orders", "nope", "--yes", "--json"]).ends(REFUSED).json();
    assert_eq!(gone[0], serde_json::json!({"name": "orders", "deleted": true, "error": null}));
    assert_eq!((&gone[1]["name"], &gone[1]["deleted"]), (&"nope".into(), &false.into()));
    assert!(gone[1]["error"].as_str().unwrap().contains("UNKNOWN_TOPIC_OR_PARTITION"), "{gone}");
    topic(&["delete", "nope", "--yes"]).ends(REFUSED);
    assert_eq!(topic(&["list", "--json"]).ends(DONE).json(), serde_json::json!([]));
}

#[test]
fn records_come_back_as_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    broker.run(&["topic", "create", "t", "--partitions", "1"]).ends(DONE);
    let mut expected = String::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            let args = ["produce", "t", "-K", ":", "-z", codec, "-a", acks, "-H", "from=test"];
            let input = format!("{codec}:{acks}\nplain {codec}\n");
            broker.run_with(&args, &input).ends(DONE);
            for line in [format!("[{codec}] {acks}"), format!("[] plain {codec}")] {
                let offset = expected.lines().count();
                expected.push_str(&format!("t 0 {offset} {line} from=test\n"));
            }
            // Nobody acks acks 0, so what it sent is awaited here, or the next command could overtake it.
            let count = expected.lines().count().to_string();
            broker.run(&["consume", "t", "--count", &count, "--format", "", "--timeout", "20"]).ends(DONE);
        }
    }
    let format = ["--format", "%t %p %o [%k] %s %h\\n"];
    let all = broker.run(&[&["consume", "t", "--exit-at-end"], &format[..]].concat()).ends(DONE);
    assert_eq!(all.out, expected);
    let last = broker.run(&[&["consume", "t", "--from", "-2", "-e"], &format[..]].concat()).ends(DONE);
    assert_eq!(last.out, expected.lines().skip(28).map(|line| format!("{line}\n")).collect::<String>());
    let some = broker.run(&["consume", "t", "--from", "3", "--count", "1", "--json"]).ends(DONE).json();
    assert_eq!(
        (&some["offset"], &some["value"], &some["key"]),
        (&3.into(), &"plain none".into(), &Value::Null)
    );
    assert_eq!(some["headers"][0]["value"], "test");
    let late = broker.run(&["consume", "t", "--from", "timestamp:2100-01-01", "-e"]).ends(DONE);
    assert_eq!(late.out, "");
    broker.run(&["consume", "t", "--from", "1000", "-e"]).ends(REFUSED);
    broker.run(&["consume", "t", "--partition", "7", "-e"]).ends(REFUSED);
    broker.run(&["consume", "nope", "-e"]).ends(REFUSED);
}

#[test]
fn a_large_input_is_stored_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    broker.run(&["topic", "create", "big", "--partitions", "2"]).ends(DONE);
    let lines: String = (0..200_000).map(|n| format!("{n:020}\n")).collect();
    let one = ["produce", "big", "--partition", "0", "--batch-bytes", "50000"];
    broker.run_with(&one, &lines).ends(DONE);
    let read = broker.run(&["consume", "big", "--exit-at-end", "--quiet"]).ends(DONE);
    assert!(read.out == lines, "{} bytes went, {} came", lines.len(), read.out.len());

    // `consume | head`: the reader goes away in the middle, and nothing is wrong with that.
    let mut child = command(&["consume", "big", "-e", "-b", &broker.address]).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(DONE));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("ringmill:"), "{output:?}");

    // Ctrl-C ends a reader that waits for more.
    let mut child = command(&["consume", "big", "-b", &broker.address]).spawn().unwrap();
    let mut all = vec![0; lines.len()];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut all).unwrap();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(DONE), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("200,000 records"), "{output:?}");

    let data = broker.data.to_str().unwrap().to_string();
    run(&["log", "repair", "--data", &data]).ends(REFUSED);
    broker.stop();
    run(&["log", "verify", &data]).ends(DONE);
    let rows = run(&["log", "dump", "--json", &data]).ends(DONE).out;
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert!(rows.iter().any(|row| row["row"] == "checkpoint" && row["clean"] == true));
    assert!(rows.iter().filter_map(|row| row.get("sound")).all(|sound| sound == true));
    let repair = run(&["log", "repair", "--data", &data, "--everything"]).ends(DONE);
    assert!(repair.out.contains("nothing to repair"), "{repair:#?}");
}

/// Core logs on a device of their own are looked at with their data folder: after a kill, what was acked is only there.
#[test]
fn core_logs_that_lie_elsewhere_are_looked_at_too() {
    let dir = tempfile::tempdir().unwrap();
    let (data, logs) = (dir.path().join("data"), dir.path().join("logs"));
    let set = format!("core.log.dir={}", logs.display());
    let mut broker = Broker::start_with("127.0.0.1:0", &data, &["--set", &set], Stdio::null());
    broker.run_with(&["produce", "orders"], "one\ntwo\n").ends(DONE);
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    let data = data.to_str().unwrap();
    let checked = run(&["log", "verify", data]).ends(DONE).out;
    let dumped = run(&["log", "dump", data]).ends(DONE).out;
    for core in ["core-0", "core-1"] {
        let log = logs.join(core).join("000.log").display().to_string();
        assert!(checked.contains(&log) && dumped.contains(&log), "{log}: {checked}");
    }
    // One of them gone, and all, as where their device is not mounted: a start, verify and repair say the same.
    let serve =
        ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cores", "2", "--data", data];
    let serve = [&serve[..], &["--set", &set]].concat();
    for (gone, missed) in [(logs.join("core-0"), logs.join("core-0")), (logs.clone(), logs.join("core-0"))] {
        let aside = dir.path().join("aside");
        std::fs::rename(&gone, &aside).unwrap();
        let said = format!("{} is missing, and it may hold acknowledged records", missed.display());
        let refused = run(&serve).ends(DAMAGED).err;
        assert!(refused.contains(&said) && !gone.exists(), "{refused}");
        let verified = run(&["log", "verify", data]).ends(REFUSED).out;
        assert!(verified.contains(&said) && verified.contains("DAMAGED"), "{verified}");
        for look in [&["log", "dump", data][..], &["log", "repair", data]] {
            run(look).ends(REFUSED);
        }
        let planned = run(&["log", "repair", data]).ends(REFUSED).out;
        assert!(planned.contains(&format!("cannot be repaired: {said}")), "{planned}");
        std::fs::rename(&aside, &gone).unwrap();
    }
    run(&["log", "verify", data]).ends(DONE);
}

/// The journal or a core's folder, taken away: what a start refuses, looking tells too.
fn what_is_missing_is_named(dir: &Path) {
    let data = dir.to_str().unwrap();
    for name in ["meta/journal", "core-0", "core-1"] {
        let (there, aside) = (dir.join(name), dir.join("aside"));
        std::fs::rename(&there, &aside).unwrap();
        for look in [&["log", "verify", data][..], &["log", "repair", data]] {
            let told = run(look).ends(REFUSED).out;
            assert!(told.contains(&format!("{} is missing", there.display())), "{told}");
        }
        std::fs::rename(&aside, &there).unwrap();
    }
}

/// The files of a data folder that are not the log's: shown, checked, and named by a repair that cannot mend them.
#[test]
fn the_journal_and_the_identity_are_looked_at_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    broker.run(&["topic", "create", "kept", "--partitions", "2", "-c", "retention.ms=1000"]).ends(DONE);
    broker.run(&["topic", "create", "gone", "--partitions", "1"]).ends(DONE);
    broker.run(&["topic", "delete", "gone", "--yes"]).ends(DONE);
    broker.stop();
    let data = dir.path().to_str().unwrap();
    let (journal, node) = (dir.path().join("meta/journal"), dir.path().join("node.toml"));

    let sound = run(&["log", "verify", data]).ends(DONE).out;
    for file in [&journal, &node] {
        assert!(sound.contains(&format!("{}: ok", file.display())), "{sound}");
    }
    let rows = run(&["log", "dump", "--json", data]).ends(DONE).out;
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let made = rows.iter().find(|row| row["decision"] == "topic-created" && row["topic"] == "kept").unwrap();
    assert_eq!(
        (made["partitions"].as_array().unwrap().len(), &made["configs"]["retention.ms"]),
        (2, &"1000".into())
    );
    assert!(rows.iter().any(|row| row["decision"] == "topic-deleted"));
    assert!(rows.iter().any(|row| row["row"] == "node" && row["node_id"] == 1 && row["cores"] == 2));
    let shown = run(&["log", "dump", dir.path().join("meta").to_str().unwrap()]).ends(DONE).out;
    assert!(shown.contains("topic kept created") && shown.contains("deleted"), "{shown}");

    what_is_missing_is_named(dir.path());

    // Inside the first record, behind which more lies.
    let whole = std::fs::read(&journal).unwrap();
    let mut bytes = whole.clone();
    bytes[12] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let told = run(&["log", "verify", "--only-findings", data]).ends(REFUSED).out;
    assert!(told.contains(journal.to_str().unwrap()) && told.contains("at byte 0"), "{told}");
    let told = run(&["log", "repair", data, "--accept-loss", "--yes"]).ends(REFUSED);
    assert!(
        told.out.contains("cannot be repaired") && told.out.contains(journal.to_str().unwrap()),
        "{told:#?}"
    );
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "nothing was changed");

    // A record that was being written when the power went is no damage.
    std::fs::write(&journal, [&whole[..], &[40, 0, 0, 0, 1]].concat()).unwrap();
    let noted = run(&["log", "verify", "--only-findings", data]).ends(DONE).out;
    assert!(noted.contains("cut off"), "{noted}");
    assert!(run(&["log", "repair", data]).ends(DONE).out.contains("nothing to repair"));

    // The last one, to its end: what it decided may have been answered, so it is asked for.
    bytes.clone_from(&whole);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data];
    let told = run(&serve).ends(DAMAGED).err;
    assert!(told.contains(&format!("`ringmill log repair --data {data} --accept-loss`")), "{told}");
    let told = run(&["log", "repair", data]).ends(REFUSED).out;
    assert!(told.contains("lost: what was decided last"), "{told}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "nothing was changed");
    let told = run(&["log", "repair", data, "--accept-loss", "--yes"]).ends(DONE).out;
    let aside = told.lines().find_map(|line| line.strip_prefix("set aside: ")).unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
    // The deletion was decided last.
    let mut again = Broker::start(dir.path());
    let listed = again.run(&["topic", "list"]).ends(DONE).out;
    assert!(listed.contains("kept") && listed.contains("gone"), "{listed}");
    again.stop();

    std::fs::write(&node, "format = 1\nnode_id = one\n").unwrap();
    run(&["log", "verify", node.to_str().unwrap()]).ends(REFUSED);
    let told = run(&["log", "repair", "--json", data]).ends(REFUSED).json();
    let beyond = told["plan"]["beyond_repair"][0].as_str().unwrap();
    assert!(beyond.contains(node.to_str().unwrap()), "{beyond}");
    std::fs::write(&node, "format = 99\n").unwrap();
    let told = run(&["log", "repair", data]).ends(REFUSED);
    assert!(told.err.contains("newer version"), "{told:#?}");
    run(&["log", "repair", data, "--data", data]).ends(USAGE);
}

#[test]
fn both_ends_live_through_a_broker_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let address = broker.address.clone();
    broker.run(&["topic", "create", "t", "--partitions", "1"]).ends(DONE);
    let mut consumer = command(&["consume", "t", "--count", "2", "-b", &address]).spawn().unwrap();
    let mut producer = command(&["produce", "t", "-b", &address]).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"before\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    // Sent while nobody is there; it is tried until somebody is.
    stdin.write_all(b"after\n").unwrap();
    drop(stdin);
    let broker = Broker::start_at(&address, dir.path());
    assert_eq!(lines.next().unwrap().unwrap(), "after");
    assert_eq!(producer.wait_with_output().unwrap().status.code(), Some(DONE));
    assert_eq!(consumer.wait().unwrap().code(), Some(DONE));
    assert_eq!(broker.run(&["consume", "t", "-e"]).ends(DONE).out, "before\nafter\n");
}

#[test]
fn damage_is_found_told_and_repaired_when_someone_accepts_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    broker.run(&["topic", "create", "t", "--partitions", "1", "-c", "segment.bytes=1048576"]).ends(DONE);
    // Several segments; what is in a sealed one is nowhere else.
    let lines: String = (0..60_000).map(|n| format!("{n:0>59}\n")).collect();
    broker.run_with(&["produce", "t", "--batch-bytes", "100000"], &lines).ends(DONE);
    broker.stop();
    let data = dir.path().to_str().unwrap();
    run(&["log", "verify", data]).ends(DONE);
    let segment = dir.path().join("topics/t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    // Well inside a batch's records, wherever the batches of this run begin.
    let middle = bytes.len() / 2 + 40_000;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, &bytes).unwrap();

    let found = run(&["log", "verify", "--only-findings", data]).ends(REFUSED);
    assert!(found.out.contains("00000000000000000000.log") && found.out.contains("damage"), "{found:#?}");
    assert!(
        found.out.contains(&format!("`ringmill log repair --data {data} --everything` says")),
        "{found:#?}"
    );
    let told = run(&["log", "repair", data]).ends(DONE);
    assert!(told.out.contains("--everything looks at them, too"), "{told:#?}");
    run(&["log", "dump", segment.to_str().unwrap()]).ends(REFUSED);
    let told = run(&["log", "repair", "--everything", "--data", data]).ends(REFUSED);
    assert!(told.out.contains("lost: t-0 offsets") && told.err.contains("--accept-loss"), "{told:#?}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing is changed unless the loss is accepted");
    run(&["log", "repair", "--everything", "--accept-loss", "--data", data]).ends(USAGE);
    let repaired =
        run(&["log", "repair", "--everything", "--accept-loss", "--yes", "--json", "--data", data])
            .ends(DONE)
            .json();
    let loss = &repaired["plan"]["losses"][0];
    let (first, end) = (loss["first"].as_u64().unwrap() as usize, loss["end"].as_u64().unwrap() as usize);
    assert_eq!(
        std::fs::read(repaired["set_aside"][0].as_str().unwrap()).unwrap(),
        bytes,
        "the original is kept"
    );

    run(&["log", "verify", data]).ends(DONE);
    let broker = Broker::start(dir.path());
    let kept = broker.run(&["consume", "t", "-e"]).ends(DONE).out;
    let expected: Vec<&str> = lines
        .lines()
        .enumerate()
        .filter(|(at, _)| !(first..end).contains(at))
        .map(|(_, line)| line)
        .collect();
    assert!(first < end && end - first < 5000, "{first}..{end}");
    assert!(kept.lines().eq(expected), "everything outside {first}..{end} is there");
}

/// A folder on the disk the build lives on: the system's temporary folder may be memory.
fn disk_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A GET of the admin port.
fn admin(broker: &Broker, path: &str) -> String {
    let address = broker.admin.strip_prefix("http://").unwrap_or(&broker.admin).to_string();
    let mut stream = std::net::TcpStream::connect(address.trim_end_matches('/')).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_damaged_sealed_segment_takes_its_partition_offline_and_nothing_else() {
    let dir = disk_folder();
    // Three segments of a mebibyte: the scrub looks at all but the newest.
    let lines: String = (0..6000).map(|n| format!("{n:0400}\n")).collect();
    let mut broker = Broker::start(dir.path());
    for topic in ["t", "other"] {
        broker.run(&["topic", "create", topic, "-c", "segment.bytes=1048576"]).ends(DONE);
        broker.run_with(&["produce", topic, "-q"], &lines).ends(DONE);
    }
    broker.stop();
    let segment = dir.path().join("topics/t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let sound = bytes.clone();
    // In the records of its last batch.
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let log = dir.path().join("log.txt");
    let scrub_soon = ["--set", "scrub.interval.ms=1000"];
    let start = |more: &[&str]| {
        Broker::start_with("127.0.0.1:0", dir.path(), more, std::fs::File::create(&log).unwrap().into())
    };
    let mut broker = start(&scrub_soon);
    let begun = std::time::Instant::now();
    let describe =
        || broker.run(&["topic", "describe", "t", "--json", "--admin", &broker.admin]).ends(DONE).json();
    let error = loop {
        // Between two questions of one describe it may happen: then only the later answer says so.
        let view = describe();
        let error = view[0]["partitions"][0]["error"].as_str();
        if let Some(error) = error.filter(|error| error.contains("offline")) {
            break error.to_string();
        }
        if begun.elapsed() > std::time::Duration::from_secs(60) {
            let told = std::fs::read_to_string(&log).unwrap();
            let metrics = admin(&broker, "/metrics");
            let scrub: Vec<&str> =
                metrics.lines().filter(|line| line.starts_with("ringmill_scrub")).collect();
            let healed = std::fs::read(&segment).unwrap() == sound;
            panic!(
                "the scrub did not find it; the file is sound again: {healed}\n{view}\n{scrub:#?}\n{told}"
            );
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    assert!(error.contains("sealed segment"), "{error}");
    assert!(
        broker
            .run(&["consume", "t", "-e", "--timeout", "2"])
            .ends(REFUSED)
            .err
            .contains("KAFKA_STORAGE_ERROR")
    );
    let refused = broker.run_with(&["produce", "t", "--timeout", "2"], "one more\n");
    assert!(refused.code != DONE && refused.err.contains("KAFKA_STORAGE_ERROR"), "{refused:#?}");
    broker.run_with(&["produce", "other"], "goes on\n").ends(DONE);
    assert_eq!(broker.run(&["consume", "other", "-e"]).ends(DONE).out.lines().count(), 6001);

    let metrics = admin(&broker, "/metrics");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("ringmill_scrub_segments_damaged_total ") >= 1.0);
    assert!(value("ringmill_scrub_read_bytes_total ") >= bytes.len() as f64);
    assert_eq!(value("ringmill_topic_partitions_offline{topic=\"t\"}"), 1.0);
    assert_eq!(value("ringmill_topic_partitions_offline{topic=\"other\"}"), 0.0);
    broker.stop();
    let told = std::fs::read_to_string(&log).unwrap();
    for part in [segment.to_str().unwrap(), "t-0 is offline", "log repair", "offset "] {
        assert!(told.contains(part), "{part}: {told}");
    }

    // What the message says to do: a sound copy in place, and a start.
    std::fs::write(&segment, &sound).unwrap();
    let broker = start(&[]);
    assert_eq!(broker.run(&["consume", "t", "-e"]).ends(DONE).out, lines);
    broker.run_with(&["produce", "t"], "one more\n").ends(DONE);
}

#[test]
fn a_copied_flush_config_is_shown_for_what_it_does() {
    let copied = "flush.messages=9223372036854775807";
    for (allowed, ack, sentence) in [
        ("true", "relaxed", "a power cut can take what was acked"),
        ("false", "durable", "no effect without relaxed.topics.enable"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let set = format!("relaxed.topics.enable={allowed}");
        let log = dir.path().join("log.txt");
        let to = std::fs::File::create(&log).unwrap();
        let broker = Broker::start_with("127.0.0.1:0", dir.path(), &["--set", &set], to.into());
        broker.run(&["topic", "create", "t", "-c", copied]).ends(DONE);
        let describe = |more: &[&str]| {
            let args = [&["topic", "describe", "t", "--admin", &broker.admin], more].concat();
            broker.run(&args).ends(DONE)
        };
        assert_eq!(describe(&["--json"]).json()[0]["ack"], ack);
        let shown = describe(&[]).out;
        assert!(shown.contains(sentence) && shown.contains(copied), "{shown}");
        let relaxed = if ack == "relaxed" { "1" } else { "0" };
        assert!(
            admin(&broker, "/metrics")
                .contains(&format!("ringmill_topic_relaxed{{topic=\"t\"}} {relaxed}\n"))
        );
        let told = std::fs::read_to_string(&log).unwrap();
        assert_eq!(told.contains("topic t is relaxed"), ack == "relaxed", "{told}");
    }
}

#[test]
fn failures_have_their_codes() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gone = run(&["topic", "list", "-b", &free, "--timeout", "2"]).ends(UNREACHABLE);
    assert!(gone.err.contains("--bootstrap-server"), "{gone:#?}");
    for wrong in [
        &["topic"][..],
        &["topic", "create"],
        &["produce"],
        &["consume", "t", "--format", "%z"],
        &["nonsense"],
    ] {
        run(wrong).ends(USAGE);
    }
    let dir = tempfile::tempdir().unwrap();
    run(&["log", "verify", dir.path().to_str().unwrap()]).ends(5);
    for command in ["dump", "verify"] {
        let missing = dir.path().join("not-there");
        let told = run(&["log", command, missing.to_str().unwrap()]).ends(5);
        assert!(told.err.contains("No such file"), "{told:#?}");
    }
    run(&["log", "repair", "--data", dir.path().to_str().unwrap()]).ends(5);

    // Something listens, but it is no broker.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 512]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    run(&["topic", "list", "-b", &address, "--timeout", "5"]).ends(4);
    server.join().unwrap();
}

#[test]
fn every_command_explains_itself() {
    for args in [
        "",
        "serve",
        "topic",
        "topic create",
        "topic list",
        "topic describe",
        "topic alter",
        "topic delete",
        "produce",
        "consume",
        "log",
        "log dump",
        "log verify",
        "log repair",
        "check",
        "completion",
    ] {
        let args: Vec<&str> = args.split_whitespace().chain(["--help"]).collect();
        let help = run(&args).ends(DONE);
        assert!(help.out.contains("Usage: ringmill"), "{help:#?}");
        assert!(!help.out.contains('\x1b'), "no colour into a pipe");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]).ends(DONE);
        assert!(script.out.contains("ringmill") && script.out.contains("describe"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let checked = run(&["check", "--json", "--data", dir.path().to_str().unwrap()]);
    let findings = checked.json();
    let failing = findings.as_array().unwrap().iter().any(|finding| finding["verdict"] == "fail");
    assert_eq!(checked.code, i32::from(failing), "{checked:#?}");
    assert!(findings.as_array().unwrap().iter().any(|finding| finding["check"] == "io_uring"));
}

/// Two readers of one group share a topic; what one committed is not read again, and another group reads all of it.
#[test]
fn readers_in_a_group_share_a_topic_and_go_on_where_they_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    broker.run(&["topic", "create", "g", "--partitions", "4"]).ends(DONE);
    let produce = |from: usize| {
        for partition in 0..4 {
            let lines: String = (0..25).map(|n| format!("{}\n", from + partition * 25 + n)).collect();
            broker.run_with(&["produce", "g", "--partition", &partition.to_string()], &lines).ends(DONE);
        }
    };
    let numbers = |text: &str| text.lines().map(|line| line.parse().unwrap()).collect::<BTreeSet<usize>>();
    produce(0);
    let some = broker.run(&["consume", "g", "--group", "readers", "--count", "30", "--quiet"]).ends(DONE);
    let rest = broker.run(&["consume", "g", "--group", "readers", "-e", "--quiet"]).ends(DONE);
    assert_eq!((some.out.lines().count(), rest.out.lines().count()), (30, 70), "nothing twice");
    assert_eq!(numbers(&(some.out + &rest.out)), (0..100).collect());
    let none = broker.run(&["consume", "g", "--group", "readers", "-e", "--quiet"]).ends(DONE);
    assert_eq!(none.out, "");
    let all = broker.run(&["consume", "g", "--group", "others", "-e", "--quiet"]).ends(DONE);
    assert_eq!(numbers(&all.out), (0..100).collect());

    // Two at once: each has two partitions.
    let readers = [(); 2].map(|()| {
        command(&["consume", "g", "--group", "readers", "--quiet", "-b", &broker.address]).spawn().unwrap()
    });
    let begun = std::time::Instant::now();
    loop {
        let group = broker.run(&["group", "describe", "--json", "readers"]).ends(DONE).json();
        let members = group["members"].as_array().map_or(0, Vec::len);
        if group["state"] == "Stable" && members == 2 {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "two members: {group}");
    }
    produce(100);
    // Both read on until they are told to stop; what they read they commit.
    let texts = readers.map(|mut child| {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while text.lines().count() < 50 {
            assert!(stdout.read_line(&mut text).unwrap() > 0, "it ended early: {text}");
        }
        signal(&child, Signal::INT);
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(DONE));
        text
    });
    assert!(texts.iter().all(|text| text.lines().count() == 50), "two partitions each");
    assert_eq!(numbers(&texts.concat()), (100..200).collect());
    let none = broker.run(&["consume", "g", "--group", "readers", "-e", "--quiet"]).ends(DONE);
    assert_eq!(none.out, "");
    broker.run(&["consume", "g", "--group", "readers", "--partition", "1"]).ends(USAGE);
    let empty = broker.run(&["group", "list", "--state", "empty", "--json"]).ends(DONE).json();
    assert_eq!(empty.as_array().map(Vec::len), Some(2), "{empty}");
    let odd = broker.run(&["group", "list", "--state", "stabel"]).ends(USAGE);
    assert!(odd.err.contains("PreparingRebalance"), "what there is, is told: {odd:#?}");
}

//! `cargo x clients`: the broker against clients that nobody here wrote. Each client is looked for, installed from its
//! registry when it is missing and that is possible, and run against a broker on free ports and a temporary folder.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

type Check = fn(&Broker) -> Result<(), String>;

const CLIENTS: [(&str, Check); 2] = [("kcat", kcat), ("kafka", kafka)];

/// A broker of the release build, on free ports, in a folder of its own.
struct Broker {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Broker {
    fn start() -> Result<Broker, String> {
        crate::run::command("cargo build --release")?;
        let dir = std::env::temp_dir().join(format!("ringmill-clients-{}", std::process::id()));
        let mut child = Command::new("target/release/ringmill")
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
            .arg(dir.join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("target/release/ringmill: {e}"))?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let found = lines.into_iter().flatten().map_while(Result::ok).find_map(|line| {
            let address = line.trim().strip_prefix("listens")?;
            Some(address.trim().to_string())
        });
        match found {
            Some(address) => Ok(Broker { child, address, dir }),
            None => Err("the broker did not say where it listens".into()),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing is left behind, whatever the checks said.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs the named clients, or all of them.
pub fn run(only: &[&str]) -> Result<(), String> {
    let broker = Broker::start()?;
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, check) in CLIENTS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        match check(&broker) {
            Ok(()) => {
                passed += 1;
                println!("PASS {name}");
            }
            Err(reason) => {
                println!("FAIL {name}: {reason}");
                failed.push(*name);
            }
        }
    }
    println!("clients: {passed} passed, {} failed", failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Runs a command with `input`, and gives its output.
fn talk(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|e| e.to_string())?;
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All codecs and acks through librdkafka 2.0: what goes in comes out, and every codec arrives as it was sent.
fn kcat(broker: &Broker) -> Result<(), String> {
    if Command::new("kcat").arg("-V").output().is_err() {
        return Err("kcat is not installed (Debian package kcat)".into());
    }
    let lines: String = (0..2000).map(|n| format!("key{n}:value {n}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "-1"] {
            let topic = format!("kcat-{codec}-{acks}");
            let mut produce = Command::new("kcat");
            produce.args(["-q", "-P", "-b", &broker.address, "-t", &topic, "-p", "0", "-K:", "-z", codec]);
            produce.args(["-X", &format!("acks={acks}")]);
            talk(&mut produce, &lines)?;
            let mut consume = Command::new("kcat");
            consume.args([
                "-q",
                "-C",
                "-b",
                &broker.address,
                "-t",
                &topic,
                "-p",
                "0",
                "-o",
                "beginning",
                "-c",
                "2000",
                "-K:",
            ]);
            let back = talk(&mut consume, "")?;
            if back != lines {
                return Err(format!("{topic}: {} bytes came back for {}", back.len(), lines.len()));
            }
        }
    }
    Ok(())
}

/// Kafka's own tools, from Maven Central.
fn kafka(broker: &Broker) -> Result<(), String> {
    let run = |class: &str, arguments: &[&str]| -> Result<String, String> {
        let mut command = Command::new("bench/peers/kafka.sh");
        command.args(["run", class]).args(arguments);
        talk(&mut command, "")
    };
    let at = broker.address.as_str();
    run(
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", at, "--create", "--topic", "java", "--partitions", "3"],
    )?;
    let property = format!("bootstrap.servers={at}");
    let perf = [
        "--topic",
        "java",
        "--num-records",
        "20000",
        "--record-size",
        "500",
        "--throughput",
        "-1",
        "--command-property",
        &property,
    ];
    let said = run("org.apache.kafka.tools.ProducerPerformance", &perf)?;
    if !said.contains("20000 records sent") {
        return Err(format!("ProducerPerformance said: {said}"));
    }
    let offsets =
        run("org.apache.kafka.tools.GetOffsetShell", &["--bootstrap-server", at, "--topic", "java"])?;
    let total: u64 = offsets.lines().filter_map(|l| l.rsplit(':').next()?.parse::<u64>().ok()).sum();
    if total != 20_000 {
        return Err(format!("GetOffsetShell adds up to {total}: {offsets}"));
    }
    run(
        "kafka.admin.ConfigCommand",
        &[
            "--bootstrap-server",
            at,
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            "java",
            "--add-config",
            "retention.ms=100000",
        ],
    )?;
    let configs = run(
        "kafka.admin.ConfigCommand",
        &["--bootstrap-server", at, "--describe", "--entity-type", "topics", "--entity-name", "java"],
    )?;
    if !configs.contains("retention.ms=100000") {
        return Err(format!("ConfigCommand said: {configs}"));
    }
    let console = [
        "--bootstrap-server",
        at,
        "--topic",
        "java",
        "--partition",
        "0",
        "--offset",
        "earliest",
        "--max-messages",
        "5",
    ];
    let read = run("org.apache.kafka.tools.consumer.ConsoleConsumer", &console)?;
    if read.lines().count() != 5 {
        return Err(format!("ConsoleConsumer printed {} lines", read.lines().count()));
    }
    Ok(())
}

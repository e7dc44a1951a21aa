//! Partition folders written by Kafka and put in place while the broker is stopped: served as Kafka served them, under
//! the topic id they carry, not a byte of them changed, and written to from where they end.

use super::Report;
use super::broker::Broker;
use super::kafka::{SCRIPT, dumped, expect, java, topics};
use super::stored;
use super::tool::{need, talk, timed};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TOPIC: &str = "made-by-kafka";
const PARTITIONS: [&str; 2] = ["0", "1"];
const RECORDS: &str = "12000";
const SECONDS: u32 = 60;
const KAFKA_START_MAX: Duration = Duration::from_secs(120);
const KAFKA_STOP_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub fn run(report: &mut Report) -> Result<(), String> {
    need(&[("kcat", "kcat"), ("java", "default-jre-headless"), ("mvn", "maven")])?;
    talk(timed(1800, SCRIPT).arg("setup"), "")?;
    let mut kafka = Kafka::start()?;
    fill(&kafka.address)?;
    let served = PARTITIONS.map(|partition| read(&kafka.address, partition));
    kafka.stop()?;

    // The first life makes the data folder.
    let mut broker = Broker::start(&[])?;
    broker.stop()?;
    for partition in PARTITIONS {
        let from = kafka.folder(partition);
        talk(Command::new("cp").arg("-r").arg(from).arg(broker.topics()), "")?;
    }
    report.check("start", || broker.start_again());
    for (partition, served) in PARTITIONS.iter().zip(&served) {
        report.check(&format!("served-as-by-kafka-{partition}"), || {
            let (was, is) = (served.as_ref().map_err(String::clone)?, read(&broker.address, partition)?);
            if *was == is && !is.is_empty() { Ok(()) } else { Err(difference(was, &is)) }
        });
    }
    report.check("topic-id", || topic_id(&kafka.folder("0"), &broker.address));
    report.check("clean-stop", || broker.stop());
    for partition in PARTITIONS {
        let name = format!("bytes-untouched-{partition}");
        report.check(&name, || untouched(&kafka.folder(partition), &adopted(&broker, partition)));
    }
    report.check("start-again", || broker.start_again());
    report.check("goes-on-at-the-end", || goes_on(&broker.address));
    report.check("last-stop", || broker.stop());
    report.check("dump-log-segments", || {
        let logs = stored::files(&adopted(&broker, "0"), "log")?;
        dumped(&logs, &["--deep-iteration"]).map(drop)
    });
    Ok(())
}

fn adopted(broker: &Broker, partition: &str) -> PathBuf {
    broker.topics().join(format!("{TOPIC}-{partition}"))
}

/// Several segments a partition, compressed, by an idempotent producer.
fn fill(at: &str) -> Result<(), String> {
    let partitions = PARTITIONS.len().to_string();
    let create = ["--create", "--topic", TOPIC, "--partitions", &partitions];
    expect(
        "--create",
        &topics(at, &[&create[..], &["--config", "segment.bytes=1048576"]].concat())?,
        "Created",
    )?;
    let server = format!("bootstrap.servers={at}");
    let arguments =
        ["--topic", TOPIC, "--num-records", RECORDS, "--record-size", "500", "--throughput", "-1"];
    let mut produce = java("org.apache.kafka.tools.ProducerPerformance");
    produce.args(arguments).args(["--command-property", &server, "compression.type=lz4"]);
    expect("ProducerPerformance", &talk(&mut produce, "")?, &format!("{RECORDS} records sent"))
}

/// Offset, time, key and value of every record.
fn read(at: &str, partition: &str) -> Result<String, String> {
    let mut consume = timed(SECONDS, "kcat");
    consume.args(["-q", "-C", "-b", at, "-t", TOPIC, "-p", partition, "-o", "beginning", "-e"]);
    talk(consume.args(["-f", "%o %T %K %k %S %s\n"]), "")
}

fn difference(was: &str, is: &str) -> String {
    let lines = (was.lines().count(), is.lines().count());
    let first = was.lines().zip(is.lines()).position(|(was, is)| was != is);
    format!("Kafka served {} records, now {} are; the first to differ: {first:?}", lines.0, lines.1)
}

fn topic_id(folder: &Path, at: &str) -> Result<(), String> {
    let path = folder.join("partition.metadata");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("topic_id: ")).ok_or("no topic_id in it")?;
    expect("--describe", &topics(at, &["--describe", "--topic", TOPIC])?, &format!("TopicId: {id}"))
}

fn untouched(theirs: &Path, ours: &Path) -> Result<(), String> {
    let files = stored::files(theirs, "log")?;
    if files.len() < 2 {
        return Err(format!("Kafka wrote {} segments, which shows too little", files.len()));
    }
    files.iter().try_for_each(|file| {
        let name = file.file_name().ok_or("a file without a name")?;
        talk(Command::new("cmp").arg(file).arg(ours.join(name)), "").map(drop)
    })
}

fn goes_on(at: &str) -> Result<(), String> {
    let before = read(at, "0")?.lines().count();
    let mut produce = timed(SECONDS, "kcat");
    talk(produce.args(["-q", "-P", "-b", at, "-t", TOPIC, "-p", "0"]), "one more\n")?;
    let after = read(at, "0")?;
    let last = after.lines().last().unwrap_or_default();
    let good = after.lines().count() == before + 1
        && last.starts_with(&format!("{before} "))
        && last.ends_with(" one more");
    if good { Ok(()) } else { Err(format!("{before} records, then {last:?} as the last")) }
}

/// A Kafka broker of its own, on free ports, in a folder that goes with it.
struct Kafka {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Kafka {
    fn start() -> Result<Kafka, String> {
        let port = two_free_ports()?;
        let dir = std::env::temp_dir().join(format!("ringmill-clients-kafka-{}", std::process::id()));
        let child = Command::new(SCRIPT)
            .args(["serve", &port.to_string()])
            .arg(&dir)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("{SCRIPT}: {e}"))?;
        let mut kafka = Kafka { child, address: format!("127.0.0.1:{port}"), dir };
        let begun = Instant::now();
        while begun.elapsed() < KAFKA_START_MAX {
            if TcpStream::connect(&kafka.address).is_ok() {
                return Ok(kafka);
            }
            if let Some(status) = kafka.child.try_wait().map_err(|e| e.to_string())? {
                return Err(format!("Kafka ended with {status} before it listened"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err("Kafka does not listen".into())
    }

    fn folder(&self, partition: &str) -> PathBuf {
        self.dir.join("data").join(format!("{TOPIC}-{partition}"))
    }

    /// A clean stop, after which its files are whole.
    fn stop(&mut self) -> Result<(), String> {
        talk(Command::new("kill").args(["-TERM", &self.child.id().to_string()]), "")?;
        let begun = Instant::now();
        while begun.elapsed() < KAFKA_STOP_MAX {
            if self.child.try_wait().map_err(|e| e.to_string())?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err("Kafka did not stop".into())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // Nothing is left behind, whatever the checks said.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The first of two neighbours: the script takes the next port for Kafka's controller.
fn two_free_ports() -> Result<u16, String> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let port = first.local_addr().map_err(|e| e.to_string())?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err("no two free ports beside each other".into())
}

//! What tests of the real process share: a `ringmill serve` of their own, and a client that does exactly what it is told.
//!
//! The client speaks the protocol through `kafka-wire`, not through our own codec, and never retries: a test sees each
//! answer and each broken connection. Everything here panics with what the broker said on its standard error.

pub mod small_disk;

use bytes::{Bytes, BytesMut};
use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::fetch_response::PartitionData;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{
    CreateTopicsRequest, CreateTopicsResponse, FetchRequest, FetchResponse, InitProducerIdRequest,
    InitProducerIdResponse, KafkaRequest, OutboundFrameLimits, ProduceRequest, ProduceResponse,
    encode_request,
};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, StrBytes};
use ringmill_record::{Batches, Records};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest a test waits for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const NONE: i16 = 0;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub const REQUEST_TIMED_OUT: i16 = 7;
pub const MESSAGE_TOO_LARGE: i16 = 10;
pub const KAFKA_STORAGE_ERROR: i16 = 56;

/// A `ringmill serve` on ports of its own. It ends, by SIGKILL, with the value.
pub struct Broker {
    pub child: Child,
    pub address: String,
    pub admin: String,
    said: Arc<Mutex<Vec<String>>>,
    /// Reads its standard error to the end, which comes with the process's.
    listener: Option<JoinHandle<()>>,
}

/// A `ringmill serve` that did not come to serve.
#[derive(Debug)]
pub struct Refusal {
    pub code: Option<i32>,
    pub said: String,
}

impl Broker {
    /// Two cores, 256 MiB unless `extra` says otherwise; panics unless it serves.
    #[track_caller]
    pub fn start(data: &Path, extra: &[&str]) -> Broker {
        Broker::try_start(data, extra).unwrap_or_else(|refusal| panic!("it did not start: {refusal:#?}"))
    }

    pub fn try_start(data: &Path, extra: &[&str]) -> Result<Broker, Refusal> {
        Broker::try_start_by(Command::new(env!("CARGO_BIN_EXE_ringmill")), data, extra)
    }

    /// `command` is the binary, or whatever runs it with the arguments that follow.
    pub fn try_start_by(mut command: Command, data: &Path, extra: &[&str]) -> Result<Broker, Refusal> {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .args(if extra.contains(&"--cores") { &[][..] } else { &["--cores", "2"] })
            .args(if extra.contains(&"--memory") { &[][..] } else { &["--memory", "256MiB"] })
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (errors, kept) = (BufReader::new(child.stderr.take().unwrap()), said.clone());
        let listener = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut value_of = |key: &str| {
            let value = lines.find_map(|line| line.trim().strip_prefix(key).map(str::to_string))?;
            value.split_whitespace().next().map(str::to_string)
        };
        let (Some(address), Some(admin)) = (value_of("listens"), value_of("admin")) else {
            let code = child.wait().unwrap().code();
            listener.join().unwrap();
            let said = said.lock().unwrap().join("\n");
            return Err(Refusal { code, said });
        };
        // Keep reading, so that the broker never meets a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let admin = admin.trim_start_matches("http://").trim_end_matches('/').to_string();
        Ok(Broker { child, address, admin, said, listener: Some(listener) })
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address).expect("it accepts connections")
    }

    /// As kill -9 does, at whatever it was doing.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// For its end: then [`Broker::said`] is all that it said.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        status
    }

    /// Killed and started anew, so many times, after a second or so each; clients learn each new address.
    pub fn live_through_kills(&mut self, times: u64, data: &Path, extra: &[&str], address: &Mutex<String>) {
        for round in 0..times {
            std::thread::sleep(Duration::from_millis(900 + round * 331 % 700));
            self.kill();
            *self = Broker::start(data, extra);
            *address.lock().unwrap() = self.address.clone();
        }
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.wait()
    }

    #[track_caller]
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the broker ended: {status}\n{}", self.said());
        }
    }

    /// Everything on its standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// How many lines on its standard error hold `what`.
    pub fn times_said(&self, what: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }

    /// Waits until a line on its standard error holds `what`.
    #[track_caller]
    pub fn wait_until_said(&self, what: &str, patience: Duration) {
        let begun = Instant::now();
        while self.times_said(what) == 0 {
            assert!(begun.elapsed() < patience, "never said {what:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sum of a metric over its labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.scrape();
        let values: Vec<f64> = samples(&text, name).map(|(_, value)| value).collect();
        assert!(!values.is_empty(), "no metric {name} in\n{text}");
        values.iter().sum()
    }

    /// `/metrics` of the admin port, headers and all.
    pub fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// The samples of one metric: its labels, as they stand there, and its value.
pub fn samples<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| Some((labels, value.parse().ok()?)))?
    })
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Ended already, or the test failed: either way nothing is left to tell.
        let _ = self.child.kill();
        self.wait();
        if std::thread::panicking() {
            eprintln!("--- the broker said:\n{}", self.said());
        }
    }
}

/// Runs a command of the binary to its end: exit code, standard output and standard error together.
pub fn run(args: &[&str]) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringmill")).args(args).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

/// Connections that a test may hold to a broker, once the limit on open files is raised as far as it goes. The broker keeps
/// a quarter of its files back for segments, and the kernel spreads connections unevenly.
pub fn connections_max() -> usize {
    let files = ringmill_broker::host::raise_limits().open_files.unwrap_or(u64::MAX);
    (files.saturating_sub(64) / 8 * 5) as usize
}

/// Where a test keeps its data: in a folder of its own, or where `RINGMILL_KEEP` says, and there it stays.
pub fn data_folder(own: &TempDir) -> PathBuf {
    std::env::var_os("RINGMILL_KEEP").map_or_else(|| own.path().to_path_buf(), PathBuf::from)
}

/// Says on the real standard error that something could not be tried; the test harness does not swallow it.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(io::stderr(), "\n*** SKIPPED: {what}: {why} ***\n");
}

/// For what needs a file system of its own: an ordinary user may do without, root may not.
#[track_caller]
pub fn not_mounted(what: &str, why: &str) {
    assert!(!rustix::process::geteuid().is_root(), "{what}: {why}; only an ordinary user may skip this");
    skipped(what, why);
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub fn connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, correlation: 0 })
    }

    pub fn send<Q: KafkaRequest>(&mut self, request: &Q, version: i16) -> io::Result<()> {
        self.correlation += 1;
        let mut out = BytesMut::new();
        let (id, version) = (Some(StrBytes::from("test")), ApiVersion::new(version));
        let limits = OutboundFrameLimits::new(256 << 20);
        encode_request(&mut out, self.correlation, id, request, version, limits)
            .map_err(|e| io::Error::other(e.to_string()))?;
        self.stream.write_all(&out)
    }

    /// An answer whose header has no tagged fields.
    pub fn receive<A: KafkaDecode>(&mut self, version: i16) -> io::Result<A> {
        self.receive_behind(4, version)
    }

    /// One of a flexible version.
    pub fn call_flexible<Q: KafkaRequest, A: KafkaDecode>(
        &mut self,
        request: &Q,
        version: i16,
    ) -> io::Result<A> {
        self.send(request, version)?;
        // The correlation id, and no tagged fields.
        self.receive_behind(5, version)
    }

    fn receive_behind<A: KafkaDecode>(&mut self, header_bytes: usize, version: i16) -> io::Result<A> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        let mut limits = DecodeLimits::default();
        limits.max_bytes_bytes = limits.max_bytes_bytes.max(body.len());
        A::decode_from_bytes(Bytes::from(body).slice(header_bytes..), ApiVersion::new(version), limits)
            .map_err(|e| io::Error::other(e.to_string()))
    }

    pub fn call<Q: KafkaRequest, A: KafkaDecode>(&mut self, request: &Q, version: i16) -> io::Result<A> {
        self.send(request, version)?;
        self.receive(version)
    }

    /// Creates a topic; its error code.
    pub fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> io::Result<i16> {
        Ok(self.create_together(vec![creatable(topic, partitions, configs)])?[0])
    }

    /// Creates topics in one request; their error codes.
    pub fn create_together(&mut self, topics: Vec<CreatableTopic>) -> io::Result<Vec<i16>> {
        let mut request = CreateTopicsRequest::default();
        request.topics = topics;
        request.timeout_ms = 10_000;
        let answer: CreateTopicsResponse = self.call(&request, 2)?;
        Ok(answer.topics.iter().map(|topic| topic.error_code).collect())
    }

    pub fn producer_id(&mut self) -> io::Result<i64> {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        request.transaction_timeout_ms = 1000;
        let answer: InitProducerIdResponse = self.call(&request, 1)?;
        assert_eq!(answer.error_code, NONE, "an idempotent producer gets its id");
        Ok(answer.producer_id)
    }

    /// acks=all; the partition's error code.
    pub fn produce(&mut self, topic: &str, partition: i32, records: &[u8]) -> io::Result<i16> {
        self.send_produce(topic, partition, records)?;
        self.receive_produced()
    }

    /// acks=all.
    pub fn send_produce(&mut self, topic: &str, partition: i32, records: &[u8]) -> io::Result<()> {
        self.send(&produce_request(topic, partition, records), 7)
    }

    /// The error code of the partition that was written to.
    pub fn receive_produced(&mut self) -> io::Result<i16> {
        let answer: ProduceResponse = self.receive(7)?;
        Ok(answer.responses[0].partition_responses[0].error_code)
    }

    /// One partition's part of one answer of up to `bytes`, or one batch; waits 100 ms at its end.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes: i32,
    ) -> io::Result<PartitionData> {
        self.send(&fetch_request(topic, partition, offset, bytes, 100), 4)?;
        let mut answer: FetchResponse = self.receive(4)?;
        Ok(answer.responses.remove(0).partitions.remove(0))
    }

    /// Every record of a partition from `offset` on, in order. Offsets must be dense and reach the high watermark.
    #[track_caller]
    pub fn read_from(&mut self, topic: &str, partition: i32, mut offset: i64) -> Vec<Stored> {
        let mut out = Vec::new();
        loop {
            let got = self.fetch(topic, partition, offset, 4 << 20).unwrap();
            assert_eq!(got.error_code, NONE, "{topic}-{partition} at {offset}");
            let Some(bytes) = got.records.as_ref().filter(|b| !b.is_empty()) else {
                assert_eq!(offset, got.high_watermark, "all of {topic}-{partition} up to the high watermark");
                return out;
            };
            for (header, bytes) in Batches::new(bytes) {
                assert_eq!(header.base_offset.0, offset, "offsets of {topic}-{partition} are dense");
                for (record, offset) in Records::new(&header, bytes).unwrap().zip(offset..) {
                    let value = record.unwrap().value.unwrap().to_vec();
                    let (producer, sequence) = (header.producer_id.0, header.base_sequence);
                    out.push(Stored { offset, value, producer, sequence });
                }
                offset = header.next_offset().0;
            }
        }
    }
}

/// A topic as it is asked for.
pub fn creatable(topic: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let mut of = CreatableTopic::default();
    of.name = StrBytes::from(topic);
    of.num_partitions = partitions;
    of.replication_factor = 1;
    of.configs = configs
        .iter()
        .map(|(key, value)| {
            let mut config = CreatableTopicConfig::default();
            config.name = StrBytes::from(*key);
            config.value = Some(StrBytes::from(*value));
            config
        })
        .collect();
    of
}

/// A record as it came back, with what its batch said.
#[derive(Debug)]
pub struct Stored {
    pub offset: i64,
    pub value: Vec<u8>,
    pub producer: i64,
    pub sequence: i32,
}

/// acks=all.
pub fn produce_request(topic: &str, partition: i32, records: &[u8]) -> ProduceRequest {
    let mut data = PartitionProduceData::default();
    data.index = partition;
    data.records = Some(Bytes::copy_from_slice(records));
    let mut of = TopicProduceData::default();
    of.name = StrBytes::from(topic);
    of.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 10_000;
    request.topic_data = vec![of];
    request
}

pub fn fetch_request(topic: &str, partition: i32, offset: i64, bytes: i32, wait_ms: i32) -> FetchRequest {
    let mut part = FetchPartition::default();
    part.partition = partition;
    part.fetch_offset = offset;
    part.partition_max_bytes = bytes;
    let mut of = FetchTopic::default();
    of.topic = StrBytes::from(topic);
    of.partitions = vec![part];
    let mut request = FetchRequest::default();
    request.max_wait_ms = wait_ms;
    request.min_bytes = 1;
    request.max_bytes = bytes.saturating_mul(2);
    request.topics = vec![of];
    request
}

/// Whose batch it is: an idempotent producer's id and the sequence of its first record.
#[derive(Clone, Copy)]
pub struct Author {
    pub id: i64,
    pub sequence: i32,
}

/// A producer that is not idempotent.
pub const ANYBODY: Author = Author { id: -1, sequence: -1 };

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// An uncompressed batch of records without keys, stamped with this moment.
pub fn batch<V: AsRef<[u8]>>(author: Author, values: &[V]) -> Vec<u8> {
    let mut records = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let value = value.as_ref();
        let mut record = vec![0];
        varint(&mut record, 0);
        varint(&mut record, n as i64);
        varint(&mut record, -1);
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let count = values.len() as i32;
    let epoch: i16 = if author.id < 0 { -1 } else { 0 };
    let mut body = Vec::new();
    body.extend(0i16.to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    body.extend(now.to_be_bytes());
    body.extend(now.to_be_bytes());
    body.extend(author.id.to_be_bytes());
    body.extend(epoch.to_be_bytes());
    body.extend(author.sequence.to_be_bytes());
    body.extend(count.to_be_bytes());
    body.extend(records);
    let mut out = Vec::new();
    out.extend(0i64.to_be_bytes());
    out.extend((body.len() as i32 + 9).to_be_bytes());
    out.extend((-1i32).to_be_bytes());
    out.push(2);
    out.extend(crc32c::crc32c(&body).to_be_bytes());
    out.extend(body);
    out
}

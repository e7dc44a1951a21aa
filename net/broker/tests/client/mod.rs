//! A client of three requests, in bytes: enough to have records acknowledged and to count them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    stream: TcpStream,
}

/// Numbers that only look random (an LCG, Knuth's constants).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// How a fetch waits, and how much it takes, of each partition too.
#[derive(Clone, Copy)]
pub struct Terms {
    pub wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
}

/// Fetch 4 of one partition, for at least one byte.
fn fetch_body(topic: &str, partition: i32, offset: i64, wait_ms: i32, max_bytes: i32) -> Vec<u8> {
    fetch_body_of(topic, &[(partition, offset)], Terms { wait_ms, min_bytes: 1, max_bytes })
}

/// The same of several partitions, each of which may give all of `max_bytes`.
fn fetch_body_of(topic: &str, parts: &[(i32, i64)], terms: Terms) -> Vec<u8> {
    let Terms { wait_ms, min_bytes, max_bytes } = terms;
    let mut body = (-1i32).to_be_bytes().to_vec();
    for number in [wait_ms, min_bytes, max_bytes] {
        body.extend(i32::to_be_bytes(number));
    }
    body.push(0);
    body.extend(1i32.to_be_bytes());
    string(&mut body, topic);
    body.extend((parts.len() as i32).to_be_bytes());
    for (partition, offset) in parts {
        body.extend(partition.to_be_bytes());
        body.extend(offset.to_be_bytes());
        body.extend(max_bytes.to_be_bytes());
    }
    body
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// Sends a request with a version 1 header; the answer behind its correlation id.
    fn ask(&mut self, api: i16, version: i16, body: &[u8]) -> Reader {
        self.send(api, version, body);
        self.answer()
    }

    fn send(&mut self, api: i16, version: i16, body: &[u8]) {
        self.stream.write_all(&frame(api, version, body)).unwrap();
    }

    fn answer(&mut self) -> Reader {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        let mut reader = Reader { bytes: answer, at: 0 };
        assert_eq!(reader.int(4), 7, "correlation id");
        reader
    }

    /// Asks for the topic's metadata until it was created by that and has leaders (Metadata 1).
    pub fn create(&mut self, topic: &str) {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        let begun = Instant::now();
        while self.metadata_errors(&body).iter().any(|error| *error != 0) {
            assert!(begun.elapsed() < PATIENCE, "the topic was not created");
        }
    }

    fn metadata_errors(&mut self, body: &[u8]) -> Vec<i64> {
        let mut answer = self.ask(3, 1, body);
        for _ in 0..answer.int(4) {
            answer.int(4);
            answer.string();
            answer.int(4);
            answer.string();
        }
        answer.int(4);
        let mut errors = Vec::new();
        for _ in 0..answer.int(4) {
            errors.push(answer.int(2));
            answer.string();
            answer.int(1);
            for _ in 0..answer.int(4) {
                errors.push(answer.int(2));
                answer.int(8);
                for _ in 0..2 {
                    for _ in 0..answer.int(4) {
                        answer.int(4);
                    }
                }
            }
        }
        errors
    }

    /// One record, acks=all (Produce 3); its offset.
    pub fn produce(&mut self, topic: &str, partition: i32) -> i64 {
        self.try_produce(topic, partition).expect("a record that can be stored")
    }

    /// The same; the error code when it was refused.
    pub fn try_produce(&mut self, topic: &str, partition: i32) -> Result<i64, i64> {
        let mut answer = self.ask(0, 3, &produce_body(topic, partition, &batch()));
        answer.int(4);
        answer.string();
        answer.int(4);
        assert_eq!(answer.int(4), i64::from(partition));
        match answer.int(2) {
            0 => Ok(answer.int(8)),
            error => Err(error),
        }
    }

    /// The error code of the next answer to a produce that was sent before.
    pub fn produce_error(&mut self) -> i64 {
        let mut answer = self.answer();
        answer.int(4);
        answer.string();
        answer.int(4);
        answer.int(4);
        answer.int(2)
    }

    /// Two batches for one partition in one request (Produce 3): the offsets of the answer.
    pub fn produce_two_in_one(&mut self, topic: &str, partition: i32) -> Vec<i64> {
        let mut body = [-1i16, -1].map(i16::to_be_bytes).concat();
        body.extend([30_000, 1i32].map(i32::to_be_bytes).concat());
        string(&mut body, topic);
        body.extend(2i32.to_be_bytes());
        for batch in [batch(), batch()] {
            body.extend(partition.to_be_bytes());
            body.extend((batch.len() as i32).to_be_bytes());
            body.extend(batch);
        }
        let mut answer = self.ask(0, 3, &body);
        answer.int(4);
        answer.string();
        (0..answer.int(4))
            .map(|_| {
                assert_eq!((answer.int(4), answer.int(2)), (i64::from(partition), 0), "index and error");
                let offset = answer.int(8);
                answer.int(8);
                offset
            })
            .collect()
    }

    /// Fetch 4 on an isolation level of any number.
    pub fn send_fetch_isolated(&mut self, topic: &str, isolation: u8) {
        const ISOLATION_AT: usize = 16;
        let mut body = fetch_body(topic, 0, 0, 0, 1 << 20);
        body[ISOLATION_AT] = isolation;
        self.send(1, 4, &body);
    }

    /// The same without waiting for its answer.
    pub fn send_produce(&mut self, topic: &str, partition: i32) {
        self.send(0, 3, &produce_body(topic, partition, &batch()));
    }

    /// Creates a topic with one setting (CreateTopics 2).
    pub fn create_with(&mut self, topic: &str, partitions: i32, key: &str, value: &str) {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        body.extend(partitions.to_be_bytes());
        body.extend(1i16.to_be_bytes());
        body.extend(0i32.to_be_bytes());
        body.extend(1i32.to_be_bytes());
        string(&mut body, key);
        string(&mut body, value);
        body.extend(30_000i32.to_be_bytes());
        body.push(0);
        let mut answer = self.ask(19, 2, &body);
        answer.int(4);
        answer.int(4);
        answer.string();
        assert_eq!(answer.int(2), 0, "create error");
    }

    /// A batch as it is, acks=all (Produce 8); what is said of it.
    pub fn produce_bytes(&mut self, topic: &str, partition: i32, batch: &[u8]) -> ProduceAnswer {
        self.send_produce_bytes(topic, partition, batch);
        self.produce_answer()
    }

    pub fn send_produce_bytes(&mut self, topic: &str, partition: i32, batch: &[u8]) {
        self.send(0, 8, &produce_body(topic, partition, batch));
    }

    pub fn produce_answer(&mut self) -> ProduceAnswer {
        let mut answer = self.answer();
        answer.int(4);
        answer.string();
        answer.int(4);
        answer.int(4);
        let (error, offset) = (answer.int(2) as i16, answer.int(8));
        answer.int(8);
        answer.int(8);
        let records = (0..answer.int(4)).map(|_| (answer.int(4) as i32, answer.string())).collect();
        ProduceAnswer { error, offset, records, message: answer.string() }
    }

    /// One batch of `bytes`, acks=all (Produce 3); the throttle time of its answer in ms.
    pub fn produce_throttled(&mut self, topic: &str, partition: i32, bytes: usize) -> i64 {
        let mut answer = self.ask(0, 3, &produce_body(topic, partition, &batch_of(bytes)));
        answer.int(4);
        answer.string();
        answer.int(4);
        answer.int(4);
        assert_eq!(answer.int(2), 0, "produce error");
        answer.int(8);
        answer.int(8);
        answer.int(4)
    }

    /// Fetch 4 from offset 0: the throttle time in ms, and the bytes of the answer.
    pub fn fetch_throttled(&mut self, topic: &str, partition: i32, max_bytes: i32) -> (i64, usize) {
        let mut answer = self.fetch(topic, partition, 0, max_bytes);
        (answer.int(4), answer.bytes.len())
    }

    fn fetch(&mut self, topic: &str, partition: i32, offset: i64, max_bytes: i32) -> Reader {
        self.ask(1, 4, &fetch_body(topic, partition, offset, 1_000, max_bytes))
    }

    /// Fetch 4 of several partitions: bytes of records that each gave.
    pub fn fetch_sizes(&mut self, topic: &str, parts: &[(i32, i64)], max_bytes: i32) -> Vec<(i32, usize)> {
        let terms = Terms { wait_ms: 1_000, min_bytes: 1, max_bytes };
        let answers = self.fetch_on(topic, parts, terms).into_iter();
        answers.map(|(partition, sizes)| (partition, sizes.expect("no fetch error"))).collect()
    }

    /// The same on any terms; the error code of a partition instead of its bytes.
    pub fn fetch_on(
        &mut self,
        topic: &str,
        parts: &[(i32, i64)],
        terms: Terms,
    ) -> Vec<(i32, Result<usize, i64>)> {
        let mut answer = self.ask(1, 4, &fetch_body_of(topic, parts, terms));
        answer.int(4);
        answer.int(4);
        answer.string();
        (0..answer.int(4))
            .map(|_| {
                let (partition, error) = (answer.int(4) as i32, answer.int(2));
                answer.int(8);
                answer.int(8);
                assert!(answer.int(4) <= 0, "aborted transactions");
                let bytes = usize::try_from(answer.int(4)).unwrap_or(0);
                answer.at += bytes;
                (partition, if error == 0 { Ok(bytes) } else { Err(error) })
            })
            .collect()
    }

    /// The compression code of the batch at this offset, as it is stored.
    pub fn stored_compression(&mut self, topic: &str, partition: i32, offset: i64) -> u8 {
        let mut answer = self.fetch(topic, partition, offset, 1 << 20);
        answer.int(4);
        answer.int(4);
        answer.string();
        answer.int(4);
        answer.int(4);
        assert_eq!(answer.int(2), 0, "fetch error");
        answer.int(8);
        answer.int(8);
        assert!(answer.int(4) <= 0, "aborted transactions");
        assert!(answer.int(4) > 61, "no batch");
        let batch = &answer.bytes[answer.at..];
        assert_eq!(&batch[..8], offset.to_be_bytes(), "base offset");
        batch[22] & 7
    }

    /// The throttle time of a Metadata 3 answer about one topic.
    pub fn metadata_throttled(&mut self, topic: &str) -> i64 {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        self.ask(3, 3, &body).int(4)
    }

    /// DeleteTopics 1; the error code.
    pub fn delete_topic(&mut self, topic: &str) -> i64 {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        body.extend(30_000i32.to_be_bytes());
        let mut answer = self.ask(20, 1, &body);
        answer.int(8);
        answer.string();
        answer.int(2)
    }

    /// AlterClientQuotas 0 of the default user; `None` removes. The error code.
    pub fn set_quota(&mut self, key: &str, value: Option<f64>) -> i64 {
        let mut body = 1i32.to_be_bytes().to_vec();
        body.extend(1i32.to_be_bytes());
        string(&mut body, "user");
        body.extend((-1i16).to_be_bytes());
        body.extend(1i32.to_be_bytes());
        string(&mut body, key);
        body.extend(value.unwrap_or(0.0).to_be_bytes());
        body.extend([u8::from(value.is_none()), 0]);
        let mut answer = self.ask(49, 0, &body);
        answer.int(4);
        answer.int(4);
        answer.int(2)
    }

    /// Sends a request without its length, and gives the answer without its.
    pub fn exchange(&mut self, frame: &[u8]) -> Vec<u8> {
        self.stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        self.stream.write_all(frame).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        answer
    }

    /// Until the group coordinator has its topic and has read it (FindCoordinator 0, OffsetFetch 1).
    pub fn wait_for_coordinator(&mut self) {
        let mut group = Vec::new();
        string(&mut group, "g");
        let mut fetch = group.clone();
        fetch.extend(1i32.to_be_bytes());
        string(&mut fetch, "nope");
        fetch.extend([1i32.to_be_bytes(), 0i32.to_be_bytes()].concat());
        let begun = Instant::now();
        loop {
            self.ask(10, 0, &group);
            if self.ask(9, 1, &fetch).bytes.ends_with(&[0, 0]) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the coordinator is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn send_metadata(&mut self, topic: &str) {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        self.send(3, 1, &body);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Asks for metadata, all but `rest` bytes of a Produce 3 request of one batch behind it, and reads the metadata. Gives
    /// what is to be sent then: the rest, and another such request.
    pub fn begin_produce_behind_metadata(&mut self, topic: &str, bytes: usize, rest: usize) -> Vec<u8> {
        let mut metadata = 1i32.to_be_bytes().to_vec();
        string(&mut metadata, topic);
        let produce = frame(0, 3, &produce_body(topic, 0, &batch_of(bytes)));
        let (now, later) = produce.split_at(produce.len() - rest);
        let mut together = frame(3, 1, &metadata);
        together.extend(now);
        self.send_bytes(&together);
        self.answer();
        [later, &produce].concat()
    }

    /// A Fetch 4 at an offset without records, which waits for `wait_ms`, and a Produce 3 of one batch of `bytes` behind it:
    /// the error code of that.
    pub fn produce_behind_a_waiting_fetch(
        &mut self,
        topic: &str,
        offset: i64,
        wait_ms: i32,
        bytes: usize,
    ) -> i64 {
        let mut together = frame(1, 4, &fetch_body(topic, 0, offset, wait_ms, 1 << 20));
        together.extend(frame(0, 3, &produce_body(topic, 0, &batch_of(bytes))));
        self.send_bytes(&together);
        self.answer();
        self.produce_error()
    }

    /// Requests of all sizes one behind another (Metadata, waiting Fetches, Produces), written in pieces of all sizes; every
    /// answer in its order. `seed` says which; how many records were stored.
    pub fn pipeline(&mut self, topic: &str, partition: i32, seed: u64) -> usize {
        let mut draw = Draw(seed);
        let mut metadata = 1i32.to_be_bytes().to_vec();
        string(&mut metadata, topic);
        let (mut bytes, mut produced) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let kind = draw.below(8);
            bytes.extend(match kind {
                0 => frame(3, 1, &metadata),
                1 => frame(1, 4, &fetch_body(topic, partition, i64::from(u32::MAX), 20, 1 << 20)),
                2 => frame(1, 4, &fetch_body(topic, partition, 0, 20, 1 << 10)),
                _ => {
                    let largest = [200, 20_000, 90_000, 400_000][draw.below(4)];
                    frame(0, 3, &produce_body(topic, partition, &batch_of(100 + draw.below(largest))))
                }
            });
            produced.push(kind > 2);
        }
        let mut sending = self.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let most = [5, 300, 17_000, 70_000, 300_000][draw.below(5)];
                let (piece, rest) = left.split_at(left.len().min(1 + draw.below(most)));
                sending.write_all(piece).unwrap();
                left = rest;
                if draw.below(4) == 0 {
                    std::thread::sleep(Duration::from_micros(draw.below(3_000) as u64));
                }
            }
        });
        for (at, produce) in produced.iter().enumerate() {
            if *produce {
                assert_eq!(self.produce_error(), 0, "request {at} of seed {seed}");
            } else {
                self.answer();
            }
        }
        writer.join().unwrap();
        produced.iter().filter(|produce| **produce).count()
    }

    pub fn shut_down_sending(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Answers up to the end of the connection.
    pub fn count_answers(&mut self) -> usize {
        count_answers(&mut self.stream)
    }

    /// Sends until the connection ends, reading as fast; how many answers came.
    pub fn flood_with_produce(&mut self, topic: &str, partition: i32) -> usize {
        let mut reading = self.stream.try_clone().unwrap();
        let answers = std::thread::spawn(move || count_answers(&mut reading));
        let body = produce_body(topic, partition, &batch());
        let frame = frame(0, 3, &body);
        // A broker that has gone while its window was closed is noticed by a probe, which may be a minute away.
        self.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        while self.stream.write_all(&frame).is_ok() {}
        answers.join().unwrap()
    }

    /// Whether the broker closes the connection without a further answer.
    pub fn is_cut_off(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0; 64]), Ok(1..))
    }

    /// The latest offset.
    pub fn end_offset(&mut self, topic: &str, partition: i32) -> i64 {
        self.offset_at(topic, partition, -1)
    }

    /// The earliest offset.
    pub fn start_offset(&mut self, topic: &str, partition: i32) -> i64 {
        self.offset_at(topic, partition, -2)
    }

    /// DeleteRecords 1 below `offset`; the log start after it.
    pub fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> i64 {
        let mut body = 1i32.to_be_bytes().to_vec();
        string(&mut body, topic);
        body.extend(1i32.to_be_bytes());
        body.extend(partition.to_be_bytes());
        body.extend(offset.to_be_bytes());
        body.extend(10_000i32.to_be_bytes());
        let mut answer = self.ask(21, 1, &body);
        answer.int(8);
        answer.string();
        answer.int(4);
        answer.int(4);
        let low_watermark = answer.int(8);
        assert_eq!(answer.int(2), 0, "delete records error");
        low_watermark
    }

    /// IncrementalAlterConfigs 0 of a broker, `""` being all of them; `None` deletes. The error code.
    pub fn set_broker_config(&mut self, broker: &str, name: &str, value: Option<&str>) -> i64 {
        let mut body = 1i32.to_be_bytes().to_vec();
        body.push(4);
        string(&mut body, broker);
        body.extend(1i32.to_be_bytes());
        string(&mut body, name);
        body.push(u8::from(value.is_none()));
        match value {
            Some(value) => string(&mut body, value),
            None => body.extend((-1i16).to_be_bytes()),
        }
        body.push(0);
        let mut answer = self.ask(44, 0, &body);
        answer.int(8);
        answer.int(2)
    }

    /// ListOffsets 1.
    fn offset_at(&mut self, topic: &str, partition: i32, timestamp: i64) -> i64 {
        let mut body = (-1i32).to_be_bytes().to_vec();
        body.extend(1i32.to_be_bytes());
        string(&mut body, topic);
        body.extend(1i32.to_be_bytes());
        body.extend(partition.to_be_bytes());
        body.extend(timestamp.to_be_bytes());
        let mut answer = self.ask(2, 1, &body);
        answer.int(4);
        answer.string();
        answer.int(4);
        answer.int(4);
        assert_eq!(answer.int(2), 0, "list offsets error");
        answer.int(8);
        answer.int(8)
    }
}

/// A request with a version 1 header and its length.
fn frame(api: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = ((body.len() + 10) as u32).to_be_bytes().to_vec();
    frame.extend(api.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7i32.to_be_bytes());
    frame.extend((-1i16).to_be_bytes());
    frame.extend(body);
    frame
}

fn count_answers(stream: &mut TcpStream) -> usize {
    let mut count = 0;
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut answer).is_err() {
            break;
        }
        count += 1;
    }
    count
}

/// Produce 3 to 8 of one batch with acks=all.
fn produce_body(topic: &str, partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = (-1i16).to_be_bytes().to_vec();
    body.extend((-1i16).to_be_bytes());
    body.extend(30_000i32.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    body
}

/// A batch of one record with value `x`.
fn batch() -> Vec<u8> {
    // length 7, attributes, timestamp delta, offset delta, no key, value of 1, no headers
    batch_with(&[14u8, 0, 0, 0, 1, 2, b'x', 0])
}

/// A batch of one record, of about so many bytes.
fn batch_of(bytes: usize) -> Vec<u8> {
    let mut rest = vec![0, 0, 0, 1];
    varint(&mut rest, bytes);
    rest.resize(rest.len() + bytes, b'x');
    rest.push(0);
    let mut record = Vec::new();
    varint(&mut record, rest.len());
    record.extend(rest);
    batch_with(&record)
}

fn varint(out: &mut Vec<u8>, value: usize) {
    let mut zigzag = value * 2;
    while zigzag >= 128 {
        out.push(zigzag as u8 | 128);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn batch_with(record: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0u8; 61];
    bytes[8..12].copy_from_slice(&((49 + record.len()) as i32).to_be_bytes());
    bytes[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    bytes[16] = 2;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    bytes[27..35].copy_from_slice(&now.to_be_bytes());
    bytes[35..43].copy_from_slice(&now.to_be_bytes());
    bytes[43..57].copy_from_slice(&[0xff; 14]);
    bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
    bytes.extend(record);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// What a produce answer says of its partition.
pub struct ProduceAnswer {
    pub error: i16,
    pub offset: i64,
    /// Index and reason of the records at fault.
    pub records: Vec<(i32, String)>,
    pub message: String,
}

struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    /// A big-endian signed integer of `size` bytes.
    fn int(&mut self, size: usize) -> i64 {
        let bytes = &self.bytes[self.at..self.at + size];
        self.at += size;
        let unsigned = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let unused = 64 - 8 * size as u32;
        ((unsigned << unused) as i64) >> unused
    }

    /// Empty for a null.
    fn string(&mut self) -> String {
        let length = usize::try_from(self.int(2)).unwrap_or(0);
        self.at += length;
        String::from_utf8(self.bytes[self.at - length..self.at].to_vec()).unwrap()
    }
}

//! The floor under a durable Kafka broker: what a producer's client sees when nothing is done but what an ack needs.
//!
//! No log, no index, no check of anything: a Produce request is written and flushed as it came and answered. It knows
//! ApiVersions 0, Metadata 0 to 1 and Produce 3 to 7, names one partition of every topic, and serves one producer at a
//! time. Shapes: <https://kafka.apache.org/protocol>.

use crate::rig::Rig;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const UNSUPPORTED_VERSION: i16 = 35;
/// Fetch is named because librdkafka writes the second record format only to brokers that can also read it.
const VERSIONS: [(i16, i16, i16); 4] = [(PRODUCE, 0, 7), (1, 0, 4), (METADATA, 0, 1), (API_VERSIONS, 0, 0)];

/// Reads big-endian fields; a request that ends early is a bug of the client, and ends this program.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        field
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// With its length in front, as it is sent back; null is -1 and empty here.
    fn string(&mut self) -> &'a [u8] {
        let whole = self.0;
        let len = usize::try_from(self.i16()).unwrap_or(0);
        self.take(len);
        &whole[..2 + len]
    }
}

struct Answer(Vec<u8>);

impl Answer {
    fn new(correlation: i32) -> Answer {
        let mut answer = Answer(vec![0; 4]);
        answer.i32(correlation);
        answer
    }

    fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    fn framed(mut self) -> Vec<u8> {
        let len = self.0.len() as i32 - 4;
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        self.0
    }
}

fn api_versions(version: i16, mut answer: Answer) -> Vec<u8> {
    // A version that is not known is answered in the oldest form.
    answer.i16(if version == 0 { 0 } else { UNSUPPORTED_VERSION });
    answer.i32(VERSIONS.len() as i32);
    for (key, least, most) in VERSIONS {
        answer.i16(key);
        answer.i16(least);
        answer.i16(most);
    }
    answer.framed()
}

fn metadata(version: i16, mut fields: Fields<'_>, port: u16, mut answer: Answer) -> Vec<u8> {
    let host = b"127.0.0.1";
    answer.i32(1);
    answer.i32(1);
    answer.i16(host.len() as i16);
    answer.0.extend(host);
    answer.i32(i32::from(port));
    if version > 0 {
        answer.i16(-1); // rack
        answer.i32(1); // controller
    }
    let topics = fields.i32().max(0);
    answer.i32(topics);
    for _ in 0..topics {
        answer.i16(0);
        answer.0.extend(fields.string());
        if version > 0 {
            answer.0.push(0); // internal
        }
        answer.i32(1);
        answer.i16(0);
        answer.i32(0); // partition
        answer.i32(1); // leader
        for _ in ["replicas", "in sync"] {
            answer.i32(1);
            answer.i32(1);
        }
    }
    answer.framed()
}

/// For a request of one partition, which is what a producer of one partition sends.
fn produce(version: i16, mut fields: Fields<'_>, base_offset: i64, mut answer: Answer) -> Vec<u8> {
    assert!((3..=7).contains(&version), "a version that was offered, not {version}");
    fields.string(); // transactional id
    let (_acks, _timeout) = (fields.i16(), fields.i32());
    assert_eq!(fields.i32(), 1, "one topic");
    let topic = fields.string();
    assert_eq!(fields.i32(), 1, "one partition");
    answer.i32(1);
    answer.0.extend(topic);
    answer.i32(1);
    answer.i32(fields.i32());
    answer.i16(0);
    answer.i64(base_offset);
    answer.i64(-1); // log append time
    if version >= 5 {
        answer.i64(0); // log start
    }
    answer.i32(0); // throttle time
    answer.framed()
}

/// The first whole frame, without its length; `None` until it is there.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let len = i32::from_be_bytes(bytes.get(..4)?.try_into().unwrap());
    bytes.get(4..4 + usize::try_from(len).unwrap())
}

fn api_key(frame: &[u8]) -> i16 {
    Fields(frame).i16()
}

fn answer(frame: &[u8], port: u16, base_offset: i64) -> Vec<u8> {
    let mut fields = Fields(frame);
    let (key, version, correlation) = (fields.i16(), fields.i16(), fields.i32());
    fields.string(); // client id
    let answer = Answer::new(correlation);
    match key {
        API_VERSIONS => api_versions(version, answer),
        METADATA => metadata(version, fields, port, answer),
        PRODUCE => produce(version, fields, base_offset, answer),
        other => panic!("an API that was not offered: {other}"),
    }
}

/// Answers what needs no disk; at the first Produce request the connection goes over to the ring, with what was read.
fn greet(mut socket: TcpStream, port: u16, producers: &Sender<(TcpStream, Vec<u8>)>) {
    let (mut pending, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        while let Some(whole) = frame(&pending) {
            if api_key(whole) == PRODUCE {
                producers.send((socket, pending)).unwrap();
                return;
            }
            let (used, bytes) = (4 + whole.len(), answer(whole, port, 0));
            if socket.write_all(&bytes).is_err() {
                return;
            }
            pending.drain(..used);
        }
        match socket.read(&mut buffer) {
            Ok(got) if got > 0 => pending.extend(&buffer[..got]),
            _ => return,
        }
    }
}

/// Every frame that is there goes to the disk in one write with one flush, and is answered in one send.
fn serve_producer(rig: &mut Rig, socket: &TcpStream, mut pending: Vec<u8>, port: u16) {
    let mut base_offset = 0;
    loop {
        let (mut answers, mut used) = (Vec::new(), 0);
        while let Some(whole) = frame(&pending[used..]) {
            answers.extend(answer(whole, port, base_offset));
            base_offset += 1;
            used += 4 + whole.len();
        }
        if used > 0 {
            rig.write(used);
            rig.send(socket.as_raw_fd(), &answers);
            pending.drain(..used);
        }
        match rig.receive(socket.as_raw_fd()) {
            0 => return,
            got => pending.extend(rig.received(got)),
        }
    }
}

pub fn serve(folder: &Path, port: u16) {
    let mut rig = Rig::new(folder);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (hand_over, producers) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, hand_over) = (socket.unwrap(), hand_over.clone());
            socket.set_nodelay(true).unwrap();
            std::thread::spawn(move || greet(socket, port, &hand_over));
        }
    });
    for (socket, pending) in producers {
        serve_producer(&mut rig, &socket, pending, port);
    }
}

//! Offset commits at a fixed rate to many groups: what loads the coordinator and nothing else.
//!
//! `cargo run --release -p ringmill-bench-micro --bin commits -- HOST:PORT GROUPS OFFSETS_PER_SECOND OFFSETS_PER_REQUEST SECONDS`
//! : OffsetCommit version 5 without members (generation −1), each request for the next group; latency counts from when a
//!   request was meant to go. Works with any broker that speaks Kafka's protocol; topic `commits` has to be there.
//!
//! Prints one line of JSON, exit code 1 when an offset was refused or not answered.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A coordinator answers a connection in order, and each answer waits for the disk: so many wait at a time.
const CONNECTIONS: usize = 64;
const TICK: Duration = Duration::from_millis(1);
/// After the last request: what has not come by then is counted as missing.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &[u8] = b"commits";
const API_KEY: i16 = 8;
const API_VERSION: i16 = 5;
const ANSWER_BYTES_MAX: usize = 1 << 16;
const USAGE: &str = "usage: commits HOST:PORT GROUPS OFFSETS_PER_SECOND OFFSETS_PER_REQUEST SECONDS";

struct Asked {
    address: String,
    groups: u64,
    requests_per_second: f64,
    offsets_per_request: u32,
    span: Duration,
}

impl Asked {
    fn from_arguments() -> Option<Asked> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [address, groups, rate, each, seconds] = arguments.as_slice() else { return None };
        let offsets_per_request: u32 = each.parse().ok().filter(|each| *each > 0)?;
        let rate: f64 = rate.parse().ok().filter(|rate| *rate > 0.0)?;
        Some(Asked {
            address: address.clone(),
            groups: groups.parse().ok().filter(|groups| *groups > 0)?,
            requests_per_second: rate / f64::from(offsets_per_request),
            offsets_per_request,
            span: Duration::from_secs(seconds.parse().ok()?),
        })
    }
}

/// Requests on their way on one connection; answers come in their order.
struct Lane {
    stream: TcpStream,
    out: Vec<u8>,
    came: Vec<u8>,
    meant: VecDeque<Instant>,
}

#[derive(Default)]
struct Found {
    answered: u64,
    refused: u64,
    /// Nanoseconds from the intended time, of each request.
    latencies: Vec<u64>,
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text);
}

/// One request, its length in front.
fn put_request(out: &mut Vec<u8>, number: u64, asked: &Asked) {
    let begins = out.len();
    out.extend([0; 4]);
    out.extend(API_KEY.to_be_bytes());
    out.extend(API_VERSION.to_be_bytes());
    out.extend((number as i32).to_be_bytes());
    put_string(out, b"commits");
    put_string(out, format!("commits-{}", number % asked.groups).as_bytes());
    out.extend((-1_i32).to_be_bytes());
    put_string(out, b"");
    out.extend(1_i32.to_be_bytes());
    put_string(out, TOPIC);
    out.extend(asked.offsets_per_request.to_be_bytes());
    for partition in 0..asked.offsets_per_request {
        out.extend(partition.to_be_bytes());
        out.extend(number.to_be_bytes());
        put_string(out, b"");
    }
    let length = (out.len() - begins - 4) as i32;
    out[begins..begins + 4].copy_from_slice(&length.to_be_bytes());
}

impl Lane {
    fn open(address: &str) -> io::Result<Lane> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Lane { stream, out: Vec::new(), came: Vec::new(), meant: VecDeque::new() })
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, found: &mut Found) -> io::Result<()> {
        if self.meant.is_empty() {
            return Ok(());
        }
        let mut piece = [0; ANSWER_BYTES_MAX];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.came.extend(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        let mut rest = &self.came[..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let Some(answer) = behind.get(..i32::from_be_bytes(*length).max(0) as usize) else { break };
            let meant = self.meant.pop_front().ok_or(io::ErrorKind::InvalidData)?;
            found.latencies.push(now.duration_since(meant).as_nanos() as u64);
            for code in codes(answer) {
                found.answered += 1;
                found.refused += u64::from(code != 0);
            }
            rest = &behind[answer.len()..];
        }
        let kept = rest.len();
        self.came.drain(..self.came.len() - kept);
        Ok(())
    }
}

/// Error codes of an answer: correlation id, throttle time, one topic, then pairs of partition and code.
fn codes(answer: &[u8]) -> impl Iterator<Item = i16> + '_ {
    let rows = answer.get(4 + 4 + 4 + 2 + TOPIC.len() + 4..).unwrap_or_default();
    rows.chunks_exact(6).map(|row| i16::from_be_bytes([row[4], row[5]]))
}

fn run(asked: &Asked) -> io::Result<(Found, u64)> {
    let mut lanes = (0..CONNECTIONS).map(|_| Lane::open(&asked.address)).collect::<io::Result<Vec<_>>>()?;
    let (mut found, mut sent) = (Found::default(), 0_u64);
    let begun = Instant::now();
    let wanted = (asked.requests_per_second * asked.span.as_secs_f64()) as u64;
    while begun.elapsed() < asked.span + PATIENCE
        && (sent < wanted || lanes.iter().any(|l| !l.meant.is_empty()))
    {
        let due = ((begun.elapsed().as_secs_f64() * asked.requests_per_second) as u64).min(wanted);
        while sent < due {
            let lane = &mut lanes[(sent % CONNECTIONS as u64) as usize];
            put_request(&mut lane.out, sent, asked);
            lane.meant.push_back(begun + Duration::from_secs_f64(sent as f64 / asked.requests_per_second));
            sent += 1;
        }
        for lane in &mut lanes {
            lane.write()?;
            lane.read(&mut found)?;
        }
        std::thread::sleep(TICK);
    }
    Ok((found, sent))
}

fn main() -> ExitCode {
    let Some(asked) = Asked::from_arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let (mut found, sent) = match run(&asked) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("{}: {error}", asked.address);
            return ExitCode::from(2);
        }
    };
    let wall = begun.elapsed().as_secs_f64();
    found.latencies.sort_unstable();
    let quantile = |q: f64| {
        let at = (found.latencies.len() as f64 * q) as usize;
        found
            .latencies
            .get(at.min(found.latencies.len().saturating_sub(1)))
            .map_or(0.0, |ns| *ns as f64 / 1e6)
    };
    let missing = sent * u64::from(asked.offsets_per_request) - found.answered;
    println!(
        "{{\"asked_per_s\": {:.0}, \"committed_per_s\": {:.0}, \"refused\": {}, \"missing\": {missing}, \"p50_ms\": {:.2}, \"p99_ms\": {:.2}, \"max_ms\": {:.2}}}",
        asked.requests_per_second * f64::from(asked.offsets_per_request),
        (found.answered - found.refused) as f64 / wall,
        found.refused,
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    );
    ExitCode::from(u8::from(found.refused + missing > 0))
}

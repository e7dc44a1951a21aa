//! The least that a durable write, and a durable answer to a client, can cost on this machine: loops on a bare ring
//! that the broker is compared with.
//!
//! `cargo run --release -p ringmill-reactor --example raw -- write FOLDER SECONDS`
//! : 4 KiB `WRITE_FIXED` with a linked fdatasync into a zero-filled file, one at a time.
//!
//! `… -- serve FOLDER RATE SECONDS FRAME_BYTES sleep|spin`
//! : a paced client (a process of its own) sends RATE frames a second; each is received, written, flushed, answered.
//! : Between frames the client sleeps, or keeps a CPU busy as `rdkafka_performance -r` does.
//!
//! `… -- kafka FOLDER PORT`
//! : as much of Kafka's protocol as a producer needs, around receive, write, flush, send and nothing else: what a client
//! : that nobody here wrote sees of that floor. Runs until it is killed.
//!
//! The others print one line of JSON. CPU is that of the whole process, its io-wq workers included, the client's not.
#![allow(clippy::unwrap_used)]

mod kafka;
mod rig;

use rig::Rig;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;
const PAGE_BYTES: usize = 4096;
/// Room for what arrives while a flush is under way.
const BUFFER_BYTES: usize = 256 << 10;
/// What a Produce answer for one partition takes.
const ANSWER_BYTES: usize = 64;

fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// p50, p99 and p99.9 as members of a JSON object.
fn quantiles(prefix: &str, mut latencies_ns: Vec<u64>) -> String {
    latencies_ns.sort_unstable();
    let at = |part: f64| latencies_ns[((latencies_ns.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    format!("\"{prefix}p50_us\":{p50:.1},\"{prefix}p99_us\":{p99:.1},\"{prefix}p999_us\":{p999:.1}")
}

fn report(name: &str, quantiles: &str, span: Duration, cpu_ns: u64, count: u64) {
    println!(
        "{{\"loop\":\"{name}\",\"count\":{count},\"per_second\":{:.0},{quantiles},\"cpu_us\":{:.2}}}",
        count as f64 / span.as_secs_f64(),
        cpu_ns as f64 / 1e3 / count as f64
    );
}

fn write_loop(folder: &Path, span: Duration) {
    let mut rig = Rig::new(folder);
    let mut latencies = Vec::new();
    let (begin, cpu) = (Instant::now(), cpu_ns());
    while begin.elapsed() < span {
        let started = Instant::now();
        rig.write(PAGE_BYTES);
        latencies.push(started.elapsed().as_nanos() as u64);
    }
    let count = latencies.len() as u64;
    report("write", &quantiles("", latencies), begin.elapsed(), cpu_ns() - cpu, count);
}

/// Receives, writes, flushes, answers, until the client has gone. Reports the broker's part, and what the client saw.
fn serve(folder: &Path, rate: &str, seconds: &str, frame_bytes: &str, between: &str) {
    let frame: usize = frame_bytes.parse().expect("bytes of a frame");
    assert!(frame > 0 && frame <= BUFFER_BYTES, "a frame that fits the buffer");
    let mut rig = Rig::new(folder);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["client", &address, rate, seconds, frame_bytes, between])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    let socket = socket.as_raw_fd();
    let answers = vec![0u8; ANSWER_BYTES * (BUFFER_BYTES / frame + 1)];
    let (mut latencies, mut count, mut partial) = (Vec::new(), 0u64, 0usize);
    let (begin, cpu) = (Instant::now(), cpu_ns());
    loop {
        let got = rig.receive(socket);
        if got == 0 {
            break;
        }
        let started = Instant::now();
        let whole = (partial + got) / frame;
        partial = (partial + got) % frame;
        rig.write(got);
        if whole > 0 {
            rig.send(socket, &answers[..ANSWER_BYTES * whole]);
        }
        count += whole as u64;
        latencies.push(started.elapsed().as_nanos() as u64);
    }
    let spent = cpu_ns() - cpu;
    let span = begin.elapsed();
    let mut seen = String::new();
    client.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(client.wait().unwrap().success(), "the client got every answer");
    report("serve", &format!("{},{}", quantiles("", latencies), seen.trim()), span, spent, count);
}

/// Sends frames at their times, whatever the answers do, and prints how long after its frame each answer came.
fn client(address: &str, rate: f64, seconds: f64, frame: usize, spin: bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let count = (rate * seconds) as u64;
    let (note_sent, sent) = std::sync::mpsc::channel::<Instant>();
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut got, mut buffer, mut latencies) = (0, [0u8; 65_536], Vec::new());
        while got < count * ANSWER_BYTES as u64 {
            let n = answers.read(&mut buffer).unwrap();
            assert!(n > 0, "the server stays until all is answered");
            got += n as u64;
            while (latencies.len() as u64) < got / ANSWER_BYTES as u64 {
                latencies.push(sent.recv().unwrap().elapsed().as_nanos() as u64);
            }
        }
        latencies
    });
    let bytes = vec![0x5a; frame];
    let begin = Instant::now();
    for index in 0..count {
        let due = begin + Duration::from_secs_f64(index as f64 / rate);
        while spin && Instant::now() < due {
            std::hint::spin_loop();
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        note_sent.send(Instant::now()).unwrap();
        stream.write_all(&bytes).unwrap();
    }
    println!("{}", quantiles("client_", reader.join().unwrap()));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["write", folder, seconds] => {
            write_loop(Path::new(folder), Duration::from_secs_f64(seconds.parse().expect("seconds")));
        }
        ["serve", folder, rate, seconds, frame, between @ ("sleep" | "spin")] => {
            serve(Path::new(folder), rate, seconds, frame, between);
        }
        ["kafka", folder, port] => kafka::serve(Path::new(folder), port.parse().expect("a port")),
        ["client", address, rate, seconds, frame, between] => {
            let number = |text: &str| text.parse::<f64>().expect("a number");
            client(address, number(rate), number(seconds), number(frame) as usize, *between == "spin");
        }
        _ => {
            eprintln!(
                "usage: raw write FOLDER SECONDS | raw serve FOLDER RATE SECONDS FRAME_BYTES sleep|spin \
                 | raw kafka FOLDER PORT"
            );
            std::process::exit(2);
        }
    }
}

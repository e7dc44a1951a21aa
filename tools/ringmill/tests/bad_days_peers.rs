//! Bad peers of a real broker: readers that stop in mid-answer, connections that sleep, and bytes that nobody should send.
//! Each is answered, waited for as long as it makes sense, or closed with a reason; nobody else notices.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, Client, NONE, PATIENCE, batch, connections_max, fetch_request, skipped};
use kafka_wire::FetchResponse;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a frame, or a send, may stand still; the core's `frame_ms`.
const FRAME_PATIENCE: Duration = Duration::from_secs(30);

/// The other side closed this connection: nothing, or an error, is what is left to read.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(got) => got == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[track_caller]
fn wait_until_closed(stream: &mut TcpStream, patience: Duration, broker: &Broker) -> Duration {
    let begun = Instant::now();
    while !is_closed(stream) {
        assert!(begun.elapsed() < patience, "still open\n{}", broker.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// One of them goes on after a while and gets every byte; the others are cut when they had long enough.
#[test]
fn readers_that_stop_in_mid_answer_harm_nobody() {
    const READERS: usize = 8;
    const BATCHES: usize = 48;
    const ANSWER_BYTES_MIN: usize = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(client.create("wide", 1, &[]).unwrap(), NONE);
    let value = vec![b'w'; 1_000_000];
    for _ in 0..BATCHES {
        assert_eq!(client.produce("wide", 0, &batch(ANYBODY, &[&value])).unwrap(), NONE);
    }
    let before_kib = broker.resident_kib();

    // Each asks for everything, and reads nothing: more than sockets and kernels hold for it.
    let mut readers: Vec<Client> = (0..READERS).map(|_| broker.client()).collect();
    for reader in &mut readers {
        reader.send(&fetch_request("wide", 0, 0, 48 << 20, 100), 4).unwrap();
    }
    let stopped = Instant::now();
    while broker.metric("ringmill_fetch_in_place_bytes_total") < (READERS * ANSWER_BYTES_MIN) as f64 {
        assert!(stopped.elapsed() < PATIENCE, "not all of them are answered");
        std::thread::sleep(Duration::from_millis(20));
    }

    // Meanwhile a careful neighbour produces and reads as if they were not there.
    for n in 0..200 {
        let begun = Instant::now();
        assert_eq!(client.produce("wide", 0, &batch(ANYBODY, &[format!("{n}")])).unwrap(), NONE);
        let got = client.fetch("wide", 0, (BATCHES + n) as i64, 1 << 20).unwrap();
        assert_eq!(got.records.map(|r| r.is_empty()), Some(false), "record {n} is readable at once");
        assert!(begun.elapsed() < Duration::from_secs(2), "{n}: {:?}", begun.elapsed());
    }
    let during_kib = broker.resident_kib();
    assert!(during_kib < 512 << 10, "{during_kib} KiB resident, {before_kib} before, with --memory 256MiB");

    // The first goes on: all that it asked for is there.
    let mut first = readers.remove(0);
    let answer: FetchResponse = first.receive(4).unwrap();
    let part = &answer.responses[0].partitions[0];
    assert_eq!(part.error_code, NONE);
    let whole = part.records.as_ref().unwrap().len();
    assert!(whole >= ANSWER_BYTES_MIN, "{whole} bytes of the {} that were asked for", 48 << 20);

    // The others never do.
    for reader in &mut readers {
        // Bytes the kernel had already; then the end.
        reader.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    broker.wait_until_said("a reader that has not taken its answer", FRAME_PATIENCE + PATIENCE);
    assert!(stopped.elapsed() >= FRAME_PATIENCE, "cut after {:?} already", stopped.elapsed());
    assert_eq!(client.produce("wide", 0, &batch(ANYBODY, &["after"])).unwrap(), NONE);
    broker.assert_alive();
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    const IDLE: Duration = Duration::from_millis(1500);
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--set", "connections.max.idle.ms=1500"]);
    let mut busy = broker.client();
    assert_eq!(busy.create("quiet", 1, &[]).unwrap(), NONE);
    let mut never_spoke = TcpStream::connect(&broker.address).unwrap();
    let mut spoke_once = broker.client();
    spoke_once.producer_id().unwrap();
    // It waits for an answer; that is not idling, however long it takes.
    let mut waits = broker.client();
    waits.send(&fetch_request("quiet", 0, 0, 1 << 20, 4_000), 4).unwrap();

    let begun = Instant::now();
    let keep_busy = std::thread::spawn(move || {
        while begun.elapsed() < 3 * IDLE {
            busy.producer_id().unwrap();
            std::thread::sleep(IDLE / 5);
        }
        busy
    });
    wait_until_closed(&mut never_spoke, PATIENCE, &broker);
    wait_until_closed(&mut spoke_once.stream, PATIENCE, &broker);
    assert!(begun.elapsed() >= IDLE - Duration::from_millis(100), "closed after {:?}", begun.elapsed());
    let answer: FetchResponse = waits.receive(4).expect("its answer came");
    assert_eq!(answer.responses[0].partitions[0].error_code, NONE);
    let mut busy = keep_busy.join().unwrap();
    assert!(begun.elapsed() >= 3 * IDLE);
    busy.producer_id().expect("it was never idle");
    assert!(broker.metric("ringmill_connections_closed_idle_total") >= 2.0);
}

/// Frames that are wrong in every way that comes to mind, each on its own connection.
fn hostile_frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = vec![
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0x80, 0, 0, 0],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 4, 0, 0, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // A TLS client hello.
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
    ];
    for api in 0..95i16 {
        for version in [0i16, 4, 12, 99] {
            // A header, then array counts of 2^31 - 1 as far as the frame goes.
            let mut body = Vec::new();
            body.extend(api.to_be_bytes());
            body.extend(version.to_be_bytes());
            body.extend([0, 0, 0, 7, 0, 1, b'x', 0]);
            body.extend([0x7f, 0xff, 0xff, 0xff].repeat(12));
            let mut frame = (body.len() as u32).to_be_bytes().to_vec();
            frame.extend(body);
            frames.push(frame);
        }
    }
    // Reproducible noise.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut junk = Vec::new();
        for _ in 0..64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            junk.extend(seed.to_le_bytes());
        }
        frames.push(junk);
    }
    frames
}

#[test]
fn hostile_bytes_do_no_harm() {
    const HALF_SENT: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    assert_eq!(broker.client().create("target", 1, &[]).unwrap(), NONE);

    // Frames that claim 30 MiB and stop after a few bytes, held open all the while, and one that sends a byte a second.
    let mut held: Vec<TcpStream> = (0..HALF_SENT)
        .map(|_| {
            let mut stream = TcpStream::connect(&broker.address).unwrap();
            stream.write_all(&[0x01, 0xe0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    let mut slow = TcpStream::connect(&broker.address).unwrap();
    let mut drip = slow.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        let frame = [&[0, 0, 4, 0, 0, 18, 0, 0][..], &[b'x'; 90]].concat();
        // Until the frame is out or the connection is gone.
        for byte in frame {
            if drip.write_all(&[byte]).is_err() || began.elapsed() > FRAME_PATIENCE + PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });

    // A good batch behind every cut: a frame that ends early, and the connection with it.
    let whole = batch(ANYBODY, &["never seen"]);
    for cut in 0..whole.len() {
        let mut stream = TcpStream::connect(&broker.address).unwrap();
        stream.write_all(&(whole.len() as u32 + 8).to_be_bytes()).unwrap();
        let _ = stream.write_all(&[&[0, 0, 0, 7, 0, 0, 0, 1], &whole[..cut]].concat());
    }
    for frame in &hostile_frames() {
        let mut stream = TcpStream::connect(&broker.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // The broker may have closed already; that is an answer.
        let _ = stream.write_all(frame);
        let _ = stream.read(&mut [0; 64]);
    }
    broker.assert_alive();
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 256 << 10, "{resident_kib} KiB resident although nothing was received");

    // A flood of the same mistake: everyone is closed, and the log says so without becoming a flood itself.
    // It begins in a second whose share of lines nobody has used up.
    std::thread::sleep(Duration::from_millis(1100));
    let (closed_before, said_before) = (broker.metric(CLOSED), broker.times_said("closed a connection"));
    let flood = Instant::now();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&broker.address).unwrap();
        stream.write_all(&[0x7f, 0xff, 0xff, 0xff]).unwrap();
        wait_until_closed(&mut stream, PATIENCE, &broker);
    }
    let seconds = flood.elapsed().as_secs() as usize + 2;
    assert!(broker.metric(CLOSED) >= closed_before + 500.0);
    let said = broker.times_said("closed a connection") - said_before;
    assert!((1..=seconds * 10 * 2).contains(&said), "{said} lines in {seconds} s from two cores");
    assert!(broker.times_said("above socket.request.max.bytes") > 0, "{}", broker.said());
    assert!(broker.times_said("are left out") > 0, "it says that it says less\n{}", broker.said());

    // Whoever does not finish a frame is not waited for.
    for stream in &mut held {
        wait_until_closed(stream, FRAME_PATIENCE + PATIENCE, &broker);
    }
    assert!(began.elapsed() >= FRAME_PATIENCE, "half a frame may be the start of a good one");
    wait_until_closed(&mut slow, PATIENCE, &broker);
    dripping.join().unwrap();
    broker.wait_until_said("a frame whose rest has not come", PATIENCE);
    broker.client().producer_id().expect("good requests are answered as before");
}

const CLOSED: &str = "ringmill_connections_closed_error_total";

/// Ten thousand connections that say nothing, as far as the limit on open files goes here.
#[test]
fn thousands_of_silent_connections_cost_little() {
    const WANTED: usize = 10_000;
    let count = connections_max().min(WANTED);
    if count < WANTED {
        skipped(&format!("{WANTED} connections, {count} tried"), "the limit on open files");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    let before_kib = broker.resident_kib();
    let mut silent = Vec::new();
    for n in 0..count {
        silent.push(TcpStream::connect(&broker.address).unwrap_or_else(|e| panic!("connection {n}: {e}")));
    }
    let begun = Instant::now();
    while broker.metric("ringmill_connections") < count as f64 {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of {count} were taken",
            broker.metric("ringmill_connections")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut client = broker.client();
    assert_eq!(client.create("beside", 1, &[]).unwrap(), NONE);
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(client.produce("beside", 0, &batch(ANYBODY, &["x"])).unwrap(), NONE);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    let more_kib = broker.resident_kib().saturating_sub(before_kib);
    let each_kib = more_kib / count as u64;
    assert!(each_kib < 8, "{more_kib} KiB for {count} connections that never said anything");
    assert!(silent.iter_mut().step_by(97).all(|stream| !is_closed(stream)), "and none of them was closed");
    broker.assert_alive();
    // On the real standard error, as a log of CI has to tell how many there were.
    let _ = writeln!(
        std::io::stderr(),
        "\n*** {count} silent connections held, {more_kib} KiB for all of them ***\n"
    );
}

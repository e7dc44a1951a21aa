//! `ringmill top` against brokers of its own: one frame, a snapshot, and what is said where there is none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, batch, run};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a screen is up, or a process that lost its terminal is gone.
const SOON: Duration = Duration::from_secs(20);

/// Finds the object of a list whose `key` is `value`.
#[track_caller]
fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|each| each[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {list:#}"))
}

#[test]
fn a_snapshot_tells_what_happens_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let mut client = broker.client();
    assert_eq!(client.create("watched", 3, &[]).unwrap(), 0);
    let admin = broker.admin.clone();
    let looking = std::thread::spawn(move || run(&["top", "--admin", &admin, "--json", "-i", "2"]));
    let records = batch(ANYBODY, &[[b'x'; 1000]; 10]);
    // Produces until the snapshot is there: whenever its two looks are, there is something between them.
    let mut sent = 0;
    while !looking.is_finished() {
        assert_eq!(client.produce("watched", sent % 3, &records).unwrap(), 0);
        sent += 1;
    }
    let (code, text) = looking.join().unwrap();
    assert_eq!(code, 0, "{text}");
    let snapshot: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&snapshot["version"], &snapshot["ready"]), (&env!("CARGO_PKG_VERSION").into(), &true.into()));
    let rate = snapshot["totals"]["records_in_per_second"].as_f64().unwrap();
    let seconds = snapshot["interval_seconds"].as_f64().unwrap();
    assert!(
        seconds >= 2.0 && rate > 0.0 && rate * seconds <= f64::from(sent) * 10.0,
        "{rate} over {seconds} s, {sent} sent"
    );
    let topic = find(&snapshot["topics"], "topic", "watched");
    assert_eq!(topic["partitions"], 3);
    let (in_bytes, batch_bytes) = (topic["in_bytes_per_second"].as_f64().unwrap(), records.len() as f64);
    assert!(
        (in_bytes / (rate / 10.0 * batch_bytes) - 1.0).abs() < 0.01,
        "{in_bytes} at {rate} records a second"
    );
    let ours = find(&snapshot["clients"], "client_id", "test");
    assert_eq!((&ours["host"], &ours["connections"]), (&"127.0.0.1".into(), &1.into()));
    assert!(ours["in_bytes_per_second"].as_f64().unwrap() >= in_bytes * 0.9, "{ours}");
    assert!(snapshot["produce"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert!(snapshot["disk"]["capacity_bytes"].as_u64().unwrap() > 0);
    assert!(snapshot["cores"].as_array().unwrap().iter().all(|core| core["answered"] == true));
}

#[test]
fn one_frame_is_text_of_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let (code, frame) = run(&["top", "--admin", &broker.admin, "--once", "-i", "0.2"]);
    assert_eq!(code, 0, "{frame}");
    assert!(frame.lines().count() <= 24 && frame.lines().all(|line| line.chars().count() <= 80), "{frame}");
    for said in ["ringmill", "produce p50", "CORE", "TOPIC", "CLIENT", "none", "every 0.2 s"] {
        assert!(frame.contains(said), "{said} is missing in\n{frame}");
    }
    assert!(!frame.contains('\u{1b}'), "no escape sequences in text");
}

#[test]
fn it_ends_when_its_terminal_goes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut top = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args(["top", "--admin", &broker.admin, "-i", "0.2"])
        .env("TERM", "xterm")
        .stdin(side.try_clone().unwrap())
        .stdout(side.try_clone().unwrap())
        .stderr(side)
        .spawn()
        .unwrap();
    // Only a screen that is up can lose its terminal.
    let mut terminal = File::from(terminal);
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("produce") {
        let mut part = [0; 4096];
        let got = terminal.read(&mut part).unwrap();
        shown.extend_from_slice(&part[..got]);
    }
    drop(terminal);
    let lost = Instant::now();
    while top.try_wait().unwrap().is_none() {
        if lost.elapsed() > SOON {
            top.kill().unwrap();
            top.wait().unwrap();
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn where_there_is_no_broker_a_sentence_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, said) = run(&["top", "--admin", &closed, "--once"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&closed) && said.contains("refused"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), &[]);
    // The Kafka port is no admin port.
    let (code, said) = run(&["top", "--admin", &broker.address, "--json"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("does not speak HTTP") && said.contains("--admin"), "{said}");
    let (code, said) = run(&["top", "--admin", &broker.admin]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--once") && said.contains("--json"), "{said}");
}

//! The measurements behind `kernel-notes/`: one subcommand per technique.
//!
//! `cargo run --release -p ringmill-reactor --example kernel_notes -- FOLDER MILLISECONDS TECHNIQUE...`
//!
//! `FOLDER` is on the device in question. Ways alternate within each of the rounds, so that a drift of the machine
//! meets all of them; each way runs for `MILLISECONDS` in each round. CPU is that of this process, both sides of a
//! socket included, threads of the kernel not. A technique is never judged by one line: run it again.
#![allow(clippy::unwrap_used)]

mod disk;
mod memory;
mod net;
mod tools;
mod wake;

use std::path::PathBuf;
use std::time::Duration;

/// What every measurement gets.
pub struct Scene {
    folder: PathBuf,
    span: Duration,
}

type Measure = fn(&Scene);

const TECHNIQUES: [(&str, Measure); 16] = [
    ("flush", disk::flush),
    ("files", disk::files),
    ("partitions", disk::partitions),
    ("setup", disk::setup),
    ("iopoll", disk::iopoll),
    ("direct", disk::direct),
    ("deleting", disk::deleting),
    ("receive", net::receive),
    ("accept", net::accept),
    ("send", net::send),
    ("late", net::late_completion),
    ("spread", net::spread),
    ("wake", wake::wake),
    ("memory", memory::first_touch),
    ("pages", memory::direct_writes),
    ("copies", memory::copies),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "FOLDER MILLISECONDS TECHNIQUE...";
    let scene = Scene {
        folder: PathBuf::from(arguments.next().expect(usage)),
        span: Duration::from_millis(arguments.next().expect(usage).parse().expect(usage)),
    };
    let wanted: Vec<String> = arguments.collect();
    let all = wanted.is_empty();
    for name in &wanted {
        assert!(TECHNIQUES.iter().any(|(known, _)| known == name), "no technique {name}");
    }
    println!("load before: {}", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    for (name, measure) in TECHNIQUES {
        if all || wanted.iter().any(|one| one == name) {
            println!("\n## {name}");
            measure(&scene);
        }
    }
    println!("\nload after: {}", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
}

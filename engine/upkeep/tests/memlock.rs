//! Below glommio's memlock minimum upkeep rests and says why. A binary of its own: the limit is the process's.
#![allow(clippy::unwrap_used)]

use ringmill_upkeep::{Outcome, UpkeepOptions, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

#[test]
fn with_little_lockable_memory_it_rests_and_says_why_and_goes_on_with_more() {
    let hard = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum: hard }).unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = dir.path().join("x-0");
    std::fs::create_dir(&folder).unwrap();
    for base in [0, 1] {
        std::fs::write(folder.join(format!("{base:020}.log")), b"").unwrap();
    }
    let (sender, reports) = channel();
    let upkeep = spawn(UpkeepOptions {
        passes: std::sync::mpsc::sync_channel(1).1,
        compact_bytes_per_second: 1 << 30,
        topics: dir.path().into(),
        cpus: Vec::new(),
        bytes_per_second: 1 << 20,
        round_every: Duration::from_millis(10),
        first_round_after: Duration::ZERO,
        second_look_after: Duration::ZERO,
        on_report: Box::new(move |report| {
            // The test may have seen enough already.
            let _ = sender.send(report);
        }),
    })
    .unwrap();
    match reports.recv_timeout(Duration::from_secs(30)).unwrap().outcome {
        Outcome::Resting { why } => assert!(why.contains("below 512 KiB; raise it"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(upkeep.stats().resting.load(Ordering::Relaxed));

    // prlimit(1) raises it for a process that runs: a later round finds that out by itself.
    setrlimit(Resource::Memlock, Rlimit { current: hard, maximum: hard }).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match reports.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap().outcome {
            Outcome::Resting { .. } => {}
            outcome => break assert_eq!(outcome, Outcome::Clean { bytes: 0, batches: 0 }),
        }
    }
    assert!(!upkeep.stats().resting.load(Ordering::Relaxed));
    upkeep.stop();
}

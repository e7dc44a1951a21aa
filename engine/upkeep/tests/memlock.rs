//! Below glommio's memlock minimum upkeep rests and says why. A binary of its own: the limit is the process's.
#![allow(clippy::unwrap_used)]

use ringmill_types::Offset;
use ringmill_upkeep::{Outcome, ScrubRequest, UpkeepOptions, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn with_little_lockable_memory_it_rests_and_says_why() {
    let hard = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum: hard }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (sender, reports) = channel();
    let upkeep = spawn(UpkeepOptions {
        passes: std::sync::mpsc::sync_channel(1).1,
        compact_bytes_per_second: 1 << 30,
        topics: dir.path().into(),
        cpus: Vec::new(),
        bytes_per_second: 1 << 20,
        round_every: Duration::from_secs(3600),
        first_round_after: Duration::from_secs(3600),
        second_look_after: Duration::ZERO,
        on_report: Box::new(move |report| sender.send(report).unwrap()),
    })
    .unwrap();
    let request =
        ScrubRequest { path: dir.path().join("x.log"), partition: "x-0".into(), base_offset: Offset(0) };
    assert!(upkeep.scrub(request));
    match reports.recv_timeout(Duration::from_secs(30)).unwrap().outcome {
        Outcome::Resting { why } => assert!(why.contains("below 512 KiB; raise it"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(upkeep.stats().resting.load(Ordering::Relaxed));
    upkeep.stop();
}

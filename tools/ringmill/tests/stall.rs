//! A core that is held in the middle of its loop, for real: it shares one CPU with threads that want all of it, and it has
//! the least of all priorities.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, NONE, batch};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What each of these gets of the CPU, the core gets a sixty-eighth of.
const RIVALS: usize = 4;
/// Requests sent before the first answer is read.
const IN_FLIGHT: usize = 8;
/// A nice value that only the held core has.
const LAST: i32 = 19;

/// The thread of core 0.
fn core_thread(broker: &Broker) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.child.id())).unwrap();
    let of_core = tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "core-0"));
    let number = of_core.expect("threads carry names").file_name().unwrap().to_str().unwrap().parse();
    Pid::from_raw(number.unwrap()).unwrap()
}

/// Sets a flag when it goes, so that a failed assertion stops the threads of its scope too.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_held_core_is_warned_about_with_what_it_was_doing() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--cores", "1"]);
    let mut client = broker.client();
    assert_eq!(client.create("held", 1, &[]).unwrap(), NONE);

    let allowed = sched_getaffinity(None).unwrap();
    let cpu = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu);
    let core = core_thread(&broker);
    sched_setaffinity(Some(core), &one).unwrap();
    setpriority_process(Some(core), LAST).unwrap();

    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&enough);
        for _ in 0..RIVALS {
            scope.spawn(|| {
                sched_setaffinity(None, &one).unwrap();
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        scope.spawn(|| {
            // Work for every moment in which the core runs, so that it is taken off its CPU with some left.
            let records = batch(ANYBODY, &[vec![b'h'; 100_000]]);
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..IN_FLIGHT {
                    client.send_produce("held", 0, &records).unwrap();
                }
                for _ in 0..IN_FLIGHT {
                    assert_eq!(client.receive_produced().unwrap(), NONE);
                }
            }
        });
        broker.wait_until_said("core 0 has not turned its loop for", Duration::from_secs(60));
    });
    broker.wait_until_said("core 0 turns again after about", Duration::from_secs(20));
    let said = broker.said();
    let line = said.lines().find(|line| line.contains("has not turned its loop")).unwrap();
    assert!(line.contains("; it is "), "what it was doing is named: {line}");
    assert!(broker.stop().success());
}

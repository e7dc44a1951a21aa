//! `ringmill tune flush` with real brokers, at loads that any machine takes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tune(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
    command.args(["tune", "flush", "--data"]).arg(data).args(args);
    command.args(["--cores", "1", "--memory", "128MiB", "--set", "core.log.bytes=128MiB"]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    let failed = || panic!("no JSON: {}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| failed())
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

const SMALL: [&str; 8] = ["--record-size", "100", "--span", "0.2s", "--partitions", "4", "--producers", "2"];

#[test]
fn a_goal_that_can_be_met_is_met_by_a_fresh_run() {
    let (data, page) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let page = page.path().join("page.html");
    let goal = ["--rate", "1MB/s", "--slo", "p99=2s", "--budget", "15s", "--json"];
    let output = tune(data.path(), &SMALL).args(goal).arg("--html").arg(&page).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let found = json(&output);
    assert_eq!(found["verdict"]["kind"], "recommended", "{found}");
    let fresh = &found["verdict"]["fresh"];
    assert_eq!((&fresh["meets"], &fresh["kept_up"]), (&true.into(), &true.into()), "{fresh}");
    assert!(fresh["tail_ms"].as_f64().unwrap() <= 2000.0);
    assert!(fresh["cpu_seconds_per_gb"].as_f64().unwrap() > 0.0);
    assert!(found["default"]["tail_ms"].is_number(), "what the default would have given is told: {found}");
    let chosen = found["trials"].as_array().unwrap().iter().find(|row| row["policy"] == fresh["policy"]);
    assert!(chosen.unwrap()["runs"].as_u64().unwrap() > 2, "raced, and run again");
    assert!(!found["frontier_durable"].as_array().unwrap().is_empty());
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(!html.contains("NaN") && !html.contains("http"), "every number is one, and nothing is loaded");
    assert!(is_empty(data.path()), "nothing is left");
    let again = tune(data.path(), &SMALL).args(goal).arg("--html").arg(&page).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "a page is not overwritten");
}

#[test]
fn an_impossible_goal_is_answered_with_the_nearest() {
    let data = tempfile::tempdir().unwrap();
    let goal = ["--rate", "1MB/s", "--slo", "p99=1us", "--budget", "8s"];
    let output = tune(data.path(), &SMALL).args(goal).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("No policy meets this goal"), "{told}");
    assert!(told.contains("at that load") && told.contains("in that time"), "{told}");
    assert!(told.contains("p99 ms over acked MB/s"), "the picture is drawn: {told}");
    assert!(is_empty(data.path()));
}

#[test]
fn ctrl_c_gives_the_results_so_far_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let args = ["--rate", "1MB/s", "--slo", "p99=2s", "--budget", "5m", "--json"];
    // Only on a terminal does it say which run it is at.
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let child = {
        let mut command = tune(data.path(), &SMALL);
        command.args(args).stdout(Stdio::piped()).stderr(side).spawn().unwrap()
    };
    let mut terminal = File::from(terminal);
    let (mut shown, mut part) = (String::new(), [0; 4096]);
    // Ends, or reading fails, when the search does.
    while !shown.contains("run   3") {
        let got = terminal.read(&mut part).unwrap_or_else(|e| panic!("{e} after {shown:?}"));
        shown += &String::from_utf8_lossy(&part[..got]);
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // Nobody reads on, but it has room for the few lines to come.
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{shown}");
    let found = json(&output);
    assert_eq!(found["complete"], false);
    assert!(
        found["runs"].as_u64().unwrap() >= 2 && !found["trials"].as_array().unwrap().is_empty(),
        "{found}"
    );
    assert!(is_empty(data.path()));
}

#[test]
fn the_frontier_is_drawn_for_both_kinds_of_ack() {
    let data = tempfile::tempdir().unwrap();
    let output = tune(data.path(), &SMALL).args(["--explore", "--budget", "25s", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let found = json(&output);
    assert_eq!(found["verdict"]["kind"], "frontier");
    assert!(!found["verdict"]["fresh"].as_array().unwrap().is_empty(), "{found}");
    let trials = found["trials"].as_array().unwrap();
    for (ack, name) in [("durable", "frontier_durable"), ("relaxed", "frontier_relaxed")] {
        let on: Vec<&Value> =
            found[name].as_array().unwrap().iter().map(|at| &trials[at.as_u64().unwrap() as usize]).collect();
        assert!(!on.is_empty() && on.iter().all(|row| row["policy"]["ack"] == ack), "{on:?}");
        let rising = on.windows(2).all(|w| {
            w[0]["bytes_per_second"].as_f64() < w[1]["bytes_per_second"].as_f64()
                && w[0]["tail_ms"]["value"].as_f64() < w[1]["tail_ms"]["value"].as_f64()
        });
        assert!(rising, "{on:?}");
    }
}

#[test]
fn what_cannot_be_used_is_a_sentence() {
    let data = tempfile::tempdir().unwrap();
    for (args, part) in [
        (vec!["--rate", "fast"], "80MB/s"),
        (vec!["--rate", "1MB/s", "--slo", "2ms"], "p99=2ms"),
        (vec!["--rate", "1MB/s", "--explore"], "cannot be used with"),
        (vec![], "--rate <RATE>|--slo <PERCENTILE=TIME>|--explore"),
        (vec!["--rate", "1MB/s", "--set", "flush.depth=2"], "that is what is looked for"),
        (vec!["--rate", "1MB/s", "--html", "/no/such/folder/x.html"], "no such folder"),
        (vec!["--rate", "900GB/s"], "are free"),
    ] {
        let output = tune(data.path(), &args).output().unwrap();
        assert!(matches!(output.status.code(), Some(2 | 5)), "{args:?}: {:?}", output.status);
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
    }
    assert!(is_empty(data.path()));
}

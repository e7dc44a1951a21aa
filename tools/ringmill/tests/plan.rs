//! `ringmill calibrate` and `ringmill plan` as a user runs them, with a calibration that was recorded elsewhere.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/calibration.toml");

fn ringmill(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmill")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn plan(args: &[&str]) -> Output {
    let mut all = vec!["plan", "--calibration", RECORDED, "--force-calibration"];
    all.extend(args);
    ringmill(&all)
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn only_the_rate_is_required_and_the_rest_is_told() {
    let output = plan(&["--rate", "20000"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["12", "3.0 days", "linger", "p99", "disk writes", "full first", "one node more", "modelled"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(said(&ringmill(&["plan"])).0, 2);
}

#[test]
fn a_larger_load_needs_more_nodes_and_replicas_are_marked() {
    let small = json(&plan(&["--rate", "1MB/s", "--json", "--retention", "1h"]));
    let large = json(&plan(&["--rate", "3GB/s", "--json", "--retention", "1h"]));
    assert_eq!(small["nodes"], 1);
    assert!(large["nodes"].as_u64().unwrap() > 1, "{}", large["nodes"]);
    for resource in large["resources"].as_array().unwrap() {
        assert!(resource["utilisation"].as_f64().unwrap() <= 0.7001, "{resource}");
    }
    let args = ["--rate", "1MB/s", "--json", "--retention", "1h", "--replicas", "3", "--growth", "2x/y"];
    let three = json(&plan(&args));
    assert_eq!(three["nodes"], 3);
    let modelled = three["modelled"].to_string();
    assert!(modelled.contains("3 replicas"), "{modelled}");
    let years: Vec<_> =
        three["resources"].as_array().unwrap().iter().filter_map(|r| r["full_in_years"].as_f64()).collect();
    assert!(!years.is_empty() && years.iter().all(|years| *years > 0.0));
}

#[test]
fn an_impossible_goal_gets_the_nearest_that_can_be_met() {
    let found = json(&plan(&["--rate", "1000", "--slo", "p99=1us", "--json"]));
    assert_eq!(found["goal"]["met"], false);
    assert!(found["goal"]["nearest"].as_str().unwrap().contains("p99="), "{}", found["goal"]);
    let told = plan(&["--rate", "1000", "--slo", "p99=10us"]);
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("the goal p99=0.01ms cannot be met"), "{told}");
    let (code, why) = said(&plan(&["--rate", "1000", "--slo", "p98=1ms"]));
    assert!(code == 2 && why.contains("p99=5ms"), "{why}");
}

/// A node that holds no copy of any partition takes nothing off the others.
#[test]
fn more_nodes_than_copies_are_no_plan_without_more_partitions() {
    let args = ["--rate", "80MB/s", "--retention", "3d", "--replicas", "3", "--disk", "300GB"];
    let few = plan(&args);
    let text = String::from_utf8_lossy(&few.stdout);
    let nodes = json(&plan(&[&args[..], &["--json"]].concat()))["nodes"].as_u64().unwrap();
    let needed = nodes.div_ceil(3).to_string();
    assert!(nodes > 36 && text.contains("36 copies of partitions lie on 36 of these nodes"), "{text}");
    assert!(text.contains(&format!("give the topic {needed} partitions")), "{text}");
    let many = plan(&[&args[..], &["--partitions", &needed]].concat());
    assert!(!String::from_utf8_lossy(&many.stdout).contains("copies of partitions"));
}

#[test]
fn the_page_stands_alone_and_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("plan.html");
    let path = page.to_str().unwrap();
    json(&plan(&["--rate", "20000", "--growth", "2x/y", "--html", path, "--json"]));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("<svg") && text.contains("prefers-color-scheme") && text.ends_with("</html>\n"));
    assert!(!text.contains("src=") && !text.contains("href=") && !text.contains("NaN"), "it stands alone");
    for told in [" months<", "calibrated (", "full first"] {
        assert!(text.contains(told), "{told} stands on the page as in the terminal");
    }
    assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    let (code, why) = said(&plan(&["--rate", "20000", "--html", path]));
    assert!(code == 2 && why.contains("--force"), "{why}");
    json(&plan(&["--rate", "20000", "--html", path, "--force", "--json"]));
}

#[test]
fn a_calibration_of_another_machine_is_refused_unless_forced() {
    let (code, why) = said(&ringmill(&["plan", "--rate", "1000", "--calibration", RECORDED]));
    assert!(code == 1 && why.contains("--force-calibration") && why.contains("the kernel was"), "{why}");
    let (_, remark) = said(&plan(&["--rate", "1000"]));
    assert!(remark.contains("taken all the same"), "{remark}");
    let (code, why) = said(&ringmill(&["plan", "--rate", "1000", "--calibration", "/no/such/file.toml"]));
    assert!(code == 5 && why.contains("ringmill calibrate --out"), "{why}");
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.toml");
    for text in ["", "version = 99", "version = 1", "\u{0}\u{1}"] {
        std::fs::write(&broken, text).unwrap();
        let (code, why) =
            said(&ringmill(&["plan", "--rate", "1000", "--calibration", broken.to_str().unwrap()]));
        assert!(code == 4 && why.contains("broken.toml"), "{text}: {code} {why}");
    }
}

#[test]
fn calibrate_says_no_before_it_measures() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there.toml");
    std::fs::write(&there, "mine").unwrap();
    let (code, why) = said(&ringmill(&["calibrate", "--out", there.to_str().unwrap()]));
    assert!(code == 2 && why.contains("--force"), "{why}");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    let new = folder.path().join("new.toml");
    let (code, why) =
        said(&ringmill(&["calibrate", "--out", new.to_str().unwrap(), "--data", "/no/such/folder"]));
    assert!(code == 2 && why.contains("no such folder"), "{why}");
    assert!(!Path::new(&new).exists());
}

#[test]
fn a_peer_listens_where_it_is_told() {
    let mut peer = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args(["calibrate", "peer", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(peer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listens").unwrap().trim().to_string();
    assert!(std::net::TcpStream::connect(address).is_ok());
    peer.kill().unwrap();
    peer.wait().unwrap();
}

#[test]
fn verify_runs_the_load_and_tells_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let found = json(&plan(&[
        "--rate",
        "5000",
        "--partitions",
        "3",
        "--producers",
        "2",
        "--verify",
        "--rounds",
        "1",
        "--data",
        data,
        "--json",
    ]));
    let error = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name} in {found}"));
    assert!(error("throughput_error_pct") >= 0.0);
    let (half, high) = (error("p99_50_error_pct"), error("p99_80_error_pct"));
    assert!((error("p99_error_pct") - half.max(high)).abs() < 1e-9);
    assert!(error("measured_saturation") > 0.0 && error("predicted_saturation") > 0.0);
    assert_eq!(found["levels"].as_array().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the broker's folder is left");
}

#[test]
fn a_verification_that_cannot_run_leaves_the_plan() {
    for form in [&["--json"][..], &[]] {
        let args = ["--rate", "5000", "--verify", "--data", "/no/such/folder"];
        let output = plan(&[&args[..], form].concat());
        let (code, why) = said(&output);
        assert!(code != 0 && why.contains("/no/such/folder"), "{code}: {why}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(if form.is_empty() { "disk writes" } else { "\"nodes\": " }), "{text}");
    }
}

//! Other clients' own test suites. Which of their tests a broker without transactions and share groups has to pass
//! stands in bench/peers/NAME.tests, beside the script that builds and runs them.

use super::Report;
use super::broker::Broker;
use super::tool::{both, need, tail, talk, timed};
use std::collections::BTreeSet;

const SETUP_SECONDS: u32 = 1_800;
const TEST_SECONDS: u32 = 120;

/// Its tests create their topics; one wants an error for a topic that is not there.
pub fn rskafka(report: &mut Report) -> Result<(), String> {
    // Its tests link libjvm, and build the librdkafka that some of them compare with.
    need(&[("javac", "default-jdk-headless"), ("c++", "g++"), ("make", "make")])?;
    listed(report, "rskafka", &["auto.create.topics.enable=false"])
}

pub fn kgo(report: &mut Report) -> Result<(), String> {
    need(&[("go", "golang-go")])?;
    listed(report, "kgo", &["num.partitions=4"])
}

fn listed(report: &mut Report, name: &str, settings: &[&str]) -> Result<(), String> {
    let script = format!("bench/peers/{name}.sh");
    let list = format!("bench/peers/{name}.tests");
    let text = std::fs::read_to_string(&list).map_err(|e| format!("{list}: {e}"))?;
    let wanted: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    talk(timed(SETUP_SECONDS, &script).arg("setup"), "")?;
    let known = talk(timed(TEST_SECONDS, &script).arg("list"), "")?;
    let known: BTreeSet<&str> = known.lines().collect();
    if let Some(gone) = wanted.iter().find(|test| !known.contains(*test)) {
        return Err(format!("{list} names {gone}, which the suite does not have"));
    }
    let mut broker = Broker::start(settings)?;
    for test in wanted {
        report.check(test, || one(&script, &broker.address, test));
    }
    report.check("clean-stop", || broker.stop());
    Ok(())
}

/// A test that skips itself has shown nothing, so it does not pass.
fn one(script: &str, at: &str, test: &str) -> Result<(), String> {
    let mut command = timed(TEST_SECONDS, "sh");
    // The script's exit code decides; what it printed is wanted only when it failed.
    command.args(["-c", "\"$0\" run \"$1\" \"$2\" 2>&1; echo \"exit $?\"", script, at, test]);
    let (out, _) = both(&mut command, "")?;
    match out.lines().last() {
        Some("exit 0") => Ok(()),
        Some("exit 77") => Err("skipped itself".into()),
        _ => Err(tail(&out)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;
    use std::path::Path;

    /// What passes on Kafka and is no difference that is kept, but for what the list's head gives a reason for.
    #[test]
    fn the_lists_are_what_conformance_says() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench");
        let read = |path: String| std::fs::read_to_string(bench.join(path)).unwrap();
        let differences = read("suites/differences.txt".into());
        for (suite, without) in [("rskafka", None), ("kgo", Some("TestGroupSimple"))] {
            let reasons: Vec<&str> = differences
                .lines()
                .filter_map(|line| line.strip_prefix(suite)?.strip_prefix('\t')?.split('\t').next())
                .collect();
            let results = read(format!("suites/kafka-4.3.1/{suite}.txt"));
            let pass = results.lines().filter_map(|line| line.strip_prefix("PASS ")?.split(' ').next());
            let wanted: BTreeSet<&str> = pass
                .filter(|test| !test.contains('/') && without != Some(test))
                .filter(|test| !reasons.iter().any(|reason| crate::conformance::covers(reason, test)))
                .collect();
            let list = read(format!("peers/{suite}.tests"));
            let listed: BTreeSet<&str> =
                list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
            assert_eq!(listed, wanted, "bench/peers/{suite}.tests");
        }
    }
}

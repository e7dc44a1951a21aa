//! `cargo x instructions`: how many instructions the broker's own code takes for fixed requests, against what is recorded.
//!
//! Callgrind counts them, so a busy machine changes nothing. A case that grew by more than [`TOLERANCE_PERCENT`] fails;
//! one that shrank by as much asks to be recorded, or the next one that costs as much would pass unseen. The record is
//! a file in the tree that only grows: review sees each change, and its last line for a case is what holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECORD: &str = "bench/micro/instructions.tsv";
const TOLERANCE_PERCENT: f64 = 5.0;
/// What is not worth a line of the record.
const NOISE_PERCENT: f64 = 0.5;
const HEAD: &str = "date\ttoolchain\tcase\tinstructions per request\n";

/// What a case took when it was recorded last, and with which toolchain.
type Record = BTreeMap<String, (String, f64)>;

/// # Errors
/// What grew, or why nothing could be counted.
pub fn run(accept: bool) -> Result<(), String> {
    let valgrind = output(Command::new("valgrind").arg("--version")).map_err(|error| {
        format!("valgrind counts the instructions, and it cannot be run ({error}): apt-get install valgrind")
    })?;
    crate::run::command("cargo build --quiet --release -p ringmill-bench-micro --bin instructions")?;
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let toolchain = format!("{}, {}, {}", rustc.trim(), valgrind.trim(), std::env::consts::ARCH);
    let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let binary = target.join("release/instructions");
    let folder = target.join("instructions");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let text = std::fs::read_to_string(RECORD).unwrap_or_else(|_| HEAD.to_string());
    let record = read(&text)?;
    let mut counted = Vec::new();
    for line in output(Command::new(&binary).arg("list"))?.lines() {
        let [name, few, many] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{line}: not a case"));
        };
        let (few, many) = (number(few)?, number(many)?);
        // The difference: what starting takes is in both.
        let less = count(&binary, &folder, name, few)?;
        let more = count(&binary, &folder, name, many)?;
        counted.push((name.to_string(), more.saturating_sub(less) as f64 / (many - few) as f64));
    }
    let verdict = compare(&record, &toolchain, &counted);
    print!("{}", verdict.table);
    if accept {
        let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let lines = lines_for(&record, date.trim(), &toolchain, &counted);
        std::fs::write(RECORD, text + &lines).map_err(|error| format!("{RECORD}: {error}"))?;
        println!("{} lines added to {RECORD}", lines.lines().count());
        return Ok(());
    }
    if verdict.wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nwhere it went: callgrind_annotate {}/CASE.out; a cost that is worth it, or a gain, is recorded with \
         `cargo x instructions --accept` and explained in its commit",
        verdict.wrong.join("\n"),
        folder.display()
    ))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text}: not a number"))
}

/// Standard output and error of a command that ended well.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let done = command.output().map_err(|error| format!("{shown}: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(text) } else { Err(format!("{shown}: {}\n{text}", done.status)) }
}

/// Instructions of the core's turns with so many requests, without what the simulation takes: collecting begins in
/// `counted_turn`, and each function named `aside_…` that is called from there switches it off until it returns.
fn count(binary: &Path, folder: &Path, case: &str, requests: u64) -> Result<u64, String> {
    let said = output(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=*counted_turn*", "--toggle-collect=*aside_*"])
            .arg(format!("--callgrind-out-file={}", folder.join(format!("{case}.out")).display()))
            .arg(binary)
            .args([case, &requests.to_string()]),
    )?;
    collected(&said).ok_or_else(|| format!("{case}: callgrind does not say what it collected:\n{said}"))
}

/// From callgrind's summary: `==7== Collected : 12345`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected : "))?;
    line.rsplit_once(": ")?.1.trim().replace(',', "").parse().ok()
}

fn read(text: &str) -> Result<Record, String> {
    let mut record = Record::new();
    for line in text.lines().skip(1) {
        let [_, toolchain, case, instructions] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("{RECORD}: {line}: not four columns"));
        };
        let instructions: f64 =
            instructions.parse().map_err(|_| format!("{RECORD}: {instructions}: not a number"))?;
        record.insert(case.to_string(), (toolchain.to_string(), instructions));
    }
    Ok(record)
}

struct Verdict {
    table: String,
    wrong: Vec<String>,
}

/// A count of another toolchain is compared and shown, and never wrong: its compiler may have moved it.
fn compare(record: &Record, toolchain: &str, counted: &[(String, f64)]) -> Verdict {
    let mut verdict = Verdict { table: String::new(), wrong: Vec::new() };
    let mut others = false;
    // Writing to a String cannot fail.
    let _ = writeln!(verdict.table, "{:<24}{:>12}{:>12}{:>9}", "case", "recorded", "now", "change");
    for (case, now) in counted {
        let Some((known, then)) = record.get(case) else {
            let _ = writeln!(verdict.table, "{case:<24}{:>12}{now:>12.0}", "-");
            verdict.wrong.push(format!("{case} is not recorded"));
            continue;
        };
        let change = (now / then - 1.0) * 100.0;
        let _ = writeln!(verdict.table, "{case:<24}{then:>12.0}{now:>12.0}{change:>+8.1}%");
        if known != toolchain {
            others = true;
        } else if change.abs() > TOLERANCE_PERCENT {
            let what = if change > 0.0 { "costs" } else { "saves" };
            verdict.wrong.push(format!("{case} {what} {:.1} % of what is recorded", change.abs()));
        }
    }
    for case in record.keys().filter(|case| counted.iter().all(|(name, _)| name != *case)) {
        verdict.wrong.push(format!("{case} is recorded and not counted any more"));
    }
    if others {
        let _ = writeln!(
            verdict.table,
            "some were recorded with another toolchain than {toolchain}: shown, not judged, until they are recorded anew"
        );
    }
    verdict
}

/// What is new to the record.
fn lines_for(record: &Record, date: &str, toolchain: &str, counted: &[(String, f64)]) -> String {
    let is_new = |case: &str, now: f64| {
        record.get(case).is_none_or(|(known, then)| {
            known != toolchain || (now / then - 1.0).abs() * 100.0 > NOISE_PERCENT
        })
    };
    let new = counted.iter().filter(|(case, now)| is_new(case, *now));
    new.map(|(case, now)| format!("{date}\t{toolchain}\t{case}\t{now:.0}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "date\ttoolchain\tcase\tinstructions per request\n\
        2026-01-01\ta\tone\t900\n2026-01-02\tb\tone\t1000\n2026-01-02\ta\ttwo\t50\n";

    fn counted(one: f64, two: f64) -> Vec<(String, f64)> {
        vec![("one".to_string(), one), ("two".to_string(), two)]
    }

    #[test]
    fn the_last_line_of_a_case_is_what_holds() -> Result<(), String> {
        let record = read(TEXT)?;
        assert_eq!(record.get("one"), Some(&("b".to_string(), 1000.0)));
        assert!(read("head\nonly\ttwo\n").is_err() && read("head\na\tb\tc\tx\n").is_err());
        Ok(())
    }

    #[test]
    fn five_percent_either_way_is_seen() -> Result<(), String> {
        let record = read(TEXT)?;
        let wrong = |toolchain: &str, one, two| compare(&record, toolchain, &counted(one, two)).wrong;
        assert!(wrong("b", 1049.0, 50.0).is_empty());
        assert_eq!(
            wrong("b", 1051.0, 500.0),
            ["one costs 5.1 % of what is recorded"],
            "two is of another toolchain"
        );
        assert_eq!(wrong("b", 940.0, 50.0), ["one saves 6.0 % of what is recorded"]);
        assert!(compare(&record, "b", &counted(1000.0, 500.0)).table.contains("another toolchain"));
        let missing = compare(&record, "b", &[("three".to_string(), 1.0)]).wrong;
        assert_eq!(missing.len(), 3, "{missing:?}");
        Ok(())
    }

    #[test]
    fn only_what_is_new_is_recorded() -> Result<(), String> {
        let record = read(TEXT)?;
        let lines = lines_for(&record, "2026-02-01", "b", &counted(1004.0, 50.0));
        assert_eq!(lines, "2026-02-01\tb\ttwo\t50\n");
        assert_eq!(read(&(TEXT.to_string() + &lines))?.get("two"), Some(&("b".to_string(), 50.0)));
        Ok(())
    }

    #[test]
    fn the_summary_of_callgrind_is_read() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 12345\n==7==\n"), Some(12345));
        assert_eq!(collected("nothing"), None);
    }
}

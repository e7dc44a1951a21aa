//! What was found, on the terminal.

use super::findings::{Findings, Fresh, Row, Sweep, Verdict};
use super::plot;
use crate::exit::Failed;
use crate::output::{Align, Out, Paint, Table, bytes, grouped};
use ringmill_tune::{Ack, Policy};

const BEST_SHOWN: usize = 8;

pub fn tell(out: &mut Out, findings: &Findings) -> Result<(), Failed> {
    heading(out, findings)?;
    device(out, findings)?;
    out.line("")?;
    plot::draw(out, findings)?;
    out.line("")?;
    best(out, findings)?;
    out.line("")?;
    verdict(out, findings)?;
    if let Some(sweep) = &findings.sweep {
        out.line("")?;
        out.line(swept(sweep))?;
    }
    for (policy, why) in findings.failed.iter().take(5) {
        out.line(format!("could not be run: {policy}: {why}"))?;
    }
    let note = format!(
        "{} runs in {:.0} s; intervals of 90 %, from the scatter of all repeated runs. MB are 10^6 bytes.",
        findings.runs, findings.seconds
    );
    out.line(out.paint(Paint::Dim, &note))?;
    if !findings.complete {
        out.line("Stopped before the end: these are the results so far.")?;
    }
    Ok(())
}

fn heading(out: &mut Out, findings: &Findings) -> Result<(), Failed> {
    let asked = &findings.asked;
    let load =
        asked.rate_bytes_per_second.map_or("all loads".into(), |rate| format!("{:.1} MB/s", rate / 1e6));
    let limit = asked
        .limit_ms
        .map_or(String::new(), |ms| format!(", {} ≤ {} ms", asked.quantile_name, plot::number(ms)));
    let line = format!(
        "Flush policies at {load}{limit}: records of {} B, {} partitions, {} producers",
        grouped(u64::from(asked.record_bytes)),
        grouped(asked.partitions as u64),
        grouped(asked.producers as u64)
    );
    Ok(out.line(out.paint(Paint::Bold, &line))?)
}

fn device(out: &mut Out, findings: &Findings) -> Result<(), Failed> {
    out.line(format!("device: {}", findings.device_name))?;
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("DURABLE WRITE", Align::Left),
        right("DEPTH"),
        right("4 KiB: P50 MS"),
        right("P99"),
        right("/S"),
        right("1 MiB: P50 MS"),
        right("P99"),
        right("MB/S"),
    ])
    .indented(2);
    for small in findings.device.iter().filter(|row| row.size_bytes == 4096) {
        let same = |row: &&super::findings::DeviceText| {
            row.method == small.method && row.depth == small.depth && row.size_bytes == 1 << 20
        };
        let large = findings.device.iter().find(same);
        let cell = |of: fn(&super::findings::DeviceText) -> f64, digits: usize| {
            large.map_or(String::new(), |row| format!("{:.*}", digits, of(row)))
        };
        table.row(vec![
            small.method.to_string(),
            small.depth.to_string(),
            format!("{:.3}", small.p50_ms),
            format!("{:.3}", small.p99_ms),
            grouped(small.per_second as u64),
            cell(|row| row.p50_ms, 3),
            cell(|row| row.p99_ms, 3),
            cell(|row| row.per_second * row.size_bytes as f64 / 1e6, 0),
        ]);
    }
    Ok(out.table(&table)?)
}

/// `0.82 ±12 %`.
fn interval(value: f64, high: f64, digits: usize) -> String {
    format!("{value:.digits$} ±{:.0} %", (high / value - 1.0) * 100.0)
}

/// The rows that are told: at the load of the goal the best, otherwise the frontier.
pub fn told(findings: &Findings) -> Vec<&Row> {
    let Some(rate) = findings.asked.rate_bytes_per_second else {
        let on = findings.frontier_durable.iter().chain(&findings.frontier_relaxed);
        return on.filter_map(|at| findings.trials.get(*at)).collect();
    };
    let mut rows: Vec<&Row> = findings
        .trials
        .iter()
        .filter(|row| super::findings::same_load(row.asked_bytes_per_second, Some(rate)))
        .collect();
    let chosen = plot::chosen(findings);
    let limit = findings.asked.limit_ms;
    rows.sort_by(|a, b| {
        let key = |row: &Row| {
            let misses = !row.kept_up || limit.is_some_and(|ms| row.tail_ms.value > ms);
            let by =
                if limit.is_some() && !misses { row.cpu_seconds_per_gb.value } else { row.tail_ms.value };
            (chosen != Some(row.raw), misses, by)
        };
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2))
    });
    rows.truncate(BEST_SHOWN);
    rows
}

fn best(out: &mut Out, findings: &Findings) -> Result<(), Failed> {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        right("MB/S"),
        right("P50 MS"),
        right("TAIL MS"),
        right("CPU S/GB"),
        right("RUNS"),
        ("POLICY", Align::Left),
    ]);
    for row in told(findings) {
        let late = if row.kept_up { "" } else { " (did not keep up)" };
        table.row(vec![
            format!("{:.1}", row.bytes_per_second / 1e6),
            format!("{:.3}", row.p50_ms),
            interval(row.tail_ms.value, row.tail_ms.high, 3),
            interval(row.cpu_seconds_per_gb.value, row.cpu_seconds_per_gb.high, 3),
            row.runs.to_string(),
            format!("{}{late}", row.raw.label()),
        ]);
    }
    Ok(out.table(&table)?)
}

fn verdict(out: &mut Out, findings: &Findings) -> Result<(), Failed> {
    let name = &findings.asked.quantile_name;
    match &findings.verdict {
        Verdict::Recommended { fresh, changes } => {
            out.line(out.paint(Paint::Good, &format!("Recommended: {}", fresh.raw.label())))?;
            out.line(format!("  it gives      {}", gives(fresh, name)))?;
            if let Some(default) = &findings.default {
                if changes.is_empty() {
                    out.line("  that is the default: there is nothing to set")?;
                } else {
                    out.line(format!("  the default   {}", gives(default, name)))?;
                    out.line(format!("  it costs      {}", costs(fresh, default, name)))?;
                }
            }
            lines(out, changes)?;
        }
        Verdict::Nearest { at_load, within_latency } => nearest(out, findings, at_load, within_latency)?,
        Verdict::Frontier { fresh } => {
            out.line("Fresh runs of the frontier, the most load first:")?;
            for one in fresh {
                out.line(format!("  {}: {}", gives(one, name), one.raw.label()))?;
            }
            out.line("Give a load or a latency (--rate, --slo) for a recommendation.")?;
        }
        Verdict::Unfinished => out.line("There is no recommendation yet.")?,
    }
    Ok(())
}

fn nearest(
    out: &mut Out,
    findings: &Findings,
    at_load: &Option<Fresh>,
    within: &Option<Fresh>,
) -> Result<(), Failed> {
    let name = &findings.asked.quantile_name;
    out.line(
        out.paint(Paint::Bad, "No policy meets this goal here with certainty. The nearest that can be met:"),
    )?;
    let default = Policy::default_with(ringmill_tune::Method::Fdatasync);
    for (what, fresh) in [("at that load ", at_load), ("in that time ", within)] {
        if let Some(fresh) = fresh {
            out.line(format!("  {what} {}: {}", gives(fresh, name), fresh.raw.label()))?;
            lines(out, &fresh.raw.changes_from(&default))?;
        }
    }
    if within.is_none() && at_load.as_ref().is_none_or(|fresh| !fresh.meets) {
        out.line("  in that time  no load that was tried")?;
    }
    Ok(())
}

fn gives(fresh: &Fresh, name: &str) -> String {
    format!(
        "{:.1} MB/s, p50 {:.3} ms, {name} {:.3} ms, {:.3} CPU s/GB{}",
        fresh.bytes_per_second / 1e6,
        fresh.p50_ms,
        fresh.tail_ms,
        fresh.cpu_seconds_per_gb,
        if fresh.kept_up { "" } else { ", and does not keep up" }
    )
}

/// What is worse than with the default; or that nothing is.
pub fn costs(fresh: &Fresh, default: &Fresh, name: &str) -> String {
    let mut worse = Vec::new();
    for (what, own, theirs) in [
        ("p50", fresh.p50_ms, default.p50_ms),
        (name, fresh.tail_ms, default.tail_ms),
        ("CPU", fresh.cpu_seconds_per_gb, default.cpu_seconds_per_gb),
    ] {
        let more = (own / theirs.max(1e-9) - 1.0) * 100.0;
        if more > 5.0 {
            worse.push(format!("{more:.0} % more {what}"));
        }
    }
    if fresh.raw.ack == Ack::Relaxed {
        worse.push("a power cut takes what was acked during the last two flushes".to_string());
    }
    if worse.is_empty() { "nothing that was measured".to_string() } else { worse.join(", ") }
}

fn lines(out: &mut Out, changes: &[(&'static str, String)]) -> Result<(), Failed> {
    for line in config_lines(changes) {
        out.line(format!("      {line}"))?;
    }
    Ok(())
}

/// As they stand in the broker's file.
pub fn config_lines(changes: &[(&'static str, String)]) -> Vec<String> {
    let is_word = |value: &str| value.parse::<u64>().is_err() && value != "true";
    changes
        .iter()
        .map(|(key, value)| {
            let size = if *key == "group.bytes" { value.parse().ok().map(bytes) } else { None };
            let remark = size.map_or(String::new(), |size| format!("  # {size}"));
            if is_word(value) {
                format!("{key} = \"{value}\"{remark}")
            } else {
                format!("{key} = {value}{remark}")
            }
        })
        .collect()
}

/// What brute force says, in a sentence.
pub fn swept(sweep: &Sweep) -> String {
    let head = format!(
        "Sweep: {} policies of the grid once each, {} seemed better by more than 10 %, {} of them met the recommendation again",
        sweep.policies, sweep.challengers, sweep.duels
    );
    if sweep.missed > 0 {
        return format!(
            "{head}; in {} of these meetings the recommendation missed the goal and the other met it",
            sweep.missed
        );
    }
    match (sweep.best_gain, sweep.beaten) {
        (Some(gain), true) => format!("{head}; the best beats it by {:.0} %", gain * 100.0),
        (Some(gain), false) => {
            format!("{head}; none beats it by more than 10 % (the best: {:.0} %)", gain * 100.0)
        }
        (None, _) => format!("{head}; nothing beats it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::findings::PolicyText;
    use ringmill_tune::Policy;

    #[test]
    fn a_recommendation_that_missed_its_goal_is_not_told_as_a_gain() {
        let policy = || PolicyText::of(&Policy::default_with(ringmill_tune::Method::Fdatasync));
        let mut sweep = Sweep { policies: 143, challengers: 3, ..Sweep::default() };
        sweep.met(policy(), None, Some(2.0));
        sweep.met(policy(), None, None);
        assert_eq!((sweep.duels, sweep.missed, sweep.best_gain), (2, 0, None));
        sweep.met(policy(), Some(1.5), Some(2.0));
        assert_eq!(sweep.best_gain, Some(0.25));
        sweep.met(policy(), Some(1.5), None);
        assert_eq!((sweep.duels, sweep.missed, sweep.best_gain), (4, 1, Some(0.25)));
        let told = swept(&sweep);
        assert!(
            told.ends_with("in 1 of these meetings the recommendation missed the goal and the other met it"),
            "{told}"
        );
    }

    #[test]
    fn config_lines_are_those_of_the_file() {
        let changes = [("flush.method", "dsync".to_string()), ("group.bytes", (1u64 << 18).to_string())];
        assert_eq!(config_lines(&changes), ["flush.method = \"dsync\"", "group.bytes = 262144  # 256.0 KiB"]);
        let text = config_lines(&changes).join("\n");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["flush"]["method"].as_str(), Some("dsync"));
    }
}

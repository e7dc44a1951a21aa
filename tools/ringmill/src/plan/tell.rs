//! The plan as people read it in a terminal.

use super::verify::Verified;
use crate::calibrate::doubts;
use crate::exit::Failed;
use crate::neighbours;
use crate::output::{Align, Out, Paint, Table, grouped};
use ringmill_plan::Calibration;
use ringmill_plan::sizing::{Plan, Resource};
use ringmill_plan::units;

fn right(name: &str) -> (&str, Align) {
    (name, Align::Right)
}

/// Years as people say them.
pub fn when(resource: &Resource, grows: bool) -> String {
    match resource.full_in_years {
        Some(0.0) => "now".into(),
        Some(years) if years < 1.0 => format!("in {:.0} months", years * 12.0),
        Some(years) => format!("in {years:.1} years"),
        None if grows && resource.full_at.is_finite() => "beyond a hundred years".into(),
        None => String::new(),
    }
}

/// What is assumed, defaults included.
pub fn assumptions(plan: &Plan) -> Vec<(String, String)> {
    let demand = &plan.demand;
    let rate = demand.records_per_second;
    [
        (
            "load",
            format!(
                "{}/s of {} B, {:.1} MB/s",
                grouped(rate as u64),
                demand.record_bytes,
                rate * f64::from(demand.record_bytes) / 1e6
            ),
        ),
        ("partitions", demand.partitions.to_string()),
        ("producers, consumer groups", format!("{}, {}", demand.producers, demand.consumers)),
        (
            "linger, batch size",
            format!("{} ms, {} B", demand.linger_us / 1e3, grouped(u64::from(demand.batch_bytes))),
        ),
        ("retention, replicas", format!("{}, {}", units::span(demand.retention_s), demand.replicas)),
        ("used at most", format!("{:.0} % of each resource", demand.headroom * 100.0)),
        (
            "growth",
            if demand.growth_per_year == 1.0 {
                "none".into()
            } else {
                format!("{:.2} times a year", demand.growth_per_year)
            },
        ),
        (
            "a node",
            format!(
                "{} cores, {:.1} GiB, {} disk of {:.0} GB at {:.0} MB/s, network {:.0} MB/s",
                plan.hardware.cores,
                plan.hardware.memory_bytes / 1_073_741_824.0,
                plan.hardware.disks,
                plan.hardware.disk_bytes / 1e9,
                plan.hardware.disk_bytes_per_second / 1e6,
                plan.hardware.network_bytes_per_second / 1e6
            ),
        ),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// The answer in sentences.
pub fn sentences(plan: &Plan) -> Vec<String> {
    let nodes = if plan.nodes == 1 { "1 node".into() } else { format!("{} nodes", plan.nodes) };
    let mut all = Vec::new();
    if plan.enough {
        all.push(format!(
            "{nodes} like this machine{}",
            if plan.nodes == 1 { " is enough" } else { " are enough" }
        ));
    } else {
        all.push(format!("more than {nodes} would be needed, which is not planned: the nearest is told"));
    }
    all.push(format!(
        "expected latency: p50 {:.2} ms, p99 {:.2} ms from the intended send to the ack",
        plan.p50_ms, plan.p99_ms
    ));
    all.push(format!(
        "{} is full first, at {}/s",
        plan.first,
        grouped(plan.saturation_records_per_second as u64)
    ));
    if let Some(goal) = &plan.goal {
        let name = if goal.part < 0.9 { "p50" } else { "p99" };
        let asked = format!("{name}={}ms", (goal.goal_ms * 1e6).round() / 1e6);
        if goal.met {
            all.push(format!("the goal {asked} is met: {:.2} ms", goal.expected_ms));
        } else {
            let nearest = goal.nearest.as_deref().unwrap_or("the cluster is too small for the load");
            all.push(format!("the goal {asked} cannot be met: {nearest}"));
        }
    }
    // Of a node without a partition nothing is of use.
    let copies = plan.demand.partitions.saturating_mul(plan.demand.replicas.max(1));
    if copies < plan.nodes {
        all.push(format!(
            "{copies} copies of partitions lie on {copies} of these nodes at most: give the topic {} partitions or more, or a \
             node more disk (--disk)",
            plan.nodes.div_ceil(plan.demand.replicas.max(1))
        ));
    }
    all
}

/// Where the figures are from.
pub fn provenance(calibration: &Calibration) -> Vec<String> {
    let stamp = &calibration.stamp;
    let calibrated = format!("calibrated ({}) on {}, kernel {}", stamp.mode, stamp.cpu, stamp.kernel);
    std::iter::once(calibrated).chain(doubts(calibration)).collect()
}

/// All of it.
pub fn plan(out: &mut Out, plan: &Plan, calibration: &Calibration) -> Result<(), Failed> {
    for (name, value) in assumptions(plan) {
        out.line(format!("{} {value}", out.paint(Paint::Dim, &format!("{name:<28}"))))?;
    }
    out.line("")?;
    for (at, sentence) in sentences(plan).iter().enumerate() {
        out.line(if at == 0 { out.paint(Paint::Bold, sentence) } else { sentence.clone() })?;
    }
    out.line("")?;
    let grows = plan.demand.growth_per_year > 1.0;
    let mut table = Table::new(&[
        ("OF A NODE", Align::Left),
        right("USED"),
        right("OF"),
        ("", Align::Left),
        right("USE"),
        right("FULL AT REC/S"),
        ("FULL", Align::Left),
        ("", Align::Left),
    ]);
    for resource in &plan.resources {
        let full = resource.full_at.is_finite().then(|| grouped(resource.full_at as u64));
        table.row(vec![
            resource.name.to_string(),
            format!("{:.2}", resource.used),
            format!("{:.1}", resource.limit),
            resource.unit.to_string(),
            format!("{:.0} %", resource.utilisation * 100.0),
            full.unwrap_or_default(),
            when(resource, grows),
            if resource.modelled { "modelled".into() } else { String::new() },
        ]);
    }
    out.table(&table)?;
    out.line("")?;
    let mut curve = Table::new(&[right("LOAD %"), right("REC/S"), right("P50 MS"), right("P99 MS")]);
    for point in &plan.curve {
        curve.row(vec![
            point.percent.to_string(),
            grouped(point.records_per_second as u64),
            format!("{:.2}", point.p50_ms),
            format!("{:.2}", point.p99_ms),
        ]);
    }
    out.table(&curve)?;
    out.line("")?;
    let mut more = Table::new(&[("WHAT", Align::Left), right("FULL AT REC/S"), ("", Align::Left)]);
    for one in &plan.more {
        more.row(vec![one.what.clone(), grouped(one.to as u64), one.note.clone()]);
    }
    out.table(&more)?;
    out.line("")?;
    for text in &plan.modelled {
        out.line(out.paint(Paint::Dim, &format!("modelled, not measured: {text}")))?;
    }
    for (at, text) in provenance(calibration).iter().enumerate() {
        out.line(out.paint(if at == 0 { Paint::Dim } else { Paint::Bold }, text))?;
    }
    Ok(())
}

/// Predicted against measured.
pub fn verified(out: &mut Out, found: &Verified) -> Result<(), Failed> {
    out.line("")?;
    out.line(format!("verified with {}", found.verified_load))?;
    let mut table = Table::new(&[
        ("", Align::Left),
        right("PREDICTED"),
        right("MEASURED"),
        right("ERROR %"),
        ("ROUNDS", Align::Left),
    ]);
    let list = |values: &[f64], digits: usize| {
        values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(", ")
    };
    table.row(vec![
        "saturation, records/s".into(),
        grouped(found.predicted_saturation as u64),
        grouped(found.measured_saturation as u64),
        format!("{:.1}", found.throughput_error_pct),
        list(&found.rounds_saturation, 0),
    ]);
    for level in &found.levels {
        let percent = level.part * 100.0;
        table.row(vec![
            format!("p50 at {percent:.0} %, ms"),
            format!("{:.2}", level.predicted_p50_ms),
            format!("{:.2}", level.measured_p50_ms),
            String::new(),
            String::new(),
        ]);
        table.row(vec![
            format!("p99 at {percent:.0} %, ms"),
            format!("{:.2}", level.predicted_p99_ms),
            format!("{:.2}", level.measured_p99_ms),
            format!("{:.1}", level.p99_error_pct),
            list(&level.rounds_p99_ms, 2),
        ]);
    }
    out.table(&table)?;
    out.line("")?;
    let rate = format!("saturation {:.1} %", found.repeat_saturation_pct);
    let levels =
        found.levels.iter().map(|l| format!("p99 at {:.0} % {:.1} %", l.part * 100.0, l.repeat_p99_pct));
    let told: Vec<String> = std::iter::once(rate).chain(levels).collect();
    out.line(format!(
        "the machine itself: one round is off the middle of the others by {}",
        told.join(", ")
    ))?;
    device(out, found)
}

/// The device at calibration and now, and what that makes of the predictions.
fn device(out: &mut Out, found: &Verified) -> Result<(), Failed> {
    out.line("")?;
    for flush in &found.device {
        out.line(format!(
            "a flush of {} KiB takes the device {:.0} µs, p99 {:.0}; at calibration it was {:.0}, p99 {:.0}",
            flush.size_bytes >> 10,
            flush.mean_us,
            flush.p99_us,
            flush.calibrated_mean_us,
            flush.calibrated_p99_us
        ))?;
    }
    let levels: Vec<String> = found
        .levels
        .iter()
        .map(|l| format!("{:.2} ms at {:.0} %", l.predicted_p99_ms_now, l.part * 100.0))
        .collect();
    out.line(format!(
        "with that device the prediction would be {} records/s, p99 {}",
        grouped(found.predicted_saturation_now as u64),
        levels.join(", ")
    ))?;
    if found.calibration_stale {
        out.line(out.paint(
            Paint::Bold,
            &format!(
                "the calibration is stale: the device takes {:.1} times as long as then; `ringmill calibrate --force` again",
                found.device_slower
            ),
        ))?;
    }
    if let Some(remark) = neighbours::remark(found.others_cpus) {
        out.line(out.paint(Paint::Bold, &remark))?;
    }
    Ok(())
}

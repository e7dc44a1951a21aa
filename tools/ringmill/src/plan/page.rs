//! The plan as one page: use of every resource over load, latency over load, and what the terminal says.

use super::tell::{assumptions, provenance, sentences, when};
use super::verify::Verified;
use crate::output::grouped;
use crate::page::{
    BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, end, escape, facts_table, head, horizontal, nice, open, short,
    vertical,
};
use ringmill_plan::Calibration;
use ringmill_plan::sizing::Plan;
use std::fmt::Write;

/// Colours that the frame has for curves.
const COLOURS: usize = 3;

/// The last column of these tables is text.
const STYLE: &str = "<style>.told td:last-child,.told th:last-child{text-align:left}</style>";

/// The page.
pub fn page(plan: &Plan, calibration: &Calibration, verified: Option<&Verified>) -> String {
    let mut out = head("plan");
    out.push_str(STYLE);
    for sentence in sentences(plan) {
        let _ = write!(out, "<p style=\"color:var(--ink)\">{}</p>", escape(&sentence));
    }
    facts_table(&mut out, &assumptions(plan));
    resources(&mut out, plan);
    out.push_str(
        "<h2>Use over load</h2><p>The three resources that are full first; dashed is what is to be used at most, the \
         vertical line is the load that was asked.</p>",
    );
    use_over_load(&mut out, plan);
    let dashed = if plan.goal.is_some() { "; dashed is the goal" } else { "" };
    let _ = write!(
        out,
        "<h2>Latency over load</h2><p>From the intended send to the ack, by the model{dashed}.</p>"
    );
    latency_over_load(&mut out, plan);
    out.push_str("<h2>What one more buys</h2><div class=wide><table class=told><tr><th>what</th><th>full at records/s</th><th></th></tr>");
    for more in &plan.more {
        let (what, to) = (escape(&more.what), grouped(more.to as u64));
        let _ = write!(out, "<tr><td>{what}</td><td>{to}</td><td>{}</td></tr>", escape(&more.note));
    }
    out.push_str("</table></div>");
    if let Some(verified) = verified {
        comparison(&mut out, verified);
    }
    out.push_str("<h2>Modelled, not measured</h2>");
    for text in &plan.modelled {
        let _ = write!(out, "<p>{}</p>", escape(text));
    }
    out.push_str("<h2>Measured</h2>");
    for text in provenance(calibration) {
        let _ = write!(out, "<p>{}</p>", escape(&text));
    }
    end(&mut out);
    out
}

fn resources(out: &mut String, plan: &Plan) {
    out.push_str(
        "<h2>A node</h2><div class=wide><table class=told><tr><th></th><th>used</th><th>of</th><th>use</th>\
         <th>full at records/s</th><th>full</th><th></th></tr>",
    );
    let grows = plan.demand.growth_per_year > 1.0;
    for r in &plan.resources {
        let full = if r.full_at.is_finite() { grouped(r.full_at as u64) } else { String::new() };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.1} {}</td><td>{:.0} %</td><td>{full}</td><td>{}</td><td>{}</td></tr>",
            r.name,
            r.used,
            r.limit,
            r.unit,
            r.utilisation * 100.0,
            when(r, grows),
            if r.modelled { "modelled" } else { "" }
        );
    }
    out.push_str("</table></div>");
}

/// Records per second from 0 to what the curve reaches.
struct Axis {
    top: f64,
}

impl Axis {
    fn of(plan: &Plan) -> Axis {
        let last = plan.curve.last().map_or(1.0, |point| point.records_per_second);
        Axis { top: last.max(plan.demand.records_per_second).max(1e-9) * 1.02 }
    }

    fn x(&self, rate: f64) -> f64 {
        LEFT + (rate / self.top).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn grid(&self, out: &mut String, plan: &Plan) {
        let step = nice(self.top / 6.0);
        let mut at = 0.0;
        while at <= self.top {
            vertical(out, self.x(at), &short(at));
            at += step;
        }
        let x = self.x(plan.demand.records_per_second);
        let _ = write!(
            out,
            "<line class=\"curve s2\" x1={x:.1} x2={x:.1} y1={TOP} y2={} stroke-dasharray=\"2 3\" />",
            HEIGHT - BOTTOM
        );
    }
}

fn y(part: f64) -> f64 {
    HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
}

fn line(out: &mut String, colour: usize, points: impl Iterator<Item = (f64, f64)>) {
    let _ = write!(out, "<polyline class=\"curve s{colour}\" points=\"");
    for (x, y) in points {
        let _ = write!(out, "{x:.1},{y:.1} ");
    }
    out.push_str("\"/>");
}

fn key(out: &mut String, names: &[&str]) {
    out.push_str("<p>");
    for (at, name) in names.iter().enumerate() {
        let _ = write!(out, "<span class=\"key k{at}\"></span>{} &nbsp; ", escape(name));
    }
    out.push_str("</p>");
}

fn use_over_load(out: &mut String, plan: &Plan) {
    let axis = Axis::of(plan);
    let mut order: Vec<usize> = (0..plan.resources.len()).collect();
    let full = |at: &usize| plan.resources.get(*at).map_or(f64::INFINITY, |r| r.full_at);
    order.sort_by(|a, b| full(a).total_cmp(&full(b)));
    order.truncate(COLOURS);
    let names: Vec<&str> = order.iter().filter_map(|at| plan.resources.get(*at)).map(|r| r.name).collect();
    key(out, &names);
    open(out, "use of resources over load");
    for percent in [0, 25, 50, 75, 100] {
        horizontal(out, y(f64::from(percent) / 100.0), &format!("{percent} %"));
    }
    axis.grid(out, plan);
    let headroom = y(plan.demand.headroom);
    let _ = write!(
        out,
        "<line class=grid x1={LEFT} x2={} y1={headroom:.1} y2={headroom:.1} stroke-dasharray=\"6 4\" style=\"stroke:var(--soft)\" />",
        WIDTH - RIGHT
    );
    for (colour, at) in order.iter().enumerate() {
        let points = plan.curve.iter().map(|point| {
            (axis.x(point.records_per_second), y(point.utilisation.get(*at).copied().unwrap_or(0.0)))
        });
        line(out, colour, std::iter::once((axis.x(0.0), y(0.0))).chain(points));
    }
    out.push_str("</svg>");
}

fn latency_over_load(out: &mut String, plan: &Plan) {
    let axis = Axis::of(plan);
    let low = plan.curve.iter().map(|p| p.p50_ms).fold(f64::MAX, f64::min).clamp(1e-3, 1e6).log10().floor();
    let high = plan.curve.iter().map(|p| p.p99_ms).fold(1e-3, f64::max).log10().ceil().max(low + 1.0);
    let place = |ms: f64| y((ms.max(1e-6).log10() - low) / (high - low));
    key(out, &["p99", "p50", "asked"]);
    open(out, "latency over load");
    let mut power = low;
    while power <= high {
        let ms = 10f64.powf(power);
        let label = if power < 0.0 { format!("{ms:.*} ms", (-power) as usize) } else { format!("{ms} ms") };
        horizontal(out, place(ms), &label);
        power += 1.0;
    }
    axis.grid(out, plan);
    line(out, 0, plan.curve.iter().map(|p| (axis.x(p.records_per_second), place(p.p99_ms))));
    line(out, 1, plan.curve.iter().map(|p| (axis.x(p.records_per_second), place(p.p50_ms))));
    if let Some(goal) = &plan.goal {
        let at = place(goal.goal_ms);
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={} y1={at:.1} y2={at:.1} stroke-dasharray=\"6 4\" style=\"stroke:var(--soft)\" />",
            WIDTH - RIGHT
        );
    }
    out.push_str("</svg>");
}

fn comparison(out: &mut String, found: &Verified) {
    let _ = write!(
        out,
        "<h2>Predicted against measured</h2><p>{}</p><div class=wide><table><tr><th></th><th>predicted</th>\
         <th>measured</th><th>error</th></tr>",
        escape(&found.verified_load)
    );
    let mut row = |name: &str, predicted: String, measured: String, error: f64| {
        let _ = write!(
            out,
            "<tr><td>{name}</td><td>{predicted}</td><td>{measured}</td><td>{error:.1} %</td></tr>"
        );
    };
    row(
        "saturation, records/s",
        grouped(found.predicted_saturation as u64),
        grouped(found.measured_saturation as u64),
        found.throughput_error_pct,
    );
    for level in &found.levels {
        row(
            &format!("p99 at {:.0} %, ms", level.part * 100.0),
            format!("{:.2}", level.predicted_p99_ms),
            format!("{:.2}", level.measured_p99_ms),
            level.p99_error_pct,
        );
    }
    out.push_str("</table></div>");
}

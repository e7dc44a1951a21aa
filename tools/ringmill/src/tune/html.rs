//! The page about a search: the frontier, what was recommended and what it was weighed against.

use super::findings::{Findings, Fresh, Row, Verdict};
use super::plot::{Axis, chosen, cost_range, drawn, number};
use super::report;
use crate::page::{self, LEFT, RIGHT, WIDTH, escape, facts_table};
use std::fmt::Write;

const HEIGHT: f64 = 420.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// From little CPU to much, readable on light and dark ground.
const SCALE: [(f64, f64, f64); 4] =
    [(38.0, 132.0, 222.0), (32.0, 168.0, 130.0), (222.0, 158.0, 40.0), (214.0, 74.0, 62.0)];

const STYLE: &str = "<style>.on{fill:none;stroke:var(--ink);stroke-width:1.4;opacity:.55}.rel{stroke-dasharray:5 4}\
.goal{stroke:var(--c1);stroke-width:1.4;stroke-dasharray:2 4}.bar{stroke:var(--soft);stroke-width:1;opacity:.45}\
.ring{fill:none;stroke:var(--ink);stroke-width:2}.cross{stroke-width:1.6;fill:none}pre{background:rgba(var(--heat),.08);\
padding:.6rem .8rem;border-radius:6px;overflow-x:auto}svg .ink{fill:var(--ink);font-weight:600}\
.good{color:var(--c2)}.bad{color:var(--c1)}td:last-child{text-align:left;color:var(--ink)}\
.figures td:last-child{text-align:right}td:first-child{color:inherit}\
.scale{display:flex;align-items:center;gap:.6rem;color:var(--soft);font-size:13px;margin:.2rem 0}</style>";

pub fn page(findings: &Findings) -> String {
    let mut out = page::head("tune flush");
    out.push_str(STYLE);
    facts_table(&mut out, &facts(findings));
    verdict(&mut out, findings);
    let name = &findings.asked.quantile_name;
    let _ = write!(
        out,
        "<h2>{name} against throughput</h2><p>A point is a policy at a load, the bar its interval of 90 %; both axes \
         logarithmic. The line is the frontier of durable acks{}. Square: the default, cross: did not keep up{}{}.</p>",
        if findings.frontier_relaxed.is_empty() { "" } else { ", dashed that of relaxed ones" },
        match (chosen(findings), &findings.verdict) {
            (None, _) => "",
            (Some(_), Verdict::Recommended { .. }) => ", ring: the recommended policy, at each load",
            (Some(_), _) => ", ring: the nearest policy, at each load",
        },
        if findings.asked.limit_ms.is_some() { ", dotted: the goal" } else { "" }
    );
    plot(&mut out, findings);
    scale(&mut out, findings);
    let heading =
        if findings.asked.rate_bytes_per_second.is_some() { "The best at that load" } else { "The frontier" };
    let _ = write!(out, "<h2>{heading}</h2>");
    table(&mut out, name, &report::told(findings));
    device(&mut out, findings);
    let _ = write!(
        out,
        "<h2>Everything measured</h2><details><summary>{} policies and loads</summary>",
        findings.trials.len()
    );
    table(&mut out, name, &findings.trials.iter().collect::<Vec<_>>());
    out.push_str("</details>");
    page::end(&mut out);
    out
}

fn facts(findings: &Findings) -> Vec<(String, String)> {
    let asked = &findings.asked;
    let load = asked.rate_bytes_per_second.map_or("all".into(), |rate| format!("{:.1} MB/s", rate / 1e6));
    let limit =
        asked.limit_ms.map_or("none".into(), |ms| format!("{} ≤ {} ms", asked.quantile_name, number(ms)));
    let mut facts = vec![
        ("load", load),
        ("goal", limit),
        ("records", format!("{} B", asked.record_bytes)),
        ("partitions, producers", format!("{}, {}", asked.partitions, asked.producers)),
        ("device", findings.device_name.clone()),
        ("runs", format!("{} in {:.0} s", findings.runs, findings.seconds)),
    ];
    if let Some(sweep) = &findings.sweep {
        facts.push(("sweep", report::swept(sweep)));
    }
    if !findings.complete {
        facts.push(("", "stopped before the end: the results so far".into()));
    }
    facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn verdict(out: &mut String, findings: &Findings) {
    let default = ringmill_tune::Policy::default_with(ringmill_tune::Method::Fdatasync);
    match &findings.verdict {
        Verdict::Recommended { fresh, changes } => {
            let _ = write!(out, "<h2 class=good>Recommended</h2><p>{}</p>", escape(&fresh.raw.label()));
            if changes.is_empty() {
                out.push_str("<p>That is the default: there is nothing to set.</p>");
            } else {
                let _ = write!(out, "<pre>{}</pre>", escape(&report::config_lines(changes).join("\n")));
            }
            let mut rows = vec![("fresh run of it", fresh)];
            rows.extend(findings.default.as_ref().map(|default| ("fresh run of the default", default)));
            fresh_table(out, &findings.asked.quantile_name, &rows);
            if let Some(default) = findings.default.as_ref().filter(|_| !changes.is_empty()) {
                let text = report::costs(fresh, default, &findings.asked.quantile_name);
                let _ = write!(out, "<p>It costs: {}.</p>", escape(&text));
            }
        }
        Verdict::Nearest { at_load, within_latency } => {
            out.push_str("<h2 class=bad>No policy meets this goal here with certainty</h2><p>The nearest that can be met:</p>");
            let rows: Vec<(&str, &Fresh)> =
                [("at that load", at_load), ("within that latency", within_latency)]
                    .into_iter()
                    .filter_map(|(what, fresh)| Some((what, fresh.as_ref()?)))
                    .collect();
            fresh_table(out, &findings.asked.quantile_name, &rows);
            for (what, fresh) in rows {
                let lines = report::config_lines(&fresh.raw.changes_from(&default)).join("\n");
                let lines = if lines.is_empty() { "# the defaults".to_string() } else { lines };
                let _ = write!(out, "<pre># {what}\n{}</pre>", escape(&lines));
            }
        }
        Verdict::Frontier { fresh } => {
            out.push_str("<h2>Fresh runs of the frontier</h2>");
            let rows: Vec<(&str, &Fresh)> = fresh.iter().map(|one| (one.policy.ack, one)).collect();
            fresh_table(out, &findings.asked.quantile_name, &rows);
        }
        Verdict::Unfinished => out.push_str("<h2 class=bad>There is no recommendation yet</h2>"),
    }
}

fn fresh_table(out: &mut String, name: &str, rows: &[(&str, &Fresh)]) {
    let _ = write!(
        out,
        "<div class=wide><table><tr><th></th><th>MB/s</th><th>p50 ms</th><th>{name} ms</th><th>CPU s/GB</th>\
         <th style=\"text-align:left\">policy</th></tr>"
    );
    for (what, fresh) in rows {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{:.1}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td><td>{}{}</td></tr>",
            escape(what),
            fresh.bytes_per_second / 1e6,
            fresh.p50_ms,
            fresh.tail_ms,
            fresh.cpu_seconds_per_gb,
            escape(&fresh.raw.label()),
            if fresh.kept_up { "" } else { ", did not keep up" }
        );
    }
    out.push_str("</table></div>");
}

fn table(out: &mut String, name: &str, rows: &[&Row]) {
    let _ = write!(
        out,
        "<div class=wide><table><tr><th>MB/s</th><th>p50 ms</th><th>{name} ms</th><th>CPU s/GB</th><th>runs</th>\
         <th style=\"text-align:left\">policy</th></tr>"
    );
    for row in rows {
        let percent = |interval: &super::findings::Interval| (interval.high / interval.value - 1.0) * 100.0;
        let _ = write!(
            out,
            "<tr><td>{:.1}</td><td>{:.3}</td><td>{:.3} ±{:.0} %</td><td>{:.3} ±{:.0} %</td><td>{}</td><td>{}{}</td></tr>",
            row.bytes_per_second / 1e6,
            row.p50_ms,
            row.tail_ms.value,
            percent(&row.tail_ms),
            row.cpu_seconds_per_gb.value,
            percent(&row.cpu_seconds_per_gb),
            row.runs,
            escape(&row.raw.label()),
            if row.kept_up { "" } else { ", did not keep up" }
        );
    }
    out.push_str("</table></div>");
}

/// Where things are on the plot.
struct Place {
    x: Axis,
    y: Axis,
}

impl Place {
    fn x(&self, bytes_per_second: f64) -> f64 {
        LEFT + self.x.part(bytes_per_second) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, ms: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.part(ms) * (HEIGHT - TOP - BOTTOM)
    }
}

fn plot(out: &mut String, findings: &Findings) {
    let rows: Vec<(usize, &Row)> = drawn(findings).collect();
    let limit = findings.asked.limit_ms;
    let place = Place {
        x: Axis::around(rows.iter().map(|(_, row)| row.bytes_per_second)),
        y: Axis::around(rows.iter().map(|(_, row)| row.tail_ms.value).chain(limit)),
    };
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"latency against throughput\">"
    );
    grid(out, &place);
    if let Some(ms) = limit {
        let y = place.y(ms);
        let _ = write!(out, "<line class=goal x1={LEFT} x2={} y1={y:.1} y2={y:.1} />", WIDTH - RIGHT);
    }
    for (class, on) in [("on", &findings.frontier_durable), ("on rel", &findings.frontier_relaxed)] {
        let points: String = on
            .iter()
            .filter_map(|at| findings.trials.get(*at))
            .map(|row| format!("{:.1},{:.1} ", place.x(row.bytes_per_second), place.y(row.tail_ms.value)))
            .collect();
        let _ = write!(out, "<polyline class=\"{class}\" points=\"{points}\"/>");
    }
    let (low, high) = cost_range(findings);
    for (_, row) in &rows {
        point(out, findings, &place, row, colour(row.cpu_seconds_per_gb.value, low, high));
    }
    out.push_str("</svg>");
}

fn grid(out: &mut String, place: &Place) {
    let bottom = HEIGHT - BOTTOM;
    for ms in place.y.ticks() {
        page::horizontal(out, place.y(ms), &format!("{} ms", number(ms)));
    }
    for load in place.x.ticks() {
        let x = place.x(load);
        let _ = write!(
            out,
            "<line class=grid x1={x:.1} x2={x:.1} y1={TOP} y2={bottom} /><text x={x:.1} y={} text-anchor=middle>{}</text>",
            bottom + 18.0,
            number(load / 1e6)
        );
    }
    let _ = write!(out, "<text x={} y={} text-anchor=end>acked MB/s</text>", WIDTH - RIGHT, HEIGHT - 6.0);
}

fn point(out: &mut String, findings: &Findings, place: &Place, row: &Row, colour: String) {
    let (x, y) = (place.x(row.bytes_per_second), place.y(row.tail_ms.value));
    let (top, bottom) = (place.y(row.tail_ms.high), place.y(row.tail_ms.low));
    let is_default = row.raw == ringmill_tune::Policy::default_with(ringmill_tune::Method::Fdatasync);
    let _ = write!(
        out,
        "<g><title>{}: {:.1} MB/s, {:.3} ms, {:.3} CPU s/GB, {} runs</title>",
        escape(&row.raw.label()),
        row.bytes_per_second / 1e6,
        row.tail_ms.value,
        row.cpu_seconds_per_gb.value,
        row.runs
    );
    if row.runs > 1 {
        let _ = write!(out, "<line class=bar x1={x:.1} x2={x:.1} y1={top:.1} y2={bottom:.1} />");
    }
    if !row.kept_up {
        let _ = write!(
            out,
            "<path class=cross stroke=\"{colour}\" d=\"M{:.1},{:.1}l8,8m0,-8l-8,8\"/>",
            x - 4.0,
            y - 4.0
        );
    } else if is_default {
        let _ =
            write!(out, "<rect x={:.1} y={:.1} width=10 height=10 fill=\"{colour}\" />", x - 5.0, y - 5.0);
    } else {
        let _ = write!(out, "<circle cx={x:.1} cy={y:.1} r=4.5 fill=\"{colour}\" />");
    }
    if chosen(findings) == Some(row.raw) {
        let _ = write!(out, "<circle class=ring cx={x:.1} cy={y:.1} r=8.5 />");
    }
    out.push_str("</g>");
}

fn colour(cost: f64, low: f64, high: f64) -> String {
    let part = ((cost - low) / (high - low).max(1e-9)).clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let at = (part.floor() as usize).min(SCALE.len() - 2);
    let (from, to) =
        (SCALE.get(at).copied().unwrap_or_default(), SCALE.get(at + 1).copied().unwrap_or_default());
    let mix = |a: f64, b: f64| a + (b - a) * (part - at as f64);
    format!("rgb({:.0},{:.0},{:.0})", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

fn scale(out: &mut String, findings: &Findings) {
    let (low, high) = cost_range(findings);
    let stops: Vec<String> =
        (0..=6).map(|at| colour(low + (high - low) * f64::from(at) / 6.0, low, high)).collect();
    let _ = write!(
        out,
        "<div class=scale><span>CPU of the broker: {low:.2} s/GB</span><span style=\"flex:0 0 180px;height:10px;border-radius:5px;\
         background:linear-gradient(to right,{})\"></span><span>{high:.2} s/GB and more</span></div>",
        stops.join(",")
    );
}

fn device(out: &mut String, findings: &Findings) {
    out.push_str(
        "<h2>What the device gives without a broker</h2><div class=wide><table class=figures><tr><th>method</th><th>depth</th>\
         <th>KiB</th><th>p50 ms</th><th>p99 ms</th><th>writes/s</th><th>MB/s</th></tr>",
    );
    for row in &findings.device {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.0}</td><td>{:.0}</td></tr>",
            row.method,
            row.depth,
            row.size_bytes >> 10,
            row.p50_ms,
            row.p99_ms,
            row.per_second,
            row.per_second * row.size_bytes as f64 / 1e6
        );
    }
    out.push_str("</table></div>");
}

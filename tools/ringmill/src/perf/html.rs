//! The page about a run: percentile curves, latency over time, throughput.

use super::report::Series;
use crate::page::{
    self, BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, escape, facts_table, horizontal, nice, open, round, short,
    vertical,
};
use ringmill_load::{Latency, Timeline};
use std::fmt::Write;

/// Rows of the heat map per factor of ten.
const ROWS: f64 = 8.0;
/// Columns of a heat map; stretches are put together beyond that.
const COLUMNS_MAX: usize = 160;
/// Parts that are not exceeded, by how far along the axis they are: 1 - 10^-x.
const TICKS: [(f64, &str); 6] = [
    (0.0, "0"),
    (std::f64::consts::LOG10_2, "50 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
];

/// The page.
pub fn page(title: &str, series: &[Series<'_>], facts: &[(String, String)]) -> String {
    let mut out = page::head(title);
    facts_table(&mut out, facts);
    out.push_str("<h2>Latency</h2>");
    percentiles(&mut out, series);
    out.push_str(
        "<h2>Percentile curve</h2><p>Each step to the right is ten times rarer; both axes logarithmic.</p>",
    );
    curves(&mut out, series);
    for one in series {
        let Some(timeline) = one.timeline else { continue };
        if timeline.stretches().iter().any(|s| s.latency.is_some()) {
            let _ = write!(
                out,
                "<h2>Latency over time, {}</h2><p>By the time at which records were meant to be sent; the stronger \
                 a cell, the larger its part of that time's records. The line is p99.</p>",
                escape(one.title)
            );
            heat(&mut out, timeline);
        }
    }
    for one in series {
        let Some(timeline) = one.timeline else { continue };
        if timeline.stretches().iter().any(|s| s.records > 0) {
            let _ = write!(
                out,
                "<h2>Throughput, {}</h2><p>Records a second, by the time at which they were done.</p>",
                if one.tag == "delivery" { "read" } else { "acked" }
            );
            throughput(&mut out, timeline);
        }
    }
    page::end(&mut out);
    out
}

fn percentiles(out: &mut String, series: &[Series<'_>]) {
    out.push_str("<div class=wide><table><tr><th>ms</th>");
    for (at, one) in series.iter().enumerate() {
        let _ = write!(out, "<th><span class=\"key k{at}\"></span>{}</th>", escape(one.title));
    }
    out.push_str("</tr>");
    for (label, quantile) in super::QUANTILES {
        let _ = write!(out, "<tr><td>{label}</td>");
        for one in series {
            let _ = write!(out, "<td>{:.3}</td>", one.latency.ms(quantile));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
}

/// Latencies of an axis in powers of ten, milliseconds.
#[derive(Clone, Copy)]
struct Decades {
    low: f64,
    high: f64,
}

impl Decades {
    fn of<'a>(latencies: impl Iterator<Item = &'a Latency>) -> Decades {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for latency in latencies.filter(|latency| !latency.is_empty()) {
            low = low.min(latency.ms(0.0).max(1e-6));
            high = high.max(latency.max_ms());
        }
        if low > high {
            return Decades { low: -1.0, high: 1.0 };
        }
        let low = low.log10().floor();
        Decades { low, high: high.max(1e-6).log10().ceil().max(low + 1.0) }
    }

    fn y(self, ms: f64) -> f64 {
        let part = (ms.max(1e-9).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(self, out: &mut String) {
        let mut power = self.low;
        while power <= self.high {
            let y = self.y(10f64.powf(power));
            let label = if power < 0.0 {
                format!("{:.*} ms", (-power) as usize, 10f64.powf(power))
            } else if power >= 3.0 {
                format!("{} s", 10f64.powf(power - 3.0))
            } else {
                format!("{} ms", 10f64.powf(power))
            };
            horizontal(out, y, &label);
            power += 1.0;
        }
    }
}

fn curves(out: &mut String, series: &[Series<'_>]) {
    let decades = Decades::of(series.iter().map(|s| s.latency));
    let count = series.iter().map(|s| s.latency.count()).max().unwrap_or(1).max(10);
    let end = (count as f64).log10().clamp(1.0, 6.0);
    let x = |nines: f64| LEFT + nines / end * (WIDTH - LEFT - RIGHT);
    open(out, "percentile curve");
    decades.grid(out);
    for (nines, label) in TICKS.into_iter().filter(|(nines, _)| *nines <= end) {
        vertical(out, x(nines), label);
    }
    for (at, one) in series.iter().enumerate().filter(|(_, one)| !one.latency.is_empty()) {
        let _ = write!(out, "<polyline class=\"curve s{at}\" points=\"");
        for step in 0..=240 {
            let nines = end * f64::from(step) / 240.0;
            let _ =
                write!(out, "{:.1},{:.1} ", x(nines), decades.y(one.latency.ms(1.0 - 10f64.powf(-nines))));
        }
        out.push_str("\"/>");
    }
    out.push_str("</svg>");
}

/// The x axis of a timeline.
struct Span {
    seconds: f64,
}

impl Span {
    fn of(timeline: &Timeline) -> Span {
        Span { seconds: timeline.stretch().as_secs_f64() * timeline.stretches().len().max(1) as f64 }
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + second / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn grid(&self, out: &mut String) {
        let step = nice(self.seconds / 8.0);
        let mut second = 0.0;
        while second <= self.seconds {
            vertical(out, self.x(second), &format!("{} s", round(second)));
            second += step;
        }
    }
}

fn heat(out: &mut String, timeline: &Timeline) {
    let stretches = timeline.stretches();
    let together = stretches.len().div_ceil(COLUMNS_MAX).max(1);
    let columns: Vec<Option<Latency>> = stretches
        .chunks(together)
        .map(|chunk| {
            chunk.iter().filter_map(|s| s.latency.as_ref()).fold(
                None,
                |sum: Option<Latency>, one| match sum {
                    Some(mut sum) => {
                        sum.merge(one);
                        Some(sum)
                    }
                    None => Some(one.clone()),
                },
            )
        })
        .collect();
    let decades = Decades::of(columns.iter().flatten());
    let span = Span::of(timeline);
    let width = timeline.stretch().as_secs_f64() * together as f64;
    open(out, "latency over time");
    decades.grid(out);
    span.grid(out);
    let rows = ((decades.high - decades.low) * ROWS) as u32;
    let mut line = String::new();
    for (at, latency) in columns.iter().enumerate().filter_map(|(at, l)| Some((at, l.as_ref()?))) {
        let (from, to) = (span.x(at as f64 * width), span.x((at + 1) as f64 * width).min(WIDTH - RIGHT));
        for row in 0..rows {
            let edge = |row: u32| 10f64.powf(decades.low + f64::from(row) / ROWS);
            // The first row takes all below, too.
            let low_ns = if row == 0 { 0 } else { (edge(row) * 1e6) as u64 + 1 };
            let part = latency.part_between(low_ns, (edge(row + 1) * 1e6) as u64);
            if part > 0.0 {
                // A single late record is to be seen, so the scale is of roots.
                let opacity = part.powf(0.4).max(0.08);
                let (top, bottom) = (decades.y(edge(row + 1)), decades.y(edge(row)));
                let _ = write!(
                    out,
                    "<rect class=cell x={from:.1} y={top:.1} width={:.1} height={:.1} opacity={opacity:.2} />",
                    to - from,
                    bottom - top
                );
            }
        }
        let _ = write!(line, "{:.1},{:.1} ", (from + to) / 2.0, decades.y(latency.ms(0.99)));
    }
    let _ = write!(out, "<polyline class=\"curve s1\" points=\"{line}\"/></svg>");
}

fn throughput(out: &mut String, timeline: &Timeline) {
    let span = Span::of(timeline);
    let length = timeline.stretch().as_secs_f64();
    let rates = timeline.rates();
    let most = rates.iter().copied().fold(1.0, f64::max);
    let step = nice(most / 4.0);
    let top = (most / step).ceil() * step;
    let y = |rate: f64| HEIGHT - BOTTOM - rate / top * (HEIGHT - TOP - BOTTOM);
    open(out, "throughput");
    let mut rate = 0.0;
    while rate <= top {
        horizontal(out, y(rate), &short(rate));
        rate += step;
    }
    span.grid(out);
    let points: String = rates
        .iter()
        .enumerate()
        .map(|(at, rate)| format!("{:.1},{:.1} ", span.x((at as f64 + 0.5) * length), y(*rate)))
        .collect();
    let base = HEIGHT - BOTTOM;
    let (from, to) = (span.x(0.5 * length), span.x((rates.len() as f64 - 0.5) * length));
    let _ = write!(
        out,
        "<polygon class=area points=\"{from:.1},{base} {points}{to:.1},{base}\"/><polyline class=\"curve s0\" points=\"{points}\"/></svg>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_together_whatever_was_measured() {
        let empty = (Latency::default(), Timeline::default());
        let mut full = (Latency::default(), Timeline::default());
        for at in 0..5000u64 {
            full.0.record(at * at);
            full.1.latency(at * 100_000_000, at * at, 1);
            full.1.count(at * 100_000_000, 1, 10);
        }
        for (latency, timeline) in [&empty, &full] {
            let series = [Series::new("a < b", "intended", latency).over(timeline)];
            let page = page("x & y", &series, &[("rate".into(), "<1>".into())]);
            assert!(page.contains("x &amp; y") && page.contains("a &lt; b") && page.contains("&lt;1&gt;"));
            assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
            assert!(!page.contains("NaN") && !page.contains("inf"), "every number is one");
            assert!(!page.contains("http"), "nothing is loaded from elsewhere");
        }
    }
}

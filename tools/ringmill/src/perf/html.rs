//! One self-contained page about a run: percentile curves, latency over time, throughput. SVG that follows the reader's
//! light or dark setting.

use super::report::Series;
use ringmill_load::{Latency, Timeline};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
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

const STYLE: &str = "
:root{--bg:#fcfcfb;--ink:#1c2430;--soft:#667080;--line:#dfe3e8;--c0:#1f6feb;--c1:#d97706;--c2:#0f9d76;--heat:31,111,235}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--ink:#e6e9ee;--soft:#98a2b0;--line:#2b333e;--c0:#6ea8ff;--c1:#f0a94a;
--c2:#3ecfa3;--heat:110,168,255}}
body{background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:2rem 0 .3rem}p{color:var(--soft);margin:.2rem 0 .6rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.grid{stroke:var(--line);stroke-width:1}.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.area{fill:rgba(var(--heat),.25);stroke:none}
.cell{fill:rgb(var(--heat))}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.15rem 1.2rem .15rem 0;text-align:right;font-weight:400}td:first-child,th:first-child{text-align:left;color:var(--soft)}
th{color:var(--soft);border-bottom:1px solid var(--line)}.key{display:inline-block;width:1.6em;border-top:3px solid;margin:0 .4em .25em 0}
.k0{border-color:var(--c0)}.k1{border-color:var(--c1)}.k2{border-color:var(--c2)}.wide{overflow-x:auto}
";

/// The page.
pub fn page(title: &str, series: &[Series<'_>], facts: &[(String, String)]) -> String {
    let mut out = String::new();
    let title = escape(title);
    let command: Vec<String> = std::env::args().skip(1).collect();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>ringmill {title}</title>\
         <style>{STYLE}</style><h1>ringmill {title}</h1><p><code>ringmill {}</code></p>",
        escape(&command.join(" "))
    );
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
                "<h2>Latency over time, {}</h2><p>By the time at which records were meant to be sent; the darker a \
                 cell, the larger its part of that time's records. The line is p99.</p>",
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
                "<h2>Throughput</h2><p>Records a second when they were done, {}.</p>",
                if one.tag == "delivery" { "read" } else { "acked" }
            );
            throughput(&mut out, timeline);
        }
    }
    out.push_str("</html>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn facts_table(out: &mut String, facts: &[(String, String)]) {
    out.push_str("<div class=wide><table>");
    for (name, value) in facts {
        let _ = write!(
            out,
            "<tr><td>{}</td><td style=\"text-align:left\">{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    out.push_str("</table></div>");
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

fn horizontal(out: &mut String, y: f64, label: &str) {
    let _ = write!(
        out,
        "<line class=grid x1={LEFT} x2={} y1={y:.1} y2={y:.1} /><text x={} y={:.1} text-anchor=end>{label}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0
    );
}

fn vertical(out: &mut String, x: f64, label: &str) {
    let bottom = HEIGHT - BOTTOM;
    let _ = write!(
        out,
        "<line class=grid x1={x:.1} x2={x:.1} y1={TOP} y2={bottom} /><text x={x:.1} y={} text-anchor=middle>{label}</text>",
        bottom + 18.0
    );
}

fn open(out: &mut String, label: &str) {
    let _ = write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">", escape(label));
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

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(power)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
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
    let rates: Vec<f64> = timeline.stretches().iter().map(|s| s.records as f64 / length).collect();
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

/// `1.5M`.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", round(n / 1e6)),
        n if n >= 1e3 => format!("{}k", round(n / 1e3)),
        n => format!("{}", round(n)),
    }
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

//! What every page that a command writes has in common: the frame, its style, and the pieces of a plot.
//!
//! A page is one file that loads nothing from elsewhere; its colours follow the reader's light or dark setting. What is
//! drawn on it belongs to the command.

use std::fmt::Write;

/// Measures of a plot, in units of its `viewBox`; the rest is what surrounds the plotted area.
pub const WIDTH: f64 = 860.0;
pub const HEIGHT: f64 = 300.0;
pub const LEFT: f64 = 66.0;
pub const RIGHT: f64 = 16.0;
pub const TOP: f64 = 12.0;
pub const BOTTOM: f64 = 40.0;

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

/// A page up to its heading, with the command that made it.
pub fn head(title: &str) -> String {
    let title = escape(title);
    let command: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>ringmill {title}</title>\
         <style>{STYLE}</style><h1>ringmill {title}</h1><p><code>ringmill {}</code></p>",
        escape(&command.join(" "))
    )
}

pub fn end(out: &mut String) {
    out.push_str("</html>\n");
}

/// Text as it may stand in HTML, quoted attributes included.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Names and values, one a row.
pub fn facts_table(out: &mut String, facts: &[(String, String)]) {
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

/// A grid line with its label at the left.
pub fn horizontal(out: &mut String, y: f64, label: &str) {
    let _ = write!(
        out,
        "<line class=grid x1={LEFT} x2={} y1={y:.1} y2={y:.1} /><text x={} y={:.1} text-anchor=end>{label}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0
    );
}

/// A grid line with its label below.
pub fn vertical(out: &mut String, x: f64, label: &str) {
    let bottom = HEIGHT - BOTTOM;
    let _ = write!(
        out,
        "<line class=grid x1={x:.1} x2={x:.1} y1={TOP} y2={bottom} /><text x={x:.1} y={} text-anchor=middle>{label}</text>",
        bottom + 18.0
    );
}

/// The beginning of a plot; `</svg>` ends it.
pub fn open(out: &mut String, label: &str) {
    let _ = write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">", escape(label));
}

/// 1, 2 or 5 times a power of ten, at least this.
pub fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(power)
}

/// Without the digits that nobody reads.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// `1.5M`.
pub fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", round(n / 1e6)),
        n if n >= 1e3 => format!("{}k", round(n / 1e3)),
        n => format!("{}", round(n)),
    }
}

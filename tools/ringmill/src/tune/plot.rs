//! The frontier on a terminal: p99 over throughput, CPU per GB as colour.
//!
//! Colour is never alone: the frontier, the default and the recommendation have letters of their own.

use super::findings::{Findings, Row, Verdict};
use crate::output::{Out, Paint};
use std::io;

const COLUMNS: usize = 62;
const ROWS: usize = 16;
const GUTTER: usize = 10;

/// A range on a logarithmic axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Around these, which are above 0.
    pub fn around(values: impl Iterator<Item = f64>) -> Axis {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            return Axis { low: 0.1, high: 10.0 };
        }
        // A single value has room around it.
        let margin = (high / low).powf(0.04).max(1.15);
        Axis { low: low / margin, high: high * margin }
    }

    /// 0 to 1.
    pub fn part(self, value: f64) -> f64 {
        ((value.max(1e-12) / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Round values on it: 1, 2 and 5 of each power of ten, or only powers where there are many.
    pub fn ticks(self) -> Vec<f64> {
        let dense = self.high / self.low < 500.0;
        let mut found = Vec::new();
        let mut power = 10f64.powf(self.low.log10().floor());
        while power <= self.high {
            for factor in if dense { &[1.0, 2.0, 5.0][..] } else { &[1.0] } {
                let tick = power * factor;
                if (self.low..=self.high).contains(&tick) {
                    found.push(tick);
                }
            }
            power *= 10.0;
        }
        if found.len() < 2 {
            // Hardly a round value on it: its ends, too.
            found.insert(0, self.low);
            found.push(self.high);
        }
        found
    }
}

/// `0.05`, `2`, `150`.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => trimmed(format!("{v:.1}")),
        v => trimmed(format!("{v:.2}")),
    }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// Rows with a load that was asked for: what a plot shows.
pub fn drawn(findings: &Findings) -> impl Iterator<Item = (usize, &Row)> {
    findings.trials.iter().enumerate().filter(|(_, row)| row.asked_bytes_per_second.is_some())
}

/// Which policy the verdict is about.
pub fn chosen(findings: &Findings) -> Option<ringmill_tune::Policy> {
    match &findings.verdict {
        Verdict::Recommended { fresh, .. } => Some(fresh.raw),
        Verdict::Nearest { at_load, .. } => at_load.as_ref().map(|fresh| fresh.raw),
        Verdict::Frontier { .. } | Verdict::Unfinished => None,
    }
}

/// Ends of the scale of CPU per GB, without the tenth that would stretch it.
pub fn cost_range(findings: &Findings) -> (f64, f64) {
    let mut costs: Vec<f64> = drawn(findings).map(|(_, row)| row.cpu_seconds_per_gb.value).collect();
    costs.sort_by(f64::total_cmp);
    let at = |part: f64| costs.get(((costs.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or(1.0);
    (at(0.0), at(0.9).max(at(0.0) * 1.01))
}

/// Draws it; nothing, where there is nothing to draw.
pub fn draw(out: &mut Out, findings: &Findings) -> io::Result<()> {
    let rows: Vec<(usize, &Row)> = drawn(findings).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let limit = findings.asked.limit_ms;
    let x = Axis::around(rows.iter().map(|(_, row)| row.bytes_per_second));
    let y = Axis::around(rows.iter().map(|(_, row)| row.tail_ms.value).chain(limit));
    let mut grid = vec![vec![(' ', None); COLUMNS]; ROWS];
    let line_of = |ms: f64| ROWS - 1 - (y.part(ms) * (ROWS - 1) as f64).round() as usize;
    if let Some(line) = limit.map(line_of).and_then(|at| grid.get_mut(at)) {
        line.fill(('┄', Some(Paint::Dim)));
    }
    let mut ordered: Vec<(u8, char, &Row)> = rows.iter().map(|(at, row)| mark(findings, *at, row)).collect();
    // What matters is drawn last.
    ordered.sort_by_key(|(rank, _, _)| *rank);
    let (low, high) = cost_range(findings);
    for (_, mark, row) in ordered {
        let column = (x.part(row.bytes_per_second) * (COLUMNS - 1) as f64).round() as usize;
        let cell = grid.get_mut(line_of(row.tail_ms.value)).and_then(|line| line.get_mut(column));
        if let Some(cell) = cell {
            *cell = (mark, Some(paint(row.cpu_seconds_per_gb.value, low, high)));
        }
    }
    out.line(format!(
        "{:>GUTTER$} over acked MB/s, both logarithmic",
        format!("{} ms", findings.asked.quantile_name)
    ))?;
    let labels: Vec<(usize, String)> = y.ticks().into_iter().map(|ms| (line_of(ms), number(ms))).collect();
    for (at, line) in grid.iter().enumerate() {
        let label = labels.iter().find(|(line, _)| *line == at).map_or("", |(_, label)| label);
        let cells: String = line
            .iter()
            .map(|(c, paint)| paint.map_or(c.to_string(), |paint| out.paint(paint, &c.to_string())))
            .collect();
        let edge = if label.is_empty() { '│' } else { '┤' };
        out.line(format!("{label:>GUTTER$} {edge}{cells}").trim_end())?;
    }
    out.line(bottom(x))?;
    legend(out, findings, (low, high))
}

fn mark<'a>(findings: &Findings, at: usize, row: &'a Row) -> (u8, char, &'a Row) {
    let is_default = row.raw == ringmill_tune::Policy::default_with(ringmill_tune::Method::Fdatasync);
    if chosen(findings) == Some(row.raw) {
        (5, 'R', row)
    } else if is_default {
        (4, 'D', row)
    } else if findings.frontier_durable.contains(&at) {
        (3, 'o', row)
    } else if findings.frontier_relaxed.contains(&at) {
        (2, '~', row)
    } else if row.kept_up {
        (1, '·', row)
    } else {
        (0, '×', row)
    }
}

fn paint(cost: f64, low: f64, high: f64) -> Paint {
    match (cost - low) / (high - low).max(1e-9) {
        part if part < 0.33 => Paint::Good,
        part if part < 0.67 => Paint::Odd,
        _ => Paint::Bad,
    }
}

fn bottom(x: Axis) -> String {
    let mut rule = vec!['─'; COLUMNS];
    let mut text = vec![' '; COLUMNS + 8];
    let mut free = 0;
    for tick in x.ticks() {
        let column = (x.part(tick) * (COLUMNS - 1) as f64).round() as usize;
        let label: Vec<char> = number(tick / 1e6).chars().collect();
        let start = column.saturating_sub(label.len() / 2);
        if start < free {
            continue;
        }
        if let Some(place) = rule.get_mut(column) {
            *place = '┴';
        }
        free = start + label.len() + 1;
        for (place, letter) in text.iter_mut().skip(start).zip(label) {
            *place = letter;
        }
    }
    let (rule, text): (String, String) = (rule.into_iter().collect(), text.into_iter().collect());
    format!("{:>GUTTER$} └{rule}\n{:>GUTTER$}  {}", "", "", text.trim_end())
}

fn legend(out: &mut Out, findings: &Findings, (low, high): (f64, f64)) -> io::Result<()> {
    let mut marks = vec!["D default", "o on the frontier", "· measured"];
    if chosen(findings).is_some() {
        let name = if matches!(findings.verdict, Verdict::Recommended { .. }) {
            "R recommended"
        } else {
            "R nearest"
        };
        marks.insert(0, name);
    }
    if !findings.frontier_relaxed.is_empty() {
        marks.push("~ relaxed acks");
    }
    if drawn(findings).any(|(_, row)| !row.kept_up) {
        marks.push("× not kept up");
    }
    if findings.asked.limit_ms.is_some() {
        marks.push("┄ goal");
    }
    out.line(format!("{:>GUTTER$}  {}", "", marks.join("   ")))?;
    let third = (high - low) / 3.0;
    let bands = [
        (Paint::Good, format!("below {:.2}", low + third)),
        (Paint::Odd, format!("to {:.2}", low + 2.0 * third)),
        (Paint::Bad, "above".to_string()),
    ]
    .map(|(paint, text)| out.paint(paint, &text));
    out.line(format!("{:>GUTTER$}  colour: CPU s/GB of the broker: {}", "", bands.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_what_it_is_for() {
        let axis = Axis::around([0.2, 8.0].into_iter());
        assert!(axis.part(0.2) > 0.0 && axis.part(8.0) < 1.0 && axis.part(1.0) > axis.part(0.5));
        assert_eq!(axis.ticks(), [0.2, 0.5, 1.0, 2.0, 5.0]);
        assert_eq!(Axis::around([3.0].into_iter()).ticks().len(), 2);
        assert_eq!(Axis::around(std::iter::empty()).ticks().first(), Some(&0.1));
        assert!(Axis::around([1.0, 1e9].into_iter()).ticks().len() <= 10);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.05, 2.0, 15.0, 150.4].map(number), ["0.05", "2", "15", "150"]);
    }
}

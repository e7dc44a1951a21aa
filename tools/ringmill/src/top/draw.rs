//! Draws the state into a buffer of cells: the same frame for a terminal, for `--once` and for the tests.
//!
//! Never the only carrier of meaning is a colour: what is wrong has words. Text that came over the network loses its
//! control characters on the way into the buffer.

use super::numbers::{bytes_rate, curve, millis};
use super::panels;
use super::snapshot::{Latency, Snapshot};
use super::state::{Link, Panel, Point, State};
use crate::output::{bytes, counted, grouped};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
    /// Bold, dim and reversed.
    pub attributes: bool,
    pub ascii: bool,
}

impl Theme {
    fn style(self, colour: Option<Color>, modifier: Modifier) -> Style {
        let mut style = Style::new();
        if let Some(colour) = colour.filter(|_| self.colour) {
            style = style.fg(colour);
        }
        if self.attributes { style.add_modifier(modifier) } else { style }
    }

    pub fn plain(self) -> Style {
        Style::new()
    }

    pub fn strong(self) -> Style {
        self.style(None, Modifier::BOLD)
    }

    pub fn heading(self) -> Style {
        self.style(Some(Color::Cyan), Modifier::BOLD)
    }

    pub fn focused(self) -> Style {
        self.style(Some(Color::Cyan), Modifier::REVERSED)
    }

    pub fn dim(self) -> Style {
        self.style(None, Modifier::DIM)
    }

    pub fn curve(self) -> Style {
        self.style(Some(Color::Green), Modifier::empty())
    }

    pub fn odd(self) -> Style {
        self.style(Some(Color::Yellow), Modifier::BOLD)
    }

    pub fn bad(self) -> Style {
        let modifier = if self.colour { Modifier::BOLD } else { Modifier::REVERSED };
        self.style(Some(Color::Red), modifier)
    }
}

/// Below this there is no sense in drawing.
const COLUMNS_MIN: u16 = 40;
const ROWS_MIN: u16 = 12;
/// Columns of the curves' names and numbers.
const LEGEND: u16 = 46;
/// Alarms shown; further ones are counted.
const ALARMS_MAX: usize = 3;

/// Lines of the screen from its top.
pub struct Canvas<'a> {
    pub area: Rect,
    pub buf: &'a mut Buffer,
    pub theme: Theme,
}

impl Canvas<'_> {
    /// Text at a place of the area, cut at `width` columns; outside of it nothing happens.
    pub fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let room = self.area.width.saturating_sub(x).min(width);
        if y < self.area.height && room > 0 {
            self.buf.set_stringn(self.area.x + x, self.area.y + y, text, room.into(), style);
        }
    }

    pub fn line(&mut self, y: u16, text: &str, style: Style) {
        self.put(0, y, u16::MAX, text, style);
    }

    /// As many of the pieces, in their order, as fit.
    fn pieces(&mut self, y: u16, pieces: &[String], style: Style) {
        let mut line = String::new();
        for piece in pieces {
            let gap = if line.is_empty() { 0 } else { 2 };
            if width(&line) + gap + width(piece) > usize::from(self.area.width) {
                break;
            }
            line.extend(std::iter::repeat_n(' ', gap));
            line += piece;
        }
        self.line(y, &line, style);
    }
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Draws everything; `now_seconds` is on the clock of the state's.
pub fn draw(area: Rect, buf: &mut Buffer, state: &State, theme: Theme, now_seconds: f64) {
    let mut canvas = Canvas { area, buf, theme };
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        canvas.line(0, &format!("too small: {COLUMNS_MIN}x{ROWS_MIN} at least"), theme.plain());
        return;
    }
    title(&mut canvas, state);
    let mut y = warnings(&mut canvas, state, now_seconds, 1);
    let footer = area.height - 1;
    if state.help {
        for (line, text) in HELP.lines().enumerate().take(usize::from(footer.saturating_sub(y + 1))) {
            canvas.line(y + 1 + line as u16, text, theme.plain());
        }
        canvas.line(footer, "any key goes back, q quits", theme.dim());
        return;
    }
    match &state.snapshot {
        Some(snapshot) => {
            totals(&mut canvas, y, snapshot);
            y = curves(&mut canvas, y + 1, state, snapshot);
            disk(&mut canvas, y, snapshot);
            panels::draw(&mut canvas, y + 2, footer, state, snapshot);
        }
        None => canvas.line(
            y + 1,
            &format!("measuring: rates need two readings, {} s apart", state.interval_seconds),
            theme.dim(),
        ),
    }
    footer_line(&mut canvas, footer, state);
}

const HELP: &str = "\
q Esc Ctrl-C   quit                     p Space   hold the screen still
? h            this help                + -       look more or less often
Tab Shift-Tab  next, previous panel     t c g o   topics, clients, groups, cores
s              next order of the panel  r         the other way round
Up Down PgUp PgDn Home (or k j)         rows of the panel with the keys

produce   whole Produce request to its answer: the wait for the flush is in it
flush     sealing a flush group to its bytes being on stable storage
in, out   bytes from and to Kafka clients; 1k is 1000, 1 KiB is 1024
disk      log: core-log writes; destage: writes to segments, and how far behind;
          read: segments read for fetches; scrub: sealed segments checked
GRP/S     flush groups a second; GRP: bytes of the mean one
LOG%      of the core log that is not yet free to be written again
WAIT      Produce requests that wait (cores), requests without answer (clients)
LAG       records behind a group's committed offsets; WORST: of one partition
Quantiles are of the last interval, within buckets that double.";

fn title(canvas: &mut Canvas<'_>, state: &State) {
    let version = state.snapshot.as_ref().map_or("", |snapshot| snapshot.version.as_str());
    let name = format!("ringmill {version}");
    let (strong, plain) = (canvas.theme.strong(), canvas.theme.plain());
    canvas.line(0, name.trim_end(), strong);
    canvas.put(width(name.trim_end()) as u16 + 2, 0, u16::MAX, &state.address, plain);
    let (right, style) = if state.paused {
        ("PAUSED".to_string(), canvas.theme.odd())
    } else {
        (format!("every {} s", state.interval_seconds), plain)
    };
    canvas.put(canvas.area.width - width(&right) as u16, 0, u16::MAX, &right, style);
}

/// What is wrong, and what happened lately; where the rest begins.
fn warnings(canvas: &mut Canvas<'_>, state: &State, now_seconds: f64, mut y: u16) -> u16 {
    let bad = canvas.theme.bad();
    if let Link::Lost { answered_seconds, why } = &state.link {
        let seconds = (now_seconds - answered_seconds).max(0.0);
        canvas.line(
            y,
            &format!("! no answer for {seconds:.0} s: what is shown is that old; still trying"),
            bad,
        );
        canvas.line(y + 1, &format!("  {why}"), bad);
        y += 2;
    } else if let Some(note) = &state.note {
        canvas.line(y, &format!("* {}", note.text), canvas.theme.odd());
        y += 1;
    }
    let alarms = state.alarms();
    for alarm in alarms.iter().take(ALARMS_MAX) {
        canvas.line(y, &format!("! {alarm}"), bad);
        y += 1;
    }
    if alarms.len() > ALARMS_MAX {
        canvas.line(y, &format!("! and {} more", alarms.len() - ALARMS_MAX), bad);
        y += 1;
    }
    y
}

fn totals(canvas: &mut Canvas<'_>, y: u16, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    let rate = super::numbers::compact;
    let pieces = [
        format!("{} rec/s in", rate(totals.records_in_per_second)),
        format!("{} req/s", rate(totals.requests_per_second)),
        format!("{} err/s", rate(totals.request_errors_per_second)),
        format!("cpu {:.0}%", totals.cpu_percent),
        format!("mem {}", bytes(totals.resident_bytes)),
        format!("{} conn", grouped(totals.connections)),
        format!("{} part", grouped(totals.partitions)),
        counted(snapshot.topics.len() as u64, "topic"),
    ];
    let style = canvas.theme.strong();
    canvas.pieces(y, &pieces, style);
}

/// Latency and bytes over time, one line each.
fn curves(canvas: &mut Canvas<'_>, y: u16, state: &State, snapshot: &Snapshot) -> u16 {
    let latency = |name: &str, of: &Latency| {
        let [p50, p99, p999] = [of.p50_ms, of.p99_ms, of.p999_ms].map(millis);
        format!("{name:<8}p50 {p50:<8}p99 {p99:<8}p99.9 {p999}")
    };
    let flow = |name: &str, rate: f64| format!("{name:<8}{}", bytes_rate(rate));
    type Value = fn(&Point) -> Option<f64>;
    let rows: [(String, Value); 4] = [
        (latency("produce", &snapshot.produce), |point| point.produce_p99_ms),
        (latency("flush", &snapshot.flush), |point| point.flush_p99_ms),
        (flow("in", snapshot.totals.received_bytes_per_second), |point| point.in_bytes),
        (flow("out", snapshot.totals.sent_bytes_per_second), |point| point.out_bytes),
    ];
    let columns = usize::from(canvas.area.width.saturating_sub(LEGEND));
    let skipped = state.history.len().saturating_sub(columns);
    let mut at = y;
    for (legend, value) in rows {
        canvas.put(0, at, LEGEND, &legend, canvas.theme.plain());
        let values: Vec<Option<f64>> = state.history.iter().skip(skipped).map(value).collect();
        canvas.put(LEGEND, at, u16::MAX, &curve(&values, canvas.theme.ascii), canvas.theme.curve());
        at += 1;
    }
    at
}

fn disk(canvas: &mut Canvas<'_>, y: u16, snapshot: &Snapshot) {
    let disk = &snapshot.disk;
    let behind = match disk.destage_lag_bytes {
        0 => String::new(),
        lag => format!(", {} behind", bytes(lag)),
    };
    let mut pieces = vec![
        format!("disk    log {}", bytes_rate(disk.log_write_bytes_per_second)),
        format!("destage {}{behind}", bytes_rate(disk.destage_bytes_per_second)),
    ];
    if let (Some(free), Some(capacity)) = (disk.free_bytes, disk.capacity_bytes.filter(|size| *size > 0)) {
        pieces.push(format!("free {} ({:.0}%)", bytes(free), free as f64 * 100.0 / capacity as f64));
    }
    pieces.push(format!("read {}", bytes_rate(disk.cold_read_bytes_per_second)));
    if disk.scrub_in_round {
        pieces.push(format!("scrub {}", bytes_rate(disk.scrub_bytes_per_second)));
    }
    let style = canvas.theme.plain();
    canvas.pieces(y, &pieces, style);
}

fn footer_line(canvas: &mut Canvas<'_>, y: u16, state: &State) {
    let mut pieces =
        vec!["? help".to_string(), "q quit".to_string(), "p pause".to_string(), "Tab panel".to_string()];
    if state.panel != Panel::Cores {
        pieces.push("s sort".to_string());
        pieces.push("r reverse".to_string());
    }
    pieces.push("+ - interval".to_string());
    let style = canvas.theme.dim();
    canvas.pieces(y, &pieces, style);
}

/// The lines of a buffer, without the spaces at their ends.
pub fn text(buf: &Buffer) -> String {
    let columns = usize::from(buf.area.width).max(1);
    let mut out = String::new();
    for row in buf.content.chunks(columns) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        out += line.trim_end();
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

#[cfg(test)]
mod tests;

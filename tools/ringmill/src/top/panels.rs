//! The tables: cores, topics, clients, groups. Decides which get how many rows, and which columns fit.

use super::draw::{Canvas, width};
use super::numbers::{ago, compact, millis};
use super::snapshot::{Client, Core, Group, Snapshot, Topic};
use super::state::{Panel, Sort, State};
use crate::output::{bytes, grouped};
use ratatui::layout::Rect;

/// From this on topics and clients stand side by side.
const WIDE: u16 = 110;
/// Rows, its heading among them, that a panel without the keys may count on.
const ROWS_SURE: u16 = 3;

/// A column after the first, which takes the room that is left.
struct Column<T> {
    title: &'static str,
    width: u16,
    /// Shown where the panel has this many columns.
    from: u16,
    sort: Option<Sort>,
    cell: fn(&T) -> String,
}

const CORES: &[Column<Core>] = &[
    column("CPU%", 5, 0, None, |c| format!("{:.0}", c.cpu_percent)),
    column("CONN", 5, 0, None, |c| compact(c.connections as f64)),
    column("PART", 5, 70, None, |c| compact(c.partitions as f64)),
    column("REC/S", 6, 0, None, |c| compact(c.records_in_per_second)),
    column("IN/S", 6, 0, None, |c| compact(c.received_bytes_per_second)),
    column("OUT/S", 6, 0, None, |c| compact(c.sent_bytes_per_second)),
    column("GRP/S", 6, 0, None, |c| compact(c.groups_per_second)),
    column("GRP", 6, 90, None, |c| c.group_bytes.map_or("-".to_string(), compact)),
    column("FLUSH50", 7, 90, None, |c| millis(c.flush.p50_ms)),
    column("FLUSH99", 7, 0, None, |c| millis(c.flush.p99_ms)),
    column("TURN99", 7, 100, None, |c| millis(c.turn_p99_ms)),
    column("LOG%", 4, 0, None, |c| format!("{:.0}", c.log_used_percent)),
    column("TAIL%", 5, 100, None, |c| format!("{:.0}", c.tail_used_percent)),
    column("WAIT", 5, 70, None, |c| compact(c.produce_waiting as f64)),
];

const TOPICS: &[Column<Topic>] = &[
    column("PART", 5, 0, None, |t| compact(t.partitions as f64)),
    column("REC/S", 6, 0, Some(Sort::Rate), |t| compact(t.records_in_per_second)),
    column("IN/S", 6, 0, Some(Sort::In), |t| compact(t.in_bytes_per_second)),
    column("OUT/S", 6, 0, Some(Sort::Out), |t| compact(t.out_bytes_per_second)),
    column("SIZE", 10, 0, Some(Sort::Size), |t| bytes(t.size_bytes)),
    column("UNFLUSHED", 9, 90, None, |t| compact(t.unflushed_records as f64)),
];

const CLIENTS: &[Column<Client>] = &[
    column("HOST", 15, 70, None, |c| c.host.clone()),
    column("CONN", 5, 0, None, |c| compact(c.connections as f64)),
    column("REQ/S", 6, 0, Some(Sort::Rate), |c| compact(c.requests_per_second)),
    column("IN/S", 6, 0, Some(Sort::In), |c| compact(c.in_bytes_per_second)),
    column("OUT/S", 6, 0, Some(Sort::Out), |c| compact(c.out_bytes_per_second)),
    column("WAIT", 5, 0, None, |c| compact(c.waiting as f64)),
    column("IDLE", 5, 90, None, |c| ago(c.idle_ms)),
];

const GROUPS: &[Column<Group>] = &[
    column("PART", 5, 0, None, |g| compact(g.partitions as f64)),
    column("WORST", 8, 0, None, |g| compact(g.lag_most as f64)),
    column("LAG", 8, 0, Some(Sort::Lag), |g| compact(g.lag as f64)),
    column("LAG/S", 7, 0, Some(Sort::Rate), |g| compact(g.lag_per_second)),
];

const fn column<T>(
    title: &'static str,
    width: u16,
    from: u16,
    sort: Option<Sort>,
    cell: fn(&T) -> String,
) -> Column<T> {
    Column { title, width, from, sort, cell }
}

/// Draws the panels between two lines of the canvas.
pub fn draw(canvas: &mut Canvas<'_>, top: u16, bottom: u16, state: &State, snapshot: &Snapshot) {
    let mut bands: Vec<Vec<Panel>> = vec![vec![Panel::Cores]];
    if canvas.area.width >= WIDE {
        bands.push(vec![Panel::Topics, Panel::Clients]);
    } else {
        bands.push(vec![Panel::Topics]);
        bands.push(vec![Panel::Clients]);
    }
    if snapshot.groups.is_some() || state.panel == Panel::Groups {
        bands.push(vec![Panel::Groups]);
    }
    let rows = |panel: &Panel| match panel {
        Panel::Cores => snapshot.cores.len(),
        Panel::Topics => snapshot.topics.len(),
        Panel::Clients => snapshot.clients.len(),
        Panel::Groups => snapshot.groups.as_ref().map_or(0, Vec::len),
    };
    // A heading, at least one line that says there is nothing, and an empty line after it.
    let wants: Vec<u16> =
        bands.iter().map(|band| band.iter().map(rows).max().unwrap_or(0).clamp(1, 1000) as u16 + 2).collect();
    let focus = bands.iter().position(|band| band.contains(&state.panel)).unwrap_or(0);
    let mut y = top;
    for (band, height) in bands.iter().zip(share(bottom.saturating_sub(top), &wants, focus)) {
        let count = band.len() as u16;
        let each = (canvas.area.width - 2 * (count - 1)) / count;
        for (panel, at) in band.iter().zip(0..) {
            let area = Rect {
                x: canvas.area.x + at * (each + 2),
                y: canvas.area.y + y,
                width: each,
                height: height.min(canvas.area.height.saturating_sub(y)),
            };
            let mut part = Canvas { area, buf: canvas.buf, theme: canvas.theme };
            one(&mut part, *panel, state, snapshot);
        }
        y += height;
    }
}

/// Shares the rows out: some for each, then as many as it wants for the one with the keys, then the others in order.
fn share(rows: u16, wants: &[u16], focus: usize) -> Vec<u16> {
    let mut left = rows;
    let mut given: Vec<u16> = wants
        .iter()
        .map(|want| {
            let sure = (*want).min(ROWS_SURE + 1).min(left);
            left -= sure;
            sure
        })
        .collect();
    let order = std::iter::once(focus).chain((0..wants.len()).filter(|at| *at != focus));
    for at in order {
        if let (Some(want), Some(has)) = (wants.get(at), given.get_mut(at)) {
            let more = want.saturating_sub(*has).min(left);
            *has += more;
            left -= more;
        }
    }
    given
}

fn one(canvas: &mut Canvas<'_>, panel: Panel, state: &State, snapshot: &Snapshot) {
    match panel {
        Panel::Cores => {
            let rows: Vec<&Core> = snapshot.cores.iter().collect();
            let name = |core: &Core| match core.answered {
                true => core.core.clone(),
                false => format!("{} NO ANSWER", core.core),
            };
            table(canvas, state, panel, "CORE", &rows, name, CORES);
        }
        Panel::Topics => table(canvas, state, panel, "TOPIC", &state.topics(), topic_name, TOPICS),
        Panel::Clients => table(canvas, state, panel, "CLIENT", &state.clients(), client_name, CLIENTS),
        Panel::Groups if snapshot.groups.is_none() => {
            let (heading, plain) = (canvas.theme.focused(), canvas.theme.plain());
            canvas.line(0, "GROUP", heading);
            canvas.line(1, "this broker does not tell of groups here; `ringmill group lag` does", plain);
        }
        Panel::Groups => {
            table(canvas, state, panel, "GROUP", &state.groups(), |g: &Group| g.group.clone(), GROUPS);
        }
    }
}

fn topic_name(topic: &Topic) -> String {
    let mut name = topic.topic.clone();
    if topic.offline > 0 {
        name = format!("OFFLINE {}: {name}", topic.offline);
    }
    if topic.relaxed {
        name += " (relaxed)";
    }
    name
}

fn client_name(client: &Client) -> String {
    let id = if client.client_id.is_empty() { "(no client id)" } else { &client.client_id };
    let muted = if client.muted > 0 { "MUTED: " } else { "" };
    if client.software.is_empty() {
        format!("{muted}{id}")
    } else {
        format!("{muted}{id} ({})", client.software)
    }
}

fn table<T>(
    canvas: &mut Canvas<'_>,
    state: &State,
    panel: Panel,
    title: &str,
    rows: &[&T],
    name: impl Fn(&T) -> String,
    columns: &[Column<T>],
) {
    let (sort, reversed) = state.sort(panel);
    let shown: Vec<&Column<T>> = columns.iter().filter(|c| c.from <= canvas.area.width).collect();
    let taken: u16 = shown.iter().map(|column| column.width + 1).sum();
    let first = canvas.area.width.saturating_sub(taken);
    // The last line stays free, to set the next panel off.
    let room = usize::from(canvas.area.height.saturating_sub(2)).max(1);
    let from = state.first_row(panel).min(rows.len().saturating_sub(1));
    let upto = (from + room).min(rows.len());
    let range = match rows.len() {
        count if count <= room => title.to_string(),
        count => format!("{title} {}-{} of {}", from + 1, upto, grouped(count as u64)),
    };
    let mark = match (canvas.theme.ascii, reversed) {
        (true, false) => 'v',
        (true, true) => '^',
        (false, false) => '▾',
        (false, true) => '▴',
    };
    let style = if state.panel == panel { canvas.theme.focused() } else { canvas.theme.heading() };
    let blank = " ".repeat(canvas.area.width.into());
    canvas.line(0, &blank, style);
    let by_name = if sort == Sort::Name && panel != Panel::Cores { mark.to_string() } else { String::new() };
    canvas.put(0, 0, first, &format!("{range}{by_name}"), style);
    let mut x = first;
    for column in &shown {
        let title = match column.sort == Some(sort) {
            true => format!("{}{mark}", column.title),
            false => column.title.to_string(),
        };
        right(canvas, x + 1, 0, column.width, &title, style);
        x += column.width + 1;
    }
    let dim = canvas.theme.dim();
    if rows.is_empty() {
        canvas.line(1, "none", dim);
    }
    for (row, y) in rows.iter().skip(from).take(room).zip(1..) {
        let plain = canvas.theme.plain();
        let label = shortened(&name(row), first.saturating_sub(1).into(), canvas.theme.ascii);
        canvas.put(0, y, first, &label, plain);
        let mut x = first;
        for column in &shown {
            right(canvas, x + 1, y, column.width, &(column.cell)(row), plain);
            x += column.width + 1;
        }
    }
}

fn right(canvas: &mut Canvas<'_>, x: u16, y: u16, columns: u16, text: &str, style: ratatui::style::Style) {
    let gap = columns.saturating_sub(width(text) as u16);
    canvas.put(x + gap, y, columns - gap, text, style);
}

/// Cut with a mark where it does not fit.
fn shortened(text: &str, columns: usize, ascii: bool) -> String {
    if width(text) <= columns {
        return text.to_string();
    }
    let mut short = String::new();
    for char in text.chars() {
        if width(&short) + width(char.encode_utf8(&mut [0; 4])) + 1 > columns {
            break;
        }
        short.push(char);
    }
    short.push(if ascii { '~' } else { '…' });
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panel_with_the_keys_gets_the_room() {
        assert_eq!(share(13, &[4, 23, 7], 1), [4, 5, 4]);
        assert_eq!(share(20, &[4, 23, 7], 1), [4, 12, 4]);
        assert_eq!(share(20, &[4, 23, 7], 2), [4, 9, 7]);
        assert_eq!(share(60, &[4, 23, 7], 1), [4, 23, 7]);
        assert_eq!(share(5, &[4, 23, 7], 2), [4, 1, 0]);
        assert_eq!(share(0, &[4, 23], 0), [0, 0]);
    }

    #[test]
    fn names_are_cut_by_the_columns_they_take() {
        assert_eq!(shortened("short", 5, false), "short");
        assert_eq!(shortened("longer", 5, false), "long…");
        assert_eq!(shortened("longer", 5, true), "long~");
        assert_eq!(shortened("日本語の名前", 7, false), "日本語…");
    }
}

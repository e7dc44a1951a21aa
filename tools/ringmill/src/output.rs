//! What people see: tables, numbers with units, colour where it helps and a terminal can show it.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

/// Meaning that a colour underlines; never the only carrier of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Bold,
    Dim,
    Good,
    Odd,
    Bad,
}

/// Whether escape sequences go to a stream: it is a terminal, and `NO_COLOR` is unset or empty (no-color.org).
fn colours(is_terminal: bool) -> bool {
    is_terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Whether stderr shows colours.
pub fn stderr_colours() -> bool {
    colours(io::stderr().is_terminal())
}

/// Whether stdout shows colours.
pub fn stdout_colours() -> bool {
    colours(io::stdout().is_terminal())
}

/// Stdout, buffered and locked.
pub struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    colours: bool,
}

impl Out {
    pub fn new() -> Out {
        let stdout = io::stdout();
        let colours = colours(stdout.is_terminal());
        Out { writer: BufWriter::with_capacity(64 << 10, stdout.lock()), colours }
    }

    pub fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.writer.write_all(text.as_ref().as_bytes())?;
        self.writer.write_all(b"\n")
    }

    /// One value as JSON on a line of its own.
    pub fn json<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    /// One value as JSON over several lines, for a program or a curious person.
    pub fn json_pretty<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    pub fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.colours, paint, text)
    }

    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        for (at, line) in table.lines().into_iter().enumerate() {
            let line = if at == 0 { self.paint(Paint::Dim, &line) } else { line };
            self.line(line)?;
        }
        Ok(())
    }

    /// Hands everything to the reader; a command that ended well has called this.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn painted(colours: bool, paint: Paint, text: &str) -> String {
    if !colours || text.is_empty() {
        return text.to_string();
    }
    let code = match paint {
        Paint::Bold => "1",
        Paint::Dim => "2",
        Paint::Good => "32",
        Paint::Odd => "33",
        Paint::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A sentence on stderr about why the command failed.
pub fn complain(sentence: &str) {
    let name = painted(colours(io::stderr().is_terminal()), Paint::Bad, "ringmill:");
    // With stderr closed there is nobody to tell; the exit code still says it.
    let _ = writeln!(io::stderr(), "{name} {sentence}");
}

/// A remark on stderr that is not a failure.
pub fn remark(sentence: &str) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    /// For numbers.
    Right,
}

/// Columns of equal width, two spaces apart.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new(), indent: 0 }
    }

    pub fn indented(mut self, indent: usize) -> Table {
        self.indent = indent;
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    fn lines(&self) -> Vec<String> {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (name, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell));
                cells.chain([width(name)]).max().unwrap_or(0)
            })
            .collect();
        let set = |cells: Vec<&str>| {
            let mut line = " ".repeat(self.indent);
            for ((cell, wide), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                let pad = " ".repeat(wide - width(cell));
                match align {
                    Align::Left => line.extend([*cell, &pad, "  "]),
                    Align::Right => line.extend([&pad, *cell, "  "]),
                }
            }
            line.trim_end().to_string()
        };
        let head = set(self.columns.iter().map(|(name, _)| *name).collect());
        let rows = self.rows.iter().map(|row| set(row.iter().map(String::as_str).collect()));
        std::iter::once(head).chain(rows).collect()
    }
}

/// `1.5 MiB`; exact below 1 KiB.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or("EiB"))
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12 records`, `1 record`, `3 losses`.
pub fn counted(number: u64, one: &str) -> String {
    let hisses = ["s", "x", "ch", "sh"].iter().any(|end| one.ends_with(end));
    let plural = match number {
        1 => "",
        _ if hisses => "es",
        _ => "s",
    };
    format!("{} {one}{plural}", grouped(number))
}

/// Records and bytes over a time, as the summary of a produce or consume.
pub fn throughput(records: u64, total_bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(0.001);
    format!(
        "{}, {} in {seconds:.1} s: {}/s, {}/s",
        counted(records, "record"),
        bytes(total_bytes),
        counted((records as f64 / seconds) as u64, "record"),
        bytes((total_bytes as f64 / seconds) as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        table.row(vec!["a".into(), "5".into(), "x".into()]);
        table.row(vec!["größer".into(), "12345".into(), String::new()]);
        assert_eq!(table.lines(), ["NAME     SIZE  NOTE", "a           5  x", "größer  12345"]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(1200, "record"), "1,200 records");
        assert_eq!(counted(3, "loss"), "3 losses");
        assert_eq!(counted(0, "batch"), "0 batches");
    }

    #[test]
    fn colour_needs_a_terminal() {
        assert_eq!(painted(false, Paint::Bad, "x"), "x");
        assert_eq!(painted(true, Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(painted(true, Paint::Bad, ""), "");
    }
}

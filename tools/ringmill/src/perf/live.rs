//! One line on a terminal that says how far a run is.

use crate::output::grouped;
use std::io::{self, Write};
use std::time::Duration;

const WIDTH: usize = 24;

/// Draws the line over the last one. `percentiles`: p50, p99 and p99.9, milliseconds.
pub fn show(done: u64, of: u64, elapsed: Duration, percentiles: Option<[f64; 3]>) {
    let part = if of == 0 || of == u64::MAX { 0.0 } else { (done as f64 / of as f64).min(1.0) };
    let full = (part * WIDTH as f64) as usize;
    let colours = crate::output::stderr_colours();
    let (green, dim, plain) = if colours { ("\x1b[32m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let mut line = format!(
        "{green}{}{plain}{dim}{}{plain} {:>3.0}%  {} records  {}/s",
        "━".repeat(full),
        "─".repeat(WIDTH - full),
        part * 100.0,
        grouped(done),
        grouped(rate as u64)
    );
    if let Some([p50, p99, p999]) = percentiles {
        line.push_str(&format!("  p50 {p50:.2}  p99 {p99:.2}  p99.9 {p999:.2} ms"));
    }
    // A terminal that went away is no reason to end.
    let _ = write!(io::stderr(), "\r\x1b[K{line}");
}

/// Takes the line away.
pub fn clear() {
    let _ = write!(io::stderr(), "\r\x1b[K");
}

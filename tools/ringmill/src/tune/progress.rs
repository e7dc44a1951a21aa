//! How far a search is, on the terminal, and how long it still takes.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 24;

pub struct Progress {
    begun: Instant,
    budget: Duration,
    is_terminal: bool,
    runs: usize,
}

impl Progress {
    pub fn new(budget: Duration) -> Progress {
        Progress { begun: Instant::now(), budget, is_terminal: io::stderr().is_terminal(), runs: 0 }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What is left of the time that was given.
    pub fn left(&self) -> Duration {
        self.budget.saturating_sub(self.elapsed())
    }

    pub fn runs(&self) -> usize {
        self.runs
    }

    pub fn ran(&mut self) {
        self.runs += 1;
    }

    /// A phase begins. Without a terminal this line is all there is.
    pub fn phase(&self, what: &str) {
        if !self.is_terminal {
            let _ = writeln!(io::stderr(), "{:>4} s  {what}", self.elapsed().as_secs());
        }
    }

    /// Draws the line over the last one. `to_come`: the time that the phases to come are about to take.
    pub fn show(&self, what: &str, to_come: Duration) {
        if !self.is_terminal {
            return;
        }
        let left = to_come.min(self.left().max(Duration::from_secs(1)));
        let elapsed = self.elapsed().as_secs_f64();
        let part = elapsed / (elapsed + left.as_secs_f64()).max(1e-3);
        let full = ((part * WIDTH as f64) as usize).min(WIDTH);
        let colours = crate::output::stderr_colours();
        let (green, dim, plain) = if colours { ("\x1b[32m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let seconds = left.as_secs();
        let text =
            format!("run {:>3}  about {}:{:02} left  {what}", self.runs + 1, seconds / 60, seconds % 60);
        let line =
            format!("{green}{}{plain}{dim}{}{plain} {text}", "━".repeat(full), "─".repeat(WIDTH - full));
        // A terminal that went away is no reason to end.
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    pub fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

//! `ringmill top`: what a broker is doing, from its admin port, as a screen that keeps up, one frame, or JSON.
//!
//! Only looks, and needs no more of the broker than `/metrics` and `/v1/connections`. `reading` says what was found,
//! `snapshot` what happened between two of them, `state` what is shown of it, `draw` and `panels` how; `screen` alone
//! knows the terminal.

mod draw;
mod numbers;
mod panels;
mod reading;
mod screen;
mod snapshot;
mod state;

use crate::exit::{Code, Failed};
use crate::output::Out;
use crate::server;
use clap::Args;
use draw::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use reading::Reading;
use snapshot::Snapshot;
use state::State;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Longer than the broker takes to say that it cannot answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// A frame on what is no terminal, and says nothing else.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Shows cores, flush groups, latency, topics, clients and disks of a running broker, from its admin port. Keys: ? on the
/// screen tells them. Where the terminal can show no full screen (TERM=dumb), frames follow each other as text.
#[derive(Args, Debug)]
pub struct Top {
    /// Admin port of the broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644", value_parser = admin)]
    admin: String,
    /// Seconds between two looks; rates are of this time
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: f64,
    /// Print one frame as text, as large as the terminal (or COLUMNS and LINES say), and end
    #[arg(long, conflicts_with = "json")]
    once: bool,
    /// Print one snapshot as JSON and end
    #[arg(long)]
    json: bool,
}

/// As the banner of `serve` prints it, it is a URL.
fn admin(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(address.to_string())
        }
        Some(_) | None => {
            Err("it takes the form HOST:PORT, as the banner of `ringmill serve` shows it".to_string())
        }
    }
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("it takes 0.1 to 3600 seconds".to_string()),
    }
}

/// Looks at one admin port, on one clock.
struct Source {
    address: String,
    began: Instant,
}

impl Source {
    fn now_seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// # Errors
    /// A sentence for people.
    fn look(&self) -> Result<Reading, Failed> {
        let garbled = |why: &str| Failed::new(Code::Garbled, format!("{}: {why}", self.address));
        let text = server::admin_get(&self.address, "/metrics", PATIENCE)?;
        let at_seconds = self.now_seconds();
        let text = String::from_utf8(text).map_err(|_| garbled("its metrics are no text"))?;
        // A broker from before there was such a list has all the rest.
        let connections = server::admin_get(&self.address, "/v1/connections", PATIENCE).ok();
        let connections = connections.and_then(|body| serde_json::from_slice(&body).ok());
        Reading::of(at_seconds, &text, connections).map_err(|why| garbled(&why))
    }
}

impl Top {
    pub fn run(self) -> Result<(), Failed> {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if !is_terminal && !self.once && !self.json {
            return Err(Failed::new(
                Code::Usage,
                "this is no terminal: --once prints one frame as text, --json a snapshot for programs",
            ));
        }
        let source = Source { address: self.admin.clone(), began: Instant::now() };
        let mut first = source.look()?;
        // Rates need a second look. Only what is shown may be late, so it is waited for here.
        if self.json || self.once {
            let mut state = State::new(&self.admin, self.interval);
            loop {
                std::thread::sleep(Duration::from_secs_f64(self.interval));
                let second = source.look()?;
                if second.is_anew(&first) {
                    // Started anew in between: nothing to compare.
                    first = second;
                    continue;
                }
                if self.json {
                    return print_json(&Snapshot::between(&first, &second));
                }
                state.heard(Ok(first), source.now_seconds());
                state.heard(Ok(second), source.now_seconds());
                return print_frame(&state, source.now_seconds());
            }
        }
        let mut state = State::new(&self.admin, self.interval);
        state.heard(Ok(first), source.now_seconds());
        if dumb() { frames(&source, state) } else { screen::run(source, state, theme(true)) }
    }
}

fn print_json(snapshot: &Snapshot) -> Result<(), Failed> {
    let mut out = Out::new();
    out.json_pretty(snapshot)?;
    Ok(out.finish()?)
}

fn print_frame(state: &State, now_seconds: f64) -> Result<(), Failed> {
    let mut out = Out::new();
    let area = frame_area();
    let mut buf = Buffer::empty(area);
    draw::draw(area, &mut buf, state, theme(false), now_seconds);
    out.write_all(draw::text(&buf).as_bytes())?;
    Ok(out.finish()?)
}

/// One frame after the other as text, for a terminal that can move nothing; until Ctrl-C.
fn frames(source: &Source, mut state: State) -> Result<(), Failed> {
    loop {
        std::thread::sleep(Duration::from_secs_f64(state.interval_seconds));
        let outcome = source.look().map_err(|failed| failed.sentence);
        state.heard(outcome, source.now_seconds());
        print_frame(&state, source.now_seconds())?;
        println!();
    }
}

fn frame_area() -> Rect {
    let of =
        |name: &str| std::env::var(name).ok()?.parse::<u16>().ok().filter(|count| (1..=1000).contains(count));
    let terminal =
        if std::io::stdout().is_terminal() { ratatui::crossterm::terminal::size().ok() } else { None };
    let (columns, rows) = terminal.unwrap_or((COLUMNS, ROWS));
    Rect::new(0, 0, of("COLUMNS").unwrap_or(columns), of("LINES").unwrap_or(rows))
}

fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// What this terminal shows; as text there are no attributes.
fn theme(attributes: bool) -> Theme {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    Theme { colour: attributes && crate::output::stdout_colours(), attributes, ascii: !utf8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_intervals_are_understood_or_explained() {
        assert_eq!(admin("http://127.0.0.1:9644/").as_deref(), Ok("127.0.0.1:9644"));
        assert_eq!(admin("[::1]:9644").as_deref(), Ok("[::1]:9644"));
        for wrong in ["9644", "host:", ":9644", "host:0", "host:x"] {
            assert!(admin(wrong).is_err_and(|why| why.contains("HOST:PORT")), "{wrong}");
        }
        assert_eq!(interval("0.5"), Ok(0.5));
        for wrong in ["0", "x", "NaN", "1e9"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}

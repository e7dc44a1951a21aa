//! The full screen: keys, readings and resizes become changes of the state, and a frame after each.
//!
//! A thread of its own looks at the broker, so a key never waits for it; another waits for keys, because a wait for a
//! terminal that is gone never ends, and this must. The terminal is given back however this ends: a key, a signal, an
//! error or a panic.

use super::Source;
use super::draw::{self, Theme};
use super::reading::Reading;
use super::state::{Panel, State, Wish};
use crate::exit::Failed;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// How soon a reading or a signal shows when no key is pressed.
const TICK: Duration = Duration::from_millis(50);
/// Keys that were pressed while a frame was drawn.
const KEYS_AHEAD: usize = 16;

/// # Errors
/// Where the terminal cannot be used.
pub fn run(source: Source, state: State, theme: Theme) -> Result<(), Failed> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .map_err(|error| Failed::local("signals cannot be handled", &error))?;
    }
    let began = source.began;
    let (intervals, wanted) = channel();
    let (readings, heard) = sync_channel(1);
    let first = Duration::from_secs_f64(state.interval_seconds);
    std::thread::Builder::new()
        .name("look".to_string())
        .spawn(move || look(&source, first, &wanted, &readings))
        .map_err(|error| Failed::local("no thread can be started", &error))?;
    // Neither thread is waited for: they end with the process.
    let (pressed, keys) = sync_channel(KEYS_AHEAD);
    let keys_thread = std::thread::Builder::new().name("keys".to_string());
    let mut terminal = ratatui::try_init().map_err(|error| Failed::local("the terminal", &error))?;
    let screen = Screen { state, theme, ended, intervals, heard, keys };
    // Keys are read from where the terminal is ready to give them.
    let result = keys_thread
        .spawn(move || while pressed.send(event::read()).is_ok() {})
        .and_then(|_| screen.run(&mut terminal, || began.elapsed().as_secs_f64()));
    ratatui::restore();
    result.map_err(|error| Failed::local("the terminal", &error))
}

/// Looks each time an interval is over, until nobody wants to hear of it.
fn look(
    source: &Source,
    mut interval: Duration,
    wanted: &Receiver<Duration>,
    readings: &SyncSender<Result<Reading, String>>,
) {
    loop {
        match wanted.recv_timeout(interval) {
            Ok(changed) => interval = changed,
            Err(RecvTimeoutError::Timeout) => {
                let outcome = source.look().map_err(|failed| failed.sentence);
                if readings.send(outcome).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Screen {
    state: State,
    theme: Theme,
    ended: Arc<AtomicBool>,
    intervals: Sender<Duration>,
    heard: Receiver<Result<Reading, String>>,
    keys: Receiver<io::Result<Event>>,
}

impl Screen {
    fn run(mut self, terminal: &mut DefaultTerminal, now_seconds: impl Fn() -> f64) -> io::Result<()> {
        let mut drawn_second = None;
        let mut changed = true;
        while !self.ended.load(Ordering::Relaxed) {
            while let Ok(outcome) = self.heard.try_recv() {
                self.state.heard(outcome, now_seconds());
                changed = true;
            }
            // Ages on the screen count seconds.
            let second = now_seconds() as u64;
            if changed || drawn_second != Some(second) {
                let (state, theme, now) = (&self.state, self.theme, now_seconds());
                terminal.draw(|frame| draw::draw(frame.area(), frame.buffer_mut(), state, theme, now))?;
                (changed, drawn_second) = (false, Some(second));
            }
            let Ok(event) = self.keys.recv_timeout(TICK) else {
                continue;
            };
            changed = true;
            if let Event::Key(key) = event?
                && let Some(wish) = wish_of(key)
            {
                let before = self.state.interval_seconds;
                let rows = terminal.size()?.height / 3;
                if !self.state.wish(wish, rows.into()) {
                    return Ok(());
                }
                let after = self.state.interval_seconds;
                if before != after {
                    // The thread ends only with this screen.
                    let _ = self.intervals.send(Duration::from_secs_f64(after));
                }
            }
        }
        Ok(())
    }
}

fn wish_of(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Wish::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') => Wish::Quit,
        KeyCode::Esc => Wish::Back,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Wish::Help,
        KeyCode::Char('p' | ' ') => Wish::Pause,
        KeyCode::Tab => Wish::Next,
        KeyCode::BackTab => Wish::Previous,
        KeyCode::Char('t') => Wish::Show(Panel::Topics),
        KeyCode::Char('c') => Wish::Show(Panel::Clients),
        KeyCode::Char('g') => Wish::Show(Panel::Groups),
        KeyCode::Char('o') => Wish::Show(Panel::Cores),
        KeyCode::Char('s') => Wish::Sort,
        KeyCode::Char('r') => Wish::Reverse,
        KeyCode::Up | KeyCode::Char('k') => Wish::Up,
        KeyCode::Down | KeyCode::Char('j') => Wish::Down,
        KeyCode::PageUp => Wish::PageUp,
        KeyCode::PageDown => Wish::PageDown,
        KeyCode::Home => Wish::Home,
        KeyCode::Char('+' | '=') => Wish::Faster,
        KeyCode::Char('-') => Wish::Slower,
        _ => return None,
    })
}

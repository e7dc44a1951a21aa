//! What the screen shows and what keys change of it. Knows no terminal, no socket and no clock: all come as arguments.

use super::reading::Reading;
use super::snapshot::{Client, Group, Snapshot, Topic};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Quit,
    /// Out of the help, or of the program.
    Back,
    Help,
    Pause,
    /// Another panel gets the keys and the most room.
    Next,
    Previous,
    Show(Panel),
    Sort,
    Reverse,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    Faster,
    Slower,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    Cores,
    Topics,
    Clients,
    Groups,
}

impl Panel {
    pub const ALL: [Panel; 4] = [Panel::Cores, Panel::Topics, Panel::Clients, Panel::Groups];

    fn at(self) -> usize {
        match self {
            Panel::Cores => 0,
            Panel::Topics => 1,
            Panel::Clients => 2,
            Panel::Groups => 3,
        }
    }
}

/// What rows are ordered by; not every panel has every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    In,
    Out,
    Rate,
    Size,
    Lag,
    Name,
}

impl Panel {
    /// The first is the one at the start.
    pub fn sorts(self) -> &'static [Sort] {
        match self {
            Panel::Cores => &[Sort::Name],
            Panel::Topics => &[Sort::In, Sort::Out, Sort::Rate, Sort::Size, Sort::Name],
            Panel::Clients => &[Sort::In, Sort::Out, Sort::Rate, Sort::Name],
            Panel::Groups => &[Sort::Lag, Sort::Rate, Sort::Name],
        }
    }
}

/// How one panel is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Which of [`Panel::sorts`].
    sort: usize,
    reversed: bool,
    pub first_row: usize,
}

/// Whether the broker answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    Up,
    /// When it answered last, and why it does not.
    Lost {
        answered_seconds: f64,
        why: String,
    },
}

/// Something worth telling for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub at_seconds: f64,
    pub text: String,
}

/// Intervals to choose from with + and -.
pub const INTERVALS: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Points kept for the curves; more than a terminal has columns.
const HISTORY_MAX: usize = 512;
/// How long a note stays.
const NOTE_SECONDS: f64 = 15.0;

/// One point of the curves; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Point {
    pub produce_p99_ms: Option<f64>,
    pub flush_p99_ms: Option<f64>,
    pub in_bytes: Option<f64>,
    pub out_bytes: Option<f64>,
}

pub struct State {
    pub address: String,
    pub interval_seconds: f64,
    pub snapshot: Option<Snapshot>,
    last: Option<Reading>,
    pub history: VecDeque<Point>,
    pub link: Link,
    pub note: Option<Note>,
    pub paused: bool,
    pub help: bool,
    pub panel: Panel,
    looks: [Look; 4],
    answered_seconds: f64,
}

impl State {
    pub fn new(address: &str, interval_seconds: f64) -> State {
        State {
            address: address.to_string(),
            interval_seconds,
            snapshot: None,
            last: None,
            history: VecDeque::new(),
            link: Link::Up,
            note: None,
            paused: false,
            help: false,
            panel: Panel::Topics,
            looks: [Look::default(); 4],
            answered_seconds: 0.0,
        }
    }

    /// Takes what the admin port gave, or why it gave nothing.
    pub fn heard(&mut self, outcome: Result<Reading, String>, now_seconds: f64) {
        match outcome {
            Ok(reading) => self.read(reading),
            Err(why) => {
                if let Link::Lost { why: known, .. } = &mut self.link {
                    *known = why;
                    return;
                }
                self.link = Link::Lost { answered_seconds: self.answered_seconds, why };
                // What the curves would bridge was not measured.
                self.remember(Point::default());
            }
        }
        self.note.take_if(|note| now_seconds - note.at_seconds > NOTE_SECONDS);
    }

    fn read(&mut self, reading: Reading) {
        let now = reading.at_seconds;
        let anew = self.last.as_ref().is_some_and(|last| reading.is_anew(last));
        if let Link::Lost { answered_seconds, .. } = self.link {
            let after = (now - answered_seconds).max(0.0);
            let what = if anew { "the broker was started anew and answers" } else { "the broker answers" };
            self.note = Some(Note { at_seconds: now, text: format!("{what} again, after {after:.0} s") });
            self.link = Link::Up;
        } else if anew {
            self.note = Some(Note { at_seconds: now, text: "the broker was started anew".to_string() });
        }
        self.answered_seconds = now;
        if self.paused {
            return;
        }
        if let Some(last) = self.last.as_ref().filter(|_| !anew) {
            let snapshot = Snapshot::between(last, &reading);
            self.remember(Point {
                produce_p99_ms: snapshot.produce.p99_ms,
                flush_p99_ms: snapshot.flush.p99_ms,
                in_bytes: Some(snapshot.totals.received_bytes_per_second),
                out_bytes: Some(snapshot.totals.sent_bytes_per_second),
            });
            self.snapshot = Some(snapshot);
        }
        self.last = Some(reading);
    }

    fn remember(&mut self, point: Point) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(point);
    }

    /// Does what a key asks for. False to end.
    pub fn wish(&mut self, wish: Wish, page_rows: usize) -> bool {
        if self.help {
            // Any key leaves the help, q and Ctrl-C the program.
            self.help = false;
            return wish != Wish::Quit;
        }
        let at = self.panel.at();
        let rows = self.rows();
        let Some(look) = self.looks.get_mut(at) else { return true };
        let last = rows.saturating_sub(1);
        match wish {
            Wish::Quit | Wish::Back => return false,
            Wish::Help => self.help = true,
            Wish::Pause => self.paused = !self.paused,
            Wish::Next => self.turn(1),
            Wish::Previous => self.turn(Panel::ALL.len() - 1),
            Wish::Show(panel) => self.panel = panel,
            Wish::Sort => look.sort = (look.sort + 1) % self.panel.sorts().len(),
            Wish::Reverse => look.reversed = !look.reversed,
            Wish::Up => look.first_row = look.first_row.saturating_sub(1),
            Wish::Down => look.first_row = (look.first_row + 1).min(last),
            Wish::PageUp => look.first_row = look.first_row.saturating_sub(page_rows),
            Wish::PageDown => look.first_row = (look.first_row + page_rows).min(last),
            Wish::Home => look.first_row = 0,
            Wish::Faster => self.interval_seconds = self.neighbour(|known, now| known < now, true),
            Wish::Slower => self.interval_seconds = self.neighbour(|known, now| known > now, false),
        }
        true
    }

    /// The next of [`INTERVALS`] to one side, or what it is where there is none.
    fn neighbour(&self, beyond: fn(f64, f64) -> bool, last: bool) -> f64 {
        let mut candidates = INTERVALS.into_iter().filter(|known| beyond(*known, self.interval_seconds));
        let next = if last { candidates.next_back() } else { candidates.next() };
        next.unwrap_or(self.interval_seconds)
    }

    fn turn(&mut self, by: usize) {
        let next = (self.panel.at() + by) % Panel::ALL.len();
        self.panel = Panel::ALL.get(next).copied().unwrap_or(Panel::Topics);
    }

    /// Rows that the panel with the keys could show.
    fn rows(&self) -> usize {
        let Some(snapshot) = &self.snapshot else { return 0 };
        match self.panel {
            Panel::Cores => snapshot.cores.len(),
            Panel::Topics => snapshot.topics.len(),
            Panel::Clients => snapshot.clients.len(),
            Panel::Groups => snapshot.groups.as_ref().map_or(0, Vec::len),
        }
    }

    pub fn first_row(&self, panel: Panel) -> usize {
        self.looks.get(panel.at()).map_or(0, |look| look.first_row)
    }

    /// What a panel is sorted by, and whether the other way round.
    pub fn sort(&self, panel: Panel) -> (Sort, bool) {
        let look = self.looks.get(panel.at()).copied().unwrap_or_default();
        (panel.sorts().get(look.sort).copied().unwrap_or(Sort::Name), look.reversed)
    }

    /// Topics in the order they are shown.
    pub fn topics(&self) -> Vec<&Topic> {
        let name = |topic: &Topic| topic.topic.clone();
        self.sorted(
            Panel::Topics,
            |s| s.topics.as_slice(),
            name,
            |topic, by| match by {
                Sort::In | Sort::Lag => topic.in_bytes_per_second,
                Sort::Out => topic.out_bytes_per_second,
                Sort::Rate => topic.records_in_per_second,
                Sort::Size | Sort::Name => topic.size_bytes as f64,
            },
        )
    }

    pub fn clients(&self) -> Vec<&Client> {
        let name = |client: &Client| format!("{} {}", client.client_id, client.host);
        self.sorted(
            Panel::Clients,
            |s| s.clients.as_slice(),
            name,
            |client, by| match by {
                Sort::In | Sort::Size | Sort::Lag => client.in_bytes_per_second,
                Sort::Out => client.out_bytes_per_second,
                Sort::Rate | Sort::Name => client.requests_per_second,
            },
        )
    }

    pub fn groups(&self) -> Vec<&Group> {
        let name = |group: &Group| group.group.clone();
        self.sorted(
            Panel::Groups,
            |s| s.groups.as_deref().unwrap_or_default(),
            name,
            |group, by| match by {
                Sort::Rate => group.lag_per_second,
                Sort::In | Sort::Out | Sort::Size | Sort::Lag | Sort::Name => group.lag as f64,
            },
        )
    }

    /// Largest first, names from A; equal ones by name, so that rows that do nothing keep their places.
    fn sorted<'a, T>(
        &'a self,
        panel: Panel,
        list: impl Fn(&'a Snapshot) -> &'a [T],
        name: impl Fn(&T) -> String,
        number: impl Fn(&T, Sort) -> f64,
    ) -> Vec<&'a T> {
        let (by, reversed) = self.sort(panel);
        let mut rows: Vec<&T> = self.snapshot.as_ref().map(list).unwrap_or_default().iter().collect();
        rows.sort_by(|a, b| {
            let order = match by {
                Sort::Name => Ordering::Equal,
                Sort::In | Sort::Out | Sort::Rate | Sort::Size | Sort::Lag => {
                    number(b, by).total_cmp(&number(a, by))
                }
            };
            let order = order.then_with(|| name(a).cmp(&name(b)));
            if reversed { order.reverse() } else { order }
        });
        rows
    }

    /// Sentences about what somebody should look at, the worst first.
    pub fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        let Some(snapshot) = &self.snapshot else { return alarms };
        if !snapshot.ready {
            alarms.push("the broker takes no requests: it stops".to_string());
        }
        for core in snapshot.cores.iter().filter(|core| !core.answered) {
            alarms.push(format!("core {} does not answer: see /v1/cores", core.core));
        }
        if snapshot.disk.storage_full {
            alarms.push("the disk is full: produce is refused until there is room".to_string());
        }
        let offline = snapshot.totals.partitions_offline;
        if offline > 0 {
            let topic = snapshot.topics.iter().find(|topic| topic.offline > 0);
            let of = topic.map(|topic| format!(", of {}", topic.topic)).unwrap_or_default();
            alarms.push(format!("{} offline{of}", crate::output::counted(offline, "partition")));
        }
        if snapshot.disk.segments_damaged > 0 {
            let damaged = crate::output::counted(snapshot.disk.segments_damaged, "damaged segment");
            alarms.push(format!("{damaged} found: the log names the files"));
        }
        let muted: u64 = snapshot.cores.iter().map(|core| core.muted).sum();
        if muted > 0 {
            alarms.push(format!(
                "{} not read from: no room for produce",
                crate::output::counted(muted, "connection")
            ));
        }
        alarms
    }
}

//! Rate limit for warnings about what peers do: a flood of bad clients must not become a flood of log lines, nor hide what else
//! is to be said.

use std::cell::Cell;

const PER_SECOND: u32 = 10;

/// What has a limit of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    Peers,
    SlowRequests,
}

impl About {
    const COUNT: usize = 2;

    fn text(self) -> &'static str {
        match self {
            About::Peers => "connections",
            About::SlowRequests => "slow requests",
        }
    }
}

thread_local! {
    static WINDOWS: [Cell<(u64, u32)>; About::COUNT] = const { [const { Cell::new((0, 0)) }; About::COUNT] };
}

/// Runs `say` at most [`PER_SECOND`] times a second on this thread.
pub(crate) fn limited(about: About, now_ns: u64, say: impl FnOnce()) {
    let second = now_ns / 1_000_000_000;
    WINDOWS.with(|windows| {
        let Some(window) = windows.get(about as usize) else { return };
        let (at, count) = window.get();
        let count = if at == second { count + 1 } else { 1 };
        window.set((second, count));
        if count <= PER_SECOND {
            say();
        } else if count == PER_SECOND + 1 {
            tracing::warn!("more warnings about {} in this second are left out", about.text());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_about_peers_leaves_room_for_what_is_said_about_requests() {
        let said = Cell::new((0, 0));
        for _ in 0..1000 {
            limited(About::Peers, 5_000_000_000, || said.set((said.get().0 + 1, said.get().1)));
        }
        for _ in 0..1000 {
            limited(About::SlowRequests, 5_999_999_999, || said.set((said.get().0, said.get().1 + 1)));
        }
        assert_eq!(said.get(), (PER_SECOND, PER_SECOND));
        limited(About::Peers, 6_000_000_000, || said.set((0, 0)));
        assert_eq!(said.get(), (0, 0), "another second");
    }
}

//! Rate limit for warnings about what peers do: a flood of bad clients must not become a flood of log lines.

use std::cell::Cell;

const PER_SECOND: u32 = 10;

thread_local! {
    static WINDOW: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

/// Runs `say` at most [`PER_SECOND`] times a second on this thread.
pub(crate) fn limited(now_ns: u64, say: impl FnOnce()) {
    let second = now_ns / 1_000_000_000;
    WINDOW.with(|window| {
        let (at, count) = window.get();
        let count = if at == second { count + 1 } else { 1 };
        window.set((second, count));
        if count <= PER_SECOND {
            say();
        } else if count == PER_SECOND + 1 {
            tracing::warn!("more such warnings in this second are left out");
        }
    });
}

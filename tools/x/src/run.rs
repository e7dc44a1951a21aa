//! CI, and how commands are run.

use std::process::Command;
use std::time::Instant;

/// Runs a command line and fails with its name when it does.
pub fn command(line: &str) -> Result<(), String> {
    println!("+ {line}");
    let begun = Instant::now();
    let status = Command::new("sh").args(["-c", line]).status().map_err(|e| format!("{line}: {e}"))?;
    if status.success() {
        println!("  {:.0} s", begun.elapsed().as_secs_f64());
        return Ok(());
    }
    Err(format!("failed: {line}"))
}

/// What CI runs, in the order in which it fails fastest.
pub fn ci() -> Result<(), String> {
    command("cargo fmt --all --check")?;
    crate::tidy::check()?;
    command("cargo clippy --workspace --all-targets -- -D warnings")?;
    command("cargo test --workspace --no-fail-fast")?;
    // Says how many seeds, records and crashes it was: about 80 s. As the tests built it, with their checks of overflow,
    // and so that a panic names its seed.
    command("cargo run --quiet -p ringmill-sim -- --seeds 0..400")?;
    command("cargo run --quiet -p ringmill-sim -- --one-page --seeds 0..100")?;
    command("cargo build --release")?;
    crate::instructions::run(false)?;
    // No send is large enough for zero_copy, so alone it changes nothing here: engine/reactor/tests/ring.rs has both ways. nocow
    // is for btrfs: tools/ci/filesystems.sh.
    let each =
        ["", "defer_taskrun", "provided_buffers", "multishot_accept", "direct_io", "huge_pages", "fallocate"];
    let all =
        "defer_taskrun,provided_buffers,multishot_accept,zero_copy,direct_io,huge_pages,nocow,fallocate";
    for off in each.into_iter().chain([all]) {
        let set = if off.is_empty() { String::new() } else { format!("--set features.off={off}") };
        command(&format!("tools/ci/smoke.sh target/release/ringmill {set}"))?;
    }
    for method in ["dsync", "fdatasync"] {
        command(&format!("tools/ci/smoke.sh target/release/ringmill --set flush.method={method}"))?;
    }
    command("AS_NOBODY=1 tools/ci/smoke.sh target/release/ringmill --cores 8")?;
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => command("LISTEN='[::1]:0' tools/ci/smoke.sh target/release/ringmill")?,
        Err(error) => println!("*** SKIPPED: no IPv6 on this machine ({error}) ***"),
    }
    command("tools/ci/forbidden.sh target/release/ringmill")?;
    command("RINGMILL_CRASH_ROUNDS=20 cargo test --release -p ringmill --test crash")?;
    command("tools/ci/filesystems.sh target/release/ringmill")?;
    // Chatty: all of it only when something was found.
    command(
        "tools/fuzz/run 6 >target/fuzz.log 2>&1 || { tail -60 target/fuzz.log; exit 1; }; grep -c number_of_executed_units target/fuzz.log",
    )?;
    // The suites of librdkafka and kgo take longer to build; `cargo x clients` runs all.
    crate::clients::run(&["kcat", "kafka", "adoption", "rskafka"])
}

use super::*;
use proptest::prelude::*;

fn constant(value: f64) -> Quantiles {
    Quantiles { parts: vec![0.0, 1.0], values: vec![value, value] }
}

/// A core that costs nothing but `request_us` for a request, with flushes of always `flush_us`.
fn node(request_us: f64, flush_us: f64) -> Node {
    Node {
        client: Costs::default(),
        core: Costs { request_us, ..Costs::default() },
        fetch: Costs::default(),
        flush: FlushTime { base_us: flush_us, kib_us: 0.0, sync_us: 0.0, around: constant(1.0) },
        stalls: Stalls::default(),
        holds: Stalls::default(),
        wake_us: 0.0,
        timer_us: 0.0,
        nap_us: 0.0,
        slow: 1.0,
        client_threads: 1.0,
    }
}

fn single(rate: Option<f64>) -> Load {
    Load { linger_us: 0.0, batch_bytes: 1, ..Load::new(rate, 1000, 1, 1) }
}

#[test]
fn one_at_a_time_takes_the_core_and_the_flush() {
    let done = simulate(&single(Some(100.0)), &node(10.0, 90.0), 5000, 1);
    for part in [0.01, 0.5, 0.99, 1.0] {
        assert!((done.ms(part) - 0.1).abs() < 0.002, "p{part}: {} ms", done.ms(part));
    }
    assert!((done.rate / 100.0 - 1.0).abs() < 0.01, "{}", done.rate);
    assert_eq!(done.groups, done.requests);
}

#[test]
fn a_closed_loop_gives_its_window_for_each_round() {
    // One outstanding: a round is 10 µs of CPU and 90 of flush.
    let load = Load { in_flight: 1, buffer_bytes: 2000, request_bytes: 1, ..single(None) };
    let done = simulate(&load, &node(10.0, 90.0), 5000, 1);
    assert!((done.rate / 10_000.0 - 1.0).abs() < 0.02, "{}", done.rate);
    assert!((done.flush_busy - 0.9).abs() < 0.02, "{}", done.flush_busy);
}

#[test]
fn a_core_that_is_the_limit_is_busy_all_the_time() {
    let load = Load { producers: 50, in_flight: 5, request_bytes: 1, ..single(None) };
    let done = simulate(&load, &node(20.0, 50.0), 100_000, 1);
    assert!((done.rate / 50_000.0 - 1.0).abs() < 0.03, "{}", done.rate);
    assert!(done.core_busy > 0.97, "{}", done.core_busy);
}

#[test]
fn full_groups_are_written_ahead_of_a_flush_and_covered_by_the_next() {
    // A flush of 1 ms and writes that take nothing. One group with a flush and one ahead, then one with a flush that
    // covers both: three in two flushes.
    let one_group = GROUP_BYTES as u32;
    let load = Load { producers: 20, batch_bytes: one_group, record_bytes: one_group, ..single(None) };
    let done = simulate(&load, &node(0.0, 1000.0), 20_000, 1);
    assert!((done.rate / 1500.0 - 1.0).abs() < 0.03, "{}", done.rate);
    let batch = GROUP_BYTES as f64 + 71.0;
    assert!(
        (done.group_bytes as f64 / done.groups as f64 - batch).abs() < 1.0,
        "{}",
        done.group_bytes / done.groups
    );
}

#[test]
fn bytes_go_to_the_device_one_after_the_other() {
    // 1 MiB moves in 1 ms, however many groups are under way; a flush costs nothing.
    let load = Load { producers: 20, batch_bytes: 1 << 20, record_bytes: 1 << 20, ..single(None) };
    let mut moving = node(0.0, 0.001);
    moving.flush.kib_us = 1000.0 / 1024.0;
    let done = simulate(&load, &moving, 5000, 1);
    assert!((done.rate / 1000.0 - 1.0).abs() < 0.03, "{}", done.rate);
}

#[test]
fn a_thread_that_slept_pays_for_waking() {
    // One record each 10 ms: the client wakes for the record and for its answer, the core for the request and its flush.
    let mut sleepy = node(0.0, 100.0);
    (sleepy.client.sleep_us, sleepy.core.sleep_us) = (30.0, 20.0);
    let done = simulate(&single(Some(100.0)), &sleepy, 1000, 1);
    assert!((done.client_busy / (2.0 * 30.0 / 10_000.0) - 1.0).abs() < 0.01, "{}", done.client_busy);
    assert!((done.core_busy / (2.0 * 20.0 / 10_000.0) - 1.0).abs() < 0.01, "{}", done.core_busy);
    // Each way the wakes are waited for: 30 + 20 + 100 + 20 + 30.
    assert!((done.ms(0.5) - 0.2).abs() < 0.002, "{}", done.ms(0.5));
}

#[test]
fn linger_is_waited_for_and_a_full_batch_is_not() {
    // One record each 10 ms never fills a batch: it waits for its linger.
    let slow = Load { linger_us: 5000.0, batch_bytes: 16_384, ..single(Some(100.0)) };
    let done = simulate(&slow, &node(0.0, 100.0), 3000, 1);
    assert!((done.ms(0.5) - 5.1).abs() < 0.05, "{}", done.ms(0.5));
    // 100,000 a second fill a batch in less than 0.2 ms.
    let fast = Load { linger_us: 5000.0, batch_bytes: 16_384, ..single(Some(100_000.0)) };
    let done = simulate(&fast, &node(0.0, 100.0), 200_000, 1);
    assert!(done.ms(0.5) < 0.5, "{}", done.ms(0.5));
}

#[test]
fn stalls_show_in_the_tail_for_as_long_as_they_last() {
    let mut with = node(1.0, 50.0);
    with.stalls = Stalls { per_second: 5.0, us: constant(20_000.0) };
    let done = simulate(&single(Some(2000.0)), &with, 100_000, 7);
    // Two threads stall 5 times a second for 20 ms each: about a fifth of the time.
    assert!(done.ms(0.5) < 0.1, "{}", done.ms(0.5));
    assert!((15.0..=45.0).contains(&done.ms(0.99)), "{}", done.ms(0.99));
}

#[test]
fn a_broker_counts_what_the_core_was_late_for_as_the_flush() {
    // A request each 59 µs, 42 of work with it, and a flush whose end comes in the midst of that.
    let load = Load { producers: 8, request_bytes: 1, ..single(Some(17_000.0)) };
    let mut busy = node(0.0, 97.0);
    busy.core.kib_us = 40.0;
    let done = simulate(&load, &busy, 50_000, 1);
    assert!(done.flush_mean_us > 102.0 && done.flush_mean_us < 140.0, "{}", done.flush_mean_us);
    let idle = simulate(&load, &node(0.0, 97.0), 50_000, 1);
    assert!((idle.flush_mean_us - 97.0).abs() < 0.5, "{}", idle.flush_mean_us);
}

#[test]
fn flushes_take_turns_with_a_checkpoints_syncs() {
    // 1 MiB moves in 1 ms: a checkpoint each 128 MiB, with a sync of 0.5 ms for each of 25 partitions.
    let load =
        Load { producers: 20, partitions: 25, batch_bytes: 1 << 20, record_bytes: 1 << 20, ..single(None) };
    let mut moving = node(0.0, 0.001);
    moving.flush.kib_us = 1000.0 / 1024.0;
    moving.flush.sync_us = 500.0;
    let done = simulate(&load, &moving, 5000, 1);
    assert!((done.checkpoints as i64 - 5000 / 128).abs() <= 1, "{}", done.checkpoints);
    // 128 ms of moving and 12.5 of syncs.
    assert!((done.rate / (1000.0 * 128.0 / 140.5) - 1.0).abs() < 0.03, "{}", done.rate);
    // Where the device rests between flushes, syncs are done meanwhile.
    let rare = Load { rate: Some(100.0), ..load };
    let done = simulate(&rare, &moving, 2000, 1);
    assert!(done.checkpoints >= 14 && done.ms(0.5) < 1.6, "{} {}", done.checkpoints, done.ms(0.5));
}

#[test]
fn what_holds_the_core_shows_in_the_tail() {
    let mut held = node(1.0, 50.0);
    held.holds = Stalls { per_second: 2.0, us: constant(30_000.0) };
    let done = simulate(&single(Some(2000.0)), &held, 40_000, 7);
    assert!(done.ms(0.5) < 0.1, "{}", done.ms(0.5));
    assert!((20.0..=32.0).contains(&done.ms(0.99)), "{}", done.ms(0.99));
}

#[test]
fn an_overload_shows_as_a_rate_that_is_not_reached() {
    let load = Load { producers: 50, request_bytes: 1, ..single(Some(100_000.0)) };
    let done = simulate(&load, &node(20.0, 50.0), 100_000, 1);
    assert!((done.rate / 50_000.0 - 1.0).abs() < 0.05, "{}", done.rate);
    assert!(done.ms(0.99) > 100.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_is_lost_and_nothing_runs_before_it_was_meant(
        rate in proptest::option::of(500f64..200_000.0),
        record_bytes in 1u32..20_000, partitions in 1u32..300, producers in 1u32..20,
        linger_us in 0f64..20_000.0, batch_bytes in 1u32..200_000, in_flight in 1u32..6, seed: u64,
    ) {
        let load = Load { linger_us, batch_bytes, in_flight, ..Load::new(rate, record_bytes, partitions, producers) };
        let node = Node { wake_us: 5.0, timer_us: 50.0, ..node(3.0, 80.0) };
        let done = simulate(&load, &node, 20_000, seed);
        prop_assert!(done.records >= 20_000);
        prop_assert!(done.requests > 0 && done.batches >= done.requests && done.groups <= done.batches);
        prop_assert!(done.core_busy <= 1.01 && done.client_busy <= 1.01 && done.flush_busy <= 1.01);
        if let Some(rate) = rate {
            // What was answered while it counted was due in that time, or before it by the largest latency.
            let counted = done.latency.len() as f64;
            let due_s = counted / done.rate + done.latency.max() as f64 / 1e9;
            prop_assert!(counted <= rate * due_s + 1.0, "{counted} of {}", rate * due_s);
            prop_assert!(done.latency.min() >= 80_000, "faster than a flush: {}", done.latency.min());
        }
        let again = simulate(&load, &node, 20_000, seed);
        prop_assert_eq!(again.latency.max(), done.latency.max());
    }
}

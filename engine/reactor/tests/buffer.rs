//! Buffers: what is shared does not change, what is bounded stays bounded, what is dropped comes back.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ringmill_reactor::buffer::CLASSES_BYTES;
use ringmill_reactor::{AppendBuf, Buf, Pool};
use std::collections::VecDeque;

const PAGE: usize = 4096;

#[test]
fn capacities_are_classes_or_whole_pages() {
    let pool = Pool::new(64 << 20);
    for class in CLASSES_BYTES {
        for ask in [class - 1, class] {
            let buf = pool.take(ask).unwrap();
            assert_eq!(buf.capacity(), class);
            assert!(buf.is_empty(), "nothing counts yet");
            assert!((buf.freeze().as_ptr() as usize).is_multiple_of(PAGE));
        }
    }
    let largest = CLASSES_BYTES[CLASSES_BYTES.len() - 1];
    assert_eq!(pool.take(largest + 1).unwrap().capacity(), largest + PAGE);
    assert!(pool.take(usize::MAX).is_none(), "what no memory holds is refused, not computed");
}

#[test]
fn the_limit_holds_and_idle_memory_gives_way() {
    let pool = Pool::new(1 << 20);
    let small: Vec<_> = (0..64).map(|_| pool.take(1).expect("64 of 16 KiB fit")).collect();
    assert!(pool.take(1).is_none());
    assert!(pool.append_buf(1).is_none());
    assert_eq!(pool.stats().mapped_bytes, 1 << 20);
    assert_eq!(pool.stats().used_bytes, 1 << 20);
    drop(small);
    assert_eq!(pool.stats().used_bytes, 0);
    assert_eq!(pool.stats().mapped_bytes, 1 << 20, "kept for reuse");
    let whole = pool.take(1 << 20).expect("idle memory of another class makes room");
    assert_eq!(pool.stats().mapped_bytes, 1 << 20);
    drop(whole);
    pool.trim();
    assert_eq!(pool.stats().mapped_bytes, 0);
}

/// What was touched once is used again; only what another size needs goes, and no more than that.
#[test]
fn idle_memory_stays_until_it_is_needed() {
    const MIB: u64 = 1 << 20;
    let pool = Pool::new(64 * MIB);
    let large: Vec<_> = (0..16).map(|_| pool.take(4 << 20).unwrap()).collect();
    drop(large);
    assert_eq!((pool.stats().mapped_bytes, pool.stats().used_bytes), (64 * MIB, 0));
    let small = pool.take(1).expect("one of the large ones makes room");
    assert_eq!(pool.stats().mapped_bytes, 60 * MIB + (16 << 10));
    drop(small);
    let again: Vec<_> = (0..15).map(|_| pool.take(4 << 20).unwrap()).collect();
    assert_eq!(pool.stats().mapped_bytes, 60 * MIB + (16 << 10), "the same ones");
    drop(again);
    pool.trim();
    assert_eq!(pool.stats().mapped_bytes, 0);
}

#[test]
fn a_region_is_used_again_only_after_its_last_slice() {
    let pool = Pool::new(16 << 10);
    let mut buf = pool.take(1).unwrap();
    buf.extend(b"kept");
    let whole = buf.freeze();
    let slice = whole.slice(1, 3);
    drop(whole);
    assert!(pool.take(1).is_none(), "the slice pins the region");
    assert_eq!(&slice[..], b"ep");
    assert_eq!(slice.region_bytes(), 16 << 10);
    drop(slice);
    assert!(pool.take(1).is_some());
}

/// Regions of 1 MiB share a huge page in twos; each is its own, and the page goes with the last of them.
#[test]
fn a_mebibyte_is_half_a_huge_page() {
    const MIB: usize = 1 << 20;
    let pool = Pool::new(4 << 20);
    let mut pair = [pool.take(MIB).unwrap(), pool.take(MIB).unwrap()];
    assert_eq!(pool.stats().mapped_bytes, 2 << 20);
    assert_eq!(pool.stats().used_bytes, 2 << 20);
    pair[0].as_mut_full().fill(1);
    pair[1].as_mut_full().fill(2);
    pair.iter_mut().for_each(|buf| buf.set_len(MIB));
    assert!(pair[0].iter().all(|b| *b == 1));
    let [first, second] = pair.map(|buf| buf.freeze());
    let lower = (first.as_ptr() as usize).min(second.as_ptr() as usize);
    assert!(lower.is_multiple_of(2 << 20), "aligned, or there is no huge page");
    std::thread::spawn(move || drop(first)).join().unwrap();
    assert_eq!(pool.stats().used_bytes, 1 << 20);
    assert_eq!(pool.stats().mapped_bytes, 2 << 20, "the other half is in use");
    assert!(second.iter().all(|b| *b == 2));
    drop(second);
    pool.trim();
    assert_eq!(pool.stats().mapped_bytes, 0);
    let large = pool.take(4 << 20).unwrap().freeze();
    assert!((large.as_ptr() as usize).is_multiple_of(2 << 20));
}

#[test]
fn dropped_on_another_thread() {
    let pool = Pool::new(1 << 20);
    let mut buf = pool.take(1 << 20).unwrap();
    buf.extend(b"over there");
    let (here, there) = (buf.freeze(), std::sync::mpsc::channel::<Buf>());
    let clone = here.clone();
    drop(here);
    let other = std::thread::spawn(move || {
        let buf = there.1.recv().unwrap();
        assert_eq!(&buf[..], b"over there");
        // This thread has a pool of its own, which must not get the other's memory.
        let own = Pool::new(1 << 20);
        drop(buf);
        assert_eq!(own.stats().mapped_bytes, 0);
    });
    there.0.send(clone).unwrap();
    other.join().unwrap();
    assert_eq!(pool.stats().used_bytes, 0);
    assert_eq!(pool.stats().mapped_bytes, 0, "unmapped there, accounted here");
    assert!(pool.take(1 << 20).is_some(), "the limit has room again");
}

#[test]
fn buffers_outlive_their_pool() {
    let pool = Pool::new(1 << 20);
    let mut buf = pool.take(1).unwrap();
    buf.extend(b"still here");
    let buf = buf.freeze();
    drop(pool);
    assert_eq!(&buf[..], b"still here");
}

#[test]
fn neighbours_join_and_strangers_do_not() {
    let whole = Buf::from_vec((0..100).collect());
    let mut front = whole.slice(0, 40);
    assert!(!front.try_join(&whole.slice(41, 100)), "a gap");
    assert!(!front.try_join(&Buf::from_vec(vec![40; 10])), "other memory");
    assert!(front.try_join(&whole.slice(40, 100)));
    assert_eq!(front[..], whole[..]);
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    Zeros(usize),
    Patch(usize, u8),
    Split(usize),
    DropOldest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3_000).prop_map(Step::Append),
        (0..2_000usize).prop_map(Step::Zeros),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Step::Patch(at, byte)),
        any::<usize>().prop_map(Step::Split),
        Just(Step::DropOldest),
    ]
}

/// One step on the buffer and on its model: what is open, and what was split off.
fn apply(
    append: &mut AppendBuf,
    open: &mut Vec<u8>,
    split: &mut VecDeque<(Buf, Vec<u8>)>,
    step: Step,
) -> Result<(), TestCaseError> {
    match step {
        Step::Append(bytes) if bytes.len() <= append.room() => {
            prop_assert_eq!(append.append(&bytes), open.len());
            open.extend(bytes);
        }
        Step::Zeros(count) if count <= append.room() => {
            append.append_zeros(count);
            open.resize(open.len() + count, 0);
        }
        Step::Patch(at, byte) if !open.is_empty() => {
            let at = at % open.len();
            append.open_mut()[at] = byte;
            open[at] = byte;
        }
        Step::Split(len) => {
            let len = len % (open.len() + 1);
            let rest = open.split_off(len);
            split.push_back((append.split(len), std::mem::replace(open, rest)));
        }
        Step::DropOldest => drop(split.pop_front()),
        Step::Append(_) | Step::Zeros(_) | Step::Patch(..) => {}
    }
    prop_assert_eq!(append.open_len(), open.len());
    prop_assert_eq!(append.open_mut(), &open[..]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What was split off never changes, whatever is appended and patched behind it.
    #[test]
    fn an_append_buf_is_its_model(steps in proptest::collection::vec(step(), 1..80)) {
        let pool = Pool::new(1 << 20);
        let mut append = pool.append_buf(16 << 10).unwrap();
        let (mut open, mut split) = (Vec::new(), VecDeque::new());
        for step in steps {
            apply(&mut append, &mut open, &mut split, step)?;
            for (buf, bytes) in &split {
                prop_assert_eq!(&buf[..], &bytes[..]);
            }
        }
        drop(append);
        prop_assert_eq!(pool.stats().used_bytes > 0, !split.is_empty(), "slices pin the region");
        split.clear();
        prop_assert_eq!(pool.stats().used_bytes, 0);
    }
}

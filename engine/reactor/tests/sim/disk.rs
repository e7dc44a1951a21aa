use crate::{PAGE, Rig};
use ringmill_reactor::sim::{Cut, DiskFaults, SimOptions};
use ringmill_reactor::{Backend, Errno, FileId, Flush, Fs, Op, OpenMode, Payload, Token};
use std::path::Path;

const SEEDS: u64 = 200;
/// EBADF.
const BAD_FILE: Errno = Errno(9);

/// A page of this byte, for the page of that number.
fn write(rig: &Rig, file: FileId, page: usize, flush: Flush) -> Op {
    let buf = rig.buf(&[page as u8 + 1; PAGE]);
    Op::Write { file, buf, offset: (page * PAGE) as u64, flush }
}

fn is_whole(bytes: &[u8], page: usize) -> bool {
    bytes.iter().all(|b| *b == page as u8 + 1)
}

/// What pages 0 to 2 hold after a cut that came when `flush` had completed: page 0 was complete before that was issued,
/// page 1 under way, page 2 was pushed behind it. `None` unless both of these completed before the flush did.
fn pages_after(seed: u64, flush: impl Fn(&Rig, FileId) -> Op) -> Option<Vec<bool>> {
    const FLUSH: u64 = 9;
    let mut rig = Rig::new(seed, SimOptions::default());
    let (_, file) = rig.file("/log", 4);
    rig.push(0, write(&rig, file, 0, Flush::None));
    assert_eq!(rig.until(0)[0].result, Ok(PAGE as u32));
    rig.push(1, write(&rig, file, 1, Flush::None));
    rig.push(FLUSH, flush(&rig, file));
    rig.push(2, write(&rig, file, 2, Flush::None));
    let done = rig.until(FLUSH);
    assert!(done.iter().all(|c| c.result.is_ok()), "seed {seed}");
    let all = done.len() == 3;
    let rig = rig.cut(Cut::Power);
    all.then(|| (0..4).map(|page| is_whole(&rig.page("/log", page), page)).collect())
}

#[test]
fn a_flush_covers_the_writes_that_were_complete_when_it_was_issued_and_none_after() {
    let seeds = || (0..SEEDS).filter_map(|seed| pages_after(seed, |_, file| Op::Sync { file }));
    assert!(seeds().all(|kept| kept[0]), "complete before the flush was issued");
    assert!(seeds().count() > 10);
    for page in [1, 2] {
        assert!(seeds().any(|kept| !kept[page]), "page {page} was complete before the flush ended, only");
        assert!(seeds().any(|kept| kept[page]), "a cut may leave page {page}");
    }
}

#[test]
fn a_linked_flush_covers_its_own_write_too() {
    let linked = |rig: &Rig, file| write(rig, file, 3, Flush::Linked);
    let seeds = || (0..SEEDS).filter_map(|seed| pages_after(seed, linked));
    assert!(seeds().all(|kept| kept[0] && kept[3]));
    assert!(seeds().count() > 10);
    assert!([1, 2].iter().all(|page| seeds().any(|kept| !kept[*page])));
}

#[test]
fn a_dsync_write_covers_itself_alone() {
    let dsync = |rig: &Rig, file| write(rig, file, 3, Flush::Dsync);
    let seeds = || (0..SEEDS).filter_map(|seed| pages_after(seed, dsync));
    assert!(seeds().all(|kept| kept[3]));
    assert!(seeds().count() > 10);
    assert!([0, 1, 2].iter().all(|page| seeds().any(|kept| !kept[*page])));
}

#[test]
fn completions_come_in_any_order_and_each_once() {
    let order = |seed| {
        let mut rig = Rig::new(seed, SimOptions::default());
        let (_, file) = rig.file("/log", 8);
        for page in 0..8 {
            rig.push(page as u64, write(&rig, file, page, Flush::None));
        }
        assert_eq!(rig.io.in_flight(), 8);
        let tokens: Vec<u64> = (0..8).map(|_| rig.next().unwrap().token.0).collect();
        assert_eq!(rig.io.in_flight(), 0);
        assert!(rig.next().is_none());
        tokens
    };
    let sorted: Vec<u64> = (0..8).collect();
    let orders: Vec<Vec<u64>> = (0..20).map(order).collect();
    assert!(orders.iter().any(|tokens| *tokens != sorted));
    assert!(orders.windows(2).any(|two| two[0] != two[1]), "the seed decides");
    for mut tokens in orders {
        tokens.sort_unstable();
        assert_eq!(tokens, sorted);
    }
}

#[test]
fn a_write_error_goes_to_the_write_that_changed_nothing() {
    let mut failed = 0;
    for seed in 0..50 {
        let mut rig = Rig::new(seed, SimOptions::default());
        let (_, file) = rig.file("/log", 16);
        rig.world.set_disk_faults(DiskFaults { write_error_ppm: 300_000, ..DiskFaults::default() });
        for page in 0..16 {
            rig.push(page as u64, write(&rig, file, page, Flush::None));
        }
        let done: Vec<_> = (0..16).map(|_| rig.next().unwrap()).collect();
        for completion in &done {
            let page = completion.token.0 as usize;
            let is_there = is_whole(&rig.page("/log", page), page);
            assert_eq!(completion.result, if is_there { Ok(PAGE as u32) } else { Err(Errno::IO) });
        }
        let errors = done.iter().filter(|c| c.result.is_err()).count();
        assert_eq!(errors as u64, rig.world.disk_errors());
        failed += errors;
    }
    assert!((100..400).contains(&failed), "{failed} of 800");
}

#[test]
fn a_read_error_gives_the_buffer_back_empty_and_the_others_what_they_asked_for() {
    let (mut failed, mut read) = (0, 0);
    for seed in 0..50 {
        let mut rig = Rig::new(seed, SimOptions::default());
        let (handle, file) = rig.file("/log", 8);
        for page in 0..8 {
            let bytes = [page as u8 + 1; PAGE];
            rig.world.fs().write_at(&handle, &bytes, (page * PAGE) as u64).unwrap();
        }
        rig.world.set_disk_faults(DiskFaults { read_error_ppm: 300_000, ..DiskFaults::default() });
        for page in 0..8 {
            let buf = rig.io.pool().take(PAGE).unwrap();
            rig.push(page as u64, Op::Read { file, buf, offset: (page * PAGE) as u64, len: PAGE });
        }
        for _ in 0..8 {
            let completion = rig.next().unwrap();
            let Payload::BufMut(buf) = completion.payload else { panic!("the buffer comes back") };
            match completion.result {
                Ok(got) => {
                    assert_eq!((got as usize, buf.len()), (PAGE, PAGE));
                    assert!(is_whole(&buf, completion.token.0 as usize), "seed {seed}");
                    read += 1;
                }
                Err(errno) => {
                    assert_eq!((errno, buf.len()), (Errno::IO, 0));
                    failed += 1;
                }
            }
        }
    }
    assert!(failed > 50 && read > 200, "{failed} failed, {read} read");
}

/// A flush that fails makes nothing sure; one that does not, all that it covers.
#[test]
fn a_flush_error_goes_to_the_flush_that_covers_nothing() {
    let (mut lost, mut failed) = (0, 0);
    for seed in 0..50 {
        let mut rig = Rig::new(seed, SimOptions::default());
        let names: Vec<String> = (0..8).map(|at| format!("/log-{at}")).collect();
        let files: Vec<FileId> = names.iter().map(|name| rig.file(name, 2).1).collect();
        rig.world.set_disk_faults(DiskFaults { sync_error_ppm: 400_000, ..DiskFaults::default() });
        // Half of them as the second stage of a write.
        for (at, file) in files.iter().enumerate() {
            let flush = if at % 2 == 0 { Flush::Linked } else { Flush::None };
            rig.push(at as u64, write(&rig, *file, 0, flush));
        }
        let mut sure = [false; 8];
        for _ in 0..8 {
            let completion = rig.next().unwrap();
            let at = completion.token.0 as usize;
            sure[at] = completion.result.is_ok() && at.is_multiple_of(2);
            assert!(is_whole(&rig.page(&names[at], 0), 0), "the write itself went well");
        }
        for (at, file) in files.iter().enumerate().filter(|(at, _)| at % 2 == 1) {
            rig.push(at as u64, Op::Sync { file: *file });
        }
        for _ in 0..4 {
            let completion = rig.next().unwrap();
            assert!(matches!(completion.result, Ok(_) | Err(Errno::IO)));
            sure[completion.token.0 as usize] = completion.result.is_ok();
        }
        let rig = rig.cut(Cut::Power);
        for (name, sure) in names.iter().zip(sure) {
            let is_there = is_whole(&rig.page(name, 0), 0);
            assert!(is_there || !sure, "seed {seed}: {name} was flushed");
            failed += u32::from(!sure);
            lost += u32::from(!is_there);
        }
    }
    assert!(lost > 20 && failed > lost, "{failed} failed, {lost} lost");
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    let mut rig = Rig::new(1, SimOptions::default());
    let (handle, file) = rig.file("/log", 4);
    let fs = rig.world.fs();
    rig.world.set_disk_bytes(rig.world.disk_used_bytes() + PAGE as u64);
    let two = rig.buf(&[9; 2 * PAGE]);
    rig.push(1, Op::Write { file, buf: two.clone(), offset: 4 * PAGE as u64, flush: Flush::Linked });
    rig.push(2, write(&rig, file, 3, Flush::Linked));
    for completion in [rig.next().unwrap(), rig.next().unwrap()] {
        let expected = if completion.token == Token(1) { Err(Errno::NO_SPACE) } else { Ok(PAGE as u32) };
        assert_eq!(completion.result, expected, "{:?}", completion.token);
    }
    let refused = fs.allocate(&handle, 4 * PAGE as u64, 2 * PAGE as u64).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::NO_SPACE.0));
    assert_eq!(fs.len(&handle).unwrap(), 4 * PAGE as u64, "the size is as it was");
    assert_eq!(fs.free_bytes(Path::new("/")).unwrap(), PAGE as u64);
    assert_eq!(rig.world.disk_errors(), 0, "a full disk is no error");

    fs.allocate(&handle, 4 * PAGE as u64, PAGE as u64).unwrap();
    rig.push(3, write(&rig, file, 4, Flush::Linked));
    assert_eq!(rig.next().unwrap().result, Ok(PAGE as u32), "what was reserved is there");
    rig.world.set_disk_bytes(1 << 20);
    rig.push(4, Op::Write { file, buf: two, offset: 5 * PAGE as u64, flush: Flush::Linked });
    assert_eq!(rig.next().unwrap().result, Ok(2 * PAGE as u32));
    let rig = rig.cut(Cut::Power);
    assert!((3..5).all(|page| is_whole(&rig.page("/log", page), page)));
}

/// How much of a write under way a cut left, in sectors of 512 bytes.
fn sectors_left(seed: u64, cut: Cut) -> usize {
    let mut rig = Rig::new(seed, SimOptions::default());
    let (_, file) = rig.file("/log", 2);
    rig.push(1, write(&rig, file, 0, Flush::Linked));
    rig.io.enter(None);
    let rig = rig.cut(cut);
    let page = rig.page("/log", 0);
    let sectors: Vec<&[u8]> = page.chunks(512).collect();
    assert!(sectors.iter().all(|s| s.iter().all(|b| *b == s[0])), "seed {seed}: a sector is whole");
    sectors.iter().filter(|s| s[0] == 1).count()
}

#[test]
fn a_power_cut_tears_a_write_under_way_into_sectors_and_a_kill_does_not() {
    let left = |cut| (0..SEEDS).map(|seed| sectors_left(seed, cut)).collect::<Vec<_>>();
    let (powered, killed) = (left(Cut::Power), left(Cut::Process));
    assert!(powered.contains(&0) && powered.contains(&8));
    assert!(powered.iter().filter(|n| (1..8).contains(*n)).count() > SEEDS as usize / 10);
    assert!(killed.contains(&0) && killed.contains(&8));
    assert!(killed.iter().all(|n| *n == 0 || *n == 8));
}

/// Appends to a file begin anywhere; what a device writes whole does not.
#[test]
fn a_write_that_begins_inside_a_sector_is_torn_at_the_sectors_of_the_file() {
    let mut torn = 0;
    for seed in 0..SEEDS {
        let rig = Rig::new(seed, SimOptions::default());
        let fs = rig.world.fs();
        let file = fs.open(Path::new("/journal"), OpenMode::Create).unwrap();
        fs.write_at(&file, &[1; 700], 0).unwrap();
        fs.sync_data(&file).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.write_at(&file, &[2; 3000], 700).unwrap();
        let rig = rig.cut(Cut::Power);
        let bytes = rig.world.fs().read_all(Path::new("/journal")).unwrap();
        assert!(bytes[..700].iter().all(|b| *b == 1), "what was flushed stays");
        let appended = [&bytes[700..bytes.len().min(1024)]]
            .into_iter()
            .chain(bytes[1024.min(bytes.len())..].chunks(512));
        let sectors: Vec<&[u8]> = appended.filter(|sector| !sector.is_empty()).collect();
        assert!(sectors.iter().all(|s| s.iter().all(|b| *b == s[0] && [0, 2].contains(b))), "seed {seed}");
        torn += u32::from(sectors.iter().any(|s| s[0] == 0) && sectors.iter().any(|s| s[0] == 2));
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn a_kill_loses_nothing_that_was_complete() {
    for seed in 0..50 {
        let mut rig = Rig::new(seed, SimOptions::default());
        let (_, file) = rig.file("/log", 2);
        rig.push(0, write(&rig, file, 0, Flush::None));
        rig.next().unwrap();
        let fs = rig.world.fs();
        fs.open(Path::new("/new"), OpenMode::Create).unwrap();
        let rig = rig.cut(Cut::Process);
        assert!(is_whole(&rig.page("/log", 0), 0), "seed {seed}");
        assert!(rig.world.fs().exists(Path::new("/new")));
    }
}

#[test]
fn an_old_life_reaches_nothing() {
    let mut rig = Rig::new(1, SimOptions::default());
    let (handle, _) = rig.file("/log", 2);
    let old = rig.world.fs();
    let mut rig = rig.cut(Cut::Process);
    let file = rig.io.attach_file(handle.clone());
    rig.push(1, write(&rig, file, 0, Flush::Linked));
    assert_eq!(rig.next().unwrap().result, Err(BAD_FILE));
    assert!(old.write_at(&handle, &[1; PAGE], 0).is_err() && old.list(Path::new("/")).is_err());
    assert_eq!(rig.page("/log", 0), [0; PAGE]);
}

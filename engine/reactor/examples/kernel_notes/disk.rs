//! Durable writes: flush methods, files, one log or many, ring set-ups, polling, alignment.

use crate::Scene;
use crate::tools::{
    self, Memory, ROUNDS, Spinner, alternate, complete, heading, repeat, ring, succeed, unnamed, zeroed,
};
use io_uring::{IoUring, opcode, squeue, types};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 32 << 20;

fn write(fd: i32, from: *const u8, len: usize, offset: u64) -> opcode::Write {
    opcode::Write::new(types::Fd(fd), from, len as u32).offset(offset)
}

/// A write and its flush, linked.
fn linked(fd: i32, from: *const u8, len: usize, offset: u64) -> [squeue::Entry; 2] {
    let flush = opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC);
    [write(fd, from, len, offset).build().flags(squeue::Flags::IO_LINK), flush.build()]
}

/// No flush, `RWF_DSYNC`, and write + linked fdatasync, while none, one or two threads spin.
pub fn flush(scene: &Scene) {
    let (memory, fd) = (Memory::new(4096), zeroed(&scene.folder, FILE_BYTES));
    let mut ring = ring();
    heading();
    for spinners in 0..=2 {
        let ways = ["none", "dsync", "linked"]
            .map(|way| (format!("{way}, 4 KiB, {spinners} spinning"), (way, 0_u64)))
            .to_vec();
        let spinning: Vec<Spinner> = (0..spinners).map(|_| Spinner::start()).collect();
        alternate(ways, |(way, at)| {
            repeat(scene.span, || {
                let plain = write(fd.as_raw_fd(), memory.ptr(), 4096, *at);
                match *way {
                    "none" => succeed(&mut ring, &[plain.build()]),
                    "dsync" => succeed(&mut ring, &[plain.rw_flags(libc::RWF_DSYNC).build()]),
                    _ => succeed(&mut ring, &linked(fd.as_raw_fd(), memory.ptr(), 4096, *at)),
                }
                *at = (*at + 4096) % FILE_BYTES;
            })
        });
        drop(spinning);
    }
}

/// Durable 16 KiB writes into a zero-filled file, a preallocated one, and one that grows.
pub fn files(scene: &Scene) {
    const LEN: usize = 16 << 10;
    let memory = Memory::new(LEN);
    let mut ring = ring();
    heading();
    let ways = ["zero-filled", "fallocated", "growing"].map(|way| (way.to_owned(), way)).to_vec();
    alternate(ways, |way| {
        // A new file each time: extents are converted by the first write to them only.
        let (fd, room) = match *way {
            "zero-filled" => (zeroed(&scene.folder, FILE_BYTES), FILE_BYTES),
            "fallocated" => {
                let fd = unnamed(&scene.folder, way);
                // SAFETY: plain calls on a descriptor of ours.
                unsafe {
                    assert_eq!(libc::fallocate(fd.as_raw_fd(), 0, 0, 512 << 20), 0);
                    assert_eq!(libc::fsync(fd.as_raw_fd()), 0);
                }
                (fd, 512 << 20)
            }
            _ => (unnamed(&scene.folder, way), u64::MAX),
        };
        let mut at = 0;
        repeat(scene.span, || {
            succeed(&mut ring, &linked(fd.as_raw_fd(), memory.ptr(), LEN, at));
            at = (at + LEN as u64) % room;
        })
    });
}

/// One turn of P partitions with a small batch each: one write and flush, or a write and flush per file.
pub fn partitions(scene: &Scene) {
    let mut ring = ring();
    heading();
    for count in [1_usize, 16, 128] {
        let memory = Memory::new(count * 4096);
        let log = zeroed(&scene.folder, FILE_BYTES);
        let many: Vec<OwnedFd> = (0..count).map(|_| zeroed(&scene.folder, 256 << 10)).collect();
        // A batch is 1 KiB in the shared log; a file of its own has to write whole blocks.
        let shared = (count * 1024).next_multiple_of(4096);
        let ways = vec![
            (format!("one log, {count} partitions"), true),
            (format!("files, {count} partitions"), false),
        ];
        let mut turn = 0_u64;
        alternate(ways, |one| {
            repeat(scene.span, || {
                turn += 1;
                if *one {
                    let at = turn * shared as u64 % (FILE_BYTES / shared as u64 * shared as u64);
                    succeed(&mut ring, &linked(log.as_raw_fd(), memory.ptr(), shared, at));
                    return;
                }
                let at = turn * 4096 % (256 << 10);
                let entries: Vec<_> =
                    many.iter().flat_map(|fd| linked(fd.as_raw_fd(), memory.ptr(), 4096, at)).collect();
                succeed(&mut ring, &entries);
            })
        });
    }
}

/// The sum of iowait over all CPUs, in ticks of 10 ms.
fn iowait() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    stat.lines().next().unwrap().split_whitespace().nth(5).unwrap().parse().unwrap()
}

/// Submits and waits without being counted as waiting for I/O (`IORING_ENTER_NO_IOWAIT`, Linux 6.15).
fn succeed_no_iowait(ring: &mut IoUring, entries: &[squeue::Entry]) {
    const GETEVENTS: u32 = 1;
    const NO_IOWAIT: u32 = 128;
    for entry in entries {
        // SAFETY: as in `complete`.
        unsafe { ring.submission().push(entry).unwrap() };
    }
    let (mut submit, mut left) = (entries.len() as u32, entries.len());
    while left > 0 {
        // SAFETY: no argument points anywhere.
        unsafe {
            ring.submitter()
                .enter::<libc::sigset_t>(submit, left as u32, GETEVENTS | NO_IOWAIT, None)
                .expect("a kernel that knows NO_IOWAIT");
        }
        submit = 0;
        left -= ring.completion().inspect(|done| assert!(done.result() >= 0)).count();
    }
}

/// One durable 4 KiB write at a time, by how the ring was set up.
pub fn setup(scene: &Scene) {
    let (memory, fd) = (Memory::new(4096), zeroed(&scene.folder, FILE_BYTES));
    heading();
    let ways = vec![
        ("no flags", IoUring::new(64).unwrap()),
        ("COOP_TASKRUN", IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(64).unwrap()),
        ("DEFER_TASKRUN", ring()),
        ("DEFER_TASKRUN, NO_IOWAIT", ring()),
        ("SQPOLL, idle 20 ms", IoUring::builder().setup_sqpoll(20).build(64).unwrap()),
    ];
    let mut waited: [u64; 5] = [0; 5];
    let ways: Vec<_> =
        ways.into_iter().enumerate().map(|(at, (name, ring))| (name.to_owned(), (at, name, ring))).collect();
    let mut at = 0;
    alternate(ways, |(way, name, ring)| {
        let before = iowait();
        let times = repeat(scene.span, || {
            let entries = linked(fd.as_raw_fd(), memory.ptr(), 4096, at);
            if name.ends_with("NO_IOWAIT") {
                succeed_no_iowait(ring, &entries);
            } else {
                succeed(ring, &entries);
            }
            at = (at + 4096) % FILE_BYTES;
        });
        waited[*way] += iowait() - before;
        // The poller of SQPOLL goes to sleep before the next way is measured.
        std::thread::sleep(std::time::Duration::from_millis(40));
        times
    });
    println!("iowait of the machine in each way, ticks of 10 ms over {ROUNDS} rounds: {waited:?}");
}

/// Whether completions can be polled for at all on this device.
pub fn iopoll(scene: &Scene) {
    let (memory, fd) = (Memory::new(4096), zeroed(&scene.folder, 1 << 20));
    let mut ring = match IoUring::builder().setup_iopoll().build(8) {
        Ok(ring) => ring,
        Err(refused) => return println!("a ring with IOPOLL: {refused}"),
    };
    let read = opcode::Read::new(types::Fd(fd.as_raw_fd()), memory.ptr().cast_mut(), 4096).build();
    let said = |result: i32| match result {
        0.. => format!("{result} bytes"),
        _ => std::io::Error::from_raw_os_error(-result).to_string(),
    };
    println!("direct read of 4 KiB on an IOPOLL ring: {}", said(complete(&mut ring, &[read])[0].1));
    let flush = opcode::Fsync::new(types::Fd(fd.as_raw_fd())).build();
    println!("fsync on an IOPOLL ring: {}", said(complete(&mut ring, &[flush])[0].1));
    for queue in std::fs::read_dir("/sys/block").unwrap() {
        let path = queue.unwrap().path();
        let poll = std::fs::read_to_string(path.join("queue/io_poll")).unwrap_or_default();
        let cache = std::fs::read_to_string(path.join("queue/write_cache")).unwrap_or_default();
        let fua = std::fs::read_to_string(path.join("queue/fua")).unwrap_or_default();
        println!("{}: io_poll {}, {}, fua {}", path.display(), poll.trim(), cache.trim(), fua.trim());
    }
}

/// Which alignments direct I/O takes, and what a partial last block costs.
pub fn direct(scene: &Scene) {
    let (memory, fd) = (Memory::new(64 << 10), zeroed(&scene.folder, FILE_BYTES));
    let mut ring = ring();
    for (what, memory_at, len, offset) in [
        ("all at 4096", 0, 4096, 0),
        ("all at 512", 512, 512, 512),
        ("memory at 4", 4, 4096, 0),
        ("memory at 1", 1, 4096, 0),
        ("length 100", 0, 100, 0),
        ("offset 100", 0, 4096, 100),
    ] {
        // SAFETY: the sums stay within 64 KiB.
        let from = unsafe { memory.ptr().add(memory_at) };
        let result = complete(&mut ring, &[write(fd.as_raw_fd(), from, len, offset).build()])[0].1;
        println!("{what:<14} {}", if result < 0 { "EINVAL or other error" } else { "taken" });
    }
    let path = scene.folder.join(format!("kernel-notes-{}-buffered", std::process::id()));
    let buffered = tools::open(&path, 0);
    std::fs::remove_file(&path).unwrap();
    // SAFETY: the memory is as long.
    for at in (0..FILE_BYTES as i64).step_by(64 << 10) {
        unsafe {
            assert_eq!(libc::pwrite(buffered.as_raw_fd(), memory.ptr().cast(), 64 << 10, at), 64 << 10)
        };
    }
    // SAFETY: a plain call on a descriptor of ours.
    assert_eq!(unsafe { libc::fsync(buffered.as_raw_fd()) }, 0);
    heading();
    let ways = vec![
        ("direct, 1,000 B padded to 4 KiB".to_owned(), (&fd, 4096, true)),
        ("direct, same tail block again".to_owned(), (&fd, 4096, false)),
        ("buffered, 1,000 B appended".to_owned(), (&buffered, 1000, true)),
    ];
    let mut at = 0;
    alternate(ways, |(fd, len, advance)| {
        at = 0;
        repeat(scene.span, || {
            succeed(&mut ring, &linked(fd.as_raw_fd(), memory.ptr(), *len, at));
            if *advance {
                at = (at + *len as u64) % (FILE_BYTES - 4096);
            }
        })
    });
}

/// Durable 4 KiB writes at 2,000 a second, timed from when each was meant to begin, while a file of 1 GiB goes beside
/// them: at once, or shortened in steps of so many KiB at so many MiB a second.
pub fn deleting(scene: &Scene) {
    const DOOMED_BYTES: u64 = 1 << 30;
    const EVERY: Duration = Duration::from_micros(500);
    let (memory, fd) = (Memory::new(4096), zeroed(&scene.folder, FILE_BYTES));
    let mut ring = ring();
    heading();
    let mut ways =
        vec![("nothing removed".to_owned(), (0, 0)), ("at once".to_owned(), (DOOMED_BYTES, u64::MAX))];
    ways.extend(
        [(64 << 10, 320), (4 << 10, 320), (1 << 10, 320), (256, 320), (4 << 10, 80), (1 << 10, 80)].map(
            |(kib, mib_per_second)| {
                (format!("{kib} KiB steps, {mib_per_second} MiB/s"), (kib << 10, mib_per_second << 20))
            },
        ),
    );
    let mut at = 0;
    alternate(ways, |(step, bytes_per_second)| {
        let (step, bytes_per_second) = (*step, *bytes_per_second);
        let doomed = (step > 0).then(|| std::fs::File::from(zeroed(&scene.folder, DOOMED_BYTES)));
        // What making it left behind.
        std::thread::sleep(Duration::from_secs(1));
        let removing = std::thread::spawn(move || {
            let Some(doomed) = doomed else { return };
            let mut left = DOOMED_BYTES - step;
            while left > 0 {
                doomed.set_len(left).unwrap();
                std::thread::sleep(Duration::from_nanos(step * 1_000_000_000 / bytes_per_second));
                left = left.saturating_sub(step);
            }
        });
        let begin = Instant::now();
        let mut times = Vec::new();
        while begin.elapsed() < scene.span || !removing.is_finished() {
            let intended = EVERY * times.len() as u32;
            std::thread::sleep(intended.saturating_sub(begin.elapsed()));
            succeed(&mut ring, &linked(fd.as_raw_fd(), memory.ptr(), 4096, at));
            times.push(begin.elapsed().saturating_sub(intended));
            at = (at + 4096) % FILE_BYTES;
        }
        removing.join().unwrap();
        times
    });
}

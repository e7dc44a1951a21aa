//! The real file system behind [`Fs`].
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{Fs, OpenMode};
use std::path::Path;

const PAGE: usize = 4096;

/// `/dev/shm` is a tmpfs, which may lack direct I/O; the rest of the contract is the same there.
fn folders() -> Vec<tempfile::TempDir> {
    let mut folders = vec![tempfile::tempdir().unwrap()];
    folders.extend(tempfile::tempdir_in("/dev/shm"));
    folders
}

#[test]
fn opening_what_is_not_there() {
    for folder in folders() {
        let path = folder.path().join("none");
        for mode in [OpenMode::Read, OpenMode::Write, OpenMode::ReadDirect] {
            let error = StdFs.open(&path, mode).err().expect("nothing to open");
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{mode:?}");
        }
        assert!(!StdFs.exists(&path), "no mode but Create makes files");
        StdFs.open(&path, OpenMode::CreateDirect).unwrap();
        assert!(StdFs.exists(&path));
    }
}

#[test]
fn allocating_keeps_what_is_there() {
    for folder in folders() {
        let file = StdFs.open(&folder.path().join("file"), OpenMode::CreateDirect).unwrap();
        let page = [7u8; PAGE];
        StdFs.write_at(&file, &page, 0).unwrap();
        StdFs.allocate(&file, 0, 3 << 20).unwrap();
        assert_eq!(StdFs.len(&file).unwrap(), 3 << 20);
        StdFs.allocate(&file, 0, PAGE as u64).unwrap();
        assert_eq!(StdFs.len(&file).unwrap(), 3 << 20, "never shrinks");
        let mut back = vec![1; 2 * PAGE];
        assert_eq!(StdFs.read_at(&file, &mut back, 0).unwrap(), back.len());
        assert_eq!(back[..PAGE], page);
        assert!(back[PAGE..].iter().all(|b| *b == 0), "reserved space reads as zeros");
        assert!(StdFs.allocate(&file, 0, u64::MAX).is_err(), "no length wraps around");
    }
}

#[test]
fn replacing_leaves_one_whole_file() {
    for folder in folders() {
        let path = folder.path().join("state");
        StdFs.replace(&path, &[1; 10_000]).unwrap();
        StdFs.replace(&path, b"short").unwrap();
        assert_eq!(StdFs.read_all(&path).unwrap(), b"short");
        let names: Vec<_> = StdFs.list(folder.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["state"], "no temporary is left");
    }
}

#[test]
fn lists_in_name_order_with_sizes() {
    for folder in folders() {
        for name in ["b", "a", "c"] {
            StdFs.replace(&folder.path().join(name), name.repeat(5).as_bytes()).unwrap();
        }
        StdFs.create_dir_all(&folder.path().join("d/e")).unwrap();
        StdFs.sync_dir(folder.path()).unwrap();
        let listed: Vec<_> =
            StdFs.list(folder.path()).unwrap().into_iter().map(|e| (e.name, e.is_dir, e.len)).collect();
        let file = |name: &str| (name.to_string(), false, 5);
        assert_eq!(listed, [file("a"), file("b"), file("c"), ("d".into(), true, 0)]);
        StdFs.remove_dir_all(&folder.path().join("d")).unwrap();
        StdFs.rename(&folder.path().join("a"), &folder.path().join("z")).unwrap();
        StdFs.remove_file(&folder.path().join("b")).unwrap();
        let names: Vec<_> = StdFs.list(folder.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["c", "z"]);
        assert!(StdFs.free_bytes(folder.path()).unwrap() > 0);
    }
    assert!(StdFs.free_bytes(Path::new("/no/such/folder")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Direct or not, a read of any range into memory of any alignment is what was written, cut at the end.
    #[test]
    fn reads_are_what_was_written(
        pages in 1..20usize, tail in 0..PAGE, at in 0..90_000usize, len in 0..90_000usize, shift in 0..16usize,
    ) {
        for folder in folders() {
            let path = folder.path().join("file");
            let bytes: Vec<u8> = (0..pages * PAGE).map(|i| (i % 251) as u8).collect();
            let file = StdFs.open(&path, OpenMode::CreateDirect).unwrap();
            StdFs.write_at(&file, &bytes, 0).unwrap();
            StdFs.sync_data(&file).unwrap();
            let size = bytes.len() - tail;
            StdFs.set_len(&file, size as u64).unwrap();
            let want = bytes.get(at..size.min(at + len)).unwrap_or_default();
            for mode in [OpenMode::Read, OpenMode::ReadDirect] {
                let file = StdFs.open(&path, mode).unwrap();
                let mut memory = vec![0xee; len + shift];
                let got = StdFs.read_at(&file, &mut memory[shift..], at as u64).unwrap();
                prop_assert_eq!(got, want.len());
                prop_assert_eq!(&memory[shift..shift + got], want);
                prop_assert!(memory[shift + got..].iter().all(|b| *b == 0xee), "nothing beyond what it says");
            }
            prop_assert_eq!(StdFs.read_all(&path).unwrap(), &bytes[..size]);
        }
    }
}

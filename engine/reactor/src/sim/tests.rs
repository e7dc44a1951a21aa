#![allow(clippy::unwrap_used)]
use super::*;
use crate::fs::{Fs, OpenMode};
use std::path::Path;

/// A synced file and an unsynced folder, then the power goes: is the name there?
fn name_survives(seed: u64, sync_dir: bool) -> bool {
    let world = SimWorld::new(seed, SimOptions::default());
    let fs = world.fs();
    let file = fs.open(Path::new("/a"), OpenMode::Create).unwrap();
    fs.write_at(&file, b"bytes", 0).unwrap();
    fs.sync_data(&file).unwrap();
    if sync_dir {
        fs.sync_dir(Path::new("/")).unwrap();
    }
    world.end_life(Cut::Power);
    assert!(fs.write_at(&file, b"late!", 0).is_err(), "an old life cannot write");
    let fs = world.fs();
    let there = fs.exists(Path::new("/a"));
    assert!(!there || fs.read_all(Path::new("/a")).unwrap() == b"bytes");
    there
}

#[test]
fn a_name_is_sure_only_after_its_folder_was_synced() {
    assert!((0..50).all(|seed| name_survives(seed, true)));
    assert!((0..50).any(|seed| name_survives(seed, false)));
    assert!(!(0..50).all(|seed| name_survives(seed, false)));
}

#[test]
fn unflushed_sectors_are_kept_one_by_one() {
    let torn = (0..50).any(|seed| {
        let world = SimWorld::new(seed, SimOptions::default());
        let fs = world.fs();
        let file = fs.open(Path::new("/a"), OpenMode::Create).unwrap();
        fs.write_at(&file, &[1; 4096], 0).unwrap();
        fs.sync_data(&file).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.write_at(&file, &[2; 4096], 0).unwrap();
        world.end_life(Cut::Power);
        let bytes = world.fs().read_all(Path::new("/a")).unwrap();
        assert!(bytes.chunks(512).all(|s| s.iter().all(|b| *b == s[0])), "a sector is whole");
        bytes.contains(&1) && bytes.contains(&2)
    });
    assert!(torn);
}

#[test]
fn a_full_disk_says_so_and_heals() {
    let world = SimWorld::new(1, SimOptions { disk_bytes: 8192, ..SimOptions::default() });
    let fs = world.fs();
    let file = fs.open(Path::new("/a"), OpenMode::Create).unwrap();
    let full = fs.write_at(&file, &[1; 12288], 0).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(fs.len(&file).unwrap(), 0);
    world.set_disk_bytes(1 << 20);
    fs.write_at(&file, &[1; 12288], 0).unwrap();
}

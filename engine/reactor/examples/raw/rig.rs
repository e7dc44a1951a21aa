//! A bare ring with one zero-filled file and one registered buffer: what the loops of this program share.

use crate::{BUFFER_BYTES, FILE_BYTES, PAGE_BYTES};
use io_uring::{IoUring, opcode, squeue, types};
use ringmill_reactor::{BufMut, Fs, OpenMode, Pool, stdfs::StdFs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A zero-filled file, its registered buffer and a ring with both.
pub struct Rig {
    ring: IoUring,
    memory: BufMut,
    _file: OwnedFd,
    path: PathBuf,
    offset: u64,
}

impl Rig {
    pub fn new(folder: &Path) -> Rig {
        let path = folder.join(format!("raw-{}", std::process::id()));
        let file = StdFs.open(&path, OpenMode::CreateDirect).unwrap();
        assert!(file.is_direct(), "a file system with direct I/O");
        let mut memory = Pool::new(16 << 20).take(1 << 20).unwrap();
        memory.as_mut_full().fill(0);
        memory.set_len(1 << 20);
        for at in (0..FILE_BYTES).step_by(1 << 20) {
            StdFs.write_at(&file, &memory, at).unwrap();
        }
        StdFs.sync_data(&file).unwrap();
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a new descriptor, or an error that the assertion shows.
        let fd = unsafe {
            let fd = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(64)
            .unwrap();
        let vector =
            libc::iovec { iov_base: memory.as_mut_full().as_mut_ptr().cast(), iov_len: memory.capacity() };
        // SAFETY: the memory lives in the rig beside the ring, and no rig outlives this process's use of it.
        unsafe { ring.submitter().register_buffers(&[vector]).unwrap() };
        ring.submitter().register_files(&[fd.as_raw_fd()]).unwrap();
        Rig { ring, memory, _file: fd, path, offset: 0 }
    }

    /// The first `len` bytes of the buffer: what was received last.
    pub fn received(&self, len: usize) -> &[u8] {
        &self.memory[..len]
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: every entry here names memory of this rig, and its completion is waited for before that changes.
        unsafe { self.ring.submission().push(entry).unwrap() };
    }

    /// Waits for `count` completions; the results in order of their user data, which counts from 0.
    fn finish(&mut self, count: usize) -> [i32; 2] {
        let mut results = [0; 2];
        let mut left = count;
        self.ring.submit_and_wait(count).unwrap();
        while left > 0 {
            for done in self.ring.completion() {
                let result = done.result();
                assert!(result >= 0, "{}", std::io::Error::from_raw_os_error(-result));
                results[done.user_data() as usize] = result;
                left -= 1;
            }
            if left > 0 {
                self.ring.submit_and_wait(1).unwrap();
            }
        }
        results
    }

    /// The first `len` bytes of the memory, durable when this returns.
    pub fn write(&mut self, len: usize) {
        let len = len.next_multiple_of(PAGE_BYTES);
        if self.offset + len as u64 > FILE_BYTES {
            self.offset = 0;
        }
        let file = types::Fixed(0);
        let write = opcode::WriteFixed::new(file, self.memory.as_ptr(), len as u32, 0).offset(self.offset);
        self.push(&write.build().flags(squeue::Flags::IO_LINK).user_data(0));
        self.push(&opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build().user_data(1));
        assert_eq!(self.finish(2)[0] as usize, len, "a whole write");
        self.offset += len as u64;
    }

    pub fn receive(&mut self, socket: i32) -> usize {
        let start = self.memory.as_mut_full().as_mut_ptr();
        self.push(&opcode::Recv::new(types::Fd(socket), start, BUFFER_BYTES as u32).build().user_data(0));
        self.finish(1)[0] as usize
    }

    pub fn send(&mut self, socket: i32, bytes: &[u8]) {
        self.push(
            &opcode::Send::new(types::Fd(socket), bytes.as_ptr(), bytes.len() as u32).build().user_data(0),
        );
        assert_eq!(self.finish(1)[0] as usize, bytes.len(), "a whole answer");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

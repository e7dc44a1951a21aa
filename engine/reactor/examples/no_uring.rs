//! Runs a program where io_uring is forbidden, as many container runtimes' seccomp profiles forbid it.
//!
//! `cargo run -p ringmill-reactor --example no_uring -- PROGRAM ARGUMENT…`
//! : `io_uring_setup` fails with EPERM in it and its children; everything else goes on as usual (seccomp(2)).
#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the system call's number stands in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: no_uring PROGRAM ARGUMENT…");
        std::process::exit(2);
    };
    let mut equal = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32);
    // Not equal: over the refusal.
    equal.jf = 1;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER_OFFSET),
        equal,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program_filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers, and one structure that outlives the calls; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "no new privileges");
        let done = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program_filter);
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    std::process::exit(127);
}

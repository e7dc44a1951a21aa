//! A file system of a few megabytes that a test may fill: ext4 on a loop device, or, for an ordinary user, who may not mount
//! that, a tmpfs in a user namespace of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct SmallDisk {
    /// Gone after what is below was unmounted.
    dir: TempDir,
    held_by: HeldBy,
}

enum HeldBy {
    LoopMount,
    /// A process in the namespace keeps it, and the mount in it, alive.
    Namespace(Child),
}

impl SmallDisk {
    /// # Errors
    /// Why neither kind is possible here.
    pub fn make(mebibytes: u32) -> Result<SmallDisk, String> {
        let mut disk = SmallDisk::folder()?;
        // Without the blocks that are kept back for root: full is to mean full.
        let Err(no_mount) = disk.loop_mount("mkfs.ext4", &["-q", "-m", "0"], mebibytes) else {
            return Ok(disk);
        };
        if rustix::process::geteuid().is_root() {
            return Err(no_mount);
        }
        match disk.namespace(mebibytes) {
            Ok(holder) => {
                disk.held_by = HeldBy::Namespace(holder);
                Ok(disk)
            }
            // Nothing is mounted, so nothing is to be unmounted.
            Err(no_namespace) => {
                let reason = format!("no loop mount ({no_mount}) and no user namespace ({no_namespace})");
                drop(disk);
                Err(reason)
            }
        }
    }

    /// btrfs, which writes nothing in place unless it is told to. No smaller than 109 MiB.
    ///
    /// # Errors
    /// Why it is not possible here.
    pub fn btrfs(mebibytes: u32) -> Result<SmallDisk, String> {
        let disk = SmallDisk::folder()?;
        disk.loop_mount("mkfs.btrfs", &["-q"], mebibytes)?;
        Ok(disk)
    }

    fn folder() -> Result<SmallDisk, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        std::fs::create_dir(dir.path().join("disk")).map_err(|e| e.to_string())?;
        Ok(SmallDisk { dir, held_by: HeldBy::LoopMount })
    }

    fn loop_mount(&self, mkfs: &str, options: &[&str], mebibytes: u32) -> Result<(), String> {
        let (image, at) = (self.dir.path().join("image"), self.mount_point());
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(u64::from(mebibytes) << 20).map_err(|e| e.to_string())?;
        sh(Command::new(mkfs).args(options).arg(&image))?;
        sh(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))
    }

    fn namespace(&self, mebibytes: u32) -> Result<Child, String> {
        let script =
            format!("mount -t tmpfs -o size={mebibytes}m disk \"$0\" && echo there && exec sleep infinity");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(self.mount_point())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let mut line = String::new();
        let read = BufReader::new(holder.stdout.take().expect("piped above")).read_line(&mut line);
        if read.is_ok() && line.trim() == "there" {
            return Ok(holder);
        }
        let _ = holder.kill();
        let _ = holder.wait();
        Err("unshare or mount was refused".to_string())
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// The binary, where it sees the disk.
    pub fn ringmill(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_ringmill");
        match &self.held_by {
            HeldBy::LoopMount => Command::new(binary),
            HeldBy::Namespace(holder) => {
                let mut command = Command::new("nsenter");
                command.args(["--user", "--mount", "--preserve-credentials", "--target"]);
                command.arg(holder.id().to_string()).arg(binary);
                command
            }
        }
    }

    /// The data folder as the broker names it.
    pub fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// Takes all but about `left_bytes` of what is free; whoever else writes may take some of it meanwhile.
    pub fn fill(&self, left_bytes: u64) {
        const STEP_BYTES_MIN: u64 = 64 << 10;
        let root = self.as_seen_from_here();
        let file = std::fs::File::create(root.join("filler")).unwrap();
        let mut have = 0;
        loop {
            let stat = rustix::fs::statvfs(&root).unwrap();
            let mut step = (stat.f_bavail * stat.f_frsize).saturating_sub(left_bytes);
            while step >= STEP_BYTES_MIN {
                match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), have, step) {
                    Ok(()) => break,
                    Err(rustix::io::Errno::NOSPC) => step /= 2,
                    Err(error) => panic!("filling the disk: {error}"),
                }
            }
            if step < STEP_BYTES_MIN {
                return;
            }
            have += step;
        }
    }

    /// Gives back what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        self.remove("filler");
    }

    /// Room that is nobody's until [`SmallDisk::give_back`].
    pub fn hold_back(&self, bytes: u64) {
        let file = std::fs::File::create(self.as_seen_from_here().join("held-back")).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    }

    pub fn give_back(&self) {
        self.remove("held-back");
    }

    /// On btrfs that is room with the next commit only.
    fn remove(&self, name: &str) {
        let root = self.as_seen_from_here();
        std::fs::remove_file(root.join(name)).unwrap();
        rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
    }

    fn as_seen_from_here(&self) -> PathBuf {
        match &self.held_by {
            HeldBy::LoopMount => self.mount_point(),
            HeldBy::Namespace(holder) => {
                let root = Path::new("/proc").join(holder.id().to_string()).join("root");
                root.join(self.mount_point().strip_prefix("/").unwrap())
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.held_by {
            // The broker may be a moment from its end: then the mount goes with it.
            HeldBy::LoopMount => {
                drop(sh(Command::new("umount").arg("--lazy").arg(self.dir.path().join("disk"))))
            }
            HeldBy::Namespace(holder) => {
                let _ = holder.kill();
                let _ = holder.wait();
            }
        }
    }
}

fn sh(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

//! Compaction passes on the glommio executor: the reads and writes that `ringmill_log::compact` asks for, with direct I/O,
//! at a rate limit of their own.
//!
//! Writes only files that end in `.cleaned`, which nobody serves; the core that owns the partition puts them in place.

use crate::scrub::Reins;
use glommio::io::{DmaFile, ImmutableFile, ImmutableFileBuilder};
use glommio::{GlommioError, Latency, Shares};
use ringmill_log::CompactJob;
use ringmill_log::compact::{Cleaned, Compaction, SUFFIX, Step};
use ringmill_reactor::reclaim;
use ringmill_reactor::unfit::check_file;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Of 1000 an ordinary task queue has; above the scrub's, because a log that is not compacted grows.
pub const SHARES: Shares = Shares::Static(50);
pub const LATENCY: Latency = Latency::NotImportant;

/// Why a pass has no result.
pub enum Stopped {
    /// Upkeep is to end.
    Stopping,
    Failed(String),
}

impl From<GlommioError<()>> for Stopped {
    fn from(error: GlommioError<()>) -> Stopped {
        Stopped::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Stopped {
        Stopped::Failed(error.to_string())
    }
}

/// # Errors
/// [`Stopped`]; what was written is removed by the next pass over the partition.
pub async fn run(job: &CompactJob, reins: &Reins) -> Result<Cleaned, Stopped> {
    let dir = job.order.dir.clone();
    remove_strays(&dir)?;
    let mut files = Files { source: None, target: None };
    let result = drive(Compaction::new((*job.order).clone()), &dir, &mut files, reins).await;
    files.close().await;
    result
}

async fn drive(
    mut compaction: Compaction,
    dir: &Path,
    files: &mut Files,
    reins: &Reins,
) -> Result<Cleaned, Stopped> {
    loop {
        if reins.stopped() {
            return Err(Stopped::Stopping);
        }
        let step = compaction.next_step().map_err(|damage| {
            let (base, at) = (damage.base, damage.at);
            Stopped::Failed(format!("segment {base} is damaged at byte {at}; the scrub says more"))
        })?;
        match step {
            Step::Read { path, at, len } => {
                let bytes = files.source(path).await?.read_at(at, len).await?;
                compaction.feed(&bytes);
                pay(reins, bytes.len()).await;
            }
            Step::Write { path, at, bytes } => {
                let file = files.target(path).await?;
                let mut buffer = file.alloc_dma_buffer(bytes.len());
                buffer.as_bytes_mut().copy_from_slice(&bytes);
                let written = file.write_at(buffer, at).await?;
                if written != bytes.len() {
                    return Err(Stopped::Failed(format!("a write of {} bytes wrote {written}", bytes.len())));
                }
                pay(reins, bytes.len()).await;
            }
            Step::Seal { log, bytes, index, time_index } => {
                let file = files.target(log).await?;
                file.truncate(bytes).await?;
                file.fdatasync().await?;
                files.close_target().await;
                for (path, bytes) in [index, time_index] {
                    let mut file = File::create(path)?;
                    file.write_all(&bytes)?;
                    file.sync_data()?;
                }
            }
            Step::Discard { path } => {
                files.close_target().await;
                match reclaim::remove_file(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            Step::Done(cleaned) => {
                File::open(dir)?.sync_all()?;
                return Ok(cleaned);
            }
        }
    }
}

async fn pay(reins: &Reins, bytes: usize) {
    reins.bytes_read.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
    let free_at = reins.limit.take(bytes as u64, Instant::now());
    reins.rest_until(free_at).await;
}

/// What a pass that was cut off left.
fn remove_strays(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            reclaim::remove_file(&path)?;
        }
    }
    Ok(())
}

/// One file is read and one is written at a time.
struct Files {
    source: Option<(PathBuf, ImmutableFile)>,
    target: Option<(PathBuf, DmaFile)>,
}

impl Files {
    async fn source(&mut self, path: PathBuf) -> Result<&ImmutableFile, Stopped> {
        if self.source.as_ref().is_none_or(|(open, _)| *open != path) {
            if let Some((_, file)) = self.source.take() {
                file.close().await?;
            }
            check_file(&path)?;
            let file = ImmutableFileBuilder::new(&path).build_existing().await?;
            self.source = Some((path, file));
        }
        self.source.as_ref().map(|(_, file)| file).ok_or_else(|| Stopped::Failed("no source".into()))
    }

    async fn target(&mut self, path: PathBuf) -> Result<&DmaFile, Stopped> {
        if self.target.as_ref().is_none_or(|(open, _)| *open != path) {
            self.close_target().await;
            self.target = Some((path.clone(), DmaFile::create(&path).await?));
        }
        self.target.as_ref().map(|(_, file)| file).ok_or_else(|| Stopped::Failed("no target".into()))
    }

    /// What counts was synced before.
    async fn close_target(&mut self) {
        if let Some((_, file)) = self.target.take() {
            let _ = file.close().await;
        }
    }

    async fn close(mut self) {
        self.close_target().await;
        if let Some((_, file)) = self.source.take() {
            let _ = file.close().await;
        }
    }
}

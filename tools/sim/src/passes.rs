//! Upkeep's part of a simulated life: makes the compaction passes that cores ask for, a step now and then.
//!
//! What production does with glommio is done here with the disk of the world, so a cut, an error or a full disk meets a
//! pass between any two of its steps. Like upkeep it has one pass in hand at a time; what it wrote when a life ends stays
//! on the disk as it is, for the next life to deal with.

use ringmill_log::CompactJob;
use ringmill_log::compact::{Cleaned, Compaction, SUFFIX, Step};
use ringmill_reactor::{Fs, OpenMode};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Owned by the story; its channel lasts for one life.
#[derive(Default)]
pub(crate) struct Passes {
    jobs: Option<Receiver<CompactJob>>,
    in_hand: Option<(CompactJob, Compaction)>,
}

impl Passes {
    /// A life begins: where its cores send what they want.
    pub fn begin_life(&mut self) -> SyncSender<CompactJob> {
        let (sender, jobs) = sync_channel(1);
        (self.jobs, self.in_hand) = (Some(jobs), None);
        sender
    }

    pub fn end_life(&mut self) {
        (self.jobs, self.in_hand) = (None, None);
    }

    /// One step of the pass in hand, or the beginning of the next. A pass that fails has no result, as upkeep's. True when
    /// one has a result now, which its core will put in place.
    pub fn step(&mut self, fs: &dyn Fs) -> bool {
        let Some((job, mut compaction)) = self.in_hand.take() else {
            if let Some(job) = self.jobs.as_ref().and_then(|jobs| jobs.try_recv().ok()) {
                if remove_strays(fs, &job.order.dir).is_ok() {
                    let compaction = Compaction::new((*job.order).clone());
                    self.in_hand = Some((job, compaction));
                } else {
                    // Set once, here and below: nobody else has the job.
                    drop(job.answer.set(None));
                }
            }
            return false;
        };
        match one_step(fs, &mut compaction, &job.order.dir) {
            Ok(None) => self.in_hand = Some((job, compaction)),
            Ok(Some(cleaned)) => return job.answer.set(Some(cleaned)).is_ok(),
            Err(_) => drop(job.answer.set(None)),
        }
        false
    }
}

/// What a pass that was cut off left.
fn remove_strays(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let strays = fs
        .list(dir)?
        .into_iter()
        .filter(|entry| Path::new(&entry.name).extension().is_some_and(|extension| extension == SUFFIX));
    for stray in strays {
        fs.remove_file(&dir.join(stray.name))?;
    }
    Ok(())
}

fn one_step(fs: &dyn Fs, compaction: &mut Compaction, dir: &Path) -> io::Result<Option<Cleaned>> {
    let step = compaction.next_step().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    match step {
        Step::Read { path, at, len } => {
            let mut bytes = vec![0; len];
            let got = fs.read_at(&fs.open(&path, OpenMode::Read)?, &mut bytes, at)?;
            compaction.feed(bytes.get(..got).unwrap_or_default());
        }
        Step::Write { path, at, bytes } => fs.write_at(&fs.open(&path, OpenMode::Create)?, &bytes, at)?,
        Step::Seal { log, bytes, index, time_index } => {
            let file = fs.open(&log, OpenMode::Write)?;
            fs.set_len(&file, bytes)?;
            fs.sync_data(&file)?;
            for (path, bytes) in [index, time_index] {
                let file = fs.open(&path, OpenMode::Create)?;
                fs.write_at(&file, &bytes, 0)?;
                fs.sync_data(&file)?;
            }
        }
        Step::Discard { path } => match fs.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        },
        Step::Done(cleaned) => {
            fs.sync_dir(dir)?;
            return Ok(Some(cleaned));
        }
    }
    Ok(None)
}

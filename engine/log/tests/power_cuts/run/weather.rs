//! A disk that fails or fills, or a process without descriptors, beside losing power: what the log may do then, and what
//! it must.

use super::{DISK_BYTES, Run};
use ringmill_log::token;
use ringmill_reactor::Completion;
use ringmill_reactor::sim::{Cut, DiskFaults};

/// What comes and goes in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// Flushes and syncs fail now and then.
    FlushErrors,
    /// Writes fail now and then: of the core log, of segments, of checkpoints.
    WriteErrors,
    /// No room for anything new.
    FullDisk,
    /// Hardly a descriptor is left.
    FewFiles,
}

/// Virtual time after which a disk with room, or descriptors, must have made appends go on.
const HEALED_NS: u64 = 5_000_000_000;

impl Run {
    pub(super) fn change_weather(&mut self) -> Result<(), String> {
        if self.plan.weather == Weather::Calm {
            return Ok(());
        }
        if !self.stormy {
            if self.rng.chance_ppm(8_000) {
                self.storm();
            }
        } else if self.rng.chance_ppm(15_000) {
            self.calm();
            if matches!(self.plan.weather, Weather::FullDisk | Weather::FewFiles) {
                return self.heal();
            }
        }
        Ok(())
    }

    fn storm(&mut self) {
        self.stormy = true;
        let faults = match self.plan.weather {
            Weather::Calm => DiskFaults::default(),
            Weather::FlushErrors => DiskFaults { sync_error_ppm: 100_000, ..DiskFaults::default() },
            Weather::WriteErrors => DiskFaults { write_error_ppm: 30_000, ..DiskFaults::default() },
            Weather::FullDisk => {
                let room = self.rng.below(64 << 10);
                self.world.set_disk_bytes(self.world.disk_used_bytes() + room);
                self.was_full = true;
                DiskFaults::default()
            }
            Weather::FewFiles => {
                let room = self.rng.below(4) as usize;
                self.world.set_open_files_max(self.world.open_files().0 + room);
                DiskFaults::default()
            }
        };
        self.world.set_disk_faults(faults);
    }

    pub(super) fn calm(&mut self) {
        self.stormy = false;
        self.world.set_disk_faults(DiskFaults::default());
        self.world.set_disk_bytes(DISK_BYTES);
        self.world.set_open_files_max(usize::MAX);
    }

    /// There is room again, or there are descriptors: nobody has to do anything, and appends go on.
    fn heal(&mut self) -> Result<(), String> {
        let (life, appends) = (self.life, self.stats.appends);
        let until = self.world.now_ns() + HEALED_NS;
        while self.life == life && self.stats.appends == appends {
            self.append()?;
            self.turn()?;
            if self.world.now_ns() > until {
                let state = self.node()?.log.describe();
                return Err(format!("there is room again, and nothing can be appended: {state}"));
            }
        }
        self.was_full &= self.life != life;
        self.stats.healed += 1;
        Ok(())
    }

    /// The disk gave an error in this life.
    pub(super) fn has_erred(&self) -> bool {
        self.world.disk_errors() > self.errors_before
    }

    /// An append may be refused with a retriable error, a start may fail.
    pub(super) fn may_refuse(&self) -> bool {
        self.stormy || self.was_full || self.has_erred()
    }

    /// A write or flush of the core log that failed, and that the log must call fatal.
    pub(super) fn is_fatal(completion: &Completion) -> bool {
        let (kind, _) = token::split(completion.token);
        completion.result.is_err() && (kind == token::LOG_WRITE || kind == token::LOG_SYNC)
    }

    /// The log has said that it must end. Whoever hears that may be slow: until the end, acks are still promises.
    pub(super) fn die(&mut self) -> Result<(), String> {
        for _ in 0..self.rng.below(40) {
            if self.fatal && self.rng.coin() {
                self.append()?;
            }
            self.turn()?;
            if !self.fatal {
                return Ok(());
            }
        }
        let cut = if self.rng.coin() { Cut::Power } else { Cut::Process };
        self.cut(cut)
    }
}

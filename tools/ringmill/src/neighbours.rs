//! What other processes take of this machine while something is measured on it: their work is in every figure.
//!
//! User time only, from proc_stat(5) and proc_pid_stat(5): the kernel's threads have none, and what they do here they mostly
//! do for those who measure.

use std::time::Instant;

/// CPUs; above it, a measurement is told to have had company. A quiet machine has a tenth of it.
pub const NOTICED: f64 = 0.1;

/// A stretch of time in which these processes, and whoever else is here, use CPUs.
pub struct Stretch {
    began: Instant,
    ours: Vec<u32>,
    before: Option<(u64, u64)>,
}

impl Stretch {
    /// Begins now, with this process and those.
    pub fn begin(processes: &[u32]) -> Stretch {
        let mut ours = processes.to_vec();
        ours.push(std::process::id());
        let before = ticks(&ours);
        Stretch { began: Instant::now(), ours, before }
    }

    /// CPUs that everybody else has used since; 0 where /proc does not say.
    pub fn others_cpus(&self) -> f64 {
        let Some(((all, ours), (all_now, ours_now))) = self.before.zip(ticks(&self.ours)) else { return 0.0 };
        let others = all_now.saturating_sub(all).saturating_sub(ours_now.saturating_sub(ours));
        let seconds = others as f64 / rustix::param::clock_ticks_per_second() as f64;
        seconds / self.began.elapsed().as_secs_f64().max(1e-3)
    }
}

/// A sentence for whoever reads what was measured in such company.
pub fn remark(others_cpus: f64) -> Option<String> {
    (others_cpus > NOTICED)
        .then(|| format!("other processes used {others_cpus:.1} CPUs while this was measured"))
}

/// User time of the machine and of these processes.
fn ticks(processes: &[u32]) -> Option<(u64, u64)> {
    let all = machine(&std::fs::read_to_string("/proc/stat").ok()?)?;
    let texts = processes.iter().map(|id| std::fs::read_to_string(format!("/proc/{id}/stat")));
    Some((all, texts.filter_map(|text| process(&text.ok()?)).sum()))
}

/// `user` and `nice` of the first line of `/proc/stat`.
fn machine(text: &str) -> Option<u64> {
    let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `utime`, field 14; a command's name may hold spaces and brackets.
fn process(text: &str) -> Option<u64> {
    text.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_reactor::thread::thread_cpu_ns;

    #[test]
    fn user_time_is_where_the_manual_says() {
        assert_eq!(machine("cpu  252339 1 49456 105695 107006 0 7756 196 0 0\ncpu0 1 2 3\n"), Some(252_340));
        assert_eq!(machine("intr 5\n"), None);
        let line = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 4711 12 13 14 20 0 5 0 100 200 300";
        assert_eq!(process(line), Some(4711));
        assert_eq!(process("77 (x) S 1"), None);
    }

    #[test]
    fn ones_own_work_is_nobody_elses() {
        let mine = Stretch::begin(&[]);
        // So much CPU, however long that takes on a busy machine; the clock is the kernel's time, so it is asked seldom.
        let spin = || {
            let begun = thread_cpu_ns();
            while thread_cpu_ns() - begun < 300_000_000 {
                for step in 0..100_000 {
                    std::hint::black_box(step);
                }
            }
        };
        spin();
        let ours = ticks(&[std::process::id()]).expect("/proc is there").1;
        assert!(ours >= mine.before.expect("/proc is there").1 + 10, "{ours} ticks");
        // The same work, with nobody said to be ours, is everybody's.
        let foreign = Stretch { began: Instant::now(), ours: Vec::new(), before: ticks(&[]) };
        spin();
        let used = foreign.others_cpus() * foreign.began.elapsed().as_secs_f64();
        assert!(used > 0.2, "{used} CPU seconds");
        assert_eq!(remark(0.01), None);
        assert!(remark(0.86).is_some_and(|text| text.contains("0.9 CPUs")));
    }
}

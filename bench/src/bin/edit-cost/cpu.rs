//! CPU time, and many samples of it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// CPU time of this thread, user and system.
pub fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time of this process, all threads.
pub fn process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Runs something and returns its CPU time on this thread.
pub fn of<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let begun = thread();
    let result = run();
    (result, thread().saturating_sub(begun))
}

/// One line of the table.
#[derive(Debug, Default)]
pub struct Line {
    pub name: &'static str,
    pub scratch: Duration,
    pub edits: Vec<Duration>,
}

impl Line {
    pub fn new(name: &'static str) -> Self {
        Line { name, ..Line::default() }
    }

    /// Adds the time of an edit.
    pub fn add(&mut self, time: Duration) {
        self.edits.push(time);
    }

    /// The time that `percent` of all edits do not exceed, by nearest rank; zero without edits.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.edits.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

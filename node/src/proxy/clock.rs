//! The monotonic clock of the data plane, in nanoseconds since the process's start.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A monotonic clock. Clones count from the same start.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Arc<Instant>,
}

impl Clock {
    /// A clock that starts now, a moment after zero: zero means never.
    pub fn start() -> Self {
        let now = Instant::now();
        Clock { origin: Arc::new(now.checked_sub(Duration::from_nanos(1)).unwrap_or(now)) }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds from the start to `instant`.
    pub fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(*self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The instant of a number of nanoseconds since the start.
    pub fn instant(&self, nanos: u64) -> Instant {
        *self.origin + Duration::from_nanos(nanos)
    }

    /// The wall clock, for logs only.
    pub fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

//! Coarse timers: one tick for all of a thread's deadlines instead of a kernel-driven timer for
//! each. Most deadlines (header, request, response head) never fire; they must cost little.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How late a deadline may fire.
pub const TICK: Duration = Duration::from_millis(50);

/// The timers of one thread. Someone must call [`CoarseTimer::tick`] every [`TICK`].
#[derive(Clone, Debug)]
pub struct CoarseTimer(Arc<Wheel>);

#[derive(Debug)]
struct Wheel {
    origin: Instant,
    /// Milliseconds since `origin` at the last tick.
    now: AtomicU64,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    at: u64,
    waker: Option<Waker>,
}

/// Resolves at a tick not before its deadline.
#[derive(Debug)]
pub struct Deadline {
    wheel: Arc<Wheel>,
    slot: usize,
    at: u64,
}

impl Default for CoarseTimer {
    fn default() -> Self {
        CoarseTimer(Arc::new(Wheel {
            origin: Instant::now(),
            now: AtomicU64::new(0),
            slots: Mutex::new(Slots::default()),
        }))
    }
}

impl CoarseTimer {
    /// A deadline at `instant`.
    pub fn at(&self, instant: Instant) -> Deadline {
        let at = self.0.millis(instant);
        let slot = self.0.lock().insert(at);
        Deadline { wheel: Arc::clone(&self.0), slot, at }
    }

    /// Wakes what is due.
    pub fn tick(&self) {
        let now = u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.now.store(now, Ordering::Relaxed);
        let due = self.0.lock().due(now);
        due.into_iter().for_each(Waker::wake);
    }
}

impl Wheel {
    /// Rounded up, so that no deadline fires early.
    fn millis(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn insert(&mut self, at: u64) -> usize {
        let slot = Slot { at, waker: None };
        if let Some(index) = self.free.pop()
            && let Some(place) = self.all.get_mut(index)
        {
            *place = slot;
            return index;
        }
        self.all.push(slot);
        self.all.len() - 1
    }

    fn due(&mut self, now: u64) -> Vec<Waker> {
        self.all.iter_mut().filter(|slot| slot.at <= now).filter_map(|slot| slot.waker.take()).collect()
    }
}

impl Deadline {
    /// Moves the deadline.
    pub fn reset(&mut self, instant: Instant) {
        self.at = self.wheel.millis(instant);
        if let Some(slot) = self.wheel.lock().all.get_mut(self.slot) {
            slot.at = self.at;
        }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.wheel.now.load(Ordering::Relaxed) >= self.at {
            return Poll::Ready(());
        }
        if let Some(slot) = self.wheel.lock().all.get_mut(self.slot)
            && !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.wheel.lock();
        if let Some(slot) = slots.all.get_mut(self.slot) {
            *slot = Slot { at: u64::MAX, waker: None };
            slots.free.push(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn fires_at_a_tick_after_its_time_and_not_before() {
        let timer = CoarseTimer::default();
        let start = Instant::now();
        let mut soon = timer.at(start + Duration::from_millis(20));
        let mut later = timer.at(start + Duration::from_secs(3600));
        timer.tick();
        assert!((&mut soon).now_or_never().is_none());
        while start.elapsed() < Duration::from_millis(25) {
            std::thread::yield_now();
        }
        assert!((&mut soon).now_or_never().is_none(), "time passes by ticks only");
        timer.tick();
        assert!((&mut soon).now_or_never().is_some());
        assert!((&mut later).now_or_never().is_none());
        later.reset(start);
        assert!((&mut later).now_or_never().is_some());
    }

    #[test]
    fn slots_are_used_again() {
        let timer = CoarseTimer::default();
        for _ in 0..100 {
            drop(timer.at(Instant::now()));
        }
        assert_eq!(timer.0.lock().all.len(), 1);
    }
}

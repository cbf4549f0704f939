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
    /// What the wheel was told: whom to wake and when. A deadline that moves away needs not tell
    /// it again before that time, so that a connection's many deadlines cost one entry.
    told: Option<(u64, Waker)>,
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
        self.deadline(self.0.millis(instant))
    }

    /// A deadline in `duration`, counted from the next tick: no clock is asked.
    pub fn after(&self, duration: Duration) -> Deadline {
        self.deadline(self.0.later(duration))
    }

    fn deadline(&self, at: u64) -> Deadline {
        let slot = self.0.lock().insert(at);
        Deadline { wheel: Arc::clone(&self.0), slot, at, told: None }
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

    /// Counted from the next tick, so that no deadline fires early.
    fn later(&self, duration: Duration) -> u64 {
        let duration = u64::try_from((duration + TICK).as_millis()).unwrap_or(u64::MAX - 1);
        self.now.load(Ordering::Relaxed).saturating_add(duration).saturating_add(1)
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
    /// Its time is over. Costs a load.
    pub fn is_over(&self) -> bool {
        self.wheel.now.load(Ordering::Relaxed) >= self.at
    }

    /// Moves the deadline. Poll it, to be woken by the new one.
    pub fn reset(&mut self, instant: Instant) {
        self.at = self.wheel.millis(instant);
    }

    /// Moves the deadline to `duration` after the next tick; costs next to nothing. Poll it, to be
    /// woken by the new one.
    pub fn push(&mut self, duration: Duration) {
        self.at = self.wheel.later(duration);
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.wheel.now.load(Ordering::Relaxed);
        if now >= self.at {
            return Poll::Ready(());
        }
        let wakes = |(at, waker): &(u64, Waker)| now < *at && *at <= self.at && waker.will_wake(cx.waker());
        if !self.told.as_ref().is_some_and(wakes) {
            if let Some(slot) = self.wheel.lock().all.get_mut(self.slot) {
                *slot = Slot { at: self.at, waker: Some(cx.waker().clone()) };
            }
            self.told = Some((self.at, cx.waker().clone()));
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
    fn a_deadline_that_moves_wakes_when_it_is_due() {
        let (waker, count) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        let timer = CoarseTimer::default();
        let mut deadline = timer.after(Duration::from_secs(60));
        assert!(Pin::new(&mut deadline).poll(&mut cx).is_pending());
        // Nearer: it must be told. Farther: the wake-up that is due stays, and is told on.
        deadline.push(Duration::ZERO);
        assert!(Pin::new(&mut deadline).poll(&mut cx).is_pending());
        deadline.push(Duration::from_millis(1));
        assert!(Pin::new(&mut deadline).poll(&mut cx).is_pending());
        let start = Instant::now();
        while Pin::new(&mut deadline).poll(&mut cx).is_pending() {
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) == before {
                assert!(start.elapsed() < Duration::from_secs(20), "never woken");
                timer.tick();
                std::thread::yield_now();
            }
        }
        assert!(start.elapsed() >= Duration::from_millis(1));
    }

    /// A waker that counts.
    fn counting_waker() -> (Waker, Arc<AtomicU64>) {
        struct Count(Arc<AtomicU64>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(AtomicU64::new(0));
        (Arc::new(Count(Arc::clone(&count))).into(), count)
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

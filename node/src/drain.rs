//! The phases of a peer's end: SIGTERM turns readiness off, gives load balancers time, stops
//! accepting, lets what runs finish, and cuts at the end.

use tokio::sync::watch;

/// Where a process is between start and end. Ordered; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Serving.
    #[default]
    Serving,
    /// Not ready any more, still accepting.
    Lead,
    /// Not accepting; what runs may finish (`Connection: close`, GOAWAY).
    Draining,
    /// Whatever is left is cut.
    Cut,
}

/// Advances the phase. The one writer is `app`.
#[derive(Debug)]
pub struct DrainControl(watch::Sender<Phase>);

/// Observes the phase.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

/// A new pair, serving.
pub fn channel() -> (DrainControl, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (DrainControl(sender), Drain(receiver))
}

impl DrainControl {
    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Returns once `phase` or a later one is reached, or the process's composition root is gone.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.clone();
        // An error means that the control was dropped: the process is ending.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

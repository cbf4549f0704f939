//! The end of a process, in order: not ready, not accepting, finishing, cut.

use std::io::Read;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::drain::{DrainControl, Phase};
use crate::tunnel::Tunnel;

/// Returns when the process shall end: SIGTERM, SIGINT, or, where a parent holds a pipe to standard
/// input, its end.
pub(super) async fn requested(with_parent: bool) {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                warn!("cannot wait for a signal: {error}");
                std::future::pending::<()>().await;
            }
        }
    };
    let parent = async {
        if !with_parent {
            std::future::pending::<()>().await;
        }
        // A thread of its own, never joined: a read of standard input can't be cancelled, and a
        // runtime would wait for it at the end.
        let (ended, end) = tokio::sync::oneshot::channel();
        let reader = std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
            // Err: the process is ending for another reason.
            let _ = ended.send(());
        });
        if reader.is_err() || end.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => info!("SIGTERM: draining"),
        () = wait(SignalKind::interrupt()) => info!("SIGINT: draining"),
        () = parent => info!("the parent is gone: draining"),
    }
}

/// How often a drain looks whether other peers' requests are finished.
const HOSTED_POLL: Duration = Duration::from_millis(10);

/// Drains: each phase as long as configured, the last at once when neither clients of the edge nor
/// other peers' requests for pods of this node are left. A second signal cuts.
pub(super) async fn drain(
    control: &DrainControl,
    config: &Config,
    mut edge_done: watch::Receiver<bool>,
    tunnel: &Tunnel,
) {
    control.advance(Phase::Lead);
    let again = requested(false);
    tokio::pin!(again);
    let orderly = async {
        tokio::time::sleep(Duration::from_secs(config.drain_lead_seconds.into())).await;
        control.advance(Phase::Draining);
        let finished = async {
            // Err: the edge is gone, which is as done as it gets.
            let _ = edge_done.wait_for(|done| *done).await;
            while tunnel.hosted() > 0 {
                tokio::time::sleep(HOSTED_POLL).await;
            }
        };
        let bound = Duration::from_secs(config.drain_seconds.into());
        if tokio::time::timeout(bound, finished).await.is_err() {
            warn!("requests are still running after {} s: cutting them", config.drain_seconds);
        }
    };
    tokio::select! {
        () = orderly => {}
        () = &mut again => warn!("a second signal: cutting"),
    }
    control.advance(Phase::Cut);
}

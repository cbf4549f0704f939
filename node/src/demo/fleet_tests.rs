//! Tests of the supervisors, with a shell script in the place of a peer.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A "peer" that ends at SIGTERM with code 0 and when its standard input ends with code 7.
const PATIENT: &str = "#!/bin/sh\necho started $*\ntrap 'exit 0' TERM\nwhile read -r line; do :; done\nexit 7\n";

fn script(layout: &Layout, text: &str) -> PathBuf {
    let path = layout.root().join("peer.sh");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

const LIMIT: Duration = Duration::from_secs(10);

/// Starts a fleet; another test's fork may hold the script open for writing for a moment.
async fn start(layout: &Layout, text: &str) -> Fleet {
    let binary = script(layout, text);
    for _ in 0..100 {
        match Fleet::start(&binary, layout) {
            Ok(fleet) => return fleet,
            Err(error) if format!("{error:#}").contains("busy") => tokio::task::yield_now().await,
            Err(error) => panic!("{error:#}"),
        }
    }
    panic!("the script stays busy");
}

async fn until(fleet: &Fleet, node: Node, what: impl FnMut(&Process) -> bool) -> Process {
    let mut process = fleet.peer(node).unwrap().process.clone();
    tokio::time::timeout(LIMIT, process.wait_for(what)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn a_killed_peer_stays_away_until_it_is_started() {
    let layout = Layout::create(None).unwrap();
    let fleet = start(&layout, PATIENT).await;
    let before = fleet.process(NODES[0]).unwrap();
    let after = fleet.order(NODES[0], Order::Kill, LIMIT).await.unwrap();
    assert_eq!((after.pid, after.ended.as_deref()), (None, Some("signal 9")));
    assert!(fleet.process(NODES[1]).unwrap().pid.is_some(), "the others live on");
    let again = fleet.order(NODES[0], Order::Start, LIMIT).await.unwrap();
    assert_eq!(again.starts, 2);
    assert_ne!(again.pid, before.pid);
    fleet.stop().await;
}

#[tokio::test]
async fn a_peer_that_dies_by_itself_comes_back() {
    let layout = Layout::create(None).unwrap();
    let fleet = start(&layout, PATIENT).await;
    let pid = fleet.process(NODES[2]).unwrap().pid.unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let process = until(&fleet, NODES[2], |process| process.starts == 2).await;
    assert!(process.pid.is_some_and(|new| new != pid));
    fleet.stop().await;
}

#[tokio::test]
async fn stop_ends_even_what_does_not_listen() {
    let layout = Layout::create(None).unwrap();
    // Ignores both SIGTERM and the end of its input; `exec` so that no child of it is left.
    let fleet = start(&layout, "#!/bin/sh\ntrap '' TERM\nexec sleep 600 </dev/null\n").await;
    let pids: Vec<u32> = NODES.iter().map(|node| fleet.process(*node).unwrap().pid.unwrap()).collect();
    let start = Instant::now();
    fleet.stop().await;
    assert!(start.elapsed() < STOP + Duration::from_secs(2));
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[tokio::test]
async fn an_early_end_shows_the_log() {
    let layout = Layout::create(None).unwrap();
    let fleet = start(&layout, "#!/bin/sh\necho 'cannot bind 127.1.0.1:15000' >&2\nexit 3\n").await;
    until(&fleet, NODES[0], |process| process.ended.is_some()).await;
    let message = format!("{:#}", fleet.all_alive(&layout).unwrap_err());
    assert!(message.contains("node-a") && message.contains("exit code 3"), "{message}");
    assert!(message.contains("cannot bind 127.1.0.1:15000"), "{message}");
    fleet.stop().await;
}

#[tokio::test]
async fn terminating_is_graceful_and_arguments_are_the_agreed_ones() {
    let layout = Layout::create(None).unwrap();
    let fleet = start(&layout, PATIENT).await;
    // The trap is set once the script has written its first line.
    let log = layout.log(NODES[1]);
    let deadline = Instant::now() + LIMIT;
    while tail(&log).is_ok_and(|text| text.is_empty()) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tail(&log).unwrap().contains("started run --config"), "{}", tail(&log).unwrap());
    assert!(tail(&log).unwrap().contains("node-b.yaml --with-parent"));
    let process = fleet.order(NODES[1], Order::Terminate, LIMIT).await.unwrap();
    assert!(process.ended.is_some());
    fleet.stop().await;
}

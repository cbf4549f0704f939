//! Tests of the screen: golden text, and what goes to a terminal or to a pipe.

use meshgate_proto::admin::Bound;

use super::super::view::tests::view;
use super::*;

/// What is printed, not on a terminal.
pub fn captured(print: impl FnOnce(&mut Screen<Vec<u8>>)) -> String {
    let mut screen = Screen::new(Vec::new(), false);
    print(&mut screen);
    String::from_utf8(screen.out).unwrap()
}

fn scene() -> Scene {
    let backend = |pod: &str, number: u8| Backend {
        address: format!("127.{number}.0.11:9000").parse().unwrap(),
        pod: pod.into(),
        service: "edge/cart".into(),
        node: NODES[usize::from(number) - 1].name.into(),
        number,
    };
    let bounds = NODES
        .iter()
        .map(|node| {
            let bound = |gateway: &str, port: u32, address: String, protocol: &str, error: &str| Bound {
                gateway: gateway.into(),
                port,
                address,
                error: error.into(),
                protocol: protocol.into(),
            };
            let n = node.number;
            let mut all = vec![
                bound("edge/web", 8080, format!("127.{n}.1.1:8080"), "HTTP", ""),
                bound("edge/web", 8443, format!("127.{n}.1.1:8443"), "HTTPS", ""),
                bound("team-b/api", 8080, format!("127.{n}.2.1:8080"), "HTTP", ""),
            ];
            if n == 3 {
                all.push(bound("team-b/api", 9090, String::new(), "HTTP", "address in use"));
            }
            (*node, all)
        })
        .collect();
    Scene {
        source: "/tmp/demo/source".into(),
        own_source: true,
        logs: "/tmp/demo/logs".into(),
        places: Places::new(bounds),
        backends: vec![backend("cart-1", 1), backend("cart-2", 2), backend("shop-1", 1)],
        tries: vec![Try { what: "plain".into(), command: "curl http://127.1.1.1:8080/".into() }],
        routes: Vec::new(),
    }
}

#[test]
fn the_scene_is_as_drawn() {
    let expected = "\
meshgate demo: three peers on this machine, each gateway and reconciler. Ctrl-C ends it.

WHAT RUNS WHERE
  node-a  admin 127.1.0.1:15000  metrics :15020  pods cart-1  shop-1
  node-b  admin 127.2.0.1:15000  metrics :15020  pods cart-2
  node-c  admin 127.3.0.1:15000  metrics :15020
  The pods accept connections from their own node's peer only: all else is refused.

GATEWAYS (n is 1, 2 or 3 for node-a, node-b or node-c)
  edge/web    127.n.1.1:8080 http  127.n.1.1:8443 https
  team-b/api  127.n.2.1:8080 http
  ! node-c team-b/api:9090: address in use

TRY
  # plain
  curl http://127.1.1.1:8080/

LOOK AND CHANGE
  cargo run --release -p meshctl -- routes     (or: peers, verify, leader, analyze)
  manifests  /tmp/demo/source (a copy; edit it and watch rev)
  logs       /tmp/demo/logs
  kill -9 PID of the leader and see the next one; a peer that dies is started again
";
    assert_eq!(scene().lines().join("\n"), expected);
}

#[test]
fn a_directory_of_the_user_shows_its_routes() {
    let route = Route {
        host: "a.example".into(),
        path: "/x".into(),
        kind: "HTTPRoute".into(),
        namespace: "ns".into(),
        name: "r".into(),
        backends: "svc:80 100%".into(),
        addresses: vec!["127.1.1.1:8080".into()],
        ..Route::default()
    };
    let scene = Scene {
        own_source: false,
        backends: Vec::new(),
        tries: Vec::new(),
        routes: vec![route; MAX_ROUTES + 3],
        ..scene()
    };
    let text = scene.lines().join("\n");
    assert!(text.contains("No echo backends"), "{text}");
    assert!(text.contains("  127.1.1.1:8080     a.example/x  HTTPRoute ns/r#0 -> svc:80 100%"), "{text}");
    assert!(text.contains("and 3 more"), "{text}");
    assert!(!text.contains("a copy"), "{text}");
}

#[test]
fn no_line_is_wider_than_promised() {
    let mut scene = scene();
    let one = scene.backends[0].clone();
    scene.backends.extend((1..=60).map(|n| Backend { pod: format!("pod-{n}"), ..one.clone() }));
    let wide = |line: &&String| line.chars().count() > WIDTH;
    assert_eq!(scene.lines().iter().find(wide), None);
    assert_eq!(view().lines().iter().find(wide), None);
}

#[test]
fn a_terminal_is_drawn_over_in_place() {
    let mut screen = Screen::new(Vec::new(), true);
    screen.draw(&view()).unwrap();
    screen.draw(&view()).unwrap();
    screen.print(&["node-b had ended".to_owned()]).unwrap();
    let text = String::from_utf8(screen.out).unwrap();
    let lines = view().lines().len();
    assert_eq!(text.matches(&format!("\x1b[{lines}A\x1b[J")).count(), 2, "once a redraw, once for the notice");
    assert!(!text.contains("\x1b[2J"), "what was there before stays");
    assert!(text.ends_with("\x1b[Jnode-b had ended\n"));
}

#[test]
fn elsewhere_only_changes_are_said() {
    let text = captured(|screen| {
        screen.draw(&view()).unwrap();
        screen.draw(&view()).unwrap();
        let mut other = view();
        other.rows[0].status.as_mut().unwrap().requests_total += 1;
        screen.draw(&other).unwrap();
        other.leader.as_mut().unwrap().rev += 1;
        screen.draw(&other).unwrap();
    });
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn lines_are_cut_to_the_window_and_colours_take_no_room() {
    assert_eq!(super::cut("abcdef", 4), "abcd");
    assert_eq!(super::cut("\x1b[1mab\x1b[0mcdef", 3), "\x1b[1mab\x1b[0mc");
    assert_eq!(super::cut("\x1b[1mabc\x1b[0m", 2), "\x1b[1mab\x1b[0m", "what is switched on is switched off");
}

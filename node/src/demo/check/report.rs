//! One line a promise, and the count at the end.

use std::io::Write;
use std::time::Duration;

use super::super::fleet::Node;
use super::super::screen::Screen;
use super::super::via::Via;

/// What is said about a promise that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A request and the way it took.
    Request {
        /// `shop.example/cart`.
        asked: String,
        /// The node that took it.
        from: Node,
        /// What the peer says; none for answers without a route.
        via: Option<Via>,
        /// The pod that answered, `cart-b@node-b`; empty when the peer itself did.
        pod: String,
        /// From before the connect to after the last byte.
        took: Duration,
    },
    /// Anything else.
    Text(String),
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Detail::Text(text)
    }
}

/// Prints promises and counts them.
pub struct Report<'a, W: Write> {
    screen: &'a mut Screen<W>,
    passed: u32,
    failed: u32,
}

impl<'a, W: Write> Report<'a, W> {
    /// Nothing was checked yet.
    pub fn new(screen: &'a mut Screen<W>) -> Self {
        Report { screen, passed: 0, failed: 0 }
    }

    /// Starts a group of promises.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn group(&mut self, title: &str) -> anyhow::Result<()> {
        Ok(self.screen.print(&[String::new(), title.to_owned()])?)
    }

    /// Says what came of a promise. True when it holds.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn record(&mut self, what: &str, outcome: anyhow::Result<Detail>) -> anyhow::Result<bool> {
        let passed = outcome.is_ok();
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        self.screen.print(&[line(what, outcome)])?;
        Ok(passed)
    }

    /// Prints the count. True when every promise holds.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn finish(self, took: &str) -> anyhow::Result<bool> {
        self.screen.print(&[String::new(), format!("{} passed, {} failed in {took}", self.passed, self.failed)])?;
        Ok(self.failed == 0 && self.passed > 0)
    }
}

fn line(what: &str, outcome: anyhow::Result<Detail>) -> String {
    match outcome {
        Ok(Detail::Text(text)) => format!("ok   {what:<22} {text}"),
        Ok(Detail::Request { asked, from, via, pod, took }) => {
            let time = format!("{:.1} ms", took.as_secs_f64() * 1000.0);
            let (route, way, to) = match via {
                Some(via) if pod.is_empty() => (via.route, via.way.to_string(), from.name.to_owned()),
                Some(via) => (via.route, via.way.to_string(), format!("{} -> {pod}", from.name)),
                None => ("-".to_owned(), "-".to_owned(), from.name.to_owned()),
            };
            format!("ok   {what:<22} {asked:<30} {route:<22} {to:<34} {way:<6} {time:>8}")
        }
        Err(error) => format!("FAIL {what:<22} {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fleet::NODES;
    use super::super::super::screen::tests::captured;
    use super::*;

    #[test]
    fn lines_are_as_drawn() {
        let via: Via = "tunnel node=node-a route=edge/cart#1 rev=3/17".parse().unwrap();
        let request = |via: Option<Via>, pod: &str| Detail::Request {
            asked: "shop.example/cart".into(),
            from: NODES[0],
            via,
            pod: pod.into(),
            took: Duration::from_micros(1234),
        };
        let text = captured(|screen| {
            let mut report = Report::new(screen);
            report.group("ROUTES").unwrap();
            assert!(report.record("cross-node", Ok(request(Some(via.clone()), "cart-b@node-b"))).unwrap());
            assert!(report.record("unknown host", Ok(request(None, ""))).unwrap());
            assert!(report.record("takeover", Ok("node-b leads".to_owned().into())).unwrap());
            assert!(!report.record("same node", Err(anyhow::anyhow!("no answer"))).unwrap());
            assert!(!report.finish("1.0 s").unwrap());
        });
        let expected = "
ROUTES
ok   cross-node             shop.example/cart              edge/cart#1            \
node-a -> cart-b@node-b            tunnel   1.2 ms
ok   unknown host           shop.example/cart              -                      \
node-a                             -        1.2 ms
ok   takeover               node-b leads
FAIL same node              no answer

3 passed, 1 failed in 1.0 s
";
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_checked_is_not_passed() {
        captured(|screen| assert!(!Report::new(screen).finish("0 s").unwrap()));
    }
}

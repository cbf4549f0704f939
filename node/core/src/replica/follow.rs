//! The following side: from whom, how long without progress, when to ask for everything, and what
//! to think of a source whose stream ended.

use std::time::{Duration, Instant};

use super::source::{BACKOFF_MAX, Source, Troubles, choose_source};
use super::{Held, Outcome, Refusal};
use crate::snapshot::HeadId;

/// A source that is silent for so long is dead: it announces itself six times meanwhile.
pub const SILENCE: Duration = Duration::from_secs(3);
/// A source that brings nothing for so long is left, if another one says that it is ahead.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The choice of the source is thought over this often, besides on news.
const RECONSIDER_EVERY: Duration = Duration::from_secs(1);
/// Full snapshots that are asked for on one stream.
const MAX_RESENDS: u32 = 3;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is a better source.
    Switched,
    /// The source has delivered nothing for a while, and another one says that it is ahead.
    Useless,
    /// It broke off, or never came about.
    Broken,
    /// The source sent something false.
    False {
        /// The next source is to start with a full snapshot.
        ask_full: bool,
    },
}

/// What gossip says about where configuration can be had: everyone but this peer.
#[derive(Clone, Debug)]
pub struct Sources<'a, N> {
    /// Who leads, if known.
    pub leader: Option<&'a N>,
    /// Everyone who lives, with the head that it says it has.
    pub peers: Vec<(&'a N, HeadId)>,
}

/// Whether to go on with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Yes; think it over then, or when the sources change.
    Until(Instant),
    /// No.
    Leave(End),
}

/// What to do after the owner judged what a source sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Read on.
    Go,
    /// Ask the source for everything.
    AskFull,
    /// The stream is at its end.
    Leave(End),
}

/// The current stream.
#[derive(Clone, Debug)]
struct Stream<N> {
    source: N,
    begun: Instant,
    /// When something last came of it: applied, or a part of a newer snapshot that the leader
    /// signed. What the source merely announces does not count.
    last: Instant,
    /// This peer is at work on what came.
    judging: bool,
    /// Something was applied from it.
    worked: bool,
    /// It sent what is held already: that is not in doubt.
    same: bool,
    /// It was followed because it leads, not because it says that it is ahead.
    led: bool,
    resends: u32,
    /// Since when others say that they are ahead.
    ahead_since: Option<Instant>,
    /// A newer snapshot is coming in; until when it counts as progress.
    transfer: Option<Instant>,
}

/// Follows one source at a time.
#[derive(Clone, Debug)]
pub struct Follow<N> {
    troubles: Troubles<N>,
    want_full: bool,
    stream: Option<Stream<N>>,
}

impl<N> Default for Follow<N> {
    fn default() -> Self {
        Follow { troubles: Troubles::default(), want_full: false, stream: None }
    }
}

impl<N: Ord + Clone> Follow<N> {
    /// Whom to follow next; nobody has anything for us, or everybody who has is left alone for now.
    /// `entropy` is random.
    pub fn pick(&self, held: &Held, sources: &Sources<'_, N>, now: Instant, entropy: u64) -> Option<N> {
        self.choose(held, sources, now, entropy, None)
    }

    /// When a source that is left alone may be tried again.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.troubles.next_retry(now)
    }

    /// The next hello asks for everything: what we hold, or what we were sent, is in doubt.
    pub fn want_full(&self) -> bool {
        self.want_full
    }

    /// A stream to `source` is being opened.
    pub fn begin(&mut self, source: N, now: Instant) {
        self.stream = Some(Stream {
            source,
            begun: now,
            last: now,
            judging: false,
            worked: false,
            same: false,
            led: false,
            resends: 0,
            ahead_since: None,
            transfer: None,
        });
    }

    /// Whether another source should be followed: the leader, or one that is ahead while the one we
    /// follow, even the leader, has brought nothing for a while.
    pub fn reconsider(&mut self, held: &Held, sources: &Sources<'_, N>, now: Instant, entropy: u64) -> Stay {
        let Some(stream) = &self.stream else { return Stay::Leave(End::Switched) };
        if sources.peers.iter().all(|(node, _)| **node != stream.source) {
            return Stay::Leave(End::Switched);
        }
        let useless_at = stream.useless_at(now);
        let led = stream.led || sources.leader == Some(&stream.source);
        let coming = stream.transfer.is_some_and(|until| now < until) && now < useless_at;
        let better = self.choose(held, sources, now, entropy, Some(&stream.source));
        let Some(stream) = &mut self.stream else { return Stay::Leave(End::Switched) };
        stream.led = led;
        let again = now + RECONSIDER_EVERY;
        match better {
            // Not in the middle of a newer snapshot: the leader would only begin it anew.
            Some(better) if sources.leader == Some(&better) && !coming => Stay::Leave(End::Switched),
            Some(_) => {
                let since = *stream.ahead_since.get_or_insert(now);
                let useless_at = useless_at.max(since + PATIENCE);
                if useless_at <= now { Stay::Leave(End::Useless) } else { Stay::Until(again.min(useless_at)) }
            }
            None => {
                stream.ahead_since = None;
                Stay::Until(again)
            }
        }
    }

    /// A full snapshot begins, under a head whose signature holds. `newer`: than what is applied;
    /// `until`: the longest that it may take.
    pub fn transfer(&mut self, newer: bool, until: Instant) {
        if let Some(stream) = &mut self.stream {
            stream.transfer = newer.then_some(until);
        }
    }

    /// A part of it is here.
    pub fn part(&mut self, now: Instant) {
        if let Some(stream) = &mut self.stream
            && stream.transfer.is_some_and(|until| now < until)
        {
            stream.last = now;
        }
    }

    /// What came goes to the owner.
    pub fn judging(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.judging = true;
            stream.transfer = None;
        }
    }

    /// The owner is gone, or will not say.
    pub fn unjudged(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.judging = false;
        }
    }

    /// The owner has judged.
    pub fn judged(&mut self, outcome: &Outcome, now: Instant) -> After {
        let Some(stream) = &mut self.stream else { return After::Leave(End::Switched) };
        stream.judging = false;
        match outcome {
            Outcome::Applied => {
                stream.last = now;
                stream.worked = true;
                After::Go
            }
            Outcome::Same => {
                stream.same = true;
                After::Go
            }
            Outcome::NeedFull => {
                stream.resends += 1;
                // It keeps sending deltas that start elsewhere.
                let enough = stream.resends > MAX_RESENDS;
                if enough { After::Leave(End::False { ask_full: true }) } else { After::AskFull }
            }
            // The delta or what it starts from is wrong: everything anew, from someone else.
            Outcome::Refused(Refusal::Digest | Refusal::Conflict) => After::Leave(End::False { ask_full: true }),
            // It has not heard of the new epoch yet: no reason to avoid it once it has.
            Outcome::Refused(Refusal::Fenced(_)) => After::Leave(End::Broken),
            Outcome::Refused(_) => After::Leave(End::False { ask_full: false }),
        }
    }

    /// The stream ended. `jitter` is random.
    pub fn ended(&mut self, end: End, now: Instant, jitter: u64) {
        let Some(stream) = self.stream.take() else { return };
        if stream.worked || stream.same {
            self.want_full = false;
        }
        let lived = now.saturating_duration_since(stream.begun) > BACKOFF_MAX;
        if stream.worked || (end == End::Broken && lived) {
            self.troubles.works(&stream.source);
        }
        // It said that it was ahead, and then had nothing in all that time.
        let claimed = !stream.worked && !stream.led && stream.useless_at(now) <= now;
        match end {
            End::Switched if claimed => self.troubles.useless(&stream.source, now),
            End::Switched => {}
            // That others say that they are ahead may be a lie: it never keeps the leader away for long.
            End::Useless if stream.led => self.troubles.avoid(&stream.source, now),
            End::Useless => self.troubles.useless(&stream.source, now),
            End::Broken => self.troubles.unreachable(&stream.source, now, jitter),
            End::False { ask_full } => {
                self.troubles.avoid(&stream.source, now);
                self.want_full |= ask_full;
            }
        }
    }

    fn choose(
        &self,
        held: &Held,
        sources: &Sources<'_, N>,
        now: Instant,
        entropy: u64,
        except: Option<&N>,
    ) -> Option<N> {
        let peers = sources.peers.iter().filter(|(node, _)| Some(*node) != except);
        let judged: Vec<Source<'_, N>> = peers
            .map(|(node, announced)| Source {
                node: *node,
                announced: *announced,
                failed: self.troubles.avoided(node, now),
            })
            .collect();
        choose_source(held, sources.leader, &judged, entropy).cloned()
    }
}

impl<N> Stream<N> {
    /// When it will have brought nothing for too long; later if this peer is at work on something.
    fn useless_at(&self, now: Instant) -> Instant {
        if self.judging { now + PATIENCE } else { self.last + PATIENCE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(rev: u64) -> HeadId {
        HeadId { epoch: 1, rev }
    }

    fn own(rev: u64) -> Held {
        Held { id: id(rev), ..Held::default() }
    }

    fn sources(leader: Option<&'static &'static str>, ahead: bool) -> Sources<'static, &'static str> {
        Sources { leader, peers: vec![(&"a", id(5)), (&"b", id(if ahead { 7 } else { 5 }))] }
    }

    #[test]
    fn a_source_that_brings_nothing_is_left_for_one_that_is_ahead() {
        let now = Instant::now();
        let mut follow = Follow::default();
        assert_eq!(follow.pick(&own(5), &sources(Some(&"a"), false), now, 0), Some("a"));
        follow.begin("a", now);
        assert!(matches!(follow.reconsider(&own(5), &sources(Some(&"a"), false), now + PATIENCE, 0), Stay::Until(_)));
        let late = now + PATIENCE * 2;
        assert!(matches!(follow.reconsider(&own(5), &sources(Some(&"a"), true), late, 0), Stay::Until(_)));
        let stay = follow.reconsider(&own(5), &sources(Some(&"a"), true), late + PATIENCE, 0);
        assert_eq!(stay, Stay::Leave(End::Useless));
        follow.ended(End::Useless, late, 0);
        assert_eq!(follow.pick(&own(5), &sources(Some(&"a"), true), late, 0), Some("b"));
    }

    #[test]
    fn the_leader_interrupts_a_stream_but_no_newer_snapshot_that_comes_in() {
        let now = Instant::now();
        let mut follow = Follow::default();
        follow.begin("b", now);
        let seen = sources(Some(&"a"), true);
        assert_eq!(follow.reconsider(&own(5), &seen, now, 0), Stay::Leave(End::Switched));
        follow.transfer(true, now + Duration::from_secs(10));
        follow.part(now);
        assert!(matches!(follow.reconsider(&own(5), &seen, now, 0), Stay::Until(_)));
        // Unless it stalls.
        assert_eq!(follow.reconsider(&own(5), &seen, now + PATIENCE, 0), Stay::Leave(End::Switched));
        follow.transfer(false, now + Duration::from_secs(10));
        assert_eq!(follow.reconsider(&own(5), &seen, now, 0), Stay::Leave(End::Switched));
    }

    #[test]
    fn who_has_not_heard_of_a_new_epoch_is_not_avoided_for_long() {
        let now = Instant::now();
        let mut follow = Follow::default();
        follow.begin("a", now);
        let fenced = Outcome::Refused(Refusal::Fenced(own(5)));
        let After::Leave(end) = follow.judged(&fenced, now) else { panic!("it goes on with what is refused") };
        follow.ended(end, now, 0);
        assert_eq!(follow.pick(&own(4), &sources(Some(&"a"), false), now + BACKOFF_MAX, 0), Some("a"));
    }

    #[test]
    fn who_only_says_that_it_is_ahead_draws_away_from_the_leader_less_and_less() {
        let mut now = Instant::now();
        let begun = now;
        let mut follow = Follow::default();
        let seen = sources(Some(&"a"), true);
        let mut with_leader = Duration::ZERO;
        let step = Duration::from_millis(100);
        let (mut at, mut away) = (None, Duration::ZERO);
        while now - begun < Duration::from_secs(300) {
            if at.is_some()
                && let Stay::Leave(end) = follow.reconsider(&own(5), &seen, now, 0)
            {
                follow.ended(end, now, 0);
                at = None;
            }
            if at.is_none() {
                at = follow.pick(&own(5), &seen, now, 0);
                at.into_iter().for_each(|source| follow.begin(source, now));
            }
            if at == Some("a") {
                (with_leader, away) = (with_leader + step, Duration::ZERO);
            } else {
                away += step;
            }
            assert!(away <= Duration::from_secs(6), "away from the leader for {away:?}");
            now += step;
        }
        assert!(with_leader > Duration::from_secs(240), "{with_leader:?} of 300 s with the leader");
    }

    #[test]
    fn what_is_held_is_not_in_doubt_once_it_came_again() {
        let now = Instant::now();
        let mut follow = Follow::default();
        follow.begin("a", now);
        follow.ended(End::False { ask_full: true }, now, 0);
        assert!(follow.want_full());
        follow.begin("b", now);
        assert_eq!(follow.judged(&Outcome::Same, now), After::Go);
        follow.ended(End::Broken, now, 0);
        assert!(!follow.want_full());
    }

    #[test]
    fn deltas_from_elsewhere_are_put_up_with_for_a_while() {
        let now = Instant::now();
        let mut follow = Follow::default();
        follow.begin("a", now);
        for _ in 0..MAX_RESENDS {
            assert_eq!(follow.judged(&Outcome::NeedFull, now), After::AskFull);
        }
        let After::Leave(end) = follow.judged(&Outcome::NeedFull, now) else { panic!("for ever") };
        follow.ended(end, now, 0);
        assert!(follow.want_full());
        assert_eq!(follow.pick(&own(4), &sources(None, false), now, 0), Some("b"), "a is avoided");
    }
}

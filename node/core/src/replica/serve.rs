//! The serving side: what a follower gets, and who gets a full snapshot now.

use std::collections::VecDeque;

use crate::snapshot::HeadId;

/// Full snapshots that a peer sends at once.
pub const MAX_SNAPSHOTS: usize = 2;
/// Followers that wait for their turn; who comes later is sent to another peer.
pub const MAX_WAITING: usize = 64;

/// What to send to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// It has been sent everything.
    Nothing,
    /// What changed since what it was sent, if that is still known; else everything.
    Delta,
    /// Everything.
    Full,
}

/// One follower: the head that it has been sent, never a queue.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    sent: HeadId,
    full: bool,
}

impl Serving {
    /// A follower that says hello with what it holds. `full`: it doubts what it holds.
    pub fn new(held: HeadId, full: bool) -> Self {
        Serving { sent: held, full }
    }

    /// What to send while `now` is applied here.
    pub fn next(&self, now: HeadId) -> Serve {
        match (self.full, now > self.sent) {
            (true, _) => Serve::Full,
            (false, true) => Serve::Delta,
            (false, false) => Serve::Nothing,
        }
    }

    /// The head that it has been sent.
    pub fn sent(&self) -> HeadId {
        self.sent
    }

    /// It was sent `head`, so that it can know everything up to there.
    pub fn has(&mut self, head: HeadId) {
        *self = Serving { sent: head, full: false };
    }

    /// It asks for everything anew.
    pub fn resend(&mut self) {
        self.full = true;
    }
}

/// Whether a follower gets its snapshot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Yes.
    Now,
    /// Others are before it.
    Wait,
    /// Too many are: it is to ask another peer.
    Elsewhere,
}

/// Turns at full snapshots, in the order of asking: a herd of followers must not draw all that a
/// peer can send at once. `T` names a follower's stream.
#[derive(Clone, Debug)]
pub struct Turns<T> {
    sending: Vec<T>,
    waiting: VecDeque<T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Turns { sending: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T: PartialEq> Turns<T> {
    /// A stream asks, for the first time or again.
    pub fn ask(&mut self, stream: T) -> Turn {
        if self.sending.contains(&stream) {
            return Turn::Now;
        }
        if self.waiting.contains(&stream) {
            return Turn::Wait;
        }
        if self.sending.len() < MAX_SNAPSHOTS {
            self.sending.push(stream);
            return Turn::Now;
        }
        if self.waiting.len() >= MAX_WAITING {
            return Turn::Elsewhere;
        }
        self.waiting.push_back(stream);
        Turn::Wait
    }

    /// A stream has its snapshot, or is gone. True: it is the turn of another one now.
    pub fn leave(&mut self, stream: &T) -> bool {
        self.waiting.retain(|other| other != stream);
        self.sending.retain(|other| other != stream);
        let mut moved = false;
        while self.sending.len() < MAX_SNAPSHOTS
            && let Some(next) = self.waiting.pop_front()
        {
            self.sending.push(next);
            moved = true;
        }
        moved
    }

    /// Snapshots on their way.
    pub fn sending(&self) -> usize {
        self.sending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_bounded_and_go_in_order() {
        let mut turns = Turns::default();
        let asked: Vec<Turn> = (0..MAX_SNAPSHOTS + MAX_WAITING + 1).map(|stream| turns.ask(stream)).collect();
        assert_eq!(asked.iter().filter(|turn| **turn == Turn::Now).count(), MAX_SNAPSHOTS);
        assert_eq!(asked.last(), Some(&Turn::Elsewhere));
        assert_eq!(turns.ask(MAX_SNAPSHOTS), Turn::Wait);
        assert!(!turns.leave(&(MAX_SNAPSHOTS + 1)), "one that waits gives up");
        assert!(turns.leave(&0));
        assert_eq!(turns.ask(MAX_SNAPSHOTS), Turn::Now);
        assert_eq!(turns.ask(MAX_SNAPSHOTS + 2), Turn::Wait);
        assert!(turns.leave(&1));
        assert_eq!(turns.ask(MAX_SNAPSHOTS + 2), Turn::Now);
        assert_eq!(turns.sending(), MAX_SNAPSHOTS);
    }

    #[test]
    fn a_follower_gets_what_it_lacks() {
        let id = |rev| HeadId { epoch: 1, rev };
        let mut serving = Serving::new(id(4), false);
        assert_eq!(serving.next(id(4)), Serve::Nothing);
        assert_eq!(serving.next(id(3)), Serve::Nothing, "it is ahead");
        assert_eq!(serving.next(id(5)), Serve::Delta);
        serving.resend();
        assert_eq!(serving.next(id(3)), Serve::Full);
        serving.has(id(5));
        assert_eq!((serving.next(id(5)), serving.sent()), (Serve::Nothing, id(5)));
    }
}

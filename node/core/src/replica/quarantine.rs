//! What killed the process while it was applied: suspected after one death, held back after two.

use crate::snapshot::{Digest, Key};

/// Deaths while applying the same resources, after which they are quarantined.
const DEATHS: u32 = 2;

/// A resource and the hash of its bytes: quarantine is by content, so what changes leaves it.
pub type Pair = (Key, Digest);

/// What is being applied, and how often the process died of some of it before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Deaths so far.
    pub deaths: u32,
    /// The resources.
    pub pairs: Vec<Pair>,
}

/// What a death while applying leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// It may have been chance: remember these, apart from the marker.
    Suspect(Suspects),
    /// It was not: hold these back from now on.
    Quarantine(Vec<Pair>),
}

impl Suspects {
    /// The marker to write before `pairs` are applied. Deaths count on as long as some suspect is
    /// among them.
    #[must_use]
    pub fn mark(&self, pairs: Vec<Pair>) -> Suspects {
        let again = self.pairs.iter().any(|pair| pairs.contains(pair));
        Suspects { deaths: if again { self.deaths } else { 0 }, pairs }
    }

    /// At a start that finds this as the marker: the last process died while applying. What comes of
    /// it is no marker itself, or the next start would count the same death again.
    pub fn died(self) -> Death {
        let deaths = self.deaths.saturating_add(1);
        if deaths < DEATHS {
            return Death::Suspect(Suspects { deaths, ..self });
        }
        Death::Quarantine(self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Kind;

    fn pair(name: &str) -> Pair {
        (Key::new(Kind::Service, "a", name), Digest::default())
    }

    #[test]
    fn two_deaths_of_the_same_quarantine_it() {
        let first = Suspects::default().mark(vec![pair("bad"), pair("x")]);
        let Death::Suspect(suspects) = first.died() else { panic!("one death is chance") };
        // Unrelated: starts anew.
        assert_eq!(suspects.mark(vec![pair("y")]).deaths, 0);
        let again = suspects.mark(vec![pair("bad"), pair("y")]);
        assert_eq!(again.died(), Death::Quarantine(vec![pair("bad"), pair("y")]));
    }
}

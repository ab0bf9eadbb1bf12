//! Refusals that are to be sent, written one behind the other.
//!
//! Owns: their text, and which of them can leave together.
//! Never: decides who is refused; sends.

use crate::ids::Flow;
use std::ops::Range;

/// Room that is kept from one turn to the next.
const ROOM_KEPT: usize = 1 << 18;
/// So many bytes are enough to leave together. More would be cold in the processor's caches by then.
const ENOUGH: usize = 1 << 15;

/// Answers that can wait until there are more of them.
#[derive(Debug, Default)]
pub struct Refusals {
    text: Vec<u8>,
    list: Vec<Refusal>,
}

/// The place of one refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    flow: Flow,
    place: Range<usize>,
}

impl Refusal {
    /// Returns the way that it goes.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    fn key(&self) -> (Flow, usize) {
        (self.flow, self.place.len())
    }
}

impl Refusals {
    /// Adds what is written at the end of the text, unless that is more than `most` bytes. Returns whether it is not.
    pub(super) fn add(
        &mut self,
        flow: Flow,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let start = self.text.len();
        write(&mut self.text);
        let place = start..self.text.len();
        if place.len() > most {
            self.text.truncate(start);
            return false;
        }
        self.list.push(Refusal { flow, place });
        true
    }

    /// Returns whether there are enough of them to be sent.
    pub(super) fn are_enough(&self) -> bool {
        self.text.len() >= ENOUGH
    }

    /// Puts those of one length that go the same way side by side.
    pub fn sort(&mut self) {
        self.list.sort_by_key(Refusal::key);
    }

    /// Returns them in groups of one length that go the same way, as far as they are side by side.
    pub fn alike(&self) -> impl Iterator<Item = &[Refusal]> {
        self.list.chunk_by(|a, b| a.key() == b.key())
    }

    /// Returns a refusal's text.
    pub fn text(&self, refusal: &Refusal) -> &[u8] {
        self.text.get(refusal.place.clone()).unwrap_or_default()
    }

    /// Returns the text of several in as few parts as there can be.
    pub fn parts(&self, refusals: &[Refusal]) -> Vec<&[u8]> {
        let joined = refusals.chunk_by(|a, b| a.place.end == b.place.start);
        let place = |run: &[Refusal]| {
            let (first, last) = (run.first()?, run.last()?);
            self.text.get(first.place.start..last.place.end)
        };
        joined.filter_map(place).collect()
    }

    /// Returns all of them, in the order in which they were added unless they were sorted since.
    pub fn iter(&self) -> impl Iterator<Item = (Flow, &[u8])> {
        self.list.iter().map(|refusal| (refusal.flow, self.text(refusal)))
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
        self.text.shrink_to(ROOM_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::tests::flow;

    fn to(port: u16) -> Flow {
        let mut flow = flow();
        flow.remote.set_port(port);
        flow
    }

    fn write(refusals: &mut Refusals, port: u16, text: &str) -> bool {
        refusals.add(to(port), 4, |all| all.extend_from_slice(text.as_bytes()))
    }

    #[test]
    fn those_that_are_alike_leave_together_in_order() {
        let mut refusals = Refusals::default();
        for (port, text) in [(1, "one"), (1, "two"), (2, "abc"), (1, "four"), (1, "six")] {
            assert!(write(&mut refusals, port, text));
        }
        assert!(!write(&mut refusals, 1, "seven"), "larger than it may be");
        assert!(write(&mut refusals, 1, "ten"));
        assert_eq!(refusals.iter().last(), Some((to(1), &b"ten"[..])));
        refusals.sort();
        let group = |alike: &[Refusal]| {
            let parts = refusals.parts(alike).into_iter().map(str::from_utf8);
            (alike[0].flow(), parts.map(Result::unwrap).collect::<Vec<_>>())
        };
        let groups: Vec<_> = refusals.alike().map(group).collect();
        let (three, four) = (vec!["onetwo", "sixten"], vec!["four"]);
        assert_eq!(groups, [(to(1), three), (to(1), four), (to(2), vec!["abc"])]);
        assert!(!refusals.are_enough());
        for _ in 0..ENOUGH / 4 {
            assert!(write(&mut refusals, 1, "more"));
        }
        assert!(refusals.are_enough());
        refusals.clear();
        assert!(!refusals.are_enough());
        assert_eq!((refusals.iter().count(), refusals.alike().count()), (0, 0));
    }
}

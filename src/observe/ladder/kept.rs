//! How a ladder that is being written is kept: 32 bytes a line, and each text once.
//!
//! Owns: the texts of one ladder, and the lines that name them by number.
//! Never: grows beyond its bounds, whatever peers write.

use super::{Entry, Line, What};
use crate::observe::word::Word;
use std::sync::Arc;

/// What most ladders are made of; it costs nothing.
const KNOWN: &[&str] = &[
    "",
    "tandem",
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "Trying",
    "Ringing",
    "OK",
    "Session Progress",
    "OPTIONS",
    "INFO",
    "UPDATE",
    "PRACK",
    "Unauthorized",
    "Proxy Authentication Required",
    "Busy Here",
    "Request Terminated",
];
/// What stands for a text for which there is no room.
const TOO_MANY: &str = "…";

/// The texts of one ladder, each under its number: first those that are known, then its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(Vec<Arc<str>>);

impl Words {
    /// Returns the number of a text; `make` writes it as it is to be kept. Where there are too many, one
    /// number stands for the others.
    fn number(&mut self, text: &str, max: usize, make: impl FnOnce(&str) -> Arc<str>) -> u16 {
        let known = KNOWN.iter().position(|known| *known == text);
        let own = || Some(KNOWN.len() + self.0.iter().position(|own| **own == *text)?);
        let number = known.or_else(own).or_else(|| {
            let kept = make(text);
            if let Some(at) = self.0.iter().position(|own| *own == kept) {
                return Some(KNOWN.len() + at);
            }
            if self.0.len() >= max {
                return None;
            }
            self.0.push(kept);
            Some(KNOWN.len() + self.0.len() - 1)
        });
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX)
    }

    fn text(&self, number: u16) -> Word {
        let number = usize::from(number);
        match (KNOWN.get(number), self.0.get(number.saturating_sub(KNOWN.len()))) {
            (Some(known), _) => Word::Known(known),
            (None, Some(own)) => Word::Told(own.clone()),
            (None, None) => Word::Known(TOO_MANY),
        }
    }
}

/// One line. Texts are numbers in [`Words`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    at_ms: u32,
    cseq: Option<u32>,
    from: u16,
    to: u16,
    what: Said,
    note: Option<u16>,
    sdp: bool,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Request { method: u16 },
    Response { status: u16, reason: u16, method: u16 },
    Event(u16),
}

impl Kept {
    /// Keeps a line. `max` bounds the texts of the ladder.
    pub(super) fn new(
        at_ms: u64,
        (from, to): (&str, &str),
        line: &Line<'_>,
        words: &mut Words,
        max: usize,
    ) -> Self {
        let mut name = |name: &str| words.number(name, max, super::masked_name);
        let (from, to) = (name(from), name(to));
        let mut clipped = |text: &str| words.number(text, max, super::clipped);
        let what = match &line.what {
            super::Told::Request { method } => Said::Request { method: clipped(method) },
            super::Told::Response { status, reason, method } => {
                let (reason, method) = (clipped(reason), clipped(method));
                Said::Response { status: *status, reason, method }
            }
            super::Told::Event(text) => Said::Event(clipped(text)),
        };
        let note = line.note.as_deref().map(clipped);
        let at_ms = u32::try_from(at_ms).unwrap_or(u32::MAX);
        Self { at_ms, cseq: line.cseq, from, to, what, note, sdp: line.sdp }
    }

    /// Writes it out.
    pub(super) fn entry(&self, words: &Words) -> Entry {
        let text = |number| words.text(number);
        Entry {
            at_ms: self.at_ms.into(),
            from: text(self.from),
            to: text(self.to),
            what: match self.what {
                Said::Request { method } => What::Request { method: text(method) },
                Said::Response { status, reason, method } => {
                    What::Response { status, reason: text(reason), method: text(method) }
                }
                Said::Event(said) => What::Event(text(said)),
            },
            cseq: self.cseq,
            sdp: self.sdp,
            note: self.note.map(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once_and_within_their_bound() {
        let mut words = Words::default();
        let mut number = |text: &str| words.number(text, 2, |text| text.to_uppercase().into());
        assert_eq!(number("INVITE"), number("INVITE"));
        let (a, b) = (number("a"), number("b"));
        assert_eq!(
            (number("a"), number("b"), number("c")),
            (a, b, u16::MAX),
            "found as it is kept"
        );
        assert_eq!(number("A"), a);
        assert_eq!(words.0.len(), 2);
        let texts = [a, b, u16::MAX].map(|number| words.text(number));
        assert_eq!(texts.each_ref().map(|text| &**text), ["A", "B", "…"]);
    }

    #[test]
    fn a_line_is_small() {
        assert!(size_of::<Kept>() <= 32, "{}", size_of::<Kept>());
    }
}

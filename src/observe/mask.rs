//! Telephone numbers as people who read logs may see them.
//!
//! Owns: which digits are hidden.
//! Never: decides who may see a number in full; whoever calls `expose` does.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Numbers with fewer digits are extensions and service codes, which identify nobody outside.
const MASKED_DIGITS_MIN: usize = 7;
/// Characters kept at the start: `+` and the area.
const HEAD_MAX: usize = 5;
/// Characters kept at the end.
const TAIL: usize = 3;
/// What stands for the rest.
const HIDDEN: &str = "****";

/// Shows a number without its middle: `+14155550234` as `+1415****234`, `1001` as it is.
///
/// What is not a telephone number (a user name such as `alice`) is shown as it is.
#[derive(Clone, Copy)]
pub struct Number<'a>(pub &'a str);

impl fmt::Display for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().filter(char::is_ascii_digit).count() < MASKED_DIGITS_MIN {
            f.pad(self.0)
        } else if self.0.contains(['@', ':']) {
            // A URI, an address with its port.
            f.pad(&Text(self.0).to_string())
        } else {
            // Perhaps with visual separators (RFC 3966 5.1.1), or with words: `… ext 77`.
            f.pad(&masked(self.0))
        }
    }
}

impl fmt::Debug for Number<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows text written by others (a reason phrase, a URI) with every long run of digits masked.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::with_capacity(self.0.len());
        let mut rest = self.0;
        while let Some(start) = rest.find(|c: char| c == '+' || c.is_ascii_digit()) {
            let (before, run) = rest.split_at(start);
            let body = run.strip_prefix('+').unwrap_or(run);
            let digits = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
            let (run, after) = run.split_at(run.len() - body.len() + digits);
            shown.push_str(before);
            if digits >= MASKED_DIGITS_MIN {
                shown.push_str(&masked(run));
            } else {
                shown.push_str(run);
            }
            rest = after;
        }
        shown.push_str(rest);
        f.pad(&shown)
    }
}

/// A number or user name that prints masked and is stored and sent in full.
#[derive(Clone, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct NumberBuf(Box<str>);

impl NumberBuf {
    /// Returns the number in full: for the record and the wire, never for a log line.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Box<str>>> From<T> for NumberBuf {
    fn from(number: T) -> Self {
        Self(number.into())
    }
}

impl fmt::Display for NumberBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Number(&self.0), f)
    }
}

impl fmt::Debug for NumberBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Masks a number of at least [`MASKED_DIGITS_MIN`] digits.
fn masked(number: &str) -> String {
    let chars: Vec<char> = number.chars().collect();
    let hidden_and_tail = HIDDEN.len() + TAIL;
    let head = chars.len().saturating_sub(hidden_and_tail).min(HEAD_MAX);
    let tail = chars.len().saturating_sub(TAIL);
    let (head, tail) = (chars.iter().take(head), chars.iter().skip(tail));
    head.copied().chain(HIDDEN.chars()).chain(tail.copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lose_their_middle_and_extensions_do_not() {
        for (number, shown) in [
            ("+14155550234", "+1415****234"),
            ("+442071838750", "+4420****750"),
            ("+31207654321012345", "+3120****345"),
            ("4155550234", "415****234"),
            ("5550199", "****199"),
            ("(415) 555-0199", "(415)****199"),
            ("415 555 0199 ext 77", "415 5**** 77"),
            ("1001", "1001"),
            ("911", "911"),
            ("*97", "*97"),
            ("+", "+"),
            ("", ""),
            ("alice", "alice"),
            ("desk2", "desk2"),
            ("sip:+14155550234@example.com", "sip:+1415****234@example.com"),
        ] {
            assert_eq!(Number(number).to_string(), shown, "{number}");
            assert_eq!(NumberBuf::from(number).to_string(), shown, "{number}");
            assert_eq!(NumberBuf::from(number).expose(), number);
        }
    }

    #[test]
    fn text_of_others_is_masked_run_by_run() {
        for (text, shown) in [
            ("From +17756187988 is not verified", "From +1775****988 is not verified"),
            ("32204 caller id", "32204 caller id"),
            ("1234567", "****567"),
            ("a 10.0.0.1:5060 b", "a 10.0.0.1:5060 b"),
            ("++14155550234+", "++1415****234+"),
            ("número 415", "número 415"),
        ] {
            assert_eq!(Text(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn nothing_prints_a_number_by_accident() {
        let number = NumberBuf::from("+14155550234");
        assert!(!format!("{number:?} {number} {:?}", Some(&number)).contains("5550234"));
    }

    #[test]
    fn the_record_keeps_the_number() {
        let json = serde_json::to_string(&NumberBuf::from("+14155550234")).unwrap();
        assert_eq!(json, "\"+14155550234\"");
    }
}

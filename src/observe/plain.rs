//! Text of others that is to be read by people: nothing in it moves a cursor, begins a line or turns around.
//!
//! Owns: which characters those are, and how they are shown instead.
//! Never: hides a number; [`super::mask`] does.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Returns whether a character shows itself and nothing else. What does not: controls (C0, DEL, C1), line
/// and paragraph separators, marks that turn the direction of writing (Unicode UAX 9, 2), characters
/// that have no shape of their own, tags.
pub fn is_plain(c: char) -> bool {
    let is_hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !is_hidden && !c.is_control()
}

/// Most text is: it is passed on as it is.
fn is_all_ascii_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Writes text on, and what is not plain as `\u{1b}`.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_all_ascii_plain(text) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        if is_plain(c) { self.0.write_char(c) } else { write!(self.0, "{}", c.escape_unicode()) }
    }
}

/// Returns text with a space for everything that is not plain.
pub fn spaced(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

/// Returns JSON with an escape (RFC 8259 7) for everything in its strings that is not plain. Line ends
/// stand between values only, and stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_left = |c: char| c == '\n' || is_plain(c);
    if text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')) || text.chars().all(is_left) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_left(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What peers write, as a log line shows it, as a table does, as JSON does.
    #[test]
    fn nothing_moves_a_cursor_begins_a_line_or_turns_around() {
        for (text, escaped, spaced_out, in_json) in [
            ("Busy Here", "Busy Here", "Busy Here", "Busy Here"),
            (
                "Größe שלום 电话 👍🏽",
                "Größe שלום 电话 👍🏽",
                "Größe שלום 电话 👍🏽",
                "Größe שלום 电话 👍🏽",
            ),
            ("a\r\nb", "a\\u{d}\\u{a}b", "a  b", "a\\u000d\nb"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}", " [2J ", "\\u001b[2J\\u0007"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m", "  31m", "\\u007f\\u009b31m"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}", "a b ", "a\\u202eb\\u2066"),
            ("\u{2028}\u{feff}", "\\u{2028}\\u{feff}", "  ", "\\u2028\\ufeff"),
            ("x\u{e0041}", "x\\u{e0041}", "x ", "x\\udb40\\udc41"),
        ] {
            let mut out = String::new();
            write!(Escaping(&mut out), "{text}").unwrap();
            assert_eq!(out, escaped);
            assert_eq!(spaced(text), spaced_out);
            assert_eq!(json(text), in_json);
        }
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "why": "a\u{202e}\u{9b}\u{e0041}\r\n\u{7f}b" });
        let text = format!("{value:#}\n");
        let clean = json(&text);
        assert!(clean.chars().all(|c| c == '\n' || is_plain(c)), "{clean}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&clean).unwrap(), value);
    }
}

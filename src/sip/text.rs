//! Scanning of header text: white space, tokens, lines, folding, quotes and brackets.
//!
//! Owns: the lexical rules of RFC 3261 25.1.
//! Never: knows what a header means.

use bytes::Bytes;
use std::borrow::Cow;

/// A part of a message's bytes. Valid only for the message it was made for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Returns where `part`, a slice of `whole`, is; an empty span for anything else.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr());
        let end = start.and_then(|start| start.checked_add(part.len()));
        match (start.map(u32::try_from), end.filter(|end| *end <= whole.len()).map(u32::try_from)) {
            (Some(Ok(start)), Some(Ok(end))) => Self { start, end },
            (Some(_) | None, Some(_) | None) => Self::default(),
        }
    }

    /// Returns the part of `whole`.
    pub(super) fn get(self, whole: &[u8]) -> &[u8] {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Returns the part of `whole` as text, or nothing where it is not UTF-8.
    pub(super) fn get_str(self, whole: &[u8]) -> &str {
        std::str::from_utf8(self.get(whole)).unwrap_or_default()
    }

    /// Returns the part of `whole`, sharing its memory.
    pub(super) fn share(self, whole: &Bytes) -> Bytes {
        whole.slice_ref(self.get(whole))
    }
}

/// White space inside a header's value. CR and LF are left in it by folding only.
pub(super) fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// One bit for each byte of RFC 3261 25.1's `token`.
const TOKEN_BYTES: u128 = {
    let mut bits = 0;
    let mut byte = 0_u8;
    while byte < 128 {
        let is_mark = matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'~');
        if byte.is_ascii_alphanumeric() || is_mark || byte == b'\'' {
            bits |= 1_u128.wrapping_shl(byte as u32);
        }
        byte = byte.wrapping_add(1);
    }
    bits
};

/// A byte of RFC 3261 25.1's `token`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES.checked_shr(byte.into()).is_some_and(|bits| bits & 1 == 1)
}

/// Returns whether `text` is one `token`.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Returns the index of the first byte that `wanted` accepts.
pub(super) fn find(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let found = text.iter().position(|byte| wanted(*byte));
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// Returns the index of the first `wanted`.
pub(super) fn find_byte(text: &[u8], wanted: u8) -> Option<usize> {
    let found = memchr::memchr(wanted, text);
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// Returns the index of the first byte that is one of `wanted`.
pub(super) fn find_any(text: &[u8], wanted: [u8; 3]) -> Option<usize> {
    let [a, b, c] = wanted;
    let found = memchr::memchr3(a, b, c, text);
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// Splits before the first byte that `wanted` accepts; all of it and nothing where there is none.
pub(super) fn split_at(text: &[u8], wanted: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    find(text, wanted).and_then(|at| text.split_at_checked(at)).unwrap_or((text, &[]))
}

/// Splits around the first `separator`.
pub(super) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(find_byte(text, separator)?)?;
    Some((before, after.split_first()?.1))
}

/// Removes white space at the front.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    split_at(text, |byte| !is_lws(byte)).1
}

/// Removes white space at both ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let last = text.iter().rposition(|byte| !is_lws(*byte));
    #[cfg(test)]
    cost::add(text.len().saturating_sub(last.unwrap_or(0)));
    last.and_then(|last| text.get(..=last)).unwrap_or_default()
}

/// Returns the first line without its CRLF (or bare LF), and what follows. `None`: no line end.
pub(super) fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = split_once(text, b'\n')?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

/// Returns the first header line with its continuations (RFC 3261 7.3.1), and what follows.
pub(super) fn folded_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut end, mut rest) = line(text)?;
    if !matches!(rest.first(), Some(b' ' | b'\t')) {
        return Some((end, rest));
    }
    while matches!(rest.first(), Some(b' ' | b'\t')) {
        (end, rest) = line(rest)?;
    }
    let len = Span::of(text, end).end as usize;
    Some((text.get(..len)?, rest))
}

/// Replaces each fold, and each stray CR or LF, by one space.
pub(super) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte| matches!(byte, b'\r' | b'\n');
    if find_any(value, *b"\r\r\n").is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while !rest.is_empty() {
        let (line, broken) = split_at(rest, is_break);
        out.extend_from_slice(line);
        rest = trim_start(broken);
        if !broken.is_empty() {
            while out.last().is_some_and(|last| is_lws(*last)) {
                out.pop();
            }
            out.push(b' ');
        }
    }
    Cow::Owned(out)
}

/// Returns whether there is a CR that does not belong to a line end.
pub(super) fn has_stray_cr(mut text: &[u8]) -> bool {
    while let Some((_, after)) = split_once(text, b'\r') {
        if !after.starts_with(b"\n") {
            return true;
        }
        text = after;
    }
    false
}

/// What the scanner is inside of.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Inside {
    Nothing,
    Quotes,
    Escape,
    Brackets,
}

/// A quoted string or bracket that is never closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unbalanced;

/// Whether `<` and `>` hide what is between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Brackets {
    /// Lists of addresses.
    Hide,
    /// Parameters and digest headers.
    Plain,
}

/// Splits around the first `separator` outside of quoted strings (and brackets). The second part
/// is `None` where there is no separator.
pub(super) fn cut(
    text: &[u8],
    separator: u8,
    brackets: Brackets,
) -> Result<(&[u8], Option<&[u8]>), Unbalanced> {
    let opening = if brackets == Brackets::Hide { b'<' } else { b'"' };
    let Some(interesting) = find_any(text, [separator, b'"', opening]) else {
        return Ok((text, None));
    };
    let mut inside = Inside::Nothing;
    for (at, byte) in text.iter().copied().enumerate().skip(interesting) {
        #[cfg(test)]
        cost::add(1);
        inside = match (inside, byte) {
            (Inside::Nothing, _) if byte == separator => {
                let (before, after) = text.split_at_checked(at).unwrap_or((text, &[]));
                return Ok((before, after.split_first().map(|(_, after)| after)));
            }
            (Inside::Nothing, b'"') | (Inside::Escape, _) => Inside::Quotes,
            (Inside::Nothing, b'<') if brackets == Brackets::Hide => Inside::Brackets,
            (Inside::Quotes, b'\\') => Inside::Escape,
            (Inside::Quotes, b'"') | (Inside::Brackets, b'>') => Inside::Nothing,
            (Inside::Nothing | Inside::Quotes | Inside::Brackets, _) => inside,
        };
    }
    match inside {
        Inside::Nothing => Ok((text, None)),
        Inside::Quotes | Inside::Escape | Inside::Brackets => Err(Unbalanced),
    }
}

/// The trimmed parts between separators; see [`cut`]. A part that is not balanced is the last one,
/// whole.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
    brackets: Brackets,
}

/// Splits a header's value at its commas.
pub(super) fn commas(text: &[u8], brackets: Brackets) -> Parts<'_> {
    Parts { rest: Some(text), separator: b',', brackets }
}

/// Splits parameters at their semicolons.
pub(super) fn semicolons(text: &[u8]) -> Parts<'_> {
    Parts { rest: Some(text), separator: b';', brackets: Brackets::Plain }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let (part, rest) = cut(text, self.separator, self.brackets).unwrap_or((text, None));
        self.rest = rest;
        Some(trim(part))
    }
}

/// Splits a quoted string, its quotes removed and its escapes left, from what follows it.
pub(super) fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = inner.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })?;
    #[cfg(test)]
    cost::add(end);
    let (string, rest) = inner.split_at_checked(end)?;
    Some((string, rest.strip_prefix(b"\"")?))
}

/// Removes the backslashes and folds of a quoted string's inside.
pub(super) fn unescape(string: &[u8]) -> Cow<'_, [u8]> {
    let unfolded = unfold(string);
    if find_byte(&unfolded, b'\\').is_none() {
        return unfolded;
    }
    let mut out = Vec::with_capacity(unfolded.len());
    let mut bytes = unfolded.iter().copied();
    while let Some(byte) = bytes.next() {
        let plain = if byte == b'\\' { bytes.next() } else { Some(byte) };
        out.extend(plain);
    }
    Cow::Owned(out)
}

/// Reads digits, nothing else. More than fits becomes the largest number.
pub(super) fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let next = |sum: u32, digit: &u8| {
        sum.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0')))
    };
    Some(text.iter().fold(0, next))
}

/// Counts the bytes looked at, so that tests can bound the work done for a message.
#[cfg(test)]
pub(super) mod cost {
    use std::cell::Cell;

    thread_local!(static BYTES: Cell<usize> = const { Cell::new(0) });

    pub(in crate::sip) fn add(bytes: usize) {
        BYTES.set(BYTES.get().saturating_add(bytes).saturating_add(1));
    }

    pub(in crate::sip) fn of(work: impl FnOnce()) -> usize {
        BYTES.set(0);
        work();
        BYTES.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_respect_quotes_and_brackets() {
        for (text, want) in [
            ("a, b ,c", &["a", "b", "c"][..]),
            ("\"x, y\" <sip:a,b@c>, d", &["\"x, y\" <sip:a,b@c>", "d"]),
            (r#""\", " a, b"#, &[r#""\", " a"#, "b"]),
            ("a,,b,", &["a", "", "b", ""]),
            ("a, \"b, c", &["a", "\"b, c"]),
            ("", &[""]),
        ] {
            let got: Vec<_> = commas(text.as_bytes(), Brackets::Hide).collect();
            assert_eq!(got, want.iter().map(|part| part.as_bytes()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn folds_become_one_space() {
        for (folded, want) in [
            ("plain", "plain"),
            ("a\r\n b", "a b"),
            ("a \t\r\n\t  b\r\n c", "a b c"),
            ("a\rb", "a b"),
            ("a\n\n b", "a b"),
        ] {
            assert_eq!(*unfold(folded.as_bytes()), *want.as_bytes(), "{folded:?}");
        }
    }

    #[test]
    fn quoted_strings() {
        for (text, want) in [
            (r#""a" rest"#, Some(("a", " rest"))),
            (r#""a\"b""#, Some((r#"a\"b"#, ""))),
            (r#""a\\"b"#, Some((r"a\\", "b"))),
            (r#""a\""#, None),
            ("a", None),
        ] {
            let want = want.map(|(a, b): (&str, &str)| (a.as_bytes(), b.as_bytes()));
            assert_eq!(quoted(text.as_bytes()), want, "{text}");
        }
        assert_eq!(*unescape(br#"a\"b\\c"#), *br#"a"b\c"#);
    }

    #[test]
    fn lines_end_with_crlf_or_lf_and_continue_after_white_space() {
        assert_eq!(folded_line(b"a: b\r\n c\r\nd"), Some((&b"a: b\r\n c"[..], &b"d"[..])));
        assert_eq!(folded_line(b"a\n\tb\n\n"), Some((&b"a\n\tb"[..], &b"\n"[..])));
        assert_eq!(folded_line(b"no end"), None);
    }

    #[test]
    fn numbers_saturate() {
        assert_eq!(digits(b"0068"), Some(68));
        assert_eq!(digits(b"99999999999"), Some(u32::MAX));
        assert_eq!(digits(b"-1"), None);
        assert_eq!(digits(b""), None);
    }
}

//! Scanning of header text: white space, tokens, lines, folding, quotes and brackets.
//!
//! Owns: the lexical rules of RFC 3261 25.1.
//! Never: knows what a header means.

use bytes::Bytes;
use std::{borrow::Cow, ops::Range};

/// A part of a message's bytes. Valid only for the message it was made for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Returns where `part`, a slice of `whole`, is; an empty span for anything else.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        let end = start.wrapping_add(part.len());
        if start <= end && end <= whole.len() { Self::between(start, end) } else { Self::default() }
    }

    /// Returns the place from `start` to `end`.
    pub(super) fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// Returns the place from `start` to `end`, in what has less than 4 GiB.
    pub(super) fn between(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// Returns the places of its bytes.
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns the part of `whole`.
    pub(super) fn get(self, whole: &[u8]) -> &[u8] {
        whole.get(self.range()).unwrap_or_default()
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

/// A byte of RFC 3261 25.1's `token`.
pub(super) const TOKEN: u8 = 1;
/// A byte of a host's name.
pub(super) const HOST: u8 = 1 << 1;
/// A byte that stands in no URI: white space, controls, quotes and angle brackets.
pub(super) const NO_URI: u8 = 1 << 2;
/// ASCII that stands in a URI and means nothing but itself in a user part.
pub(super) const PLAIN_USER: u8 = 1 << 3;
/// ASCII that stands in a URI and does not end its parameters.
pub(super) const PLAIN_PARAMS: u8 = 1 << 4;
/// What makes a header's parameters more than names and values: quotes, commas, CR and controls.
pub(super) const ODD_IN_PARAMS: u8 = 1 << 5;

/// The classes that each byte belongs to.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    let mut left: &mut [u8] = &mut classes;
    while let [class, rest @ ..] = left {
        let is_lws = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            *class |= TOKEN | HOST;
        } else if matches!(byte, b'!' | b'%' | b'*' | b'+' | b'`' | b'~' | b'\'') {
            *class |= TOKEN;
        }
        if byte == b' ' || byte.is_ascii_control() || matches!(byte, b'"' | b'<' | b'>') {
            *class |= NO_URI;
        } else if byte.is_ascii() && byte != b'?' {
            *class |= PLAIN_PARAMS;
            if !matches!(byte, b'@' | b':' | b';') {
                *class |= PLAIN_USER;
            }
        }
        let is_odd = byte.is_ascii_control() && !is_lws;
        if is_odd || matches!(byte, b'"' | b',' | b'\r') {
            *class |= ODD_IN_PARAMS;
        }
        byte = byte.wrapping_add(1);
        left = rest;
    }
    classes
};

/// Returns whether a byte is of one of these classes.
#[inline]
pub(super) fn is(byte: u8, classes: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|class| class & classes != 0)
}

/// White space inside a header's value. CR and LF are left in it by folding only.
#[inline]
pub(super) fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A byte of RFC 3261 25.1's `token`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    is(byte, TOKEN)
}

/// Returns whether `text` is one `token`.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Returns whether it is UTF-8; ASCII is recognised faster.
pub(super) fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// Returns the index of the first byte that `wanted` accepts.
#[inline]
pub(super) fn find(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let found = text.iter().position(|byte| wanted(*byte));
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// How far the end of a line is searched for without calling `memchr`, in bytes.
const LINE_USUAL: usize = 64;

/// A one in each byte of a word.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// Marks the lowest byte of a word that is `wanted`, and maybe others above it.
#[inline]
fn marks(word: u64, wanted: u8) -> u64 {
    let differs = word ^ ONES.wrapping_mul(wanted.into());
    differs.wrapping_sub(ONES) & !differs & ONES.wrapping_mul(0x80)
}

/// Finds what is marked, a word at a time, or else what is wanted behind the last whole word. What we look for is
/// a few bytes away most of the time, where calling `memchr` takes longer.
#[inline]
fn find_marked(
    text: &[u8],
    marks: impl Fn(u64) -> u64,
    is_wanted: impl Fn(u8) -> bool,
) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    let mut at = 0_usize;
    let mut found = None;
    for word in words {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            found = Some(at.wrapping_add(marks.trailing_zeros() as usize / 8));
            break;
        }
        at = at.wrapping_add(8);
    }
    if found.is_none() {
        found = rest.iter().position(|byte| is_wanted(*byte)).map(|more| at.wrapping_add(more));
    }
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// Returns the index of the first `wanted`.
#[inline]
pub(super) fn find_byte(text: &[u8], wanted: u8) -> Option<usize> {
    find_marked(text, |word| marks(word, wanted), |byte| byte == wanted)
}

/// Returns the index of the first byte that is one of these two.
#[inline]
pub(super) fn find_either(text: &[u8], a: u8, b: u8) -> Option<usize> {
    find_marked(text, |word| marks(word, a) | marks(word, b), |byte| byte == a || byte == b)
}

/// Returns the index of the first byte that is one of `wanted`. Where one stands beside the other, each call of `memchr`
/// would cost more than a look.
pub(super) fn find_any(text: &[u8], wanted: [u8; 3]) -> Option<usize> {
    let [a, b, c] = wanted;
    let found = match text.first() {
        Some(first) if wanted.contains(first) => Some(0),
        Some(_) | None => memchr::memchr3(a, b, c, text),
    };
    #[cfg(test)]
    cost::add(found.unwrap_or(text.len()));
    found
}

/// Returns whether any byte is below 0x0e: a CR, LF or NUL, or one of the controls beside them. Most texts have none,
/// which is found out a word at a time.
#[inline]
pub(super) fn has_low(text: &[u8]) -> bool {
    const ABOVE: u8 = 0x0e;
    let (words, rest) = text.as_chunks::<8>();
    let low = words.iter().fold(0, |low, word| {
        let word = u64::from_le_bytes(*word);
        low | (word.wrapping_sub(ONES.wrapping_mul(ABOVE.into())) & !word)
    });
    #[cfg(test)]
    cost::add(text.len());
    low & ONES.wrapping_mul(0x80) != 0 || rest.iter().any(|byte| *byte < ABOVE)
}

/// Splits before the first byte that `wanted` accepts; all of it and nothing where there is none.
#[inline]
pub(super) fn split_at(text: &[u8], wanted: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    find(text, wanted).and_then(|at| text.split_at_checked(at)).unwrap_or((text, &[]))
}

/// Splits after the bytes of these classes that `text` begins with.
#[inline]
pub(super) fn split_while(text: &[u8], classes: u8) -> (&[u8], &[u8]) {
    split_at(text, |byte| !is(byte, classes))
}

/// Splits around the first `separator`.
#[inline]
pub(super) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(find_byte(text, separator)?)?;
    Some((before, after.split_first()?.1))
}

/// Removes white space at the front.
#[inline]
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    if text.first().is_some_and(|first| !is_lws(*first)) {
        return text;
    }
    split_at(text, |byte| !is_lws(byte)).1
}

/// Removes white space at the end.
#[inline]
pub(super) fn trim_end(text: &[u8]) -> &[u8] {
    if text.last().is_some_and(|last| !is_lws(*last)) {
        return text;
    }
    let last = text.iter().rposition(|byte| !is_lws(*byte));
    #[cfg(test)]
    cost::add(text.len().saturating_sub(last.unwrap_or(0)));
    last.and_then(|last| text.get(..=last)).unwrap_or_default()
}

/// Removes white space at both ends.
#[inline]
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// Returns the first line without its CRLF (or bare LF), and what follows. `None`: no line end.
#[inline]
pub(super) fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = text.split_at_checked(find_line_end(text)?)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.split_first()?.1))
}

/// Finds a line end: in a usual line at once, in a long one by `memchr`.
#[inline]
fn find_line_end(text: &[u8]) -> Option<usize> {
    let Some((near, far)) = text.split_at_checked(LINE_USUAL) else {
        return find_byte(text, b'\n');
    };
    if let Some(end) = find_byte(near, b'\n') {
        return Some(end);
    }
    let end = memchr::memchr(b'\n', far);
    #[cfg(test)]
    cost::add(end.unwrap_or(far.len()));
    Some(end?.wrapping_add(LINE_USUAL))
}

/// Returns the first header line with its continuations (RFC 3261 7.3.1), and what follows. An empty line has none: it
/// ends the headers.
pub(super) fn folded_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut end, mut rest) = line(text)?;
    if end.is_empty() || !matches!(rest.first(), Some(b' ' | b'\t')) {
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
    if !has_low(value) || find_any(value, *b"\r\r\n").is_none() {
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

/// A quoted string or bracket that is never closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unbalanced;

/// What hides separators between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hiding {
    /// `<` and `>`, and quotes: in lists of addresses.
    Brackets,
    /// Quotes: in parameters and digest headers.
    Quotes,
    /// Nothing: there are no quotes.
    Nothing,
}

/// Splits around the first `separator` outside of quoted strings and brackets. The second part
/// is `None` where there is no separator.
pub(super) fn cut(
    text: &[u8],
    separator: u8,
    hiding: Hiding,
) -> Result<(&[u8], Option<&[u8]>), Unbalanced> {
    let opening = match hiding {
        Hiding::Brackets => b'<',
        Hiding::Quotes => b'"',
        Hiding::Nothing => {
            return Ok(match split_once(text, separator) {
                Some((before, after)) => (before, Some(after)),
                None => (text, None),
            });
        }
    };
    let mut rest = text;
    while let Some(at) = find_any(rest, [separator, b'"', opening]) {
        let (found, after) = rest.get(at..).and_then(<[u8]>::split_first).ok_or(Unbalanced)?;
        if *found == separator {
            let before = text.len().saturating_sub(after.len()).saturating_sub(1);
            return Ok((text.get(..before).unwrap_or_default(), Some(after)));
        }
        rest = match *found {
            b'"' => after_quotes(after).ok_or(Unbalanced)?,
            _ => split_once(after, b'>').ok_or(Unbalanced)?.1,
        };
    }
    Ok((text, None))
}

/// Returns the first value of a list, trimmed, and what follows its comma; see [`cut`]. Mostly there is none, which is seen
/// at once. What is not balanced is one value.
pub(super) fn first_value(list: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (first, others) = match find_byte(list, b',') {
        Some(_) => cut(list, b',', Hiding::Brackets).unwrap_or((list, None)),
        None => (list, None),
    };
    (trim(first), others)
}

/// Returns what follows the quote that closes a quoted string whose inside is the front of `text`.
fn after_quotes(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        if let Some((b'"', after)) = text.split_first() {
            #[cfg(test)]
            cost::add(0);
            return Some(after);
        }
        let (found, after) = text.get(find_either(text, b'"', b'\\')?..)?.split_first()?;
        if *found == b'"' {
            return Some(after);
        }
        text = after.split_first()?.1;
    }
}

/// The trimmed parts between separators; see [`cut`]. A part that is not balanced is the last one,
/// whole.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
    hiding: Hiding,
}

/// Splits a header's value at its commas.
pub(super) fn commas(text: &[u8], hiding: Hiding) -> Parts<'_> {
    Parts { rest: Some(text), separator: b',', hiding }
}

/// Splits parameters at their semicolons.
pub(super) fn semicolons(text: &[u8], hiding: Hiding) -> Parts<'_> {
    Parts { rest: Some(text), separator: b';', hiding }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let (part, rest) = cut(text, self.separator, self.hiding).unwrap_or((text, None));
        self.rest = rest;
        Some(trim(part))
    }
}

/// Splits a quoted string, its quotes removed and its escapes left, from what follows it.
pub(super) fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let rest = after_quotes(inner)?;
    let string = inner.get(..inner.len().saturating_sub(rest.len()).saturating_sub(1))?;
    Some((string, rest))
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
    let mut sum = 0_u32;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum.saturating_mul(10).saturating_add(digit.into());
    }
    (!text.is_empty()).then_some(sum)
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
            let got: Vec<_> = commas(text.as_bytes(), Hiding::Brackets).collect();
            assert_eq!(got, want.iter().map(|part| part.as_bytes()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn the_first_value_is_found_with_others_or_without() {
        for (list, first, others) in [
            ("a;b", "a;b", None),
            (" a ", "a", None),
            ("a , b,c", "a", Some(" b,c")),
            ("\"x, y\" <sip:a,b@c>", "\"x, y\" <sip:a,b@c>", None),
            ("a \"b, c ", "a \"b, c", None),
            (",a", "", Some("a")),
            ("", "", None),
        ] {
            let want = (first.as_bytes(), others.map(str::as_bytes));
            assert_eq!(first_value(list.as_bytes()), want, "{list}");
        }
    }

    #[test]
    fn low_bytes_are_found_wherever_they_stand() {
        for len in 0..20_usize {
            let text = [b'a', 0x0e, 0x7f, 0x80, 0xff].repeat(4);
            let text = text.get(..len).unwrap();
            assert!(!has_low(text), "{len}");
            for (at, byte) in (0..len).flat_map(|at| [0, b'\t', b'\n', b'\r'].map(|b| (at, b))) {
                let mut text = text.to_vec();
                *text.get_mut(at).unwrap() = byte;
                assert!(has_low(&text), "{byte} at {at} of {len}");
            }
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
    fn bytes_are_found_in_words_and_behind_them() {
        let text = b"0123456789abcdefghijk\x81\xbf\x80z";
        for at in 0..text.len() {
            for front in 0..=at {
                let (text, at) = (&text[front..], at - front);
                let (wanted, next) = (text[at], text.get(at + 1).copied().unwrap_or(b'!'));
                assert_eq!(find_byte(text, wanted), Some(at));
                assert_eq!(find_either(text, next, wanted), Some(at));
                assert_eq!(find_either(text, b'!', wanted), Some(at));
            }
        }
        for absent in [b'!', 0, 0x7f, 0xff, b'0' + 0x80] {
            assert_eq!(find_byte(text, absent), None);
            assert_eq!(find_either(text, absent, b'!'), None);
        }
    }

    #[test]
    fn numbers_saturate() {
        assert_eq!(digits(b"0068"), Some(68));
        assert_eq!(digits(b"99999999999"), Some(u32::MAX));
        assert_eq!(digits(b"-1"), None);
        assert_eq!(digits(b""), None);
    }
}

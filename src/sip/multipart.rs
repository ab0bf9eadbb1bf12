//! Bodies of more than one part (RFC 2046 5.1), as far as finding one part needs.
//!
//! Owns: media types and boundaries.
//! Never: decodes a transfer encoding: SIP is 8-bit clean.

use super::{
    header::HeaderName,
    text::{self, Hiding},
    uri::Params,
};

/// Returns `type/subtype` of a Content-Type.
pub(super) fn media_type(content_type: &[u8]) -> &[u8] {
    text::trim(text::split_at(content_type, |byte| byte == b';').0)
}

/// Returns the body if it is of type `wanted`, or else the first such part of it.
pub(super) fn find<'b>(content_type: &[u8], body: &'b [u8], wanted: &[u8]) -> Option<&'b [u8]> {
    let is_wanted = |content_type: &[u8]| media_type(content_type).eq_ignore_ascii_case(wanted);
    if content_type == wanted || is_wanted(content_type) {
        return (!body.is_empty()).then_some(body);
    }
    if !media_type(content_type).get(..10)?.eq_ignore_ascii_case(b"multipart/") {
        return None;
    }
    let (_, params) = text::cut(content_type, b';', Hiding::Quotes).ok()?;
    let boundary = Params::new(params?).get("boundary").filter(|boundary| !boundary.is_empty())?;
    parts(body, boundary.as_bytes()).find_map(|part| {
        let (content_type, content) = split_part(part)?;
        is_wanted(content_type).then_some(content)
    })
}

/// Returns what is between the boundaries, the line end before each excluded.
fn parts<'b>(body: &'b [u8], boundary: &[u8]) -> impl Iterator<Item = &'b [u8]> {
    let mut rest = body;
    let mut start = None;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let before = rest;
            let (line, after) = text::line(rest).unwrap_or((rest, &[]));
            rest = after;
            let tail = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
            let is_boundary = tail.is_some_and(|tail| matches!(text::trim(tail), b"" | b"--"));
            if is_boundary && let Some(begun) = start.replace(after) {
                return Some(without_line_end(until(begun, before)));
            }
        }
        None
    })
}

/// Returns what of `whole` is in front of `tail`, which is its end.
fn until<'b>(whole: &'b [u8], tail: &[u8]) -> &'b [u8] {
    whole.get(..whole.len().saturating_sub(tail.len())).unwrap_or_default()
}

fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Splits a part into its Content-Type and its content.
fn split_part(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = part;
    let mut content_type = None;
    loop {
        let (line, after) = text::folded_line(rest)?;
        if line.is_empty() {
            return Some((content_type?, after));
        }
        let (name, value) = text::split_once(line, b':')?;
        if HeaderName::parse(text::trim(name)) == HeaderName::ContentType {
            content_type = Some(text::trim(value));
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_part() {
        let body = b"preamble\r\n--b 1\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b 1\r\n\
            content-type: APPLICATION/SDP;charset=x\r\nX: y\r\n\r\nv=0\r\ns=-\r\n\r\n--b 1--\r\n";
        let found = find(b"multipart/mixed; boundary=\"b 1\"", body, b"application/sdp");
        assert_eq!(found, Some(&b"v=0\r\ns=-\r\n"[..]));
        for content_type in ["multipart/mixed", "multipart/mixed;boundary=c", "text/plain", ""] {
            assert_eq!(find(content_type.as_bytes(), body, b"application/sdp"), None);
        }
    }

    #[test]
    fn a_single_body_is_its_own_part() {
        let find = |body| find(b"Application/SDP; x=y", body, b"application/sdp");
        assert_eq!(find(&b"v=0"[..]), Some(&b"v=0"[..]));
        assert_eq!(find(b""), None);
    }

    #[test]
    fn an_unfinished_part_is_none() {
        let body = b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n";
        assert_eq!(find(b"multipart/mixed;boundary=b", body, b"application/sdp"), None);
    }
}

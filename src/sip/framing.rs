//! Cutting a byte stream into messages (RFC 3261 18.3) and keep-alives (RFC 5626 3.5.1).
//!
//! Owns: the bytes of one connection until they are a message.
//! Never: judges a message beyond where it ends, keeps more than a bounded number of bytes.

use super::{head::read_header_line, header::HeaderName, parse::MESSAGE_BYTES_MAX, text};
use bytes::{Buf, Bytes, BytesMut};

/// Most bytes kept: one message that is still coming, and a read's worth behind it.
const BUFFER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What a stream is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// One message. One whose end cannot be known, or that is too large, is given up to the end
    /// of its headers so that it can be refused; [`Frame::Broken`] follows.
    Message(Bytes),
    /// A double CRLF: to be answered with one CRLF.
    Ping,
    /// A single CRLF: the answer to a ping of ours, or a stray line end.
    Pong,
    /// Where the next message begins cannot be known: close. Nothing follows.
    Broken,
}

/// How far the front of the buffer has been understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Between messages. A CRLF right after a single one makes a ping that came in two reads.
    Between { after_pong: bool },
    /// In the headers, whose end does not begin before `searched`.
    Headers { searched: usize },
    /// The message has this length; it is the last one where its end was not to be known.
    Counted { length: usize, is_last: bool },
    /// Broken, not yet reported.
    Breaking,
    /// Broken, and reported.
    Over,
}

/// The reader of one connection.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    state: State,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// Returns whether a message has begun and not ended.
    pub fn is_partial(&self) -> bool {
        match self.state {
            State::Between { .. } => !self.buffer.is_empty(),
            State::Headers { .. } | State::Counted { .. } => true,
            State::Breaking | State::Over => false,
        }
    }

    /// Creates the reader of a new connection.
    pub fn new() -> Self {
        Self { buffer: BytesMut::new(), state: State::Between { after_pong: false } }
    }

    /// Adds what was read, at most 64 KiB of it. Take every frame out before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.state {
            State::Breaking | State::Over => {}
            State::Between { .. } | State::Headers { .. } | State::Counted { .. } => {
                self.buffer.extend_from_slice(bytes);
                if self.buffer.len() > BUFFER_BYTES_MAX {
                    self.buffer.clear();
                    self.state = State::Breaking;
                }
            }
        }
    }

    /// Returns the next complete frame; `None` until more is pushed.
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end: more may be pushed")]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            match self.state {
                State::Between { after_pong } => match self.between(after_pong) {
                    Between::Frame(frame) => return Some(frame),
                    Between::Incomplete => return None,
                    Between::Enter(state) => self.state = state,
                },
                State::Headers { searched } => match find_end(&self.buffer, searched) {
                    Ok(length) if length <= MESSAGE_BYTES_MAX => {
                        self.state = measure(&self.buffer, length)
                    }
                    Err(searched) if searched <= MESSAGE_BYTES_MAX => {
                        self.state = State::Headers { searched };
                        return None;
                    }
                    Ok(_) | Err(_) => self.state = State::Breaking,
                },
                State::Counted { length, .. } if self.buffer.len() < length => return None,
                State::Counted { length, is_last } => {
                    self.state = if is_last {
                        State::Breaking
                    } else {
                        State::Between { after_pong: false }
                    };
                    return Some(Frame::Message(self.buffer.split_to(length).freeze()));
                }
                State::Breaking => {
                    self.buffer = BytesMut::new();
                    self.state = State::Over;
                    return Some(Frame::Broken);
                }
                State::Over => return None,
            }
        }
    }

    /// Takes one line end, or finds the beginning of a message.
    fn between(&mut self, after_pong: bool) -> Between {
        let (taken, frame) = match *self.buffer {
            [] | [b'\r'] => return Between::Incomplete,
            [b'\r', b'\n', ..] if after_pong => (2, Frame::Ping),
            [b'\r', b'\n', b'\r', b'\n', ..] => (4, Frame::Ping),
            [b'\r', b'\n', ..] => (2, Frame::Pong),
            [first, ..] if text::is_token_byte(first) => {
                return Between::Enter(State::Headers { searched: 0 });
            }
            [_, ..] => return Between::Enter(State::Breaking),
        };
        self.buffer.advance(taken);
        self.state = State::Between { after_pong: frame == Frame::Pong };
        Between::Frame(frame)
    }
}

/// What is in front of the next message.
enum Between {
    Frame(Frame),
    Incomplete,
    Enter(State),
}

/// Finds the empty line after the headers and returns the index after it, or else the index from
/// which to search when there is more.
fn find_end(buffer: &[u8], mut searched: usize) -> Result<usize, usize> {
    loop {
        let rest = buffer.get(searched..).unwrap_or_default();
        let Some(at) = text::find_byte(rest, b'\n') else { return Err(buffer.len()) };
        searched = searched.saturating_add(at);
        let after = searched.saturating_add(1);
        match buffer.get(after..).unwrap_or_default() {
            [b'\n', ..] => return Ok(after.saturating_add(1)),
            [b'\r', b'\n', ..] => return Ok(after.saturating_add(2)),
            [] | [b'\r'] => return Err(searched),
            [_, ..] => searched = after,
        }
    }
}

/// Says how long the message is whose headers end at `end`. Without Content-Length it has no body.
/// What names no SIP version is another protocol: it is given up, and nothing behind it is read.
fn measure(buffer: &[u8], end: usize) -> State {
    let headers = buffer.get(..end).unwrap_or_default();
    if !names_sip(headers) {
        return State::Counted { length: end, is_last: true };
    }
    let length = match content_length(headers) {
        Ok(body) => end.saturating_add(body as usize),
        Err(Unclear) => usize::MAX,
    };
    if length <= MESSAGE_BYTES_MAX {
        State::Counted { length, is_last: false }
    } else {
        State::Counted { length: end, is_last: true }
    }
}

fn names_sip(headers: &[u8]) -> bool {
    let start = text::line(headers).map_or(&[][..], |(line, _)| line);
    start.windows(4).any(|word| word.eq_ignore_ascii_case(b"SIP/"))
}

/// Not a number, or two different ones.
struct Unclear;

fn content_length(headers: &[u8]) -> Result<u32, Unclear> {
    let mut length = None;
    let mut rest = text::line(headers).map_or(&[][..], |(_, rest)| rest);
    while let Some((line, after)) = text::folded_line(rest) {
        let at = headers.len().saturating_sub(rest.len());
        rest = after;
        let line = read_header_line(at, line);
        if let Some(line) = line.filter(|line| line.id == HeaderName::ContentLength) {
            let this = text::digits(line.value().get(headers)).ok_or(Unclear)?;
            if length.replace(this).is_some_and(|earlier| earlier != this) {
                return Err(Unclear);
            }
        }
    }
    Ok(length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::text::cost;

    const A: &str = "OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
    const B: &str = "SIP/2.0 200 OK\r\nl :\r\n 0\r\n\r\n";

    /// The same frames, however the bytes are divided.
    #[test]
    fn frames() {
        let endless = format!("INVITE sip:a SIP/2.0\r\nX: {}", "x".repeat(MESSAGE_BYTES_MAX));
        for (stream, want) in [
            (String::new(), vec![]),
            (format!("{A}{B}{A}"), vec![A, B, A]),
            (format!("{A}\r\n\r\n{B}"), vec![A, "ping", B]),
            (format!("\r\n{A}"), vec!["pong", A]),
            ("\r\n\r\n\r\n\r\n".to_owned(), vec!["ping", "ping"]),
            ("A SIP/2\n\nsip/3 B\r\n\r\n".to_owned(), vec!["A SIP/2\n\n", "sip/3 B\r\n\r\n"]),
            (format!("GET / HTTP/1.1\r\nHost: sip\r\n\r\n{A}"), vec!["*", "broken"]),
            (A.replace('3', "x"), vec!["*", "broken"]),
            (A.replace('3', "99999999"), vec!["*", "broken"]),
            (A.replace(": 3", ": 3\r\nl: 4"), vec!["*", "broken"]),
            (A.replace(": 3", ": 3\r\nl: 3"), vec!["*"]),
            ("\u{16}\u{3}\u{1}".to_owned(), vec!["broken"]),
            ("\rx".to_owned(), vec!["broken"]),
            (endless, vec!["broken"]),
        ] {
            for step in [1, 2, 3, 7, 20_000] {
                let got = read(stream.as_bytes(), step);
                assert_eq!(got.len(), want.len(), "{stream:.200?} by {step}: {got:.200?}");
                for (got, want) in got.iter().zip(&want) {
                    assert!(got == want || *want == "*", "{stream:.200?} by {step}: {got:.200?}");
                }
            }
        }
    }

    /// A large header that comes byte by byte is looked at once, not once per byte.
    #[test]
    fn searching_is_linear() {
        let stream = format!("INVITE sip:a SIP/2.0\r\n{}", "X: y\r\n".repeat(10_000));
        let cost = cost::of(|| assert!(read(stream.as_bytes(), 1).is_empty()));
        assert!(cost > stream.len() && cost < stream.len() * 4, "{cost}");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut framer = Framer::new();
        let head = format!("MESSAGE sip:a SIP/2.0\r\nContent-Length: {}\r\n\r\n", 60_000);
        framer.push(head.as_bytes());
        assert_eq!(framer.next(), None);
        framer.push(&[b'x'; BUFFER_BYTES_MAX]);
        assert_eq!(framer.next(), Some(Frame::Broken));
        framer.push(b"OPTIONS");
        assert_eq!(framer.next(), None);
        assert_eq!(framer.buffer.capacity(), 0);
    }

    fn read(stream: &[u8], step: usize) -> Vec<String> {
        let mut framer = Framer::new();
        let mut got = vec![];
        for bytes in stream.chunks(step) {
            framer.push(bytes);
            while let Some(frame) = framer.next() {
                got.push(match frame {
                    Frame::Message(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                    Frame::Ping => "ping".to_owned(),
                    Frame::Pong => "pong".to_owned(),
                    Frame::Broken => "broken".to_owned(),
                });
            }
        }
        // A ping that came in two reads was a pong first.
        while let Some(at) = got.windows(2).position(|two| two == ["pong", "ping"]) {
            got.remove(at);
        }
        got
    }
}

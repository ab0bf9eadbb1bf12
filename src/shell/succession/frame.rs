//! What two processes of an upgrade say to each other, and how it is written.
//!
//! Owns: the format: two lengths of four bytes, a word in JSON, and bytes that belong to it.
//! Never: trusts a length.

use crate::{
    ids::{Digest, Flow, Transport},
    shard::Note,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest word and longest bytes: those of a node with very many connections and requests.
const WORD_MAX: usize = 4 << 20;
const BYTES_MAX: usize = 16 << 20;
/// The two lengths.
const LENGTHS: usize = 8;
/// Bytes of a digest.
const DIGEST: usize = 16;
/// Changes when a process could misunderstand one of another version.
pub(super) const FORMAT: u32 = 3;

/// A flow as it is written.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct FlowText(String, SocketAddr, SocketAddr);

impl From<Flow> for FlowText {
    fn from(flow: Flow) -> Self {
        Self(flow.transport.param().to_owned(), flow.local, flow.remote)
    }
}

impl FlowText {
    pub(super) fn flow(&self) -> io::Result<Flow> {
        let transport = Transport::parse(&self.0).ok_or_else(|| garbled("no such transport"))?;
        Ok(Flow { transport, local: self.1, remote: self.2 })
    }
}

/// The key of all identifiers, which is not printed.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub(super) struct Key(pub(super) [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What is handed over before the heir starts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Estate {
    /// [`FORMAT`] of whoever writes.
    pub(super) format: u32,
    pub(super) key: Key,
    /// The shard of whoever leaves.
    pub(super) shard: u8,
    /// What the descriptors are, in their order; HTTP's follows where `has_http`.
    pub(super) listeners: Vec<(String, SocketAddr)>,
    /// Whether there is one for HTTP.
    pub(super) has_http: bool,
    /// Where operators may ask about the calls that stay.
    pub(super) aside: PathBuf,
}

/// One word.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum Word {
    /// What there is to have.
    Estate(Estate),
    /// The heir could start.
    Ready,
    /// It may: these connections are open; the bytes are the digests of the requests received.
    Go {
        /// By whom we can be reached on them.
        connections: Vec<FlowText>,
        /// How many [`Word::Note`]s follow, which tell what was counted until then.
        notes: usize,
    },
    /// The heir serves; there is no way back.
    Serving,
    /// A message that is for the other process: the bytes.
    Message(FlowText),
    /// Bytes for a connection that the leaving process has.
    Write(FlowText),
    /// Such a connection has ended.
    Closed(FlowText),
    /// Something was counted.
    Note(Note),
    /// The heir has an heir of its own, which reads what comes to the sockets.
    HandedOn,
}

/// A word and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(super) word: Word,
    pub(super) bytes: Bytes,
}

impl From<Word> for Frame {
    fn from(word: Word) -> Self {
        Self { word, bytes: Bytes::new() }
    }
}

impl Frame {
    /// A message for the other process.
    pub(super) fn message(flow: Flow, bytes: Bytes) -> Self {
        Self { word: Word::Message(flow.into()), bytes }
    }

    /// Bytes for a connection.
    pub(super) fn write(flow: Flow, bytes: Bytes) -> Self {
        Self { word: Word::Write(flow.into()), bytes }
    }

    /// The word to begin, with all that is known only then.
    pub(super) fn go(connections: &[Flow], received: &[Digest], notes: usize) -> Self {
        let connections = connections.iter().map(|flow| FlowText::from(*flow)).collect();
        let bytes = received.iter().flat_map(|digest| digest.to_bits().to_le_bytes()).collect();
        Self { word: Word::Go { connections, notes }, bytes }
    }

    /// Returns the digests that came with [`Word::Go`].
    pub(super) fn digests(&self) -> Vec<Digest> {
        let (chunks, _) = self.bytes.as_chunks::<DIGEST>();
        chunks.iter().map(|bits| Digest::from_bits(u128::from_le_bytes(*bits))).collect()
    }

    /// Returns it as it is written.
    ///
    /// # Errors
    /// If it is longer than the other end would take.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let word = serde_json::to_vec(&self.word)?;
        if word.len() > WORD_MAX || self.bytes.len() > BYTES_MAX {
            return Err(garbled("too long"));
        }
        let mut text = Vec::with_capacity(LENGTHS + word.len() + self.bytes.len());
        for length in [word.len(), self.bytes.len()] {
            text.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        }
        text.extend_from_slice(&word);
        text.extend_from_slice(&self.bytes);
        Ok(text)
    }

    /// Writes it to a stream that blocks.
    pub(super) fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.encode()?)
    }

    /// Reads one from a stream that blocks.
    pub(super) fn read_from(mut from: impl Read) -> io::Result<Self> {
        let mut lengths = [0; LENGTHS];
        from.read_exact(&mut lengths)?;
        let (word, bytes) = decode_lengths(lengths)?;
        let (mut word, mut bytes) = (vec![0; word], vec![0; bytes]);
        from.read_exact(&mut word)?;
        from.read_exact(&mut bytes)?;
        Ok(Self { word: serde_json::from_slice(&word)?, bytes: bytes.into() })
    }

    /// Reads one; `None` at the end.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut lengths = [0; LENGTHS];
        match from.read_exact(&mut lengths).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (word, bytes) = decode_lengths(lengths)?;
        let (mut word, mut bytes) = (vec![0; word], vec![0; bytes]);
        from.read_exact(&mut word).await?;
        from.read_exact(&mut bytes).await?;
        Ok(Some(Self { word: serde_json::from_slice(&word)?, bytes: bytes.into() }))
    }
}

fn decode_lengths(lengths: [u8; LENGTHS]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = lengths;
    let length = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let (word, bytes) = (length([a, b, c, d]), length([e, f, g, h]));
    if word > WORD_MAX || bytes > BYTES_MAX {
        return Err(garbled("too long"));
    }
    Ok((word, bytes))
}

pub(super) fn garbled(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the other process says something else: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialplan::Country,
        guard::{self, Account},
        ids::{LegId, ShardId},
        shard::Change,
    };

    fn frames() -> Vec<Frame> {
        let flow = |transport| Flow {
            transport,
            local: "10.0.0.1:5060".parse().unwrap(),
            remote: "[2001:db8::1]:40000".parse().unwrap(),
        };
        let estate = Estate {
            format: FORMAT,
            key: Key([7; 16]),
            shard: 255,
            listeners: vec![("udp".into(), "127.0.0.1:5060".parse().unwrap())],
            has_http: true,
            aside: "/run/tandem/a".into(),
        };
        let received = [Digest::from_bits(1), Digest::from_bits(u128::MAX)];
        vec![
            Word::Estate(estate).into(),
            Word::Ready.into(),
            Frame::go(&[flow(Transport::Tcp), flow(Transport::Tls)], &received, 3),
            Word::Serving.into(),
            Frame::message(flow(Transport::Udp), Bytes::from_static(b"BYE")),
            Frame::write(flow(Transport::Tcp), Bytes::from_static(b"SIP/2.0 200 OK")),
            Word::Closed(flow(Transport::Tls).into()).into(),
            Word::Note(charged()).into(),
            Word::HandedOn.into(),
        ]
    }

    fn charged() -> Note {
        let accounts = vec![Account::User("1001".into()), Account::Trunk("carrier".into())];
        let leg = LegId::new(ShardId(255), u64::MAX);
        let charged = guard::Note::Charged { leg, accounts, country: Some(Country::US) };
        Note { ago_ms: 7, change: Change::Guard(charged) }
    }

    #[tokio::test]
    async fn frames_read_back_in_either_way() {
        let text: Vec<u8> = frames().iter().flat_map(|frame| frame.encode().unwrap()).collect();
        let (mut blocking, mut waiting) = (&text[..], &text[..]);
        for frame in frames() {
            assert_eq!(Frame::read_from(&mut blocking).unwrap(), frame);
            assert_eq!(Frame::read(&mut waiting).await.unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut waiting).await.unwrap(), None);
        assert!(Frame::read_from(&mut blocking).is_err());
        let digests = frames()[2].digests();
        assert_eq!(digests, [Digest::from_bits(1), Digest::from_bits(u128::MAX)]);
    }

    #[test]
    fn a_length_is_not_trusted() {
        let text = [0xff; 64];
        assert_eq!(Frame::read_from(&text[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

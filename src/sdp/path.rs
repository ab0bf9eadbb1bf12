//! What becomes of each payload type on its way from one leg to the other.
//!
//! Owns: the table that the media relay looks up for every packet.
//! Never: sees a packet.

use super::{Agreed, Codec, Format};

/// What to do with a packet's payload.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Convert {
    /// Nothing.
    Keep,
    /// G.711 mu-law to A-law, sample by sample (ITU-T G.711 table 3).
    UlawToAlaw,
    /// G.711 A-law to mu-law (ITU-T G.711 table 4).
    AlawToUlaw,
}

/// One direction between two legs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    /// By the payload type that arrives: the one to send, and what to do with the payload. `None`: the
    /// other leg has no use for it, and it is discarded.
    pub payload_types: [Option<(u8, Convert)>; 128],
}

impl Default for Path {
    /// Returns the path on which nothing passes.
    fn default() -> Self {
        Self { payload_types: [None; 128] }
    }
}

impl Path {
    /// Looks up the payload type of an arriving packet.
    pub fn get(&self, payload_type: u8) -> Option<(u8, Convert)> {
        self.payload_types.get(usize::from(payload_type)).copied().flatten()
    }

    /// Returns whether no payload has to be converted.
    pub fn is_relay(&self) -> bool {
        self.payload_types.iter().flatten().all(|(_, convert)| *convert == Convert::Keep)
    }
}

/// Returns what to do with packets that arrive from `from` and go to `to`.
///
/// Telephone events keep their clock rate: those of a rate that `to` did not agree on are discarded.
pub fn path(from: &Agreed, to: &Agreed) -> Path {
    let mut path = Path::default();
    for format in &from.accepts {
        if let Some(entry) = path.payload_types.get_mut(usize::from(format.payload_type)) {
            *entry = way(format, to);
        }
    }
    path
}

fn way(format: &Format, to: &Agreed) -> Option<(u8, Convert)> {
    if let Some(same) = to.sends(format) {
        return Some((same.payload_type, Convert::Keep));
    }
    let (convert, sibling) = match format.codec {
        Codec::Pcmu => (Convert::UlawToAlaw, Format::pcma()),
        Codec::Pcma => (Convert::AlawToUlaw, Format::pcmu()),
        Codec::TelephoneEvent | Codec::Other(_) => return None,
    };
    to.sends(&sibling).map(|found| (found.payload_type, convert))
}

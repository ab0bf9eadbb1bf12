//! Both directions of one leg: plain, or under its keys.
//!
//! Owns: when a context goes on, and when it begins anew.
//! Never: lets a plain packet in or out where there are keys.

use super::{
    context::{Receiver, Sender, Shut},
    suite::Keys,
};

/// A leg's SRTP, if it has any. Contexts are large, and most legs have none.
#[derive(Debug, Default)]
pub struct Link {
    keys: Option<Box<Keys>>,
    sender: Option<Box<Sender>>,
    receiver: Option<Box<Receiver>>,
}

impl Link {
    /// Goes on with these keys, or none. A direction whose key stays goes on as it was. Returns whether
    /// our packets had better be of a new source from now on: peers disagree whether a new key takes a
    /// rollover counter over (RFC 3711 3.3.1, 8.1).
    pub fn aim(&mut self, keys: Option<Box<Keys>>) -> bool {
        let before = self.keys.take();
        let mut wants_source = false;
        if before.as_ref().map(|keys| &keys.send) != keys.as_ref().map(|keys| &keys.send) {
            wants_source = self.sender.as_ref().is_some_and(|sender| sender.has_rolled_over());
            self.sender = keys.as_ref().and_then(|keys| Sender::new(&keys.send)).map(Box::new);
        }
        if before.as_ref().map(|keys| &keys.receive) != keys.as_ref().map(|keys| &keys.receive) {
            self.receiver = match (self.receiver.take(), &keys) {
                (Some(receiver), Some(keys)) => receiver.rekeyed(&keys.receive),
                (None, Some(keys)) => Receiver::new(&keys.receive),
                (_, None) => None,
            }
            .map(Box::new);
        }
        self.keys = keys;
        wants_source
    }

    /// Returns whether there are keys.
    pub fn is_secure(&self) -> bool {
        self.keys.is_some()
    }

    /// Opens an RTP packet; returns how long it is then.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Shut> {
        match (&self.keys, &mut self.receiver) {
            (None, _) => Ok(packet.len()),
            (Some(_), Some(receiver)) => receiver.unprotect_rtp(packet),
            (Some(_), None) => Err(Shut::Exhausted),
        }
    }

    /// Opens an RTCP packet; returns how long it is then.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Shut> {
        match (&self.keys, &mut self.receiver) {
            (None, _) => Ok(packet.len()),
            (Some(_), Some(receiver)) => receiver.unprotect_rtcp(packet),
            (Some(_), None) => Err(Shut::Exhausted),
        }
    }

    /// Seals the RTP packet in `buffer[..len]`; returns how long it is then.
    pub fn seal_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Shut> {
        match (&self.keys, &mut self.sender) {
            (None, _) => Ok(len),
            (Some(_), Some(sender)) => sender.protect_rtp(buffer, len),
            (Some(_), None) => Err(Shut::Exhausted),
        }
    }

    /// Seals the RTCP packet in `buffer[..len]`; returns how long it is then.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Shut> {
        match (&self.keys, &mut self.sender) {
            (None, _) => Ok(len),
            (Some(_), Some(sender)) => sender.protect_rtcp(buffer, len),
            (Some(_), None) => Err(Shut::Exhausted),
        }
    }
}

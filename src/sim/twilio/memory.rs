//! What the trunk remembers of whoever speaks to it: challenges, INVITEs, OPTIONS, the pace.
//!
//! Owns: bounded lists.
//! Never: answers.

use super::setup::Edge;
use crate::{
    ids::Flow,
    sip::{Message, Uri},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Entries of a list.
const ENTRIES_MAX: usize = 4000;
/// OPTIONS may come this often.
const OPTIONS_EVERY: Duration = Duration::from_secs(10);
/// Whoever asks more often gets no answer for this long.
const BANNED_FOR: Duration = Duration::from_secs(60);
/// An INVITE that is still repeated at a dead address after this has been tried nowhere else in time:
/// 4 s, and the repetition of an attempt that was given up but not withdrawn.
const FAILOVER_LATE: Duration = Duration::from_secs(7);

/// An INVITE outside dialogs.
#[derive(Debug)]
struct Seen {
    at: Instant,
    flow: Flow,
    call_id: Box<str>,
    branch: Box<str>,
    cseq: u32,
    number: Box<str>,
}

/// How an OPTIONS is taken.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Pace {
    /// As it should be.
    Fine,
    /// Too soon after the last one.
    TooSoon(Duration),
    /// The source is banned for having come too soon.
    Banned,
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Nonces and their `opaque`.
    nonces: VecDeque<(String, String)>,
    invites: VecDeque<Seen>,
    /// When somebody last asked, and until when it is banned.
    options: BTreeMap<IpAddr, (Instant, Option<Instant>)>,
    /// Calls that were let in during the last second: from, to.
    calls: VecDeque<(Instant, IpAddr, SocketAddr)>,
}

impl Memory {
    /// Notes a challenge.
    pub(super) fn challenge(&mut self, nonce: String, opaque: String) {
        self.nonces.push_back((nonce, opaque));
        if self.nonces.len() > ENTRIES_MAX {
            self.nonces.pop_front();
        }
    }

    /// Returns the `opaque` of a nonce of ours.
    pub(super) fn opaque(&self, nonce: &str) -> Option<&str> {
        let known = self.nonces.iter().find(|(known, _)| *known == *nonce);
        known.map(|(_, opaque)| &**opaque)
    }

    /// Notes an INVITE outside dialogs; returns whether it has the CSeq number of another one.
    pub(super) fn invite_comes(&mut self, invite: &Message, flow: Flow, now: Instant) -> bool {
        let (call_id, branch, cseq) = (invite.call_id(), invite.branch(), invite.cseq().number);
        let mut before = self.invites.iter().filter(|seen| *seen.call_id == *call_id);
        if before.clone().any(|seen| *seen.branch == *branch && seen.flow == flow) {
            return false;
        }
        let is_repeated = before.any(|seen| seen.cseq >= cseq && *seen.branch != *branch);
        self.invites.push_back(Seen {
            at: now,
            flow,
            call_id: call_id.into(),
            branch: branch.into(),
            cseq,
            number: called(invite).into(),
        });
        if self.invites.len() > ENTRIES_MAX {
            self.invites.pop_front();
        }
        is_repeated
    }

    /// Returns whether there was an INVITE of this CANCEL's.
    pub(super) fn knows_invite_of(&self, cancel: &Message) -> bool {
        let (call_id, branch) = (cancel.call_id(), cancel.branch());
        self.invites.iter().any(|seen| *seen.call_id == *call_id && *seen.branch == *branch)
    }

    /// Returns how long an INVITE to a dead address has been repeated there, if it was tried nowhere
    /// else in time.
    pub(super) fn pinned_for(
        &self,
        invite: &Message,
        flow: Flow,
        now: Instant,
    ) -> Option<Duration> {
        let is_it = |seen: &&Seen| *seen.branch == *invite.branch() && seen.flow == flow;
        let first = self.invites.iter().find(is_it)?;
        let is_elsewhere = |seen: &Seen| {
            seen.flow.local != flow.local
                && seen.flow.remote.ip() == flow.remote.ip()
                && seen.number == first.number
                && seen.at >= first.at
        };
        let since = now - first.at;
        (since >= FAILOVER_LATE && !self.invites.iter().any(is_elsewhere)).then_some(since)
    }

    /// Notes an OPTIONS.
    pub(super) fn options_come(&mut self, source: IpAddr, now: Instant) -> Pace {
        let (last, banned) = match self.options.get(&source) {
            Some((last, banned)) => (Some(*last), banned.filter(|until| now < *until)),
            None => (None, None),
        };
        let too_soon = last.filter(|last| now < *last + OPTIONS_EVERY).map(|last| now - last);
        let until = if too_soon.is_some() { Some(now + BANNED_FOR) } else { banned };
        self.options.insert(source, (now, until));
        match (too_soon, banned) {
            (Some(after), _) => Pace::TooSoon(after),
            (None, Some(_)) => Pace::Banned,
            (None, None) => Pace::Fine,
        }
    }

    /// Notes a call; returns how many there were in a second at this edge, and from this address to
    /// this one.
    pub(super) fn call_comes(
        &mut self,
        edge: Option<&Edge>,
        flow: Flow,
        now: Instant,
    ) -> [usize; 2] {
        self.calls.retain(|(at, ..)| now < *at + Duration::from_secs(1));
        self.calls.push_back((now, flow.remote.ip(), flow.local));
        let is_here = |address: SocketAddr| {
            address == flow.local
                || edge.is_some_and(|edge| edge.proxies.iter().any(|proxy| proxy.is_at(address)))
        };
        let at_edge = self.calls.iter().filter(|(.., local)| is_here(*local)).count();
        let is_same = |(_, from, to): &&(Instant, IpAddr, SocketAddr)| {
            *from == flow.remote.ip() && *to == flow.local
        };
        [at_edge, self.calls.iter().filter(is_same).count()]
    }
}

/// Returns the number in a Request-URI.
pub(super) fn called(message: &Message) -> &str {
    Uri::parse(message.uri()).and_then(|uri| uri.user).unwrap_or_default()
}

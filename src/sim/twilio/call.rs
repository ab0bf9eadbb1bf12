//! One call through the trunk: where it stands, what it waits for.
//!
//! Owns: the call's fields.
//! Never: sends; `termination`, `inside`, `transfer` and `origination` do.

use super::{
    super::{agent::Asked, sound::Sound, talk::Talk},
    Rule,
    numbers::FarEnd,
    origination::Inbound,
};
use crate::transaction::ClientId;
use std::{collections::BTreeSet, time::Instant};

/// A call through the trunk.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CallNumber(pub u64);

/// Where a call stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// To the PSTN: no final answer yet.
    Trying,
    /// To the PSTN: 200 sent, no ACK yet.
    Answered,
    /// From the PSTN: no final answer yet.
    Calling,
    /// From the PSTN: CANCEL sent.
    Cancelling,
    /// Both sides know.
    Up,
    /// BYE sent.
    Leaving,
    /// Nothing is left.
    Over,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// To ring.
    Ring,
    /// To ring on, with media from another place.
    RingElsewhere,
    /// To answer.
    Answer,
    /// To refuse.
    Refuse,
    /// To hang up.
    HangUp,
    /// To hold.
    Hold,
    /// To take back.
    Resume,
    /// To have rung, or waited, long enough.
    GiveUp,
    /// To try the next origination URI.
    NextUri,
    /// To tell how a transfer went.
    Transferred,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) number: CallNumber,
    pub(super) talk: Talk,
    pub(super) stage: Stage,
    pub(super) far_end: FarEnd,
    /// Who is called on the PSTN, or calls from it.
    pub(super) party: Box<str>,
    pub(super) invite: Option<Asked>,
    pub(super) invite_tx: Option<ClientId>,
    pub(super) bye_tx: Option<ClientId>,
    pub(super) sound: Option<Sound>,
    /// The stream that the far end speaks, from 1; 0: none yet.
    pub(super) stream: u32,
    pub(super) is_sounding: bool,
    pub(super) answer_in_ack: bool,
    /// Whether its connection is not the one on which it began.
    pub(super) is_redialled: bool,
    /// What a call from the PSTN has beyond this.
    pub(super) inbound: Option<Box<Inbound>>,
    /// What has been said of its media, once each.
    pub(super) complained: BTreeSet<Rule>,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) at: Instant,
    pub(super) call: CallNumber,
    pub(super) step: Step,
}

//! The words of a phone's script.
//!
//! Owns: what a phone can do, hear and be told to be.
//! Never: does any of it.

/// Something that a phone does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    /// Sends REGISTER; from then on refreshes it in time, unless it forgets to ([`Habit::Forgets`]).
    Register,
    /// Sends REGISTER with Expires 0.
    Unregister,
    /// Sends REGISTER with Contact `*`.
    UnregisterAll,
    /// Calls a number.
    Call(Box<str>),
    /// Sends 180.
    Ring,
    /// Sends 199 (RFC 6228), as if a fork behind it had ended.
    EndFork,
    /// Sends 183 with early media.
    Progress,
    /// Sends 200.
    Answer,
    /// Sends 200 once more with another tag, as if another fork had picked up; also when all is over.
    AnswerAgain,
    /// Refuses the call.
    Reject(u16),
    /// Sends 302 with this URI.
    Redirect(Box<str>),
    /// Sends CANCEL, if it is calling and has no answer yet.
    Cancel,
    /// Sends BYE, if the call is up.
    HangUp,
    /// Puts the other side on hold by re-INVITE.
    Hold,
    /// Takes it back.
    Resume,
    /// Sends a re-INVITE without an offer.
    Reinvite,
    /// Refreshes the session by UPDATE without a body.
    Refresh,
    /// Puts the other side on hold by UPDATE.
    HoldByUpdate,
    /// Presses a key and sends it by INFO.
    Press(char),
}

/// What a reaction waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum On {
    /// [`Heard::Registered`].
    Registered,
    /// [`Heard::Called`].
    Called,
    /// [`Heard::Ringing`] or [`Heard::EarlyMedia`], each time.
    Ringing,
    /// [`Heard::Up`].
    Up,
    /// [`Heard::Changed`]: the other side accepted what we offered.
    Changed,
    /// [`Heard::Offered`]: the other side has changed its media.
    Offered,
}

/// Something that a phone has heard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// A 200 to its REGISTER, for so many seconds.
    Registered(u32),
    /// A 200 to its REGISTER that left it without a binding.
    Unregistered,
    /// Any other final answer to its REGISTER; 408 also for none.
    RegistrationRefused(u16),
    /// An INVITE.
    Called {
        /// The user part of its From.
        from: Box<str>,
        /// The display name in its From.
        name: Option<Box<str>>,
    },
    /// 18x without a session description.
    Ringing(u16),
    /// 18x with one.
    EarlyMedia(u16),
    /// The call is up: 200 (and its ACK, where we answered).
    Up,
    /// A final refusal of its INVITE; 408 also for silence.
    Refused(u16, Box<str>),
    /// CANCEL, with its Reason.
    Cancelled(Option<Box<str>>),
    /// BYE, with its Reason.
    HungUp(Option<Box<str>>),
    /// Its own BYE was answered with this status; 408 also for silence.
    Gone(u16),
    /// A re-INVITE or UPDATE with an offer; our direction is now this.
    Offered(&'static str),
    /// Our own offer was accepted; our direction is now this.
    Changed(&'static str),
    /// Our own offer was refused.
    OfferRefused(u16),
    /// UPDATE without a body came, or ours was answered.
    Refreshed,
    /// Our 200 or reliable 18x was never acknowledged.
    Unheard,
    /// The key that we sent by INFO was taken.
    Pressed,
}

impl Heard {
    /// Returns whether a reaction waits for this.
    pub(super) fn is(&self, on: On) -> bool {
        let meant = match self {
            Self::Registered(_) => On::Registered,
            Self::Called { .. } => On::Called,
            Self::Ringing(_) | Self::EarlyMedia(_) => On::Ringing,
            Self::Up => On::Up,
            Self::Changed(_) => On::Changed,
            Self::Offered(_) => On::Offered,
            Self::Unregistered
            | Self::RegistrationRefused(_)
            | Self::Refused(..)
            | Self::Cancelled(_)
            | Self::HungUp(_)
            | Self::Gone(_)
            | Self::OfferRefused(_)
            | Self::Refreshed
            | Self::Unheard
            | Self::Pressed => return false,
        };
        meant == on
    }
}

/// What is special about a phone.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Habit {
    /// Sends INVITE without an offer.
    OffersLate,
    /// Requires 100rel when it calls (RFC 3262).
    RequiresReliable,
    /// Sends 18x reliably where the caller supports it.
    RingsReliably,
    /// Does not know UPDATE (RFC 3311).
    LacksUpdate,
    /// Never acknowledges a 200.
    NeverAcks,
    /// Answers with two 200s of different tags, as if a proxy had forked.
    AnswersTwice,
    /// Answers although it was cancelled.
    IgnoresCancel,
    /// Does not refresh its registration or its sessions.
    Forgets,
    /// Hears nothing at all.
    IsDeaf,
    /// Does not remember the last challenge, so that each request is challenged.
    ForgetsNonces,
    /// Refuses the first re-INVITE or UPDATE of each call.
    RefusesChange {
        /// With this.
        status: u16,
        /// And with this Retry-After.
        retry_after_s: Option<u32>,
    },
    /// Claims to be somebody else in From.
    ClaimsToBe(Box<str>),
}

//! Numbers with a will of their own: who calls one of them gets what the table says.
//!
//! Owns: the table.
//! Never: affects any other number: those ring with early media, and answer.
//!
//! | number | what happens |
//! |---|---|
//! | +15005550486 | rings, then 486 Busy Here |
//! | +15005550480 | rings, then 480 |
//! | +15005550603 | 603 at once: the account is suspended |
//! | +15005551603 | rings, then 603: a person declines |
//! | +15005550408 | rings for ever |
//! | +15005550000 | no answer at all, not even 100 |
//! | +15005550400 | 400: the account is on trial and the number unverified |
//! | +15005551400 | 400: not a number |
//! | +15005550403 | 403 before any challenge: source address |
//! | +15005551403 | 403 after the digest: credentials |
//! | +15005552403 | 403: caller ID |
//! | +15005553403 | 403: country not enabled |
//! | +15005554403 | 403: blocked as fraud |
//! | +15005555403 | 403: the address is blocked |
//! | +15005556403 | 403: caller ID, in the words for a malformed one |
//! | +15005550404 | 404 |
//! | +15005550415 | 415: no G.711 |
//! | +15005550422 | 422: session timer |
//! | +15005550483 | 483: Max-Forwards |
//! | +15005550488 | 488: RTP on a secure trunk |
//! | +15005551488 | 488: SRTP on a plain trunk |
//! | +15005552488 | 488: UDP or TCP on a secure trunk |
//! | +15005550500 | 500 |
//! | +15005550503 | 503 Trunk CPS limit exceeded |
//! | +15005551503 | 503 Trunk concurrent call limit exceeded |
//! | +15005552503 | 503 Trunk CPS limit exceeded, of all trunks together |
//! | +15005550180 | rings with 180, without early media, then answers |
//! | +15005550183 | early media from one address, then from another, then answers |
//! | +15005550200 | answers without ringing |
//! | +15005550002 | answers and hangs up after 3 s |
//! | +15005550003 | answers with a `;twnat=` in the 200's Contact |
//! | +15005550004 | answers, and puts the call on hold for 2 s after 1 s |
//! | +15005550014 | answers and sends no audio |
//! | +15005550030 | answers, finds no ACK and drops the call after 30 s |
//! | +15005550218 | answers; a REFER is refused: transfers are not enabled |
//! | +15005550219 | answers; a REFER is refused: not to there |

use std::time::Duration;

/// What the far end of a call does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FarEnd {
    /// Rings, and answers.
    Answers {
        /// How it rings.
        ring: Ring,
        /// What it does once it talks.
        then: Then,
    },
    /// Rings and does nothing more.
    RingsForever,
    /// Refuses.
    Refuses {
        /// When.
        at: At,
        /// 400..=699
        status: u16,
        /// `""`: the usual phrase.
        reason: &'static str,
        /// Of Twilio's catalogue.
        error: Option<u32>,
    },
    /// Is silent.
    Silent,
}

/// How a far end rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ring {
    /// 183 with a session description.
    EarlyMedia,
    /// The same, then again from another address.
    MovingMedia,
    /// 180 without.
    Plain,
    /// Not at all.
    Not,
}

/// What a far end does once it talks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    /// Nothing.
    Stays,
    /// Hangs up after a while.
    HangsUp(Duration),
    /// Nothing; but its 200 has another Contact, with `;twnat=`.
    Moves,
    /// Holds the call for a while.
    Holds,
    /// Nothing, and says nothing.
    IsMute,
    /// It never sees an ACK, and drops the call.
    LosesAck,
    /// Nothing, and cannot be transferred.
    RefusesTransfer {
        /// Of Twilio's catalogue.
        error: u32,
    },
}

/// When a refusal comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// Before the challenge.
    First,
    /// After the digest.
    Once,
    /// After ringing.
    Later,
}

/// What every other number does.
pub const ORDINARY: FarEnd = FarEnd::Answers { ring: Ring::EarlyMedia, then: Then::Stays };

/// Returns what a number does.
pub fn far_end(number: &str) -> FarEnd {
    let known = NUMBERS.iter().find(|(known, _)| *known == number);
    known.map_or(ORDINARY, |(_, far_end)| *far_end)
}

const fn refuses(at: At, status: u16, error: Option<u32>) -> FarEnd {
    FarEnd::Refuses { at, status, reason: "", error }
}

const fn says(status: u16, reason: &'static str, error: Option<u32>) -> FarEnd {
    FarEnd::Refuses { at: At::Once, status, reason, error }
}

const fn answers(ring: Ring, then: Then) -> FarEnd {
    FarEnd::Answers { ring, then }
}

/// See the table above.
pub const NUMBERS: &[(&str, FarEnd)] = &[
    ("+15005550486", refuses(At::Later, 486, None)),
    ("+15005550480", refuses(At::Later, 480, None)),
    ("+15005550603", refuses(At::Once, 603, Some(32005))),
    ("+15005551603", refuses(At::Later, 603, None)),
    ("+15005550408", FarEnd::RingsForever),
    ("+15005550000", FarEnd::Silent),
    ("+15005550400", says(400, "Unverified number", Some(32100))),
    ("+15005551400", says(400, "Invalid phone number", Some(32101))),
    ("+15005550403", refuses(At::First, 403, Some(32201))),
    ("+15005551403", refuses(At::Once, 403, Some(32202))),
    ("+15005552403", says(403, "Caller ID not owned or verified", Some(32204))),
    ("+15005553403", says(403, "International calling not enabled", Some(32205))),
    ("+15005554403", says(403, "Blocked", Some(32203))),
    ("+15005555403", says(403, "Blocked", Some(32216))),
    ("+15005556403", says(403, "Invalid caller ID", Some(32206))),
    ("+15005550404", refuses(At::Once, 404, None)),
    ("+15005550415", refuses(At::Once, 415, Some(32102))),
    ("+15005550422", refuses(At::Once, 422, None)),
    ("+15005550483", refuses(At::Once, 483, Some(32006))),
    ("+15005550488", refuses(At::Once, 488, Some(32208))),
    ("+15005551488", refuses(At::Once, 488, Some(32207))),
    ("+15005552488", refuses(At::Once, 488, Some(32209))),
    ("+15005550500", refuses(At::Once, 500, None)),
    ("+15005550503", says(503, "Trunk CPS limit exceeded", Some(32001))),
    ("+15005551503", says(503, "Trunk concurrent call limit exceeded", None)),
    ("+15005552503", says(503, "Trunk CPS limit exceeded", Some(32012))),
    ("+15005550180", answers(Ring::Plain, Then::Stays)),
    ("+15005550183", answers(Ring::MovingMedia, Then::Stays)),
    ("+15005550200", answers(Ring::Not, Then::Stays)),
    ("+15005550002", answers(Ring::EarlyMedia, Then::HangsUp(Duration::from_secs(3)))),
    ("+15005550003", answers(Ring::EarlyMedia, Then::Moves)),
    ("+15005550004", answers(Ring::EarlyMedia, Then::Holds)),
    ("+15005550014", answers(Ring::EarlyMedia, Then::IsMute)),
    ("+15005550030", answers(Ring::EarlyMedia, Then::LosesAck)),
    ("+15005550218", answers(Ring::EarlyMedia, Then::RefusesTransfer { error: 32218 })),
    ("+15005550219", answers(Ring::EarlyMedia, Then::RefusesTransfer { error: 32219 })),
];

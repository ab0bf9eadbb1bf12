//! Caller and called side together, around the target.
//!
//! Owns: both sides. Never: decides when a call begins.

use crate::{
    Sample,
    callee::{self, Callee},
    caller::{self, Caller},
    digest::Credentials,
    ident::Numbers,
    process::Usage,
    tally::Tally,
};
use anyhow::Result;
use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

/// The target, and who speaks to it from where.
#[derive(Clone, Debug, clap::Args)]
pub struct Ends {
    /// Where the target listens.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub target: SocketAddrV4,
    /// Its process, whose cost (and that of its children) is measured.
    #[arg(long)]
    pub pid: Option<u32>,
    /// What it is called in the line.
    #[arg(long, default_value = "tandem")]
    pub subject: String,
    /// Where the calling side is.
    #[arg(long, default_value = "127.0.0.10:5060")]
    pub caller: SocketAddrV4,
    /// Where the called side is: the target must send the calls there.
    #[arg(long, default_value = "127.0.0.20:5060")]
    pub callee: SocketAddrV4,
    /// Whom to call; each X is a digit that changes from call to call.
    #[arg(long, default_value = "+1415555XXXX")]
    pub number: String,
    /// The user in the caller's From, and of its digest.
    #[arg(long, default_value = "+12125550100")]
    pub user: String,
    /// Answers the target's challenges; without it a challenge is a failure.
    #[arg(long)]
    pub password: Option<String>,
    /// The user that the called side must see in every From.
    #[arg(long)]
    pub from_user: Option<String>,
    /// Where both sides say that their media is; nothing is sent from there.
    #[arg(long, default_value = "127.0.0.30:4000")]
    pub media: SocketAddrV4,
}

/// Both sides at work.
#[derive(Debug)]
pub struct Engine {
    /// The side that calls.
    pub caller: Caller,
    callee: Callee,
}

impl Engine {
    /// Binds both sides; calls that do not stay are up for `hold`.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn new(ends: &Ends, hold: Duration) -> Result<Self> {
        let sdp = sdp(ends.media);
        let plan = caller::Plan {
            target: ends.target,
            user: ends.user.clone(),
            numbers: Numbers::new(&ends.number),
            credentials: ends.password.as_ref().map(|word| Credentials::new(&ends.user, word)),
            sdp: sdp.clone(),
            hold,
        };
        let called = callee::Plan { from_user: ends.from_user.clone(), sdp };
        let callee = Callee::new(ends.callee, called)?;
        Ok(Self { caller: Caller::new(ends.caller, plan)?, callee })
    }

    /// Handles what has arrived and what is due at both sides.
    ///
    /// # Errors
    /// If a socket is broken.
    pub fn turn(&mut self, now: Instant) -> Result<()> {
        let came = self.caller.turn(now)? + self.callee.turn(Instant::now())?;
        if came == 0 {
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Goes on for so long, beginning nothing.
    ///
    /// # Errors
    /// If a socket is broken.
    pub fn linger(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.turn(now)?;
        }
    }

    /// What became of the calls, at both sides.
    pub fn tally(&self) -> Tally {
        self.tally_of(usize::MAX)
    }

    /// What became of the calls of the caller's first so many chapters, and of all at the called side.
    pub fn tally_of(&self, chapters: usize) -> Tally {
        let mut tally = self.callee.tally().clone();
        self.caller.chapters().take(chapters).for_each(|chapter| tally.merge(chapter));
        tally
    }
}

/// Reads what the target uses, if its process is known.
///
/// # Errors
/// If it has ended.
pub fn usage(ends: &Ends) -> Result<Option<Usage>> {
    ends.pid.map(Usage::of).transpose()
}

/// Notes the parameters that all loads have.
pub fn asked(ends: &Ends, sample: Sample) -> Sample {
    sample.asked("digest", f64::from(u8::from(ends.password.is_some())))
}

/// A plain offer, or an answer to it.
fn sdp(media: SocketAddrV4) -> String {
    let (address, port) = (media.ip(), media.port());
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
    )
}

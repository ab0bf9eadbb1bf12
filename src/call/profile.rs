//! What a leg's peer can do and may be told: phones, trunks and strangers differ in policy only.
//!
//! Owns: the peer's capabilities, our credentials towards it, the headers every message carries.
//! Never: keeps the state of a dialog.

use super::indialog::ALLOW;
use crate::{
    config::{Config, LatchPolicy, Trunk, User},
    dialog::{Reach, Refresher, SessionTimer},
    ids::Entropy,
    media::Latch,
    sdp::{CryptoSuite, Policy, Srtp},
    sip::{Builder, CSeq, HeaderName, Message, Method},
    trunk::TrunkCredentials,
};
use std::sync::Arc;

/// Whom a leg speaks to.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A registered or authenticated user.
    Phone(Arc<User>),
    /// A carrier.
    Trunk(Arc<Trunk>),
    /// Somebody the dialplan names by URI.
    Elsewhere,
}

/// A peer's policy.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Who it is.
    pub peer: Peer,
    /// How requests find it.
    pub reach: Reach,
    /// Whether RFC 4028 may be used with it.
    pub session_timers: bool,
    /// Whether it may be told that we support 100rel.
    pub reliable: bool,
    /// Whether it may be sent UPDATE.
    pub update: bool,
    /// Whether it listens on TCP as well, for requests too large for a datagram.
    pub tcp_too: bool,
    /// How many calls a carrier may have when one more goes out, if that is limited.
    pub calls_max: Option<u32>,
    /// Which codecs it may be offered.
    pub policy: Policy,
    /// Which media source is believed.
    pub latch: Latch,
    /// The user part of our Contact towards it.
    pub contact_user: Box<str>,
    /// Our name and password there.
    pub credentials: Option<TrunkCredentials>,
}

impl Profile {
    /// Returns the policy for a phone of ours.
    pub fn phone(user: &Arc<User>, config: &Config) -> Self {
        Self {
            peer: Peer::Phone(user.clone()),
            reach: Reach::Flow,
            session_timers: true,
            reliable: true,
            update: true,
            tcp_too: false,
            calls_max: None,
            policy: Policy::phone(config.rtp.codecs.clone())
                .with_srtp(user.srtp, &CryptoSuite::ALL),
            latch: match user.latch {
                LatchPolicy::Learn | LatchPolicy::Anywhere => Latch::Learn { near: None },
                LatchPolicy::Strict => Latch::Strict { ranges: [].into() },
            },
            contact_user: user.name.clone(),
            credentials: None,
        }
    }

    /// Returns the policy for a carrier.
    pub fn trunk(trunk: &Arc<Trunk>) -> Self {
        let credentials = match (&trunk.username, &trunk.password) {
            (Some(username), Some(password)) => {
                Some(TrunkCredentials::new(username, password.expose()))
            }
            (Some(_) | None, _) => None,
        };
        Self {
            peer: Peer::Trunk(trunk.clone()),
            reach: Reach::Target,
            session_timers: trunk.session_timers,
            reliable: trunk.prack,
            update: trunk.update,
            tcp_too: trunk.tcp_too,
            calls_max: trunk.max_calls,
            policy: Policy::trunk(trunk.codecs.clone()).with_srtp(trunk.srtp, &trunk.srtp_suites),
            latch: Latch::Strict { ranges: trunk.media_sources.as_slice().into() },
            contact_user: trunk.name.clone(),
            credentials,
        }
    }

    /// Returns the policy for a URI of the dialplan's.
    pub fn elsewhere(config: &Config) -> Self {
        Self {
            peer: Peer::Elsewhere,
            reach: Reach::Target,
            session_timers: true,
            reliable: true,
            update: true,
            tcp_too: false,
            calls_max: None,
            policy: Policy::phone(config.rtp.codecs.clone())
                .with_srtp(Srtp::Prefer, &CryptoSuite::ALL),
            latch: Latch::Learn { near: None },
            contact_user: "tandem".into(),
            credentials: None,
        }
    }

    /// Returns the trunk, where it is one.
    pub fn as_trunk(&self) -> Option<&Arc<Trunk>> {
        match &self.peer {
            Peer::Trunk(trunk) => Some(trunk),
            Peer::Phone(_) | Peer::Elsewhere => None,
        }
    }

    /// Returns the user, where it is one.
    pub fn as_phone(&self) -> Option<&Arc<User>> {
        match &self.peer {
            Peer::Phone(user) => Some(user),
            Peer::Trunk(_) | Peer::Elsewhere => None,
        }
    }

    /// Answers a challenge, where we have credentials that were not yet refused: the header for it,
    /// and those for other realms that have asked before (RFC 3261 22.3). Empty: there is nothing to
    /// say.
    pub fn authorize(
        &mut self,
        response: &Message,
        method: Method,
        uri: &str,
        entropy: &mut Entropy,
    ) -> Vec<(HeaderName, String)> {
        let Some(credentials) = &mut self.credentials else { return vec![] };
        let Some(answer) = credentials.answer(response, method.as_str(), uri, entropy) else {
            return vec![];
        };
        let mut headers = credentials.beside(method.as_str(), uri, Some(answer.0), entropy);
        headers.push(answer);
        headers
    }

    /// Proves who we are in an INVITE that is repeated, where the peer has asked for it before.
    pub fn authorize_again(
        &mut self,
        number: u32,
        uri: &str,
        entropy: &mut Entropy,
    ) -> Vec<(HeaderName, String)> {
        let cseq = CSeq { number, method: Method::Invite };
        self.credentials.as_mut().map_or_else(Vec::new, |c| c.unasked(cseq, uri, entropy))
    }

    /// Writes the session timer's headers of an INVITE or UPDATE of ours (RFC 4028 7.1).
    pub fn write_session_headers(
        &self,
        builder: &mut Builder,
        session: &SessionTimer,
        config: &Config,
    ) {
        if !self.session_timers {
            return;
        }
        match session.agreed() {
            Some((interval_s, refresher)) => {
                let by = match refresher {
                    Refresher::Us => "uac",
                    Refresher::Peer => "uas",
                };
                builder.header(
                    HeaderName::SessionExpires,
                    format_args!("{interval_s};refresher={by}"),
                );
            }
            None => {
                builder.number(HeaderName::SessionExpires, config.sip.session_expires.as_secs());
            }
        }
        builder.number(HeaderName::MinSe, config.sip.min_se.as_secs());
    }

    /// The same after a 422 that named a longer interval.
    pub fn write_session_headers_at_least(
        &self,
        builder: &mut Builder,
        min_se_s: u32,
        config: &Config,
    ) {
        let interval_s = config.sip.session_expires.as_secs().max(min_se_s.into());
        builder.header(HeaderName::SessionExpires, interval_s);
        builder.header(HeaderName::MinSe, min_se_s);
    }

    /// Writes what every message of ours says about us.
    pub fn write_common_headers(&self, builder: &mut Builder, config: &Config) {
        builder.text(HeaderName::Allow, ALLOW);
        let supported = match (self.reliable, self.session_timers) {
            (true, true) => "100rel, timer",
            (true, false) => "100rel",
            (false, true) => "timer",
            (false, false) => "",
        };
        if !supported.is_empty() {
            builder.text(HeaderName::Supported, supported);
        }
        builder.text(HeaderName::UserAgent, &config.sip.user_agent);
    }
}

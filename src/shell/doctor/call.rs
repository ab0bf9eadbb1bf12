//! A trial call: an INVITE with the trunk's credentials, taken back as soon as it gets through.
//!
//! Owns: the conversation, and what its end says about the trunk.
//! Never: lets the called party talk: a call that is answered is hung up at once.

use super::{
    line::{Heard, Line},
    report::{Finding, Verdict},
};
use crate::{
    config::Trunk,
    dialog::{Dialog, Reach},
    dialplan::E164,
    ids::{Entropy, Spring, Transport},
    sdp::{self, Direction, Local, Policy, Srtp},
    shell::now,
    sip::{Builder, HeaderName, Message, Method},
    transaction::ClientId,
    trunk::{
        credentials::TrunkCredentials,
        refusal::{Answer, Attempt, Auth, Refusal},
    },
};
use bytes::Bytes;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// How long the carrier may take to ring.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to confirm that the call is over.
const FAREWELL: Duration = Duration::from_secs(4);
/// Above every challenge that makes sense.
const ATTEMPTS_MAX: u32 = 4;

/// What came of the call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It rang, or was answered; after so long.
    WentThrough {
        /// From the first INVITE.
        after: Duration,
        /// The response that says so.
        status: u16,
    },
    /// The carrier refused.
    Refused(Refusal, Answer),
}

/// Whom the call is from, for and through.
pub(super) struct Trial<'a> {
    pub(super) trunk: &'a Trunk,
    /// The host of the Request-URI.
    pub(super) host: &'a str,
    pub(super) number: &'a E164,
    pub(super) caller_id: &'a E164,
    /// Where our media would be.
    pub(super) media: SocketAddr,
}

impl Trial<'_> {
    /// Makes the call.
    pub(super) async fn run(&self, line: &mut Line, entropy: &mut Entropy) -> io::Result<Outcome> {
        let began = now();
        let mut credentials = match (&self.trunk.username, &self.trunk.password) {
            (Some(user), Some(password)) => Some(TrunkCredentials::new(user, password.expose())),
            (Some(_), None) | (None, _) => None,
        };
        let (call_id, tag) = (line.mint().call_id(), line.mint().tag());
        let mut extra: Vec<(HeaderName, String)> = vec![];
        for cseq in 1..=ATTEMPTS_MAX {
            let (via, branch) = line.via();
            let invite = self.invite(line, (&call_id, &tag), (cseq, &via), &extra, entropy);
            let tx = line.invite(invite.clone(), &branch).await?;
            let until = began + PATIENCE;
            let response = loop {
                match line.hear(until).await? {
                    Some(Heard::Response(from, response)) if from == tx => {
                        if response.status() > 100 {
                            break response;
                        }
                    }
                    Some(Heard::Nothing(from)) if from == tx => return Ok(self.silence()),
                    Some(Heard::Response(..) | Heard::Nothing(_)) => {}
                    None => {
                        line.cancel(tx).await?;
                        return Ok(self.silence());
                    }
                }
            };
            let status = response.status();
            if status < 300 {
                let invite = Message::parse(invite).map_err(io::Error::other)?;
                self.take_back(line, tx, &invite, response).await?;
                return Ok(Outcome::WentThrough { after: now() - began, status });
            }
            let uri = self.uri(line);
            let answer = credentials
                .as_mut()
                .filter(|_| matches!(status, 401 | 407))
                .and_then(|known| known.answer(&response, "INVITE", &uri, entropy));
            match answer {
                Some(header) => extra = vec![header],
                None => {
                    return Ok(self.refused(&response, !extra.is_empty(), credentials.is_some()));
                }
            }
        }
        Ok(self.silence())
    }

    /// Returns whether SRTP is offered: as a call would.
    fn is_secure(&self) -> bool {
        match self.trunk.srtp {
            Srtp::Off => false,
            Srtp::Prefer => self.trunk.transport == Transport::Tls,
            Srtp::Require => true,
        }
    }

    fn uri(&self, line: &Line) -> String {
        let transport = line.flow().transport.param();
        format!("sip:{}@{};transport={transport}", self.number.expose(), self.host)
    }

    fn invite(
        &self,
        line: &Line,
        (call_id, tag): (&str, &str),
        (cseq, via): (u32, &str),
        extra: &[(HeaderName, String)],
        entropy: &Entropy,
    ) -> Bytes {
        let (local, transport) = (line.flow().local, line.flow().transport.param());
        let uri = self.uri(line);
        let (from, host) = (self.caller_id.expose(), self.host);
        let mut invite = Builder::request(Method::Invite.as_str(), &uri);
        invite
            .header(HeaderName::Via, via)
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::From, format_args!("<sip:{from}@{host}>;tag={tag}"))
            .header(HeaderName::To, format_args!("<{uri}>"))
            .header(HeaderName::CallId, call_id)
            .header(HeaderName::CSeq, format_args!("{cseq} INVITE"))
            .header(HeaderName::Contact, format_args!("<sip:{from}@{local};transport={transport}>"))
            .header(HeaderName::PAssertedIdentity, format_args!("<sip:{from}@{host}>"));
        for (name, value) in extra {
            invite.header(*name, value);
        }
        let Trunk { codecs, srtp, srtp_suites, .. } = self.trunk;
        let policy = Policy::trunk(codecs.clone()).with_srtp(*srtp, srtp_suites);
        let mut session = Local::new(1, self.media);
        if self.is_secure() {
            session = session.with_keys(Spring::new(&mut entropy.clone()), true);
        }
        let offer = sdp::fresh_offer(&policy, Direction::SendRecv, &mut session);
        invite.body("application/sdp", &offer)
    }

    /// Ends what was begun: CANCEL before the answer, ACK and BYE after it, also where they cross.
    async fn take_back(
        &self,
        line: &mut Line,
        tx: ClientId,
        invite: &Message,
        mut response: Message,
    ) -> io::Result<()> {
        let until: Instant = now() + FAREWELL;
        if response.status() < 200 {
            line.cancel(tx).await?;
            while response.status() < 200 {
                match line.hear(until).await? {
                    Some(Heard::Response(from, heard)) if from == tx => response = heard,
                    Some(Heard::Response(..)) => {}
                    Some(Heard::Nothing(_)) | None => return Ok(()),
                }
            }
        }
        if response.status() >= 300 {
            return Ok(());
        }
        let flow = line.flow();
        let mut dialog = Dialog::from_response(invite, &response, flow, Reach::Flow);
        let (via, _) = line.via();
        line.send(&dialog.ack(response.cseq().number, &via).finish()).await?;
        let (via, branch) = line.via();
        let bye =
            line.request(dialog.request(Method::Bye, &via).finish(), &branch, Method::Bye).await?;
        loop {
            match line.hear(until).await? {
                Some(Heard::Response(from, heard)) if from == bye && heard.status() >= 200 => {
                    return Ok(());
                }
                Some(Heard::Response(..)) => {}
                Some(Heard::Nothing(_)) | None => return Ok(()),
            }
        }
    }

    fn attempt(&self, auth: Auth) -> Attempt<'_> {
        Attempt {
            host: self.host,
            number: self.number.expose(),
            caller_id: self.caller_id.expose(),
            auth,
            rang: false,
            offered_g711: true,
            offered_srtp: self.is_secure(),
            max_forwards: 70,
        }
    }

    fn silence(&self) -> Outcome {
        let answer = Answer::Silence;
        Outcome::Refused(Refusal::read(&self.attempt(Auth::NotAsked), &answer), answer)
    }

    fn refused(&self, response: &Message, was_sent: bool, has_credentials: bool) -> Outcome {
        let answer = Answer::of(response);
        let auth = match (was_sent, has_credentials) {
            (true, _) => Auth::Sent,
            (false, true) => Auth::NotAsked,
            (false, false) => Auth::Missing,
        };
        Outcome::Refused(Refusal::read(&self.attempt(auth), &answer), answer)
    }
}

/// Returns where our media would be seen from this address.
pub(super) fn media_at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 9)
}

impl Outcome {
    /// Tells it.
    pub(super) fn finding(&self) -> Finding {
        match self {
            Self::WentThrough { after, status } => {
                let ms = after.as_millis();
                let found = format!("it got through after {ms} ms ({status}), and was taken back");
                Finding::new("call", Verdict::Well, found)
            }
            Self::Refused(refusal, answer) => {
                let found = format!("{}: {refusal} ({answer})", refusal.code());
                // A busy number has been reached: the trunk works.
                let is_ours = refusal.is_ours_to_fix();
                let verdict = if is_ours { Verdict::Wrong } else { Verdict::Note };
                let finding = Finding::new("call", verdict, found);
                match refusal.help() {
                    Some(help) => finding.help(help),
                    None => finding,
                }
            }
        }
    }
}

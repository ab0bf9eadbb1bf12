//! What `status`, `calls`, `phones`, `trunks` and their like ask and are answered.
//!
//! Owns: the questions, the answers, and their JSON, shared by the socket's two ends.
//! Never: knows where an answer comes from, or how it is printed.

use super::{
    cdr::{Cdr, Direction, Explanation, UtcMs, as_text},
    explain::Story,
    ladder::Rungs,
    mask::NumberBuf,
};
use crate::ids::CallId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most CDRs in one answer.
pub const CDR_LIMIT_MAX: u32 = 10_000;

/// A question or an order of an operator.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Request {
    /// How is it going?
    Status,
    /// Which calls are there?
    Calls,
    /// Tell everything about one call.
    CallShow {
        /// Which.
        #[serde(with = "as_text")]
        call: CallId,
    },
    /// Show both legs' messages.
    CallLadder {
        /// Which.
        #[serde(with = "as_text")]
        call: CallId,
    },
    /// Tell in a paragraph what became of one call.
    CallExplain {
        /// Which.
        #[serde(with = "as_text")]
        call: CallId,
    },
    /// Which phones are registered?
    Phones,
    /// How are the trunks?
    Trunks,
    /// What has been used of the budgets?
    Budgets,
    /// Forget what has been used of one.
    ResetBudget {
        /// `user` or `trunk`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Who is banned?
    Bans,
    /// End the bans of some addresses.
    Lift {
        /// `192.0.2.7`, or `192.0.2.0/24`.
        addresses: String,
    },
    /// Which calls were there?
    Cdr(CdrQuery),
    /// Read the configuration again.
    Reload,
    /// Tell what that would change.
    PlanReload,
    /// Refuse new calls, finish the ones there are, then exit.
    Drain {
        /// Then those that are left are ended, in seconds; `None`: the configuration's time.
        within_s: Option<u64>,
    },
    /// Let the program that is installed now take over; calls go on here.
    Upgrade,
    /// End one call.
    Hangup {
        /// Which.
        #[serde(with = "as_text")]
        call: CallId,
    },
}

/// Which CDRs are wanted; the newest first.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CdrQuery {
    /// How many at most, up to [`CDR_LIMIT_MAX`].
    pub limit: u32,
    /// Only calls that started then or later.
    pub since: Option<UtcMs>,
    /// Only calls that failed.
    pub failed_only: bool,
    /// Only this call.
    pub call: Option<String>,
}

impl Default for CdrQuery {
    fn default() -> Self {
        Self { limit: 20, since: None, failed_only: false, call: None }
    }
}

/// An answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "with")]
pub enum Response {
    /// To `Status`.
    Status(Box<StatusReport>),
    /// To `Calls`.
    Calls(Vec<CallSummary>),
    /// To `CallShow` of a running call.
    Call(Box<CallDetail>),
    /// To `CallLadder`.
    Ladder(Rungs),
    /// To `CallExplain`.
    Story(Box<Story>),
    /// To `Phones`.
    Phones(Vec<PhoneRow>),
    /// To `Trunks`.
    Trunks(Vec<TrunkRow>),
    /// To `Budgets`.
    Budgets(Vec<BudgetRow>),
    /// To `Bans`.
    Bans(Vec<BanRow>),
    /// To `CallShow` of a call that is over.
    Record(Box<Cdr>),
    /// To `Cdr`.
    Cdrs(Vec<Cdr>),
    /// To `Reload` and `PlanReload`.
    Reload(ReloadReport),
    /// To `Drain`, `Hangup`, `ResetBudget` and `Lift`: one sentence on what will happen.
    Done(String),
    /// There is no such thing: one sentence.
    NotFound(String),
    /// It cannot be done now: one sentence.
    Refused(String),
}

/// The state of everything.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StatusReport {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Since when it runs.
    pub started: UtcMs,
    /// How long that is.
    pub uptime_s: u64,
    /// When the configuration was read last.
    pub configured: UtcMs,
    /// Where SIP is listened for: `udp:0.0.0.0:5060`.
    pub listeners: Vec<String>,
    /// What peers outside are told, where it is not the address of a listener.
    #[serde(default)]
    pub public_ip: Option<IpAddr>,
    /// Certificates of ours.
    pub certificates: Vec<CertificateRow>,
    /// Whether new calls are refused.
    pub is_draining: bool,
    /// Calls.
    pub calls: CallCounts,
    /// Registered phones: users with at least one contact.
    pub phones: u64,
    /// RTP port pairs.
    pub ports: PortCounts,
    /// SIP on the wire.
    pub signalling: SignallingCounts,
    /// The store.
    pub store: StoreReport,
    /// Every trunk.
    pub trunks: Vec<TrunkRow>,
}

impl StatusReport {
    /// Lists what is wrong, one sentence each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if self.listeners.is_empty() {
            problems.push("no SIP listener is bound".to_owned());
        }
        problems.extend(self.store.problem.clone());
        for expired in self.certificates.iter().filter(|row| row.days_left() < 0) {
            let of = &expired.of;
            problems.push(format!("the certificate of {of} has expired; renew it, then reload"));
        }
        if self.signalling.faults > 0 {
            let faults = self.signalling.faults;
            problems
                .push(format!("faults of tandem's own: {faults}; its log has an ERROR for each"));
        }
        for trunk in self.trunks.iter().filter(|trunk| trunk.state == TrunkState::Down) {
            problems.push(format!("trunk {} is down", trunk.name));
        }
        problems
    }
}

/// A certificate of ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateRow {
    /// What it is for: `listener`, `trunk NAME`.
    pub of: String,
    /// How long it holds; negative once it has expired.
    pub left_s: i64,
}

impl CertificateRow {
    /// Returns the days that are left, rounded down; negative once it has expired.
    pub fn days_left(&self) -> i64 {
        self.left_s.div_euclid(24 * 60 * 60)
    }
}

/// How many calls there are and were.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallCounts {
    /// Not answered yet.
    pub ringing: u64,
    /// Answered.
    pub talking: u64,
    /// Since the start, also those of now.
    pub total: u64,
    /// Since the start.
    pub failed: u64,
}

/// How many RTP port pairs there are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PortCounts {
    /// Taken by a leg.
    pub used: u64,
    /// Altogether.
    pub total: u64,
}

/// What happened to messages since the start, and what is kept because of them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SignallingCounts {
    /// Transactions now.
    pub transactions: u64,
    /// Dialogs now.
    pub dialogs: u64,
    /// TCP and TLS connections now.
    pub connections: u64,
    /// Messages that we had to send again.
    pub retransmissions: u64,
    /// Requests of ours that nobody answered.
    pub timeouts: u64,
    /// Messages that could not be sent.
    pub send_errors: u64,
    /// Messages that were dropped, for whatever reason.
    pub discarded: u64,
    /// Messages that we were too busy to read.
    pub overrun: u64,
    /// Faults of ours that cost a call or a message.
    pub faults: u64,
}

/// How the store is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoreReport {
    /// What is wrong, in one sentence; none while it is open and written to.
    pub problem: Option<String>,
    /// Records that wait to be written.
    pub queued: u64,
    /// Records that were lost since the start.
    pub dropped: u64,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not answered yet.
    Ringing,
    /// Answered.
    Talking,
    /// Answered, and somebody put it on hold.
    Held,
    /// A prompt, an echo or the like is at the far end.
    Announcing,
    /// Ending.
    Releasing,
}

impl Phase {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Talking => "talking",
            Self::Held => "held",
            Self::Announcing => "announcing",
            Self::Releasing => "releasing",
        }
    }
}

/// One running call.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CallSummary {
    /// Ours.
    #[serde(with = "as_text")]
    pub call: CallId,
    /// Where it stands.
    pub phase: Phase,
    /// Which way it goes.
    pub direction: Direction,
    /// Who calls.
    pub from: NumberBuf,
    /// Who is called.
    pub to: NumberBuf,
    /// The rule it took.
    pub rule: Option<String>,
    /// The trunk it uses.
    pub trunk: Option<String>,
    /// When it began.
    pub start: UtcMs,
    /// How long it has lasted since the answer, else since its beginning.
    pub duration_s: u64,
}

/// Everything about one running call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CallDetail {
    /// The line of `calls`.
    pub summary: CallSummary,
    /// What was dialled.
    pub dialled: NumberBuf,
    /// The caller ID presented.
    pub caller_id: Option<NumberBuf>,
    /// The caller's leg first, then every leg tried.
    pub legs: Vec<LegRow>,
    /// Whether one codec is turned into another.
    pub is_transcoded: bool,
    /// Why it took that rule, one line each.
    pub why: Vec<String>,
}

/// One leg of a running call.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LegRow {
    /// Ours: `l00-2b`.
    pub leg: String,
    /// The phone's or trunk's name.
    pub name: NumberBuf,
    /// Call-ID on the wire.
    pub sip_call_id: String,
    /// Transport and address of the peer.
    pub flow: String,
    /// The dialog's state in a word.
    pub state: String,
    /// The codec agreed on.
    pub codec: Option<String>,
    /// The suite of SRTP; none where the media is plain.
    #[serde(default)]
    pub srtp: Option<String>,
    /// Our RTP port.
    pub rtp_port: Option<u16>,
    /// Where its media comes from.
    pub rtp_remote: Option<String>,
}

/// One user of ours and where it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PhoneRow {
    /// The user.
    pub user: NumberBuf,
    /// The display name.
    pub name: Option<String>,
    /// Where it registered; empty where it did not.
    pub contacts: Vec<ContactRow>,
    /// Calls it takes part in.
    pub calls: u64,
}

/// One registered contact.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ContactRow {
    /// The Contact URI.
    pub contact: String,
    /// Transport and address it really is at.
    pub flow: String,
    /// What the phone calls itself.
    pub user_agent: Option<String>,
    /// Until it is forgotten.
    pub expires_s: u64,
    /// Of the last OPTIONS that was answered, where phones are pinged.
    pub rtt_ms: Option<f64>,
    /// OPTIONS in a row that were not.
    pub missed_pings: u32,
}

/// How a trunk is.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TrunkState {
    /// Nobody asks it.
    #[default]
    Unmonitored,
    /// It answers.
    Up,
    /// It missed an answer.
    Suspect,
    /// It missed several; calls go elsewhere.
    Down,
}

impl TrunkState {
    /// Every state, for tables of gauges.
    pub const ALL: [Self; 4] = [Self::Unmonitored, Self::Up, Self::Suspect, Self::Down];

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unmonitored => "unmonitored",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// One trunk.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct TrunkRow {
    /// As the configuration names it.
    pub name: String,
    /// How it is.
    pub state: TrunkState,
    /// Since when.
    pub since: Option<UtcMs>,
    /// Where requests go: the host, and the address in use.
    pub target: String,
    /// Of the last OPTIONS.
    pub rtt_ms: Option<f64>,
    /// Calls on it.
    pub calls: u64,
    /// How many it may have.
    pub calls_max: Option<u64>,
    /// Calls that wait for their turn.
    #[serde(default)]
    pub waiting: u64,
    /// Under which public address it sees us, where we are behind a NAT.
    #[serde(default)]
    pub seen_as: Option<IpAddr>,
    /// Why it refused a call last.
    pub last_refusal: Option<Explanation>,
    /// Its addresses, in the order of its edges.
    #[serde(default)]
    pub addresses: Vec<AddressRow>,
}

/// One address of a trunk.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AddressRow {
    /// The edge: the host of the Request-URI.
    pub host: String,
    /// Transport and address.
    pub address: String,
    /// `unknown`, `live` or `dead`.
    pub state: String,
    /// For how long it has been so.
    pub state_s: u64,
    /// How far it is, by the last answer that tells.
    pub rtt_ms: Option<f64>,
    /// What it refused or failed with last.
    pub last_refusal: Option<String>,
}

/// What somebody has used of a budget.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BudgetRow {
    /// `user` or `trunk`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Calls in the last hour.
    pub calls_per_hour: Used,
    /// Calls in the last day.
    pub calls_per_day: Used,
    /// Minutes in the last hour.
    pub minutes_per_hour: Used,
    /// Minutes in the last day.
    pub minutes_per_day: Used,
    /// Countries in the last day.
    pub countries_per_day: Used,
}

impl BudgetRow {
    /// Returns whether some limit allows nothing more.
    pub fn is_used_up(&self) -> bool {
        self.each().iter().any(|used| used.limit.is_some_and(|limit| used.used >= limit))
    }

    /// Returns all of it, in the order of the fields.
    pub fn each(&self) -> [Used; 5] {
        [
            self.calls_per_hour,
            self.calls_per_day,
            self.minutes_per_hour,
            self.minutes_per_day,
            self.countries_per_day,
        ]
    }
}

/// A source whose messages are not looked at.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BanRow {
    /// An address, or the /64 of an IPv6 address.
    pub source: String,
    /// `guesses` or `junk`.
    pub why: String,
    /// From when.
    pub since: UtcMs,
    /// Until when.
    pub until: UtcMs,
    /// How long that is from now.
    pub left_s: u64,
    /// Messages that were thrown away.
    pub dropped: u64,
}

/// So much of so much.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Used {
    /// What was used.
    pub used: u32,
    /// What is allowed; `None`: anything.
    pub limit: Option<u32>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReloadReport {
    /// Whether the new configuration is in use; otherwise the old one still is.
    pub is_applied: bool,
    /// Whether it could be, and nobody wanted it to: a plan.
    pub is_plan: bool,
    /// Mistakes and warnings, each as `tandem check` prints it.
    pub problems: Vec<String>,
    /// What differs from what was in use: `[user.1003] added`.
    pub changes: Vec<String>,
    /// What only a new process changes.
    pub by_process: Vec<String>,
    /// Whether this process can be replaced by one, without a restart.
    pub is_replaceable: bool,
    /// The number of the process that has taken over.
    pub process: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn questions_are_one_json_object_each() {
        let call = CallId::new(ShardId(0), 42);
        for (request, json) in [
            (Request::Status, r#"{"ask":"status"}"#),
            (Request::CallShow { call }, r#"{"ask":"call_show","call":"c00-2a"}"#),
            (Request::Hangup { call }, r#"{"ask":"hangup","call":"c00-2a"}"#),
            (
                Request::Cdr(CdrQuery::default()),
                r#"{"ask":"cdr","limit":20,"since":null,"failed_only":false,"call":null}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), json);
            assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>(r#"{"ask":"hangup","call":"x"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"ask":"shutdown"}"#).is_err());
    }

    #[test]
    fn a_status_report_knows_what_is_wrong() {
        let well =
            StatusReport { listeners: vec!["udp:0.0.0.0:5060".into()], ..Default::default() };
        assert!(well.problems().is_empty());
        let down = TrunkRow { name: "t".into(), state: TrunkState::Down, ..Default::default() };
        let store =
            StoreReport { problem: Some("the store is closed".into()), ..Default::default() };
        let expired = CertificateRow { of: "trunk t".into(), left_s: -1 };
        let holds = CertificateRow { of: "listener".into(), left_s: 0 };
        let certificates = vec![holds, expired];
        let ill = StatusReport { trunks: vec![down], store, certificates, ..Default::default() };
        assert_eq!(
            ill.problems(),
            [
                "no SIP listener is bound",
                "the store is closed",
                "the certificate of trunk t has expired; renew it, then reload",
                "trunk t is down"
            ]
        );
    }
}

//! What can be wrong with the configuration: a sentence, a stable code, and what to write instead.
//!
//! Owns: the words for `C...` codes. Those for rules (`D...`) are in [`super::rule_problem`].
//! Never: prints a secret.

use super::{report::Severity, rule_problem::RuleError, tls::TlsProblem};
use std::{borrow::Cow, fmt};

/// Anything that `tandem check` can find.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// In a configuration file, or in any file's form.
    Config(ConfigError),
    /// In the meaning of a dialplan file.
    Rule(RuleError),
}

impl Problem {
    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Rule(error) => error.code(),
        }
    }

    /// Returns what to write instead, where we know.
    pub fn help(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Config(error) => error.help(),
            Self::Rule(error) => error.help(),
        }
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Config(error) => error.severity(),
            Self::Rule(error) => error.severity(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Rule(error) => error.fmt(f),
        }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<RuleError> for Problem {
    fn from(error: RuleError) -> Self {
        Self::Rule(error)
    }
}

/// What can be wrong with the configuration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum ConfigError {
    #[error("this is not TOML: {0}")]
    Syntax(String),
    #[error("`{key}` is not a key of {place}")]
    UnknownKey { key: Box<str>, place: Box<str>, near: Option<Box<str>> },
    #[error("expected {want}, found {found}")]
    Type { want: &'static str, found: &'static str },
    #[error("{place} needs `{key}`")]
    Missing { key: &'static str, place: Box<str>, example: &'static str },
    #[error("`{0}` is set twice")]
    SetTwice(Box<str>),
    #[error("cannot read `{path}`: {why}")]
    Unreadable { path: Box<str>, why: Box<str> },
    #[error("no file fits `{0}`")]
    NoFile(Box<str>),
    #[error("`{0}` is included already")]
    IncludedTwice(Box<str>),
    #[error("`{0}` is not a duration")]
    Duration(Box<str>),
    #[error("{value} is out of range: {min} to {max}")]
    Range { value: i64, min: i64, max: i64 },
    #[error("`{value}` is out of range: {min} to {max}")]
    DurationRange { value: Box<str>, min: &'static str, max: &'static str },
    #[error("`{value}` is not one of {allowed}")]
    OneOf { value: Box<str>, allowed: Box<str>, near: Option<Box<str>> },
    #[error("`{0}` is not an address and a port")]
    Address(Box<str>),
    #[error("`{text}` is not {want}")]
    Ip { text: Box<str>, want: &'static str },
    #[error("`{0}` is not the beginning of a number")]
    Prefix(Box<str>),
    #[error("`{0}` are not keys of a telephone")]
    Keys(Box<str>),
    #[error("`{key}` and `{other}` exclude each other")]
    Instead { key: &'static str, other: &'static str },
    #[error("`{0}` is not the address of a name server")]
    NameServer(Box<str>),
    #[error("`{0}` is not a listener")]
    Listen(Box<str>),
    #[error("`{0}` is listened on twice")]
    ListenTwice(Box<str>),
    #[error("`{0}` is not a range of ports")]
    Ports(Box<str>),
    #[error("port {0} is out of range: 1024 to 65535")]
    PortRange(i64),
    #[error("{ports} ports are too few: {workers} media workers need at least {need}")]
    PortsTooFew { ports: usize, workers: usize, need: usize },
    #[error("`{0}` is not an IP address, `auto` or `interface:NAME`")]
    PublicIp(Box<str>),
    #[error("`{0}` is a SIP domain, not a termination URI")]
    SipDomain(Box<str>),
    #[error("`{0}` is neither `timeout` nor a final status")]
    RetryOn(Box<str>),
    #[error("`{0}` is not the name of a host")]
    Host(Box<str>),
    #[error("`{number}` is not an E.164 number")]
    NotE164 { number: Box<str>, meant: Option<Box<str>> },
    #[error("the environment variable `{0}` is not set")]
    NoEnv(Box<str>),
    #[error("cannot read the secret in `{path}`: {why}")]
    SecretFile { path: Box<str>, why: Box<str> },
    #[error("`first` is longer than `longest`")]
    BanOrder,
    #[error("`{0}` cannot tell a scanner from a phone")]
    Scanner(Box<str>),
    #[error("the secret is empty")]
    SecretEmpty,
    #[error("{} written in a file that others can read", passwords(*.0))]
    SecretReadable(usize),
    #[error("this is not an `ha1`: {0} characters instead of 32 or 64 hexadecimal ones")]
    Ha1(usize),
    #[error("two `ha1` of the same kind")]
    Ha1Twice,
    #[error("write either `password` or `ha1`, not both")]
    TwoSecrets,
    #[error("`{text}` is not a network: {why}")]
    Network { text: Box<str>, why: Box<str> },
    #[error("`{has}` without `{needs}`")]
    Alone { has: &'static str, needs: &'static str },
    #[error("`timeout` is longer than `every`")]
    QualifyTimeout,
    #[error("OPTIONS more often than every 15 s: Twilio bans who asks that often")]
    QualifyBan,
    #[error("`{name}` is not a time zone")]
    Timezone { name: Box<str>, near: Option<&'static str> },
    #[error("`{0}` is not a country")]
    Country(Box<str>),
    #[error("{0} belongs to two users")]
    DidTwice(crate::dialplan::E164),
    #[error("`{name}` cannot be a name")]
    Name { name: Box<str> },
    #[error("{address} can be reached from outside, and shows metrics to anybody")]
    HttpOpen { address: Box<str> },
    #[error("`{0}` is not a store")]
    Store(Box<str>),
    #[error("`expires_min`, `expires_default` and `expires_max` are out of order")]
    ExpiresOrder,
    #[error("the trunk has no `caller_id`, and Twilio refuses calls from numbers it does not know")]
    NoCallerId,
    #[error("others can read `{0}`, which holds a secret")]
    SecretFileReadable(Box<str>),
    #[error("`{0}` is not a termination URI of Twilio's")]
    NotTermination(Box<str>),
    #[error("`{0}` cannot stand in a SIP header")]
    HeaderText(Box<str>),
    #[error(
        "Twilio takes SRTP over TLS only, and refuses calls that have one of the two (32207, 32209)"
    )]
    SrtpWithoutTls,
    #[error("the keys of SRTP go over UDP or TCP, where whoever reads them can listen")]
    KeysReadable,
    #[error("neither a trunk nor a user is configured")]
    Nothing,
    #[error("{number} is neither owned nor verified on trunk `{trunk}`")]
    NotOwned { number: crate::dialplan::E164, trunk: Box<str> },
    #[error("{number} is one of the {what}: calls from it are refused or not called back")]
    WeakCallerId { number: crate::dialplan::E164, what: &'static str },
    #[error("`{0}` is not a rate")]
    Rate(Box<str>),
    #[error("`{0}` is not an emergency number")]
    EmergencyNumber(Box<str>),
    #[error("callers in the context `{context}` cannot reach {numbers}")]
    NoEmergency { context: Box<str>, numbers: Box<str> },
    #[error("there is no context `{context}` in the dialplan")]
    NoContext { context: Box<str>, near: Option<Box<str>> },
    #[error(transparent)]
    Tls(TlsProblem),
}

impl ConfigError {
    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "C001",
            Self::UnknownKey { .. } => "C002",
            Self::Type { .. } => "C003",
            Self::Missing { .. } => "C004",
            Self::SetTwice(_) => "C005",
            Self::Unreadable { .. } => "C006",
            Self::NoFile(_) => "C007",
            Self::IncludedTwice(_) => "C008",
            Self::Duration(_) => "C009",
            Self::Range { .. } | Self::DurationRange { .. } => "C010",
            Self::OneOf { .. } => "C011",
            Self::Address(_) => "C012",
            Self::Listen(_) => "C013",
            Self::ListenTwice(_) => "C014",
            Self::Ports(_) => "C015",
            Self::PortRange(_) => "C016",
            Self::PortsTooFew { .. } => "C017",
            Self::PublicIp(_) => "C018",
            Self::SipDomain(_) => "C019",
            Self::Host(_) => "C020",
            Self::NotE164 { .. } => "C021",
            Self::NoEnv(_) => "C022",
            Self::SecretFile { .. } => "C023",
            Self::SecretEmpty => "C024",
            Self::SecretReadable(_) => "C025",
            Self::Ha1(_) => "C026",
            Self::Ha1Twice => "C027",
            Self::TwoSecrets => "C028",
            Self::Network { .. } => "C029",
            Self::Alone { .. } => "C030",
            Self::QualifyTimeout => "C031",
            Self::QualifyBan => "C032",
            Self::Timezone { .. } => "C033",
            Self::Country(_) => "C034",
            Self::DidTwice(_) => "C035",
            Self::Name { .. } => "C036",
            Self::HttpOpen { .. } => "C037",
            Self::Store(_) => "C038",
            Self::ExpiresOrder => "C039",
            Self::NoCallerId => "C040",
            Self::Nothing => "C041",
            Self::NoContext { .. } => "C042",
            Self::SecretFileReadable(_) => "C043",
            Self::NotTermination(_) => "C044",
            Self::HeaderText(_) => "C045",
            Self::SrtpWithoutTls => "C080",
            Self::KeysReadable => "C081",
            Self::NotOwned { .. } => "C060",
            Self::WeakCallerId { .. } => "C061",
            Self::EmergencyNumber(_) => "C062",
            Self::NoEmergency { .. } => "C063",
            Self::Rate(_) => "C064",
            Self::RetryOn(_) => "C066",
            Self::NameServer(_) => "C090",
            Self::Ip { .. } => "C091",
            Self::Keys(_) => "C092",
            Self::Instead { .. } => "C093",
            Self::Prefix(_) => "C094",
            Self::BanOrder => "C100",
            Self::Scanner(_) => "C101",
            Self::Tls(problem) => problem.code(),
        }
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        if let Self::Tls(problem) = self {
            return problem.severity();
        }
        let is_warning = matches!(
            self,
            Self::SecretReadable(_)
                | Self::SecretFileReadable(_)
                | Self::NotTermination(_)
                | Self::HttpOpen { .. }
                | Self::NoCallerId
                | Self::KeysReadable
                | Self::Nothing
                | Self::NoContext { .. }
                | Self::WeakCallerId { .. }
                | Self::NoEmergency { .. }
        );
        if is_warning { Severity::Warning } else { Severity::Error }
    }

    /// Returns what to write instead, where we know.
    #[expect(clippy::too_many_lines, reason = "a table: one arm per problem")]
    pub fn help(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::UnknownKey { near: Some(near), .. }
            | Self::OneOf { near: Some(near), .. }
            | Self::NoContext { near: Some(near), .. } => format!("did you mean `{near}`?").into(),
            Self::Timezone { near: Some(near), .. } => format!("did you mean `{near}`?").into(),
            Self::Tls(problem) => problem.help().into(),
            Self::Missing { example, .. } => format!("for example: {example}").into(),
            Self::SetTwice(_) => "remove one of the two".into(),
            Self::IncludedTwice(_) => "a file may be included once, and not by itself".into(),
            Self::NoFile(_) => "paths are relative to the file that names them".into(),
            Self::Duration(_) => {
                "write \"20s\", \"5m\", \"1h30m\" or \"250ms\", or a whole number of seconds".into()
            }
            Self::Address(_) => "write \"127.0.0.1:5070\" or \"[::1]:5070\"".into(),
            Self::Ip { .. } => "write it without a port: \"127.54.0.0\"".into(),
            Self::Prefix(_) => "write `+` and the country code: \"+1\"".into(),
            Self::Keys(_) => "write digits, `*`, `#` and A to D: \"123#\"".into(),
            Self::Instead { other, .. } => format!("leave `{other}` out, or this").into(),
            Self::NameServer(_) => {
                "write its address, with a port if that is not 53: \"127.0.0.1:5353\"".into()
            }
            Self::Listen(_) => {
                "write \"udp:0.0.0.0:5060\", \"tcp:0.0.0.0:5060\", \"tls:0.0.0.0:5061\" or \
                 \"udp:[::]:5060\""
                    .into()
            }
            Self::RetryOn(_) => "write \"timeout\", 503 or \"500-504\"".into(),
            Self::Ports(_) => "write \"10000-20000\"".into(),
            Self::PortsTooFew { .. } => {
                "a call takes four ports: RTP and RTCP for each of its two legs".into()
            }
            Self::Timezone { near: None, .. } => "write a name such as \"Europe/Amsterdam\"".into(),
            Self::Country(_) => "write two letters, such as \"US\" or \"NL\"".into(),
            Self::Store(_) => "write \"sqlite:/var/lib/tandem/tandem.db\"".into(),
            Self::Name { .. } => {
                "use letters, digits, and `- _ . +`: it becomes part of a SIP address".into()
            }
            Self::NoContext { context, near: None } => {
                format!("add a `[[{context}.rule]]` to a file of the dialplan").into()
            }
            Self::SipDomain(host) => {
                let name = host.split('.').next().unwrap_or("example");
                format!(
                    "the termination URI of a trunk ends in `.pstn.twilio.com`: \
                     \"{name}.pstn.twilio.com\" if the trunk is called so"
                )
                .into()
            }
            Self::Host(_) => "write only the host, such as \"example.pstn.twilio.com\"".into(),
            Self::NotE164 { meant: Some(meant), .. } => format!("write \"{meant}\"").into(),
            Self::NotE164 { meant: None, .. } => {
                "write `+`, the country code and the number: \"+17756187988\"".into()
            }
            Self::NoEnv(name) => {
                format!("set it before starting: export {name}=..., or write \"file:PATH\"").into()
            }
            Self::SecretReadable(_) => {
                "write \"env:NAME\" or \"file:PATH\", or chmod 600 the file".into()
            }
            Self::Ha1(_) => {
                "the MD5 (32) or SHA-256 (64) of `user:realm:password`, the realm being [sip]'s"
                    .into()
            }
            Self::SecretFileReadable(path) => format!("chmod 600 {path}").into(),
            Self::NotTermination(_) => {
                "calls to any other host are dropped without an answer: \"example.pstn.twilio.com\""
                    .into()
            }
            Self::HeaderText(_) => "leave out quotes, backslashes and control characters".into(),
            Self::QualifyBan => "write `every = \"30s\"`".into(),
            Self::HttpOpen { .. } => "write \"127.0.0.1:8090\", or false".into(),
            Self::NoCallerId => {
                "write `caller_id = \"+1...\"`: a number bought or verified in the account".into()
            }
            Self::SrtpWithoutTls => {
                "write `transport = \"tls\"`, and turn on Secure Trunking in Twilio's console".into()
            }
            Self::KeysReadable => {
                "write `transport = \"tls\"` for the trunk, or listen on \"tls:0.0.0.0:5061\" for phones"
                    .into()
            }
            Self::Nothing => "add a `[user.1001]` and a `[trunk.NAME]`".into(),
            Self::DidTwice(_) => {
                "keep it with one of them, and let a rule ring both: dial = [\"user:1001\", ...]"
                    .into()
            }
            Self::NotOwned { .. } => {
                "add it to `owned` or `verified`, or the carrier refuses every call from it".into()
            }
            Self::Scanner(_) => "write four characters or more of its User-Agent, in ASCII".into(),
            Self::Rate(_) => "write \"1/s\" or \"30/m\", up to 1000".into(),
            Self::WeakCallerId { .. } => "write another number of yours".into(),
            Self::EmergencyNumber(_) => "write its digits, such as \"112\"".into(),
            Self::NoEmergency { .. } => {
                "add a rule above the others that dials a trunk, or `[emergency] trunk = \"NAME\"`"
                    .into()
            }
            Self::Syntax(_)
            | Self::UnknownKey { near: None, .. }
            | Self::Type { .. }
            | Self::Unreadable { .. }
            | Self::Range { .. }
            | Self::DurationRange { .. }
            | Self::OneOf { near: None, .. }
            | Self::ListenTwice(_)
            | Self::PortRange(_)
            | Self::PublicIp(_)
            | Self::SecretFile { .. }
            | Self::SecretEmpty
            | Self::Ha1Twice
            | Self::TwoSecrets
            | Self::Network { .. }
            | Self::Alone { .. }
            | Self::QualifyTimeout
            | Self::BanOrder
            | Self::ExpiresOrder => return None,
        })
    }
}

fn passwords(count: usize) -> String {
    if count == 1 { "a password is".to_owned() } else { format!("{count} passwords are") }
}

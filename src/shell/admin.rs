//! The operator's commands, from the command line to the text that is printed.
//!
//! Owns: their arguments, and which question each one asks.
//! Never: prints, exits, or decides where the socket is.

use super::{
    control,
    views::{self, Exit},
};
use crate::{
    ids::CallId,
    network::Network,
    observe::{
        cdr::UtcMs,
        status::{CdrQuery, Request, Response},
    },
};
use std::path::{Path, PathBuf};

/// What every command takes.
#[derive(Clone, Debug, Default, clap::Args, Eq, PartialEq)]
pub struct Reach {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// The control socket; by default where the configuration puts it
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The configuration of the tandem that is asked
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A command for the running program.
#[derive(Clone, Debug, clap::Subcommand, Eq, PartialEq)]
pub enum AdminCommand {
    /// How it is going; exits with 1 when something is wrong
    Status(Reach),
    /// The running calls
    Calls(Reach),
    /// One call, running or over
    Call {
        /// What about it.
        #[command(subcommand)]
        what: CallCommand,
    },
    /// What became of a call, in a paragraph: where, the evidence, and what to do
    Explain(OneCall),
    /// The users and where they are registered
    Phones(Reach),
    /// The trunks; exits with 1 when one is down
    Trunks(Reach),
    /// What users and trunks have used of their budgets; exits with 1 when one is used up
    Budgets(BudgetArgs),
    /// The addresses whose messages are not looked at, why, and for how long
    Bans(BanArgs),
    /// The calls that are over, the newest first
    Cdr(CdrArgs),
    /// Read the configuration again; calls go on
    Reload(ReloadArgs),
    /// Refuse new calls, finish the ones there are, then exit
    Drain(DrainArgs),
    /// Let the program that is installed now take over; running calls stay in the old process
    Upgrade(Reach),
    /// End a call
    Hangup(OneCall),
}

/// What to tell about one call.
#[derive(Clone, Debug, clap::Subcommand, Eq, PartialEq)]
pub enum CallCommand {
    /// Everything about it
    Show(OneCall),
    /// Its messages, drawn in columns
    Ladder(LadderArgs),
}

/// A command about one call.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct OneCall {
    /// As `tandem calls` shows it: c00-2a
    #[arg(value_name = "ID", value_parser = parse_call)]
    pub call: CallId,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

/// `tandem call ladder`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct LadderArgs {
    /// Which, and common arguments.
    #[command(flatten)]
    pub one: OneCall,
    /// One line a message instead of columns
    #[arg(long)]
    pub lines: bool,
}

/// `tandem budgets`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct BudgetArgs {
    /// Forget what this user has used
    #[arg(long, value_name = "NAME", conflicts_with = "reset_trunk")]
    pub reset_user: Option<String>,
    /// Forget what this trunk has used
    #[arg(long, value_name = "NAME")]
    pub reset_trunk: Option<String>,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

impl BudgetArgs {
    fn request(&self) -> Request {
        let reset = |kind: &str, name: &String| Request::ResetBudget {
            kind: kind.to_owned(),
            name: name.clone(),
        };
        let user = self.reset_user.as_ref().map(|name| reset("user", name));
        let trunk = || self.reset_trunk.as_ref().map(|name| reset("trunk", name));
        user.or_else(trunk).unwrap_or(Request::Budgets)
    }
}

/// `tandem reload`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct ReloadArgs {
    /// Only tell what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

/// `tandem drain`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct DrainArgs {
    /// When calls that are left are ended: 90s, 15m, 2h; by default `[node] drain`
    #[arg(long, value_name = "TIME")]
    pub within: Option<String>,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

/// `tandem bans`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct BanArgs {
    /// End the bans of this address or network
    #[arg(long, value_name = "ADDRESS", value_parser = parse_network)]
    pub lift: Option<Network>,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

/// `tandem cdr`.
#[derive(Clone, Debug, clap::Args, Eq, PartialEq)]
pub struct CdrArgs {
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub limit: u32,
    /// Only calls begun since then: 90s, 15m, 2h, 7d, or 2026-11-03T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only calls that failed
    #[arg(long)]
    pub failed: bool,
    /// Only this call
    #[arg(long, value_name = "ID", value_parser = parse_call)]
    pub call: Option<CallId>,
    /// Common arguments.
    #[command(flatten)]
    pub reach: Reach,
}

/// What a command prints, and how it ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// For standard output, ending in a newline.
    pub text: String,
    /// For the shell.
    pub exit: Exit,
}

impl AdminCommand {
    /// Returns the arguments that every command takes.
    pub fn reach(&self) -> &Reach {
        match self {
            Self::Status(reach)
            | Self::Calls(reach)
            | Self::Phones(reach)
            | Self::Trunks(reach)
            | Self::Upgrade(reach) => reach,
            Self::Call { what: CallCommand::Show(one) }
            | Self::Explain(one)
            | Self::Hangup(one) => &one.reach,
            Self::Call { what: CallCommand::Ladder(args) } => &args.one.reach,
            Self::Reload(args) => &args.reach,
            Self::Drain(args) => &args.reach,
            Self::Budgets(args) => &args.reach,
            Self::Bans(args) => &args.reach,
            Self::Cdr(args) => &args.reach,
        }
    }

    /// Returns the question, or a sentence on what is wrong with the arguments.
    fn request(&self, now: UtcMs) -> Result<Request, String> {
        Ok(match self {
            Self::Status(_) => Request::Status,
            Self::Calls(_) => Request::Calls,
            Self::Phones(_) => Request::Phones,
            Self::Trunks(_) => Request::Trunks,
            Self::Reload(args) if args.dry_run => Request::PlanReload,
            Self::Reload(_) => Request::Reload,
            Self::Drain(args) => {
                Request::Drain { within_s: args.within.as_deref().map(parse_span_s).transpose()? }
            }
            Self::Upgrade(_) => Request::Upgrade,
            Self::Call { what: CallCommand::Show(one) } => Request::CallShow { call: one.call },
            Self::Call { what: CallCommand::Ladder(args) } => {
                Request::CallLadder { call: args.one.call }
            }
            Self::Budgets(args) => args.request(),
            Self::Bans(args) => match args.lift {
                Some(network) => Request::Lift { addresses: network.to_string() },
                None => Request::Bans,
            },
            Self::Explain(one) => Request::CallExplain { call: one.call },
            Self::Hangup(one) => Request::Hangup { call: one.call },
            Self::Cdr(args) => Request::Cdr(CdrQuery {
                limit: args.limit,
                since: args.since.as_deref().map(|text| parse_since(text, now)).transpose()?,
                failed_only: args.failed,
                call: args.call.map(|call| call.to_string()),
            }),
        })
    }

    /// Asks the program at `socket`.
    pub async fn run(&self, socket: &Path) -> Output {
        let request = match self.request(std::time::SystemTime::now().into()) {
            Ok(request) => request,
            Err(sentence) => return self.fail(&sentence, Exit::Usage),
        };
        let response = match control::ask(socket, &request).await {
            Ok(response) => response,
            Err(error) => return self.fail(&error.to_string(), Exit::Wrong),
        };
        let exit = views::exit(&response);
        let wants_lines =
            matches!(self, Self::Call { what: CallCommand::Ladder(args) } if args.lines);
        if self.reach().json {
            return Output { text: views::json(&response), exit };
        }
        let response = views::cleaned(response);
        let text = if let Response::Ladder(rungs) = &response
            && wants_lines
        {
            rungs.to_string()
        } else {
            views::text(&response)
        };
        Output { text, exit }
    }

    fn fail(&self, sentence: &str, exit: Exit) -> Output {
        let text = match self.reach().json {
            true => format!("{:#}\n", serde_json::json!({ "error": sentence })),
            false => format!("error: {sentence}\n"),
        };
        Output { text, exit }
    }
}

fn parse_call(text: &str) -> Result<CallId, String> {
    CallId::parse(text).ok_or_else(|| "a call looks like c00-2a; `tandem calls` lists them".into())
}

fn parse_network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| format!("{error} (help: `tandem bans` lists them)"))
}

/// Reads a point of time, or how long ago it was.
fn parse_since(text: &str, now: UtcMs) -> Result<UtcMs, String> {
    let ago = seconds(text).and_then(|s| s.checked_mul(1_000));
    ago.map(|ms| UtcMs(now.0.saturating_sub(ms))).or_else(|| UtcMs::parse(text)).ok_or_else(|| {
        format!("`{text}` is no time (help: write 90s, 15m, 2h, 7d, or 2026-11-03T10:00:00Z)")
    })
}

fn parse_span_s(text: &str) -> Result<u64, String> {
    seconds(text).ok_or_else(|| format!("`{text}` is no time (help: write 90s, 15m or 2h)"))
}

/// Reads `90s`, `15m`, `2h`, `7d`.
fn seconds(text: &str) -> Option<u64> {
    let unit_s = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    text.get(..text.len().saturating_sub(1))?.parse::<u64>().ok()?.checked_mul(unit_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: AdminCommand,
    }

    fn parse(line: &str) -> Result<AdminCommand, clap::Error> {
        let words = std::iter::once("tandem").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn every_command_asks_its_question() {
        let call = CallId::parse("c00-2a").unwrap();
        let cdr = |query| Request::Cdr(query);
        let since = Some(UtcMs(2_800_000));
        for (line, want) in [
            ("status", Request::Status),
            ("calls --json", Request::Calls),
            ("call show c00-2a", Request::CallShow { call }),
            ("call ladder c00-2a --lines", Request::CallLadder { call }),
            ("explain c00-2a", Request::CallExplain { call }),
            ("phones", Request::Phones),
            ("trunks", Request::Trunks),
            ("budgets", Request::Budgets),
            (
                "budgets --reset-user 1001",
                Request::ResetBudget { kind: "user".into(), name: "1001".into() },
            ),
            (
                "budgets --reset-trunk twilio",
                Request::ResetBudget { kind: "trunk".into(), name: "twilio".into() },
            ),
            ("bans --json", Request::Bans),
            ("bans --lift 192.0.2.7", Request::Lift { addresses: "192.0.2.7".into() }),
            ("bans --lift 2001:db8::/64", Request::Lift { addresses: "2001:db8::/64".into() }),
            ("cdr", cdr(CdrQuery::default())),
            (
                "cdr -n 5 --failed",
                cdr(CdrQuery { limit: 5, failed_only: true, ..CdrQuery::default() }),
            ),
            ("cdr --since 2h", cdr(CdrQuery { since, ..CdrQuery::default() })),
            (
                "cdr --call c00-2a",
                cdr(CdrQuery { call: Some("c00-2a".into()), ..CdrQuery::default() }),
            ),
            ("reload -c pbx.toml", Request::Reload),
            ("reload --dry-run", Request::PlanReload),
            ("drain --socket /run/t.sock", Request::Drain { within_s: None }),
            ("drain --within 15m", Request::Drain { within_s: Some(900) }),
            ("upgrade --socket /run/t.sock", Request::Upgrade),
            ("hangup c00-2a", Request::Hangup { call }),
        ] {
            assert_eq!(parse(line).unwrap().request(UtcMs(10_000_000)), Ok(want), "{line}");
        }
    }

    #[test]
    fn mistakes_on_the_command_line_are_usage() {
        for line in
            ["call show 42", "hangup", "cdr -n many", "status c00-2a", "call", "bans --lift me"]
        {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for since in ["yesterday", "", "h", "99999999999999999999d", "é"] {
            assert!(parse_since(since, UtcMs(0)).unwrap_err().contains("2h"), "{since}");
        }
        assert_eq!(parse_since("1970-01-01T00:00:01Z", UtcMs(0)), Ok(UtcMs(1_000)));
    }

    #[tokio::test]
    async fn failures_have_a_sentence_and_a_code() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("none.sock");
        let output = parse("status").unwrap().run(&socket).await;
        assert_eq!(output.exit, Exit::Wrong);
        assert!(output.text.starts_with("error: no tandem answers at "), "{}", output.text);
        let output = parse("cdr --json --since soon").unwrap().run(&socket).await;
        assert_eq!(output.exit, Exit::Usage);
        assert!(output.text.starts_with("{\n  \"error\": \"`soon` is no time"), "{}", output.text);
    }
}

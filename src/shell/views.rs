//! Answers as people and programs read them on a terminal.
//!
//! Owns: tables, wording, exit codes. Text is masked; `--json` is the answer as it is.
//! Never: asks.

use crate::observe::{
    cdr::{Cdr, LegMedia, Stream, UtcMs},
    ladder::Rungs,
    mask::Text,
    plain,
    status::{
        BanRow, BudgetRow, CallDetail, CallSummary, ContactRow, PhoneRow, ReloadReport, Response,
        SignallingCounts, StatusReport, TrunkRow, TrunkState,
    },
};
use std::fmt::Write;

mod table;
pub(in crate::shell) use table::Table;
use table::{dash, or_dash};

/// How a command ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// Something is wrong, missing or refused.
    Wrong,
    /// The command line was not understood.
    Usage,
}

impl Exit {
    /// Returns the code for the shell; it stays the same across releases.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Wrong => 1,
            Self::Usage => 2,
        }
    }

    pub(super) fn wrong_if(is_wrong: bool) -> Self {
        if is_wrong { Self::Wrong } else { Self::Ok }
    }
}

/// Returns how a command ends that was answered so.
pub fn exit(response: &Response) -> Exit {
    match response {
        Response::Status(report) => Exit::wrong_if(!report.problems().is_empty()),
        Response::Trunks(rows) => {
            Exit::wrong_if(rows.iter().any(|row| row.state == TrunkState::Down))
        }
        Response::Budgets(rows) => Exit::wrong_if(rows.iter().any(BudgetRow::is_used_up)),
        Response::Reload(report) => Exit::wrong_if(!report.is_applied && !report.is_plan),
        Response::NotFound(_) | Response::Refused(_) => Exit::Wrong,
        Response::Calls(_)
        | Response::Call(_)
        | Response::Ladder(_)
        | Response::Phones(_)
        | Response::Story(_)
        | Response::Bans(_)
        | Response::Record(_)
        | Response::Cdrs(_)
        | Response::Done(_) => Exit::Ok,
    }
}

/// Returns the answer as JSON, ending in a newline: numbers in full, for programs.
pub fn json(response: &Response) -> String {
    let value = match response {
        Response::Status(report) => serde_json::to_value(report),
        Response::Calls(rows) => serde_json::to_value(rows),
        Response::Call(detail) => serde_json::to_value(detail),
        Response::Ladder(rungs) => serde_json::to_value(rungs),
        Response::Story(story) => serde_json::to_value(story),
        Response::Phones(rows) => serde_json::to_value(rows),
        Response::Trunks(rows) => serde_json::to_value(rows),
        Response::Budgets(rows) => serde_json::to_value(rows),
        Response::Bans(rows) => serde_json::to_value(rows),
        Response::Record(cdr) => serde_json::to_value(cdr),
        Response::Cdrs(cdrs) => serde_json::to_value(cdrs),
        Response::Reload(report) => serde_json::to_value(report),
        Response::Done(sentence) => Ok(serde_json::json!({ "done": sentence })),
        Response::NotFound(sentence) => Ok(serde_json::json!({ "not_found": sentence })),
        Response::Refused(sentence) => Ok(serde_json::json!({ "refused": sentence })),
    };
    // Only maps with other keys than strings fail, and there is none.
    plain::json(&format!("{:#}\n", value.unwrap_or_default())).into_owned()
}

/// Returns the answer without what peers wrote into it to deceive a terminal. Sentences of our own keep
/// their lines.
pub fn cleaned(response: Response) -> Response {
    match response {
        Response::Calls(_)
        | Response::Call(_)
        | Response::Ladder(_)
        | Response::Story(_)
        | Response::Phones(_)
        | Response::Trunks(_)
        | Response::Budgets(_)
        | Response::Bans(_)
        | Response::Record(_)
        | Response::Cdrs(_)
        | Response::Status(_) => {
            // It has just come as JSON, so it can go through it once more.
            let mut value = serde_json::to_value(&response).unwrap_or_default();
            clean(&mut value);
            serde_json::from_value(value).unwrap_or(response)
        }
        Response::Reload(_) | Response::Done(_) | Response::NotFound(_) | Response::Refused(_) => {
            response
        }
    }
}

fn clean(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => *text = plain::spaced(text),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(fields) => fields.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns the answer as text, ending in a newline.
pub fn text(response: &Response) -> String {
    match response {
        Response::Status(report) => status(report),
        Response::Calls(rows) => calls(rows),
        Response::Call(detail) => call(detail),
        Response::Ladder(rungs) => ladder(rungs),
        Response::Story(story) => format!("{story}\n"),
        Response::Phones(rows) => phones(rows),
        Response::Trunks(rows) => format!("{}{}", trunks(rows), addresses(rows)),
        Response::Budgets(rows) => budgets(rows),
        Response::Bans(rows) => bans(rows),
        Response::Record(cdr) => record(cdr),
        Response::Cdrs(cdrs) => records(cdrs),
        Response::Reload(report) => reload(report),
        Response::Done(sentence) | Response::NotFound(sentence) | Response::Refused(sentence) => {
            format!("{sentence}\n")
        }
    }
}

fn status(report: &StatusReport) -> String {
    let StatusReport { node, version, calls, ports, store, signalling, .. } = report;
    let mut page = Table::pairs();
    page.pair("node", format!("{node}, tandem {version}"));
    page.pair("up", format!("{}, since {}", span(report.uptime_s), report.started));
    page.pair("configured", report.configured.to_string());
    page.pair("listening", dash(&report.listeners.join(" ")));
    if let Some(address) = report.public_ip {
        page.pair("public", address.to_string());
    }
    if !report.certificates.is_empty() {
        let each = report.certificates.iter().map(|row| match row.days_left() {
            past @ ..0 => format!("{} expired {} days ago", row.of, past.unsigned_abs()),
            days => format!("{} holds {days} days", row.of),
        });
        page.pair("certificate", each.collect::<Vec<_>>().join(", "));
    }
    let (ringing, talking) = (calls.ringing, calls.talking);
    let past = format!("{} since the start, {} failed", calls.total, calls.failed);
    page.pair("calls", format!("{ringing} ringing, {talking} talking; {past}"));
    page.pair("phones", format!("{} registered", report.phones));
    page.pair("rtp", format!("{} of {} port pairs taken", ports.used, ports.total));
    let SignallingCounts { transactions, dialogs, connections, .. } = signalling;
    let now = format!("{transactions} transactions, {dialogs} dialogs, {connections} connections");
    page.pair("sip", now);
    let SignallingCounts { retransmissions, timeouts, send_errors, discarded, overrun, .. } =
        signalling;
    let lost = format!("{timeouts} unanswered, {send_errors} not sent, {discarded} discarded");
    page.pair("sip so far", format!("{retransmissions} sent again, {lost}, {overrun} overrun"));
    let health = if store.problem.is_some() { "broken" } else { "open" };
    page.pair("store", format!("{health}, {} waiting, {} lost", store.queued, store.dropped));
    if report.is_draining {
        page.pair("draining", "new calls are refused".into());
    }
    let mut text = page.to_string();
    if !report.trunks.is_empty() {
        _ = write!(text, "\n{}", trunks(&report.trunks));
    }
    for problem in report.problems() {
        _ = writeln!(text, "\nwrong: {problem}");
    }
    text
}

fn calls(rows: &[CallSummary]) -> String {
    let header = ["CALL", "PHASE", "DIRECTION", "FROM", "TO", "RULE", "TRUNK", "TIME"];
    let mut table = Table::new("no calls", &header);
    for row in rows {
        table.row(vec![
            row.call.to_string(),
            row.phase.word().into(),
            row.direction.word().into(),
            row.from.to_string(),
            row.to.to_string(),
            or_dash(row.rule.as_ref()),
            or_dash(row.trunk.as_ref()),
            span(row.duration_s),
        ]);
    }
    table.to_string()
}

fn call(detail: &CallDetail) -> String {
    let summary = &detail.summary;
    let mut page = Table::pairs();
    page.pair("call", summary.call.to_string());
    let phase = format!("{}, {}", summary.phase.word(), span(summary.duration_s));
    page.pair("phase", phase);
    page.pair("direction", summary.direction.word().into());
    page.pair("from", summary.from.to_string());
    page.pair("to", format!("{} (dialled {})", summary.to, detail.dialled));
    page.pair("caller id", or_dash(detail.caller_id.as_ref()));
    page.pair("rule", or_dash(summary.rule.as_ref()));
    page.pair("trunk", or_dash(summary.trunk.as_ref()));
    page.pair("start", summary.start.to_string());
    let media = if detail.is_transcoded { "transcoded" } else { "as received" };
    page.pair("media", media.into());
    let header =
        ["LEG", "NAME", "STATE", "FLOW", "CODEC", "SRTP", "RTP", "RTP FROM", "SIP CALL-ID"];
    let mut legs = Table::new("no legs", &header);
    for leg in &detail.legs {
        legs.row(vec![
            leg.leg.clone(),
            leg.name.to_string(),
            leg.state.clone(),
            leg.flow.clone(),
            or_dash(leg.codec.as_ref()),
            or_dash(leg.srtp.as_ref()),
            or_dash(leg.rtp_port.as_ref()),
            or_dash(leg.rtp_remote.as_ref()),
            leg.sip_call_id.clone(),
        ]);
    }
    let mut text = format!("{page}\n{legs}");
    for (n, line) in detail.why.iter().enumerate() {
        _ = writeln!(text, "{}{}", if n == 0 { "\n" } else { "" }, Text(line));
    }
    text
}

fn ladder(rungs: &Rungs) -> String {
    match rungs.participants().is_empty() {
        true => "no messages\n".into(),
        false => rungs.columns(),
    }
}

fn phones(rows: &[PhoneRow]) -> String {
    let header = ["PHONE", "NAME", "CALLS", "CONTACT", "AT", "EXPIRES", "RTT", "DEVICE"];
    let mut table = Table::new("no phones", &header);
    for phone in rows {
        let name = or_dash(phone.name.as_ref());
        let first = [phone.user.to_string(), name, phone.calls.to_string()];
        if phone.contacts.is_empty() {
            let absent = ["not registered", "-", "-", "-", "-"].map(str::to_owned);
            table.row(first.iter().cloned().chain(absent).collect());
        }
        for contact in &phone.contacts {
            let rest = [
                Text(&contact.contact).to_string(),
                contact.flow.clone(),
                span(contact.expires_s),
                pulse(contact),
                or_dash(contact.user_agent.as_ref()),
            ];
            table.row(first.iter().cloned().chain(rest).collect());
        }
    }
    table.to_string()
}

fn budgets(rows: &[BudgetRow]) -> String {
    let header = ["WHOSE", "NAME", "CALLS/H", "CALLS/D", "MIN/H", "MIN/D", "COUNTRIES/D"];
    let mut table = Table::new("nobody has called by a trunk", &header);
    for row in rows {
        let used = row.each().map(|used| match used.limit {
            Some(limit) => format!("{} of {limit}", used.used),
            None => used.used.to_string(),
        });
        table.row([row.kind.clone(), row.name.clone()].into_iter().chain(used).collect());
    }
    table.to_string()
}

fn bans(rows: &[BanRow]) -> String {
    let mut table = Table::new("nobody is banned", &["SOURCE", "WHY", "SINCE", "LEFT", "DROPPED"]);
    for row in rows {
        table.row(vec![
            row.source.clone(),
            row.why.clone(),
            row.since.to_string(),
            span(row.left_s),
            row.dropped.to_string(),
        ]);
    }
    table.to_string()
}

fn trunks(rows: &[TrunkRow]) -> String {
    let header = ["TRUNK", "STATE", "SINCE", "RTT", "CALLS", "TARGET"];
    let mut table = Table::new("no trunks", &header);
    for row in rows {
        let calls = match row.calls_max {
            Some(max) => format!("{} of {max}", row.calls),
            None => row.calls.to_string(),
        };
        let calls = match row.waiting {
            0 => calls,
            waiting => format!("{calls}, {waiting} wait"),
        };
        table.row(vec![
            row.name.clone(),
            row.state.word().into(),
            or_dash(row.since.as_ref()),
            millis(row.rtt_ms),
            calls,
            row.target.clone(),
        ]);
    }
    let mut text = table.to_string();
    for row in rows {
        if let Some(address) = row.seen_as {
            _ = writeln!(text, "{} sees us as {address}", row.name);
        }
        if let Some(why) = &row.last_refusal {
            _ = writeln!(text, "{} refused a call: {why}", row.name);
        }
    }
    text
}

/// Every address of every trunk, where there is more to say than the line of the trunk does.
fn addresses(rows: &[TrunkRow]) -> String {
    if rows.iter().all(|row| row.addresses.is_empty()) {
        return String::new();
    }
    let header = ["TRUNK", "EDGE", "ADDRESS", "STATE", "FOR", "RTT", "LAST FAILURE"];
    let mut table = Table::new("", &header);
    for row in rows {
        for address in &row.addresses {
            table.row(vec![
                row.name.clone(),
                address.host.clone(),
                address.address.clone(),
                address.state.clone(),
                span(address.state_s),
                millis(address.rtt_ms),
                or_dash(address.last_refusal.as_ref()),
            ]);
        }
    }
    format!("\n{table}")
}

fn records(cdrs: &[Cdr]) -> String {
    let header =
        ["START", "CALL", "DIRECTION", "FROM", "TO", "RULE", "TRUNK", "TALK", "STATUS", "OUTCOME"];
    let mut table = Table::new("no records", &header);
    for cdr in cdrs {
        let why = cdr.ending.why.as_ref();
        let outcome = cdr.outcome().word();
        table.row(vec![
            cdr.times.start.to_string(),
            cdr.call.to_string(),
            cdr.direction.word().into(),
            cdr.caller.number.to_string(),
            cdr.callee.number.to_string(),
            or_dash(cdr.route.rule.as_ref()),
            or_dash(cdr.route.trunk.as_ref()),
            span(cdr.times.talk_ms() / 1_000),
            cdr.ending.status.to_string(),
            why.map_or_else(|| outcome.into(), |why| format!("{outcome}: {why}")),
        ]);
    }
    table.to_string()
}

fn record(cdr: &Cdr) -> String {
    let Cdr { caller, callee, route, times, ending, media, .. } = cdr;
    let mut page = Table::pairs();
    page.pair("call", format!("{}, over", cdr.call));
    page.pair("direction", cdr.direction.word().into());
    let of = |id: &Option<String>| id.as_ref().map_or_else(String::new, |id| format!(", {id}"));
    page.pair("from", format!("{}{}", caller.number, of(&caller.sip_call_id)));
    page.pair("to", format!("{}{}", callee.number, of(&callee.sip_call_id)));
    page.pair("dialled", route.dialled.to_string());
    page.pair("caller id", or_dash(route.caller_id.as_ref()));
    page.pair("rule", or_dash(route.rule.as_ref()));
    page.pair("trunk", or_dash(route.trunk.as_ref()));
    for attempt in &route.attempts {
        page.pair("attempt", format!("+{} ms {attempt}", attempt.after_ms));
    }
    page.pair("start", times.start.to_string());
    page.pair("ring", moment(times.ring, times.ring_delay_ms()));
    page.pair("answer", moment(times.answer, times.answer_delay_ms()));
    page.pair("end", moment(Some(times.end), Some(times.total_ms())));
    page.pair("talk", format!("{} ms", times.talk_ms()));
    let outcome = cdr.outcome().word();
    let cause = ending.q850.map_or_else(String::new, |cause| format!(", Q.850 {cause}"));
    let by = ending.by.word();
    page.pair("ended", format!("{outcome} by {by}, {}{cause}", ending.status));
    if let Some(why) = &ending.why {
        page.pair("why", format!("{}: {}", why.code, why.sentence));
        page.pair("help", or_dash(why.help.as_ref()));
    }
    let media_word = if media.is_transcoded { ", transcoded" } else { "" };
    page.pair("caller media", format!("{}{media_word}", leg_media(&media.caller)));
    page.pair("callee media", format!("{}{media_word}", leg_media(&media.callee)));
    if let Some(quality) = &cdr.quality {
        page.pair("quality", quality.clone());
    }
    page.to_string()
}

fn leg_media(leg: &LegMedia) -> String {
    let stream = |way: &str, stream: Option<&Stream>| {
        stream.map_or_else(String::new, |s| {
            let mos = s.mos.map_or_else(String::new, |mos| format!(", MOS {mos:.1}"));
            let Stream { packets, lost, jitter_ms, .. } = s;
            format!("; {way} {packets} packets, {lost} lost, jitter {jitter_ms:.1} ms{mos}")
        })
    };
    let received = stream("received", leg.received.as_ref());
    let sent = stream("sent", leg.sent.as_ref());
    let relay = leg.relay_jitter_us.map_or_else(String::new, |us| format!("; relay {us} µs"));
    let srtp = leg.srtp.as_ref().map_or_else(String::new, |suite| format!(" over SRTP ({suite})"));
    format!("{}{srtp}{received}{sent}{relay}", or_dash(leg.codec.as_ref()))
}

fn reload(report: &ReloadReport) -> String {
    let mut text = match (report.is_applied, report.is_plan) {
        (true, _) => "the new configuration is in use\n",
        (false, true) => "the new configuration can be used; the old one is\n",
        (false, false) => "the old configuration stays in use\n",
    }
    .to_owned();
    if let Some(process) = report.process {
        _ = writeln!(
            text,
            "process {process} has taken over; this one keeps its calls until they end"
        );
    }
    for problem in &report.problems {
        _ = writeln!(text, "{}", problem.trim_end());
    }
    for change in &report.changes {
        _ = writeln!(text, "{change}");
    }
    let by = match report.is_replaceable {
        true => "by a new process, which takes over",
        false => "by a restart only",
    };
    for what in &report.by_process {
        _ = writeln!(text, "{by}: {what}");
    }
    text
}

/// `2026-11-03T10:12:13.456Z (+900 ms)`
fn moment(at: Option<UtcMs>, after_ms: Option<u64>) -> String {
    match (at, after_ms) {
        (Some(at), Some(ms)) => format!("{at} (+{ms} ms)"),
        (Some(at), None) => at.to_string(),
        (None, _) => dash(""),
    }
}

/// `12.3 ms`, or with what came of the OPTIONS since: `12.3 ms, 3 missed`
fn pulse(contact: &ContactRow) -> String {
    match (contact.rtt_ms, contact.missed_pings) {
        (rtt_ms, 0) => millis(rtt_ms),
        (None, missed) => format!("{missed} missed"),
        (Some(_), missed) => format!("{}, {missed} missed", millis(contact.rtt_ms)),
    }
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| dash(""), |ms| format!("{ms:.1} ms"))
}

/// `0:07`, `1:02:03`, `3 d 04:05:06`
fn span(s: u64) -> String {
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        (_, _) => format!("{days} d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests;

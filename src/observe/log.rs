//! How log lines look, and the two that every call has.
//!
//! Owns: the format, the names of the identity fields, the wording of a call's two lines.
//! Never: prints a number in full or a secret, or lets what a peer wrote begin a line.
//!
//! Conventions: identity once, in the span (`call leg trunk sip_call_id rule aor flow`); values as
//! fields; a message of at most four words. ERROR: we are broken. WARN: worth waking someone. INFO:
//! one line at a call's start, one at its end, one per trunk state change. DEBUG: transitions. TRACE:
//! packets.

use super::{
    cdr::Cdr,
    cdr::Direction,
    mask::Number,
    plain::{self, Escaping},
};
use crate::ids::{CallId, Flow, LegId};
use std::{
    fmt::{Debug, Write},
    io,
};
use tracing::{
    Span, debug_span, error_span,
    field::{Empty, Field, display},
    info,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    filter::Targets,
    fmt::{self, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For people at a terminal: the same in colour.
    Colour,
    /// For machines: an object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error(
        "`{filter}` is not a log level: use error, warn, info, debug, trace, or `tandem=debug`"
    )]
    Filter {
        /// As given.
        filter: Box<str>,
    },
    /// It was set up before.
    #[error("logging was set up twice")]
    Twice(#[from] TryInitError),
}

/// Starts writing log lines to `writer`.
///
/// `filter` is a level (`info`) or directives (`tandem::media=trace,warn`). The caller takes it from
/// the environment where that overrides the configuration.
pub fn init<W>(format: Format, filter: &str, writer: W) -> Result<(), LogError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let registry = tracing_subscriber::registry().with(layer(format, writer));
    match parse_filter(filter)? {
        Filter::Static(targets) => Ok(registry.with(targets).try_init()?),
        Filter::Dynamic(directives) => Ok(registry.with(*directives).try_init()?),
    }
}

/// Which lines are written.
enum Filter {
    /// By level and module alone: entering a span costs nothing more.
    Static(Targets),
    /// By what a span tells.
    Dynamic(Box<EnvFilter>),
}

fn parse_filter(filter: &str) -> Result<Filter, LogError> {
    if let Ok(targets) = filter.parse::<Targets>() {
        return Ok(Filter::Static(targets));
    }
    let directives = EnvFilter::try_new(filter);
    let mistake = |_| LogError::Filter { filter: filter.into() };
    directives.map(|directives| Filter::Dynamic(Box::new(directives))).map_err(mistake)
}

fn layer<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // Peers write into values: whatever they wrote, a line stays one line, and shows what it is.
    let fields = fmt::format::debug_fn(write_field).delimited(" ");
    match format {
        Format::Text => {
            let lines = fmt::layer().with_writer(writer).with_target(false);
            lines.with_ansi(false).fmt_fields(fields).boxed()
        }
        Format::Colour => {
            let lines = fmt::layer().with_writer(writer).with_target(false);
            lines.with_ansi(true).fmt_fields(fields).boxed()
        }
        Format::Json => {
            let lines = fmt::layer().with_writer(PlainJson(writer)).with_target(false);
            let lines = lines.with_ansi(false).json().flatten_event(true);
            lines.with_current_span(false).with_span_list(true).boxed()
        }
    }
}

/// Writes `name=value`, or a message without its name.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let name = field.name();
    if name != "message" {
        let name = name.strip_prefix("r#").unwrap_or(name);
        match to.has_ansi_escapes() {
            true => write!(to, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
            false => write!(to, "{name}=")?,
        }
    }
    write!(Escaping(to), "{value:?}")
}

/// Where JSON lines go that escape more than JSON asks for.
struct PlainJson<M>(M);

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for PlainJson<M> {
    type Writer = PlainJsonWriter<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        PlainJsonWriter(self.0.make_writer())
    }
}

struct PlainJsonWriter<W>(W);

impl<W: io::Write> io::Write for PlainJsonWriter<W> {
    /// An event is written at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(plain::json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

// Spans are of the highest level: a filter that lets only errors through must not take away who the
// error is about.

/// Opens the span in which everything about one call is logged. `rule` and `trunk` are recorded once
/// they are known.
pub fn call_span(call: CallId) -> Span {
    error_span!("call", %call, rule = Empty, trunk = Empty)
}

/// Opens the span in which everything about one leg is logged, inside its call's. `flow` is recorded
/// once it is known.
pub fn leg_span(leg: LegId, sip_call_id: &str, flow: Option<Flow>) -> Span {
    let span = error_span!("leg", %leg, sip_call_id, flow = Empty);
    if let Some(flow) = flow {
        span.record("flow", display(flow));
    }
    span
}

/// Opens the span in which everything about one trunk is logged.
pub fn trunk_span(trunk: &str) -> Span {
    error_span!("trunk", trunk)
}

/// Opens the span in which everything about one registration is logged.
pub fn registration_span(aor: &str, flow: Flow) -> Span {
    debug_span!("registration", aor = %Number(aor), %flow)
}

/// Writes the line at a call's start, inside its span.
pub fn call_started(direction: Direction, from: &str, dialled: &str) {
    let (from, dialled) = (Number(from), Number(dialled));
    info!(direction = direction.word(), %from, %dialled, "call started");
}

/// Writes the line at a call's end, inside its span. A call that failed says why and what to do.
///
/// `trouble` is what was wrong with the sound.
pub fn call_ended(cdr: &Cdr, trouble: Option<&str>) {
    let (outcome, status) = (cdr.outcome().word(), cdr.ending.status);
    let (by, talk_ms) = (cdr.ending.by.word(), cdr.times.talk_ms());
    let (from, to) = (&cdr.caller.number, &cdr.callee.number);
    let q850 = cdr.ending.q850;
    let why = cdr.ending.why.as_ref().map(display);
    let quality = trouble;
    info!(outcome, status, by, q850, talk_ms, %from, %to, why, quality, "call ended");
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        ids::{ShardId, Transport},
        observe::cdr::tests::{answered, refused},
    };
    use std::{
        io::Write,
        sync::mpsc::{SyncSender, sync_channel},
    };
    use tracing::subscriber::with_default;

    /// Where a test's lines go.
    #[derive(Clone)]
    struct Sink(SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.try_send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is written in this format and to this filter.
    pub(crate) fn written(format: Format, filter: &str, log: impl FnOnce()) -> String {
        let (sender, lines) = sync_channel(100);
        let sink = Sink(sender);
        let registry = tracing_subscriber::registry().with(layer(format, move || sink.clone()));
        match parse_filter(filter).unwrap() {
            Filter::Static(targets) => with_default(registry.with(targets), log),
            Filter::Dynamic(directives) => with_default(registry.with(*directives), log),
        }
        String::from_utf8(lines.try_iter().flatten().collect()).unwrap()
    }

    fn one_call(cdr: &Cdr) {
        let _call = call_span(cdr.call).entered();
        Span::current().record("rule", "internal[2]");
        call_started(cdr.direction, "1001", "(415) 555-0199");
        let remote = "192.0.2.1:5060".parse().unwrap();
        let flow = Flow { transport: Transport::Udp, local: remote, remote };
        let _leg = leg_span(LegId::new(ShardId(0), 1), "a@b", Some(flow)).entered();
        call_ended(cdr, None);
    }

    #[test]
    fn a_call_has_two_lines_and_neither_tells_a_number() {
        for format in [Format::Text, Format::Json] {
            let lines = written(format, "info", || one_call(&answered(42)));
            assert_eq!(lines.lines().count(), 2, "{lines}");
            for leak in ["5550199", "555-0199", "7756187988"] {
                assert!(!lines.contains(leak), "{lines}");
            }
            for fact in ["c00-2a", "internal[2]", "outbound", "+1415****199", "call ended"] {
                assert!(lines.contains(fact), "{fact}\n{lines}");
            }
        }
    }

    #[test]
    fn a_failed_call_says_why_and_what_to_do() {
        let lines = written(Format::Text, "info", || one_call(&refused(1)));
        let sentence = "T001: the carrier does not let us call from +1775****988 (help: set";
        assert!(lines.contains(sentence), "{lines}");
    }

    #[test]
    fn bad_sound_is_told_with_the_end() {
        let trouble = "loss 4 % between carrier and PBX; none towards the phone";
        let lines = written(Format::Text, "info", || call_ended(&answered(1), Some(trouble)));
        assert!(lines.contains(trouble), "{lines}");
        let lines = written(Format::Text, "info", || call_ended(&answered(1), None));
        assert!(!lines.contains("quality"), "{lines}");
    }

    /// As a value by itself, by `Display` and as an error; in a span, also told later; as a message.
    #[test]
    fn what_a_peer_writes_stays_in_its_line() {
        let evil =
            "x\r\n2026-11-21T00:00:00Z ERROR forged \u{1b}[2J\u{9b}2J\u{202e}\u{2028}\u{7f}\0";
        for format in [Format::Text, Format::Json] {
            let lines = written(format, "trace", || {
                let _leg = leg_span(LegId::new(ShardId(0), 1), evil, None).entered();
                let _trunk = trunk_span(evil).entered();
                let _call = call_span(CallId::new(ShardId(0), 1)).entered();
                Span::current().record("rule", display(evil));
                let error = io::Error::other(evil);
                let failed: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(value = evil, shown = %evil, debugged = ?evil, failed, "{evil}");
            });
            assert_eq!(lines.lines().count(), 1, "{lines:?}");
            assert_eq!(lines.matches("forged").count(), 8, "{lines}");
            let bad = lines.trim_end_matches('\n').chars().find(|c| !plain::is_plain(*c));
            assert_eq!(bad, None, "{lines:?}");
            if format == Format::Json {
                let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
                assert_eq!(line["value"], evil);
            }
        }
        let lines = written(Format::Colour, "trace", || tracing::warn!(value = %evil, "hot"));
        assert_eq!(lines.lines().count(), 1, "{lines:?}");
        assert!(lines.contains("\u{1b}[3mvalue") && !lines.contains("\u{1b}[2J"), "{lines:?}");
    }

    #[test]
    fn the_filter_filters_and_its_mistakes_are_told() {
        for (filter, lines) in [
            ("warn", 0),
            ("warn,tandem=info", 2),
            ("tandem::observe=info", 2),
            ("tandem::media=trace,warn", 0),
            ("[call{call=c00-1}]=info", 2),
            ("[call{call=c00-7}]=info", 0),
        ] {
            let written = written(Format::Text, filter, || one_call(&answered(1)));
            assert_eq!(written.lines().count(), lines, "{filter}\n{written}");
        }
        let Err(mistake) = parse_filter("tandem=loud") else { panic!() };
        let mistake = mistake.to_string();
        assert!(mistake.contains("`tandem=loud`"), "{mistake}");
    }
}

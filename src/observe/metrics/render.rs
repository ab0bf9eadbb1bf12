//! The text that Prometheus scrapes (exposition format 0.0.4).
//!
//! Owns: every metric's name and help.
//! Never: counts.

use super::{Calls, Histogram, Media, Shard, Snapshot, Store, Tally, Transports};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, text},
    metrics::{MetricType, exemplar::Exemplar, gauge::ConstGauge},
    registry::Registry,
};
use std::{collections::HashMap, fmt};

/// What a label set looks like while it is written.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Renders everything that is counted.
pub fn render(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("tandem");
    registry.register_collector(Box::new(Everything(snapshot.clone())));
    let mut exposition = String::with_capacity(16 * 1024);
    if text::encode_registry(&mut exposition, &registry).is_err() {
        debug_assert!(false, "writing to a string cannot fail");
    }
    exposition
}

#[derive(Debug)]
struct Everything(Snapshot);

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.process(&self.0)?;
        page.signalling(&self.0.shard)?;
        page.calls(&self.0.shard.calls)?;
        page.media(&self.0.media)?;
        page.transports(&self.0.transports)?;
        page.certificates(&self.0)?;
        page.store(&self.0.store)?;
        page.trunks(&self.0)
    }
}

/// The page that is being written.
///
/// Counters carry their `_total` in the name and are written with the gauges' encoder: the library's
/// own counters declare their type without the suffix, as OpenMetrics wants it, and `promtool check
/// metrics`, which reads the older format, then finds samples that nobody declared.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn process(&mut self, all: &Snapshot) -> fmt::Result {
        let version = [([("version", all.version.as_str())], 1_u64)];
        self.gauges("build_info", "The program's version, as a label.", version)?;
        self.gauge("uptime_seconds", "Time since the start.", all.uptime_s)?;
        let draining = u64::from(all.is_draining);
        self.gauge("draining", "1 while new calls are refused.", draining)?;
        self.gauge("contacts", "Registered contacts.", all.contacts)
    }

    fn signalling(&mut self, shard: &Shard) -> fmt::Result {
        self.tally("sip_requests_total", "Requests received.", "method", &shard.requests)?;
        let help = "Responses sent.";
        self.tally("sip_responses_sent_total", help, "class", &shard.responses_sent)?;
        let help = "Responses received.";
        self.tally("sip_responses_received_total", help, "class", &shard.responses_received)?;
        let help = "Messages sent again because no answer came.";
        self.counter("sip_retransmissions_total", help, shard.retransmissions)?;
        let help = "Messages thrown away.";
        self.tally("sip_discards_total", help, "reason", &shard.discards)?;
        let help = "Requests of ours that nobody answered (timers B and F).";
        self.counter("sip_timeouts_total", help, shard.timeouts)?;
        let help = "Digest checks of phones.";
        self.tally("authentications_total", help, "result", &shard.authentications)?;
        self.tally("bans_total", "Sources banned.", "reason", &shard.bans)?;
        self.gauge("bans", "Bans that hold.", shard.banned)?;
        let help = "REGISTER requests.";
        self.tally("registrations_total", help, "result", &shard.registrations)?;
        let help = "Calls dropped because of a fault of ours.";
        self.counter("panics_total", help, shard.panics)?;
        self.gauge("sip_transactions", "Transactions.", shard.kept.transactions)?;
        self.gauge("sip_dialogs", "Dialogs.", shard.kept.dialogs)?;
        let help = "Transactions and calls that wait for a moment.";
        self.gauge("sip_timers", help, shard.kept.timers)?;
        let phases =
            [([("phase", "ringing")], shard.ringing), ([("phase", "talking")], shard.talking)];
        self.gauges("calls", "Running calls.", phases)
    }

    fn calls(&mut self, calls: &Calls) -> fmt::Result {
        self.tally("calls_started_total", "Calls begun.", "direction", &calls.started)?;
        let ended = calls.ended.iter().map(|((direction, outcome), n)| {
            ([("direction", direction.word()), ("outcome", outcome.word())], *n)
        });
        self.counters("calls_ended_total", "Calls ended.", ended)?;
        let refusals = calls
            .refusals
            .iter()
            .map(|((trunk, code), n)| ([("trunk", &**trunk), ("code", &**code)], *n));
        self.counters("trunk_refusals_total", "Calls that a trunk refused.", refusals)?;
        let attempts = calls
            .attempts
            .iter()
            .map(|((trunk, outcome), n)| ([("trunk", &**trunk), ("outcome", outcome.word())], *n));
        self.counters("trunk_attempts_total", "INVITEs sent to a trunk.", attempts)?;
        let failovers = calls
            .failovers
            .iter()
            .map(|((trunk, reason), n)| ([("trunk", &**trunk), ("reason", &**reason)], *n));
        let help = "INVITEs sent to a trunk that another followed.";
        self.counters("trunk_failovers_total", help, failovers)?;
        let help = "Time from INVITE to ring.";
        self.histogram("call_ring_delay_seconds", help, &calls.ring_delay)?;
        let help = "Time from INVITE to answer.";
        self.histogram("call_answer_delay_seconds", help, &calls.answer_delay)?;
        let help = "Time from answer to end.";
        self.histogram("call_talk_seconds", help, &calls.talk)
    }

    fn media(&mut self, media: &Media) -> fmt::Result {
        let help = "RTP packets forwarded.";
        self.counter("rtp_packets_relayed_total", help, media.packets_relayed)?;
        let help = "Bytes of RTP packets forwarded.";
        self.counter("rtp_relayed_bytes_total", help, media.bytes_relayed)?;
        let help = "RTP packets forwarded by the kernel, without us.";
        self.counter("rtp_packets_kernel_total", help, media.packets_kernel)?;
        let help = "RTP packets whose codec was changed.";
        self.counter("rtp_packets_transcoded_total", help, media.packets_transcoded)?;
        let help = "RTP packets of prompts, echoes and DTMF.";
        self.counter("rtp_packets_generated_total", help, media.packets_generated)?;
        self.counter("rtcp_packets_total", "RTCP packets sent.", media.reports)?;
        let help = "Media packets thrown away.";
        self.tally("rtp_discards_total", help, "reason", &media.discards)?;
        let help = "Legs that ended because nothing was heard.";
        self.counter("rtp_silences_total", help, media.silences)?;
        let help = "Legs that found no free port.";
        self.counter("rtp_open_failures_total", help, media.open_failures)?;
        let help = "Keys and first packets of peers that were not told in time.";
        self.counter("rtp_events_dropped_total", help, media.events_dropped)?;
        let help = "Commands lost because a media worker hung.";
        self.counter("rtp_commands_lost_total", help, media.commands_lost)?;
        self.gauge("rtp_legs", "Legs with media.", media.legs)?;
        let help = "Legs whose packets the kernel forwards.";
        self.gauge("rtp_legs_kernel", help, media.legs_kernel)?;
        self.gauge("rtp_port_pairs_used", "Port pairs taken.", media.ports_used)?;
        self.gauge("rtp_port_pairs", "Port pairs there are.", media.ports_total)
    }

    fn transports(&mut self, transports: &Transports) -> fmt::Result {
        let help = "SIP messages received.";
        self.tally("sip_messages_received_total", help, "transport", &transports.received)?;
        let help = "SIP messages sent.";
        self.tally("sip_messages_sent_total", help, "transport", &transports.sent)?;
        let help = "SIP messages that could not be sent.";
        self.tally("sip_send_errors_total", help, "transport", &transports.send_errors)?;
        let help = "SIP messages dropped because a queue was full.";
        self.counter("sip_ingress_dropped_total", help, transports.ingress_dropped)?;
        let connections = [
            ([("transport", "tcp")], transports.connections),
            ([("transport", "tls")], transports.tls_connections),
        ];
        self.gauges("sip_connections", "Connections.", connections)?;
        let help =
            "Connections closed that no phone, call or trunk used: for others, or for silence.";
        self.tally("sip_connections_closed_total", help, "why", &transports.connections_closed)?;
        let help = "TLS handshakes that failed; accepted is those of peers, the others are ours.";
        self.tally("tls_handshake_failures_total", help, "reason", &transports.handshake_failures)
    }

    fn certificates(&mut self, all: &Snapshot) -> fmt::Result {
        let left = all.certificates.iter().map(|row| ([("of", row.of.as_str())], row.left_s));
        let help = "Time until a certificate expires; negative once it has.";
        self.gauges("tls_certificate_left_seconds", help, left)
    }

    fn store(&mut self, store: &Store) -> fmt::Result {
        self.counter("store_written_total", "Records written.", store.written)?;
        self.counter("store_errors_total", "Failed attempts to write.", store.errors)?;
        let help = "Calls that a process had when it died.";
        self.counter("store_calls_lost_total", help, store.calls_lost)?;
        self.counter("store_dropped_total", "Records lost.", store.report.dropped)?;
        self.gauge("store_queued", "Records that wait.", store.report.queued)?;
        let up = u64::from(store.report.problem.is_none());
        self.gauge("store_up", "1 while the store can be written to.", up)
    }

    fn trunks(&mut self, all: &Snapshot) -> fmt::Result {
        let states =
            all.trunk_states().map(|(trunk, state, is)| ([("trunk", trunk), ("state", state)], is));
        self.gauges("trunk_state", "1 for the state that the trunk is in.", states)?;
        let calls = all.trunks.iter().map(|row| ([("trunk", row.name.as_str())], row.calls));
        let waiting = all.trunks.iter().map(|row| ([("trunk", row.name.as_str())], row.waiting));
        self.gauges("trunk_calls", "Calls on the trunk.", calls)?;
        self.gauges("trunk_calls_waiting", "Calls that wait for their turn.", waiting)?;
        let rtt = all
            .trunks
            .iter()
            .filter_map(|row| row.rtt_ms.map(|ms| ([("trunk", row.name.as_str())], ms / 1_000.0)));
        self.gauges("trunk_rtt_seconds", "Round trip of the last OPTIONS.", rtt)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(name, help, MetricType::Counter, value)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(name, help, MetricType::Gauge, value)
    }

    fn single(&mut self, name: &str, help: &str, kind: MetricType, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn tally(&mut self, name: &str, help: &str, label: &'static str, tally: &Tally) -> fmt::Result {
        self.counters(name, help, tally.iter().map(|(word, n)| ([(label, word)], n)))
    }

    fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        self.samples(name, help, MetricType::Counter, samples)
    }

    fn gauges<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> fmt::Result {
        self.samples(name, help, MetricType::Gauge, samples)
    }

    fn samples<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = histogram.bounds_ms.iter().map(|ms| *ms as f64 / 1_000.0);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
        let sum_s = histogram.sum_ms as f64 / 1_000.0;
        let exemplars: Option<&HashMap<usize, Exemplar<Labels<'_, 0>, f64>>> = None;
        family.encode_histogram(sum_s, histogram.total(), &buckets, exemplars)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        cdr::{Direction, tests::answered, tests::refused},
        status::{CertificateRow, TrunkRow, TrunkState},
    };
    use std::collections::BTreeMap;

    fn busy() -> Snapshot {
        let mut all = Snapshot { version: "0.1.0".into(), uptime_s: 5, ..Snapshot::default() };
        all.shard.requests.add("INVITE", 3);
        all.shard.discards.count("no_via");
        all.shard.calls.count_start(Direction::Outbound);
        all.shard.calls.count_end(&answered(1));
        all.shard.calls.count_end(&refused(2));
        all.media.discards.count("latch");
        all.transports.tls_connections = 7;
        all.transports.handshake_failures.count("other_name");
        all.transports.connections_closed.add("room", 5);
        all.certificates = vec![CertificateRow { of: "listener".into(), left_s: -5 }];
        all.trunks = vec![TrunkRow {
            name: "we\"ird\\\n".into(),
            state: TrunkState::Up,
            rtt_ms: Some(12.5),
            ..TrunkRow::default()
        }];
        all
    }

    #[test]
    fn every_metric_is_declared_named_well_and_typed() {
        for snapshot in [Snapshot::default(), busy()] {
            let exposition = render(&snapshot);
            let problems = lint(&exposition);
            assert!(problems.is_empty(), "{problems:#?}\n{exposition}");
        }
    }

    #[test]
    fn values_come_out() {
        let exposition = render(&busy());
        for line in [
            "# TYPE tandem_sip_requests_total counter",
            "tandem_sip_requests_total{method=\"INVITE\"} 3",
            "tandem_calls_ended_total{direction=\"outbound\",outcome=\"answered\"} 1",
            "tandem_calls_ended_total{direction=\"outbound\",outcome=\"refused\"} 1",
            "tandem_trunk_refusals_total{trunk=\"twilio\",code=\"T001\"} 1",
            "tandem_trunk_attempts_total{trunk=\"twilio\",outcome=\"answered\"} 1",
            "tandem_trunk_attempts_total{trunk=\"twilio\",outcome=\"refused\"} 1",
            "tandem_trunk_failovers_total{trunk=\"twilio\",reason=\"silent\"} 1",
            "tandem_call_answer_delay_seconds_bucket{le=\"1.0\"} 1",
            "tandem_call_answer_delay_seconds_bucket{le=\"+Inf\"} 1",
            "tandem_call_answer_delay_seconds_sum 0.9",
            "tandem_uptime_seconds 5",
            "tandem_sip_connections{transport=\"tls\"} 7",
            "tandem_sip_connections_closed_total{why=\"room\"} 5",
            "tandem_tls_handshake_failures_total{reason=\"other_name\"} 1",
            "tandem_tls_certificate_left_seconds{of=\"listener\"} -5",
            "tandem_store_up 1",
            r#"tandem_trunk_state{trunk="we\"ird\\\n",state="up"} 1"#,
            r#"tandem_trunk_rtt_seconds{trunk="we\"ird\\\n"} 0.0125"#,
        ] {
            assert!(exposition.lines().any(|l| l == line), "{line}\n{exposition}");
        }
    }

    #[test]
    fn the_linter_finds_what_promtool_finds() {
        for (page, problem) in [
            ("tandem_x 1\n", "no HELP"),
            ("# HELP tandem_x X.\ntandem_x 1\n", "no TYPE"),
            ("# HELP tandem_x X.\n# TYPE tandem_x counter\ntandem_x 1\n", "_total"),
            ("# HELP tandem_x_total X.\n# TYPE tandem_x_total gauge\ntandem_x_total 1\n", "_total"),
            ("# HELP tandem_x_ms X.\n# TYPE tandem_x_ms gauge\ntandem_x_ms 1\n", "unit"),
            ("# HELP x X.\n# TYPE x gauge\nx 1\n", "prefix"),
            ("# HELP tandem_x X.\n# TYPE tandem_x gauge\ntandem_x 1\ntandem_x 1\n", "twice"),
            ("# HELP tandem_x X.\n# TYPE tandem_x gauge\ntandem_x one\n", "value"),
        ] {
            let problems = lint(page);
            assert!(problems.iter().any(|p| p.contains(problem)), "{page}{problems:?}");
        }
    }

    /// The rules of `promtool check metrics`, and ours.
    fn lint(exposition: &str) -> Vec<String> {
        let mut problems = vec![];
        let (mut help, mut kinds, mut seen) = (BTreeMap::new(), BTreeMap::new(), vec![]);
        for line in exposition.lines() {
            if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' '))
            {
                help.insert(name, text);
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
            {
                kinds.insert(name, kind);
            } else {
                problems.extend(lint_sample(line, &help, &kinds, &seen));
                seen.push(line.rsplit_once(' ').map_or(line, |(key, _)| key));
            }
        }
        problems
    }

    fn lint_sample(
        line: &str,
        help: &BTreeMap<&str, &str>,
        kinds: &BTreeMap<&str, &str>,
        seen: &[&str],
    ) -> Vec<String> {
        let mut problems = vec![];
        let (key, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        let full = key.split('{').next().unwrap_or(key);
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| full.strip_suffix(suffix))
            .find(|family| kinds.get(family) == Some(&"histogram"))
            .unwrap_or(full);
        let mut check = |is_well: bool, problem: &str| {
            if !is_well {
                problems.push(format!("{full}: {problem}"));
            }
        };
        let kind = kinds.get(family).copied().unwrap_or("");
        check(help.get(family).is_some_and(|text| !text.is_empty()), "no HELP");
        check(!kind.is_empty(), "no TYPE");
        check((kind == "counter") == family.ends_with("_total"), "_total is for counters");
        check(family.starts_with("tandem_"), "no prefix");
        check(family.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "name");
        let short_units =
            ["ms", "us", "ns", "s", "sec", "b", "kb", "mb", "milliseconds", "minutes"];
        check(!family.split('_').any(|word| short_units.contains(&word)), "unit");
        check(!family.contains("counter") && !family.contains("gauge"), "type in the name");
        check(value.parse::<f64>().is_ok(), "value");
        check(!seen.contains(&key), "twice");
        problems
    }
}

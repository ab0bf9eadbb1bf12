"""SIPp: fifty calls a second with digest and media, and nothing left of them."""

import time

import pytest
from load import answering, calling, md5_users

CALLS_PER_S, SECONDS, TALK_MS = 50, 20, 2000
CALLS = CALLS_PER_S * SECONDS


@pytest.fixture
def loaded(start_pbx, scratch):
    """A PBX with ports for many calls, and a telephone that answers them."""
    pbx = start_pbx(users=(), more=md5_users("1001", "1002"), rtp_ports=2400)
    callee = answering(scratch, pbx)
    yield pbx
    callee.kill()


def test_fifty_calls_a_second(loaded, scratch, note):
    pbx = loaded
    fds = pbx.process.fds()
    cpu = pbx.process.cpu_seconds()
    caller = calling(scratch, pbx, CALLS, CALLS_PER_S, TALK_MS)
    status = caller.popen.wait(SECONDS + 150)
    cpu = pbx.process.cpu_seconds() - cpu
    assert status == 0, caller.log.read_text()[-3000:]

    cdrs = pbx.cdrs(CALLS)
    assert {(cdr["ending"]["by"], cdr["ending"]["status"]) for cdr in cdrs} == {("caller", 200)}
    legs = [cdr["media"][side] for cdr in cdrs for side in ("caller", "callee")]
    packets = [leg["received"]["packets"] for leg in legs]
    lost = sum(leg["received"]["lost"] for leg in legs)
    assert min(packets) > 0.8 * TALK_MS / 20, f"a leg with only {min(packets)} packets"
    assert lost <= sum(packets) / 1000, f"{lost} of {sum(packets)} packets lost"
    delays = sorted(cdr["times"]["answer"] - cdr["times"]["start"] for cdr in cdrs)

    pbx.is_at_rest()
    assert pbx.process.fds() == fds
    metrics = pbx.metrics()
    assert metrics["tandem_panics_total"] == 0
    assert metrics["tandem_sip_ingress_dropped_total"] == 0
    assert metrics["tandem_rtp_open_failures_total"] == 0
    note(
        f"{CALLS} calls at {CALLS_PER_S}/s: answered after {delays[CALLS // 2]} ms (median), "
        f"{delays[-CALLS // 100]} ms (p99), {1000 * cpu / CALLS:.2f} ms CPU a call of "
        f"{TALK_MS / 1000:g} s with {sum(packets) / CALLS:.0f} packets, {lost} packets lost"
    )


def test_what_a_relayed_packet_costs(loaded, scratch, note):
    """A hundred calls that only talk."""
    pbx = loaded
    caller = calling(scratch, pbx, 100, 50, 30000)

    def measure():
        name = "tandem_rtp_packets_relayed_total"
        return pbx.process.cpu_seconds(), pbx.metrics()[name], time.monotonic()

    while pbx.metrics()['tandem_calls{phase="talking"}'] < 100:
        assert caller.is_running(), caller.log.read_text()[-3000:]
        time.sleep(0.1)
    seen = []
    # Where SIPp has had no time to speak, there was less to relay.
    while len(seen) < 4 and (not seen or seen[-1] <= 0.9 * 100 * 100):
        before = measure()
        time.sleep(5)  # as long as is measured
        cpu, packets, seconds = (b - a for a, b in zip(before, measure(), strict=True))
        seen.append(packets / seconds)
    assert seen[-1] > 0.9 * 100 * 100, f"{seen} packets/s of 10000"
    note(f"100 calls: {packets / seconds:.0f} packets/s relayed, {1e6 * cpu / packets:.1f} us CPU each")
    assert caller.popen.wait(90) == 0, caller.log.read_text()[-3000:]

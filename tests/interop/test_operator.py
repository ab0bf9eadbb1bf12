"""What an operator sees: metrics, records, ladders, and logs without numbers and secrets."""

import shutil
import subprocess

from pbx import USERS, password
from phone import hears
from process import PATIENCE
from test_calls import connect


def a_call(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    connect(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    (cdr,) = pbx.cdrs()
    return cdr


def test_metrics_are_what_prometheus_wants(pbx, start_phone):
    a_call(pbx, start_phone)
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: run `make install`"
    page = pbx.http("/metrics")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    samples = pbx.metrics()
    assert samples['tandem_calls_ended_total{direction="internal",outcome="answered"}'] == 1
    assert pbx.http("/healthz")
    assert pbx.http("/readyz")


def test_a_call_s_record_and_ladder(pbx, start_phone):
    cdr = a_call(pbx, start_phone)
    assert cdr["direction"] == "internal"
    assert (cdr["caller"]["number"], cdr["callee"]["number"]) == ("1001", "1002")
    assert cdr["route"]["rule"] == "internal[1]"
    times = cdr["times"]
    assert times["start"] <= times["ring"] <= times["answer"] <= times["end"]
    ladder = pbx.ask("call", "ladder", cdr["call"])
    text = str(ladder)
    for word in ("INVITE", "180", "200", "ACK", "BYE"):
        assert word in text, f"{word} is not in {text}"


def test_logs_tell_no_secrets(pbx, start_phone):
    a_call(pbx, start_phone)
    log = pbx.logged()
    for user in USERS:
        assert password(user) not in log
    starts = [line for line in log.splitlines() if "call" in line]
    assert starts, f"a call leaves no line:\n{log}"
    for bad in ("ERROR", "panicked"):
        assert bad not in log, log


def test_the_program_ends_in_order(pbx, start_phone):
    a_call(pbx, start_phone)
    assert pbx.stop() == 0


def test_a_drained_program_finishes_its_calls_and_ends(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    late = start_phone("pjsua", pbx, "1003")
    connect(caller, callee)
    pbx.cli("drain")
    assert pbx.status()["is_draining"]
    late.dial("1002")
    assert late.wait("closed")["reason"].startswith("503")
    assert len(pbx.calls()) == 1
    caller.hang_up()
    callee.wait("closed")
    assert pbx.process.popen.wait(PATIENCE) == 0


def test_a_reload_takes_new_users_and_keeps_calls(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    connect(caller, callee)
    # Nothing but a user more: whatever a new process is needed for would leave this one's calls in the old one.
    pbx.config.write_text(pbx.config.read_text() + '[user.1009]\npassword = "of-the-new-one"\n')
    report = pbx.ask("reload")
    assert report["is_applied"], report
    assert "handing over" not in pbx.logged()
    start_phone("pjsua", pbx, "1009", secret="of-the-new-one")
    hears(callee, caller, 1)
    pbx.config.write_text("nonsense")
    assert not pbx.ask("reload")["is_applied"]
    assert len(pbx.calls()) == 1
    caller.hang_up()
    callee.wait("closed")


def test_a_phone_that_vanishes_leaves_nothing(start_pbx, start_phone):
    """Neither BYE nor media: the call ends when nothing has been heard for a while."""
    pbx = start_pbx(rtp='timeout = "5s"')
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    connect(caller, callee)
    callee.process.kill()
    caller.wait("closed")
    # Its record does not wait for the BYE to nobody, which is repeated for 32 s.
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["by"] == "tandem"
    pbx.is_at_rest()

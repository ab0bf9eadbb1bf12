"""What an operator sees: metrics, records, ladders, and logs without numbers and secrets."""

import shutil
import subprocess

from pbx import USERS, password
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

"""Real telephones call each other: sound, hold, digits, codecs, and every way not to be answered."""

import itertools

import pytest
from phone import PhoneError, hears, hears_silence

KINDS = ("baresip", "pjsua")
PAIRS = list(itertools.product(KINDS, KINDS))


def connect(caller, callee, number=None):
    """One telephone calls another, which answers."""
    caller.dial(number or callee.user)
    callee.wait("incoming")
    caller.wait("ringing")
    callee.answer()
    caller.wait("established")
    callee.wait("established")


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
def test_phones_talk_and_the_callee_hangs_up(pbx, start_phone, caller, callee):
    caller = start_phone(caller, pbx, "1001")
    callee = start_phone(callee, pbx, "1002")
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    (call,) = pbx.calls()
    assert (call["phase"], call["direction"]) == ("talking", "internal")
    callee.hang_up()
    caller.wait("closed")
    callee.wait("closed")
    (cdr,) = pbx.cdrs()
    assert (cdr["ending"]["by"], cdr["ending"]["status"]) == ("callee", 200)
    for side in ("caller", "callee"):
        media = cdr["media"][side]
        assert media["codec"] == "PCMU"
        assert media["received"]["packets"] > 100
        assert media["received"]["lost"] == 0
    assert not cdr["media"]["is_transcoded"]
    pbx.has_no_call()


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_on_tcp_talks_with_one_on_udp(pbx, start_phone, kind):
    caller = start_phone(kind, pbx, "1001", transport="tcp")
    callee = start_phone("pjsua", pbx, "1002")
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    # And the other way, over the connection that the phone has opened.
    connect(callee, caller)
    hears(caller, callee)
    callee.hang_up()
    caller.wait("closed")
    pbx.cdrs(2)


@pytest.mark.parametrize(("holder", "other"), [("baresip", "pjsua"), ("pjsua", "baresip")])
def test_hold_and_resume(pbx, start_phone, holder, other):
    holder = start_phone(holder, pbx, "1001")
    other = start_phone(other, pbx, "1002")
    connect(holder, other)
    hears(other, holder, 1)
    holder.do("hold")
    other.wait("remote_held" if other.name.startswith("pjsua") else "held")
    hears_silence(other)
    assert pbx.calls()[0]["phase"] == "held"
    other.forget("sounding")
    holder.do("resume")
    other.wait("sounding" if other.name.startswith("pjsua") else "resumed")
    hears(other, holder)
    hears(holder, other)
    holder.hang_up()
    other.wait("closed")
    pbx.cdrs()


@pytest.mark.parametrize(("caller", "callee"), [("baresip", "pjsua"), ("pjsua", "baresip")])
def test_digits_both_ways(pbx, start_phone, caller, callee):
    caller = start_phone(caller, pbx, "1001")
    callee = start_phone(callee, pbx, "1002")
    connect(caller, callee)
    caller.do("dtmf", digits="159#")
    assert callee.digits(4) == "159#"
    callee.do("dtmf", digits="0*7")
    assert caller.digits(3) == "0*7"
    caller.hang_up()
    callee.wait("closed")


def test_codecs_that_differ_are_turned_into_each_other(pbx, start_phone):
    caller = start_phone("baresip", pbx, "1001", codecs=["pcmu"])
    callee = start_phone("pjsua", pbx, "1002", codecs=["pcma"])
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    (cdr,) = pbx.cdrs()
    assert cdr["media"]["is_transcoded"]
    assert (cdr["media"]["caller"]["codec"], cdr["media"]["callee"]["codec"]) == ("PCMU", "PCMA")


def test_busy(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    caller.dial("1002")
    callee.wait("incoming")
    callee.do("reject")
    assert caller.wait("closed")["reason"].startswith("486")
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["status"] == 486
    assert cdr["ending"]["why"]["sentence"]
    pbx.has_no_call()


def test_the_caller_gives_up(pbx, start_phone):
    caller = start_phone("baresip", pbx, "1001")
    callee = start_phone("pjsua", pbx, "1002")
    caller.dial("1002")
    callee.wait("incoming")
    caller.wait("ringing")
    caller.hang_up()
    assert callee.wait("closed")["reason"].startswith("487")
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["status"] == 487
    pbx.has_no_call()


def test_nobody_is_there(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    caller.dial("1003")
    assert caller.wait("closed")["reason"].startswith("480")
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["why"]["sentence"]


def test_several_phones_of_one_user_ring_and_the_first_to_answer_has_it(pbx, start_phone):
    caller = start_phone("baresip", pbx, "1001")
    first = start_phone("pjsua", pbx, "1002")
    second = start_phone("baresip", pbx, "1002")
    caller.dial("1002")
    first.wait("incoming")
    second.wait("incoming")
    second.answer()
    caller.wait("established")
    first.wait("closed")
    hears(second, caller, 1)
    hears(caller, second, 1)
    caller.hang_up()
    second.wait("closed")
    pbx.cdrs()
    pbx.has_no_call()


def test_the_echo_speaks_back(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    caller.dial("*43")
    caller.wait("established")
    hears(caller, caller)
    caller.hang_up()
    caller.wait("closed")
    pbx.cdrs()


def test_an_operator_ends_a_call(pbx, start_phone):
    caller = start_phone("baresip", pbx, "1001")
    callee = start_phone("pjsua", pbx, "1002")
    connect(caller, callee)
    (call,) = pbx.calls()
    shown = pbx.ask("call", "show", call["call"])
    assert "1001" in str(shown) and "1002" in str(shown)
    pbx.cli("hangup", call["call"])
    caller.wait("closed")
    callee.wait("closed")
    pbx.cdrs()


def test_a_wrong_password_is_refused(pbx, start_phone):
    phone = start_phone("baresip", pbx, "1001", secret="wrong", register=False)
    with pytest.raises(PhoneError):
        phone.register()
    assert all(not row["contacts"] for row in pbx.ask("phones"))

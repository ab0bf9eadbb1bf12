"""Real telephones with SRTP, over UDP and over TLS, beside plain ones."""

import itertools

import pytest
from authority import Authority
from pbx import ADDRESS
from phone import hears, hears_silence
from test_calls import connect

KINDS = ("baresip", "pjsua")
AES80 = "AES_CM_128_HMAC_SHA1_80"
MUST = {"1001": "require", "1002": "require"}


def suites(pbx, count=1):
    """The suites of the last call's legs, the caller's first."""
    media = pbx.cdrs(count)[0]["media"]
    return media["caller"].get("srtp"), media["callee"].get("srtp")


def nothing_was_discarded(pbx):
    metrics = pbx.metrics()
    for reason in ("unauthentic", "replayed"):
        assert metrics.get(f'tandem_media_discarded_total{{reason="{reason}"}}', 0) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_phone_talks_with_a_plain_one(start_pbx, start_phone, kind):
    pbx = start_pbx(srtp={"1001": "require"})
    secret = start_phone(kind, pbx, "1001", srtp="mandatory")
    plain = start_phone("pjsua", pbx, "1002")
    connect(secret, plain)
    hears(plain, secret)
    hears(secret, plain)
    (call,) = pbx.calls()
    secret.hang_up()
    plain.wait("closed")
    secret.wait("closed")
    assert suites(pbx) == (AES80, None)
    # And the other way.
    connect(plain, secret)
    hears(plain, secret)
    hears(secret, plain)
    plain.hang_up()
    secret.wait("closed")
    cdrs = pbx.cdrs(2)
    assert sorted(str(cdr["media"]["callee"].get("srtp")) for cdr in cdrs) == [AES80, "None"]
    nothing_was_discarded(pbx)
    assert "inline:" not in pbx.logged()


@pytest.mark.parametrize(("caller", "callee"), [("baresip", "pjsua"), ("pjsua", "baresip")])
def test_hold_and_digits_between_secret_phones(start_pbx, start_phone, caller, callee):
    pbx = start_pbx(srtp=MUST)
    caller = start_phone(caller, pbx, "1001", srtp="mandatory")
    callee = start_phone(callee, pbx, "1002", srtp="mandatory")
    connect(caller, callee)
    hears(callee, caller, 1)
    caller.do("dtmf", digits="15#")
    assert callee.digits(3) == "15#"
    caller.do("hold")
    callee.wait("remote_held" if callee.name.startswith("pjsua") else "held")
    hears_silence(callee)
    callee.forget("sounding")
    caller.do("resume")
    callee.wait("sounding" if callee.name.startswith("pjsua") else "resumed")
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    assert suites(pbx) == (AES80, AES80)


@pytest.mark.parametrize("kind", KINDS)
def test_who_offers_both_is_encrypted(pbx, start_phone, kind):
    caller = start_phone(kind, pbx, "1001", srtp="optional")
    callee = start_phone("pjsua", pbx, "1002")
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    assert suites(pbx) == (AES80, None)


# Neither telephone has AES-GCM: libsrtp's packets stand for it, in the unit tests.
def test_short_tags(start_pbx, start_phone):
    suite = "AES_CM_128_HMAC_SHA1_32"
    pbx = start_pbx(srtp=MUST)
    caller = start_phone("pjsua", pbx, "1001", srtp=suite)
    callee = start_phone("pjsua", pbx, "1002", srtp="mandatory")
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    assert suites(pbx)[0] == suite
    nothing_was_discarded(pbx)


@pytest.mark.parametrize(("caller", "callee"), list(itertools.permutations(KINDS)))
def test_keys_go_over_tls(scratch, start_pbx, start_phone, caller, callee):
    authority = Authority(scratch / "authority")
    pbx = start_pbx(certificate=authority.issue("pbx", f"IP:{ADDRESS}"))
    caller = start_phone(caller, pbx, "1001", transport="tls", ca=authority.ca, srtp="mandatory")
    callee = start_phone(callee, pbx, "1002", transport="tls", ca=authority.ca, srtp="mandatory")
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    assert suites(pbx) == (AES80, AES80), "offered over TLS without being required"


def test_a_plain_phone_is_refused_where_srtp_is_required(start_pbx, start_phone):
    pbx = start_pbx(srtp={"1001": "require"})
    caller = start_phone("pjsua", pbx, "1001")
    caller.dial("1002")
    assert "488" in caller.wait("closed")["reason"]
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["why"]["code"] == "M004"

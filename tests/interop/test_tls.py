"""Real telephones, and openssl, over TLS."""

import subprocess

import pytest
from authority import Authority
from pbx import ADDRESS
from phone import PhoneError, hears
from test_calls import connect
from test_registration import contacts

KINDS = ("baresip", "pjsua")


@pytest.fixture
def authority(scratch):
    return Authority(scratch / "authority")


@pytest.fixture
def tls_pbx(start_pbx, authority):
    return start_pbx(certificate=authority.issue("pbx", f"IP:{ADDRESS}"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_on_tls_talks_with_one_on_udp(tls_pbx, authority, start_phone, kind):
    pbx = tls_pbx
    caller = start_phone(kind, pbx, "1001", transport="tls", ca=authority.ca)
    callee = start_phone("pjsua", pbx, "1002")
    (contact,) = contacts(pbx)["1001"]
    assert contact["flow"].startswith("tls")
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
    pbx.has_no_call()


def test_both_phones_on_tls(tls_pbx, authority, start_phone):
    pbx = tls_pbx
    caller = start_phone("pjsua", pbx, "1001", transport="tls", ca=authority.ca)
    callee = start_phone("baresip", pbx, "1002", transport="tls", ca=authority.ca)
    connect(caller, callee)
    hears(callee, caller)
    hears(caller, callee)
    assert pbx.metrics()['tandem_sip_connections{transport="tls"}'] == 2
    callee.hang_up()
    caller.wait("closed")
    pbx.cdrs()


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_that_trusts_somebody_else_stays_away(tls_pbx, scratch, start_phone, kind):
    other = Authority(scratch / "other")
    phone = start_phone(kind, tls_pbx, "1001", transport="tls", ca=other.ca, register=False)
    try:
        phone.do("register")
    except PhoneError:
        assert kind == "baresip"  # which waits for the outcome
    else:
        phone.wait("refused")
    assert not contacts(tls_pbx)


@pytest.mark.parametrize(("version", "works"), [("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_versions(tls_pbx, authority, version, works):
    request = (
        f"OPTIONS sip:{ADDRESS} SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.2.1;branch=z9hG4bKv;rport\r\n"
        f"From: <sip:x@y>;tag=1\r\nTo: <sip:{ADDRESS}>\r\nCall-ID: {version}\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    command = ["openssl", "s_client", "-connect", tls_pbx.address("tls"), "-CAfile", authority.ca]
    command += [f"-{version}", "-verify_return_error", "-verify_ip", ADDRESS, "-quiet"]
    client = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        client.stdin.write(request)
        client.stdin.flush()
        # It ends by itself where there is no handshake.
        assert client.stdout.readline().startswith("SIP/2.0 200 OK") == works
    except BrokenPipeError:
        assert not works
    finally:
        client.kill()
        client.wait()

"""Real telephones call out through the simulated trunk and are called from it."""

import re

import pytest
import sound
from pbx import CALLER_ID, TRUNK_PASSWORD
from phone import hears
from process import eventually
from twilio import Twilio

KINDS = ("baresip", "pjsua")
DIALLED, NUMBER = "4155550199", "+14155550199"


@pytest.fixture
def start_twilio(scratch):
    running = []

    def start(*arguments, **options):
        running.append(Twilio(scratch, *arguments, **options))
        return running[-1]

    yield start
    for trunk in running:
        trunk.process.kill()


def numbers_in(text):
    """The telephone numbers that are legible in a text."""
    return [number for number in (NUMBER, CALLER_ID) if number in text or number[1:] in text]


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_calls_out(start_twilio, start_pbx, start_phone, kind):
    # Long enough to listen to the ringing first.
    trunk = start_twilio(ring="6s")
    pbx = start_pbx(trunk=trunk.address)
    phone = start_phone(kind, pbx, "1001")
    phone.dial(DIALLED)
    # The three tones come before the answer.
    assert eventually(lambda: phone.has("ringing") or phone.has("progress"))
    assert sound.loudness(phone.hear(1)) > 500
    assert not phone.has("established")
    phone.wait("established")
    # The far end is an echo.
    hears(phone, phone)
    (call,) = pbx.calls()
    assert (call["phase"], call["direction"], call["trunk"]) == ("talking", "outbound", "twilio")
    phone.hang_up()
    phone.wait("closed")
    (cdr,) = pbx.cdrs()
    assert cdr["route"]["rule"] == "internal[3]"
    assert (cdr["ending"]["by"], cdr["ending"]["status"]) == ("caller", 200)
    assert cdr["callee"]["number"] == NUMBER
    assert cdr["route"]["caller_id"] == CALLER_ID
    assert cdr["media"]["callee"]["received"]["lost"] == 0
    pbx.has_no_call()
    (said,) = trunk.verdict()
    assert re.match(r"call: 200, \d+ packets sent, \d+ received, 0 lost", said)
    log = pbx.logged()
    assert not numbers_in(log), f"{numbers_in(log)} in\n{log}"
    assert TRUNK_PASSWORD not in log


@pytest.mark.parametrize("kind", KINDS)
def test_hold_and_resume_through_the_trunk(start_twilio, start_pbx, start_phone, kind):
    trunk = start_twilio()
    pbx = start_pbx(trunk=trunk.address)
    phone = start_phone(kind, pbx, "1001")
    phone.dial(DIALLED)
    phone.wait("established")
    phone.do("hold")
    eventually(lambda: pbx.calls()[0]["phase"] == "held")
    phone.do("resume")
    eventually(lambda: pbx.calls()[0]["phase"] == "talking")
    hears(phone, phone)
    phone.hang_up()
    phone.wait("closed")
    pbx.cdrs()
    trunk.verdict()


@pytest.mark.parametrize("kind", KINDS)
def test_the_trunk_calls_in_and_the_first_to_answer_has_it(
    start_twilio, start_pbx, start_phone, kind
):
    pbx = start_pbx(trunk=start_twilio().address)
    answers = start_phone(kind, pbx, "1001")
    other = start_phone("pjsua", pbx, "1002")
    caller = start_twilio(
        "--call", pbx.address(), "--did", CALLER_ID, "--voice", "tone", "--talk", "10",
        "--calls", "1", name="caller",
    )
    answers.wait("incoming")
    other.wait("incoming")
    answers.answer()
    answers.wait("established")
    other.wait("closed")
    pitches = [sound.pitch(answers.hear(1))]
    while len(pitches) < 4 and pitches[-1] != pytest.approx(1000, abs=5):
        pitches.append(sound.pitch(answers.hear(1)))
    assert pitches[-1] == pytest.approx(1000, abs=5), pitches
    answers.wait("closed")
    (cdr,) = pbx.cdrs()
    assert (cdr["direction"], cdr["ending"]["by"]) == ("inbound", "caller")
    assert cdr["callee"]["user"] == "1001"
    assert cdr["media"]["caller"]["received"]["lost"] == 0
    pbx.has_no_call()
    (said,) = caller.verdict()
    assert int(re.search(r"(\d+) received, 0 lost", said)[1]) > 100
    assert "+14155550100" not in pbx.logged()


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        ("+15005550486", 486, "busy"),
        ("+15005551403", 403, "password"),
        ("+15005552403", 403, "caller"),
        ("+15005550503", 503, "second"),
    ],
)
def test_a_refusal_ends_in_one_sentence(
    start_twilio, start_pbx, start_phone, number, status, word
):
    trunk = start_twilio()
    pbx = start_pbx(trunk=trunk.address)
    phone = start_phone("pjsua", pbx, "1001")
    phone.dial(number)
    assert phone.wait("closed")
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["status"] == status
    why = cdr["ending"]["why"]
    assert word in f"{why['sentence']} {why['help']}".lower(), why
    assert not numbers_in(pbx.logged())
    trunk.verdict()


def test_digits_through_a_trunk(start_pbx, start_phone, scratch):
    """A telephone plays the carrier: it is called without being registered."""
    carrier = start_phone("pjsua", None, "2001", register=False, secret="none")
    pbx = start_pbx(trunk=carrier.address, carrier="127.0.2.0/24")
    phone = start_phone("baresip", pbx, "1001")
    phone.dial(DIALLED)
    carrier.wait("incoming")
    carrier.answer()
    phone.wait("established")
    hears(carrier, phone)
    hears(phone, carrier)
    phone.do("dtmf", digits="159#")
    assert carrier.digits(4) == "159#"
    carrier.do("dtmf", digits="0*7")
    assert phone.digits(3) == "0*7"
    carrier.hang_up()
    phone.wait("closed")
    (cdr,) = pbx.cdrs()
    assert cdr["ending"]["by"] == "callee"


def test_the_trunk_is_watched(start_twilio, start_pbx):
    trunk = start_twilio()
    pbx = start_pbx(trunk=trunk.address)

    def state():
        """the trunk is up"""
        (row,) = pbx.ask("trunks")
        return row["state"] == "up" and row["rtt_ms"] is not None

    eventually(state)
    trunk.verdict()


def test_a_stranger_cannot_use_the_trunk(start_twilio, start_pbx, start_phone):
    trunk = start_twilio()
    pbx = start_pbx(trunk=trunk.address)
    stranger = start_phone("pjsua", pbx, "1001", secret="wrong", register=False)
    stranger.dial(DIALLED)
    reason = stranger.wait("closed")["reason"]
    assert reason.startswith(("401", "403", "407")), reason
    assert trunk.verdict() == []

"""What every test gets: a PBX and telephones of its own, ended by process id when it is over."""

import itertools
import pathlib

import pytest
from pbx import Pbx, password
from phone import Phone


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails shows the end of every log that it made."""
    report = yield
    if report.failed and "scratch" in item.funcargs:
        for log in sorted(item.funcargs["scratch"].rglob("*.log")):
            text = log.read_text(errors="replace")
            lines = 400 if log.name == "pbx.log" else 60
            report.sections.append((log.name, "\n".join(text.splitlines()[-lines:])))
    return report


@pytest.fixture
def scratch(tmp_path) -> pathlib.Path:
    return tmp_path


@pytest.fixture
def start_pbx(scratch):
    """Starts a PBX; the arguments are Pbx's."""
    running = []

    def start(folder=scratch, **options):
        folder.mkdir(exist_ok=True)
        pbx = Pbx(folder, **options)
        running.append(pbx)
        return pbx

    yield start
    for pbx in running:
        pbx.process.kill()


@pytest.fixture
def pbx(start_pbx):
    """A PBX without a trunk."""
    return start_pbx()


@pytest.fixture
def start_phone(scratch):
    """Starts a telephone of a kind (baresip, pjsua) as a user of a PBX, and registers it."""
    running = []
    addresses = (f"127.0.2.{number}" for number in itertools.count(1))

    def start(kind, pbx, user, transport="udp", codecs=None, secret=None, register=True, ca=None, srtp=None):
        phone = Phone(
            kind,
            scratch,
            user,
            secret or password(user),
            pbx.address(transport) if pbx else "127.0.0.1:9",
            # baresip takes no address that is not an interface's own.
            "127.0.0.1" if kind == "baresip" else next(addresses),
            transport,
            codecs,
            ca,
            srtp,
        )
        running.append(phone)
        if register:
            phone.register()
        return phone

    yield start
    for phone in running:
        phone.close()


_notes = []


@pytest.fixture
def note():
    """Keeps a measurement for the end of the run."""
    return _notes.append


def pytest_terminal_summary(terminalreporter):
    if _notes:
        terminalreporter.section("measured")
        for line in _notes:
            terminalreporter.line(line)

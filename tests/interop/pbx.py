"""The program under test: `tandem run` with a configuration of its own, and its control commands."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import urllib.request

from process import PATIENCE, Process, eventually

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("TANDEM", ROOT / "target/release/tandem"))

# Where the PBX is; the telephones have other addresses of 127.0.0.0/8.
ADDRESS = "127.0.1.1"
# Where its trunk is.
CARRIER = "127.0.4.0/24"
CALLER_ID = "+17756187988"
TERMINATION = "interop.pstn.twilio.com"
TRUNK_USER = "Interop"
TRUNK_PASSWORD = "Kq7-trunk-password-w2X"
USERS = ("1001", "1002", "1003")

RULES = """
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
[[internal.rule]]
match = "*43"
echo  = true
"""
TRUNK_RULES = """
[[internal.rule]]
match = "_+."
dial  = "trunk:twilio"
[[inbound.rule]]
match = "+17756187988"
dial  = ["user:1001", "user:1002"]
"""


def password(user):
    """A secret that can be found in a log, were it there."""
    return f"Zx9-password-of-{user}-Lp4"


def free_range(count):
    """The first of so many ports in a row of which none is taken."""
    while True:
        first = random.randrange(10_000, 32_000 - count, 2)
        try:
            for port in range(first, first + count, max(1, count // 16)):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind((ADDRESS, port))
            return first
        except OSError:
            continue


class Pbx:
    """A running PBX. It listens on ports that the system chose."""

    def __init__(self, scratch, trunk=None, users=USERS, rules=RULES, rtp_ports=200, more="", carrier=CARRIER, rtp="", certificate=None, srtp=None):
        self.scratch = scratch
        self.log = scratch / "pbx.log"
        self.config = scratch / "pbx.toml"
        self.socket = scratch / "control.sock"
        first = free_range(rtp_ports)
        # Set once known, so that a restarted PBX is where its phones look for it.
        self.listen = [f"udp:{ADDRESS}:0", f"tcp:{ADDRESS}:0"]
        self.certificate = certificate
        # What users say about SRTP, where they say anything.
        self.srtp = srtp or {}
        if certificate:
            self.listen.append(f"tls:{ADDRESS}:0")
        self.rtp = f"{first}-{first + rtp_ports - 1}"
        self.trunk, self.carrier = trunk, carrier
        self.users, self.more, self.media = users, more, rtp
        (scratch / "rules.toml").write_text(rules + (TRUNK_RULES if trunk else ""))
        self.process = None
        self.start()

    def text(self):
        parts = [
            'dialplan = ["rules.toml"]',
            f"[sip]\nlisten = {json.dumps(self.listen)}",
            f'[rtp]\nports = "{self.rtp}"\n{self.media}',
            '[http]\nlisten = "127.0.0.1:0"',
            f'[store]\nurl = "sqlite:{self.scratch}/tandem.db"',
            f'[control]\nsocket = "{self.socket}"',
            '[log]\nlevel = "info"',
            self.more,
        ]
        if self.certificate:
            certificate, key = self.certificate
            parts.append(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"')
        if self.trunk:
            parts.append(
                f'[trunk.twilio]\npreset = "twilio"\nuri = "{TERMINATION}"\n'
                f'address = "{self.trunk}"\nsource = ["{self.carrier}"]\n'
                f'media_source = ["{self.carrier}"]\n'
                f'username = "{TRUNK_USER}"\npassword = "{TRUNK_PASSWORD}"\n'
                # One call a second, as the preset has it, would only make the tests slow.
                f'caller_id = "{CALLER_ID}"\nmax_rate = false'
            )
        for user in self.users:
            parts.append(f'[user.{user}]\npassword = "env:PHONE_{user}"')
            if user in self.srtp:
                parts.append(f'srtp = "{self.srtp[user]}"')
        return "\n".join(parts) + "\n"

    def start(self):
        self.config.write_text(self.text())
        secrets = {f"PHONE_{user}": password(user) for user in self.users}
        command = [PROGRAM, "run", "-c", self.config]
        self.process = Process(command, self.log, env=os.environ | secrets, cwd=self.scratch)
        try:
            listeners = eventually(self.listeners)
        except AssertionError:
            self.process.kill()
            raise AssertionError(f"tandem did not start:\n{self.logged()}") from None
        self.listen = listeners
        by_transport = dict(reversed(place.split(":", 1)[::-1]) for place in listeners)
        self.by_transport = by_transport

    def listeners(self):
        """the listeners are bound"""
        if not self.process.is_running():
            raise AssertionError("tandem ended")
        done = self.cli("status", check=False)
        return done.returncode in (0, 1) and json.loads(done.stdout or "{}").get("listeners")

    def address(self, transport="udp"):
        return self.by_transport[transport]

    def cli(self, *words, check=True):
        command = [PROGRAM, *words, "--json", "--socket", self.socket]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if check and done.returncode not in (0, 1):
            raise AssertionError(f"{words}: {done.returncode}: {done.stderr}")
        return done

    def ask(self, *words):
        return json.loads(self.cli(*words).stdout)

    def status(self):
        return self.ask("status")

    def calls(self):
        return self.ask("calls")

    def cdrs(self, count=1):
        """The records of so many calls that are over, the newest first."""

        def written():
            """so many CDRs"""
            found = self.ask("cdr", "-n", "10000")
            return found if len(found) >= count else None

        found = eventually(written)
        assert len(found) == count, f"{len(found)} CDRs instead of {count}"
        return found

    def http(self, path):
        place = re.search(r'transport="http" address=(\S+)', self.logged())
        assert place, f"the log does not name the HTTP listener:\n{self.logged()}"
        with urllib.request.urlopen(f"http://{place[1]}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def metrics(self):
        """Every sample of /metrics: the name with its labels, and the value."""
        lines = (line for line in self.http("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def remnants(self):
        """What is left of calls: all zero when there is none."""
        everything = self.metrics()
        gauges = {
            name: everything[f"tandem_{name}"]
            for name in (
                'calls{phase="ringing"}',
                'calls{phase="talking"}',
                "rtp_legs",
                "rtp_port_pairs_used",
                "sip_dialogs",
                "sip_transactions",
            )
        }
        return {name: value for name, value in gauges.items() if value}

    def has_no_call(self):
        """Asserts that no call, leg or port is left. Transactions live for 32 s more."""
        eventually(lambda: self.remnants().keys() <= {"sip_transactions"})

    def is_at_rest(self):
        """Asserts that nothing at all is left of past calls."""
        eventually(lambda: not self.remnants(), 2 * PATIENCE, every=0.2)
        status = self.status()
        assert status["calls"]["ringing"] == status["calls"]["talking"] == 0
        assert status["ports"]["used"] == 0

    def logged(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))

    def stop(self):
        """Ends it as a service manager does, and returns its exit status."""
        return self.process.stop(signal.SIGTERM)

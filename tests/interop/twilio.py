"""The simulated trunk: `tandem twilio-sim`."""

import signal

from pbx import CALLER_ID, PROGRAM, TERMINATION, TRUNK_PASSWORD, TRUNK_USER
from process import Process, eventually

# What `start_twilio(ring=...)` plays: an account that says how long it rings.
SCENARIO = """[account]
termination = "{termination}"
numbers = ["{number}"]
username = "{user}"
password = "{password}"
[place]
listen = "{address}:0"
[far_end]
ring = "{ring}"
"""
# One of the addresses from which the PBX takes calls of its trunk.
ADDRESS = "127.0.4.1"


class Twilio:
    """A running trunk. It checks everything that the PBX does, and tells in the end."""

    def __init__(self, scratch, *arguments, name="twilio", ring=None):
        account = {"termination": TERMINATION, "number": CALLER_ID, "user": TRUNK_USER}
        account |= {"password": TRUNK_PASSWORD, "address": ADDRESS}
        if ring:
            scenario = scratch / f"{name}.toml"
            scenario.write_text(SCENARIO.format(ring=ring, **account))
            scenario.chmod(0o600)
            words = ["--scenario", scenario]
        else:
            words = ["--listen", f"{ADDRESS}:0", "--termination", TERMINATION, "--number", CALLER_ID]
            words += ["--credentials", f"{TRUNK_USER}:{TRUNK_PASSWORD}"]
        command = [PROGRAM, "twilio-sim", "--strict", *words, *arguments]
        self.process = Process(command, scratch / f"{name}.log")
        self.address = eventually(self.bound)

    def bound(self):
        """the simulated trunk listens"""
        for line in self.output():
            if line.startswith("listening on udp:"):
                return line.removeprefix("listening on udp:")
        assert self.process.is_running(), "\n".join(self.output())
        return None

    def output(self):
        return self.process.log.read_text().splitlines()

    def verdict(self):
        """Asserts that the PBX kept every rule. Returns what there is to say of each call."""
        status = self.process.stop(signal.SIGINT)
        said = self.output()
        assert status == 0, "the PBX broke rules of the trunk:\n" + "\n".join(said)
        return [line for line in said if line.startswith("call: ")]

"""Makes the captures again: real clients call through the real program, and tshark keeps the SIP.

    make interop                                  # once: installs the clients, builds the program
    .venv/bin/python pcap-fixtures/make.py        # all of them, or those named as arguments
    TANDEM_BLESS=1 cargo test --test pcap         # then: writes the ladders; read what changed
"""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/interop"))

import sound  # noqa: E402
from phone import Phone  # noqa: E402
from process import Process, eventually  # noqa: E402

PROGRAM = pathlib.Path(os.environ.get("TANDEM", HERE.parent / "target/release/tandem"))
PBX = "127.0.5.1"
PBX_6 = "::1"
CARRIER = "127.0.5.9"


def password(user):
    """As in pbx.toml."""
    return f"secret-of-{user}"


class Studio:
    """One recording: the program, the clients, and tshark."""

    def __init__(self, scratch, name, capture):
        self.scratch = scratch
        self.running = contextlib.ExitStack()
        self.addresses = (f"127.0.5.{number}" for number in itertools.count(11))
        self.name = name
        self.capture = capture
        self.tshark = None

    def begin(self):
        command = ["tshark", "-q", "-i", "lo", "-F", "pcap", "-w", self.capture]
        wanted = f"port 5060 and (host {PBX} or host {PBX_6})"
        self.tshark = self.start([*command, "-f", wanted], "tshark")
        eventually(lambda: "Capture started" in self.tshark.log.read_text(), 10)
        own = HERE / f"{self.name}.toml"
        config = own if own.exists() else HERE / "pbx.toml"
        control = self.scratch / "control.sock"
        main = self.scratch / "main.toml"
        main.write_text(
            f'include = ["{config}"]\n'
            '[http]\nlisten = "127.0.0.1:0"\n'
            f'[store]\nurl = "sqlite:{self.scratch}/tandem.db"\n'
            f'[control]\nsocket = "{control}"\n'
        )
        self.start([PROGRAM, "run", "-c", main], "pbx")
        eventually(control.exists, 15)

    def start(self, command, name, **options):
        process = Process(command, self.scratch / f"{name}.log", **options)
        self.running.callback(process.kill)
        return process

    def phone(self, kind, user, transport="udp", secret=None, register=True):
        """A telephone of tests/interop."""
        # baresip takes no address that is not an interface's own.
        own = "127.0.0.1" if kind == "baresip" else next(self.addresses)
        secret = secret or password(user)
        phone = Phone(kind, self.scratch, user, secret, f"{PBX}:5060", own, transport)
        self.running.callback(phone.close)
        if register:
            phone.register()
        return phone

    def old_baresip(self, user, transport):
        """Debian's baresip, which obeys a socket."""
        return OldBaresip(self, user, transport, next(self.addresses))

    def linphone(self, user):
        return Linphone(self, user, next(self.addresses))

    def sipp(self, scenario, own, *more):
        """SIPp with a scenario of this folder."""
        pbx = f"[{PBX_6}]" if ":" in own else PBX
        command = ["sipp", f"{pbx}:5060", "-sf", HERE / f"{scenario}.xml", "-i", own, "-m", 1]
        return self.start([*command, "-nostdin", "-timeout", 20, *more], scenario)

    def end(self):
        time.sleep(1)  # the last ACK, the end of a connection
        self.tshark.stop(signal.SIGINT)


class OldBaresip:
    def __init__(self, studio, user, transport, own):
        self.control = (own, 4444)
        folder = studio.scratch / f"baresip-{user}"
        folder.mkdir()
        # When it has said everything, it hangs up.
        sound.save(folder / "says.wav", sound.voice(seed=int(user), seconds=60))
        modules = [f"module {name}.so" for name in ("g711", "aufile", "stdio")]
        modules += [f"module_app {name}.so" for name in ("account", "contact", "menu", "ctrl_tcp")]
        lines = [
            f"sip_listen {own}:5060",
            f"net_interface {own}",
            f"ctrl_tcp_listen {own}:4444",
            f"audio_source aufile,{folder}/says.wav",
            "ausrc_srate 8000",
            "auplay_srate 8000",
            "ausrc_channels 1",
            "auplay_channels 1",
            "module_path /usr/lib/baresip/modules",
            *modules,
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        (folder / "contacts").touch()
        account = f"<sip:{user}@{PBX};transport={transport}>;auth_user={user}"
        account += f";auth_pass={password(user)};regint=60;answermode=auto;audio_codecs=PCMU/8000/1"
        (folder / "accounts").write_text(account + "\n")
        log = studio.scratch / f"baresip-{user}.log"
        studio.start(["baresip", "-f", folder], f"baresip-{user}", stdin=subprocess.PIPE)
        eventually(lambda: "200 OK" in log.read_text(), 15)

    def do(self, command, params=""):
        order = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        with socket.create_connection(self.control, 3) as control:
            control.sendall(b"%d:%s," % (len(order), order))
            control.recv(4096)


class Linphone:
    def __init__(self, studio, user, own):
        home = studio.scratch / f"linphone-{user}"
        (home / ".local/share/linphone").mkdir(parents=True)
        sections = {
            "sip": {
                "sip_port": 5060,
                "sip_tcp_port": 0,
                "sip_tls_port": 0,
                "bind_address": own,
                "guess_hostname": 0,
                "register_only_when_network_is_up": 0,
                "auto_net_state_mon": 0,
                "default_proxy": 0,
            },
            "misc": {"user_agent": "Linphone"},
            "rtp": {"audio_rtp_port": 33000},
            "proxy_0": {
                "reg_proxy": f"<sip:{PBX};transport=udp>",
                "reg_identity": f"sip:{user}@{PBX}",
                "reg_expires": 600,
                "reg_sendregister": 1,
            },
            "auth_info_0": {"username": user, "passwd": password(user), "realm": "tandem"},
        }
        text = ""
        for name, keys in sections.items():
            text += f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        (home / "linphonerc").write_text(text)
        self.log = studio.scratch / f"linphone-{user}.log"
        self.process = studio.start(
            ["linphonec", "-c", home / "linphonerc", "-d", "6", "-l", home / "debug.log"],
            f"linphone-{user}",
            stdin=subprocess.PIPE,
            env=os.environ | {"HOME": str(home)},
        )
        self.wait("linphonec>")
        self.do("soundcard use files")

        def registered():
            self.do("status register")
            return "egistered, identity=" in self.text()

        eventually(registered, 20, every=0.5)

    def do(self, command):
        self.process.popen.stdin.write(f"{command}\n".encode())
        self.process.popen.stdin.flush()

    def text(self):
        return self.log.read_text(errors="replace")

    def wait(self, words):
        eventually(lambda: words in self.text(), 20)


def connect(caller, callee):
    caller.dial(callee.user)
    callee.wait("incoming")
    caller.wait("ringing")
    callee.answer()
    caller.wait("established")
    callee.wait("established")
    time.sleep(1)


def baresip_calls_baresip(studio):
    caller, callee = studio.phone("baresip", "1001"), studio.phone("baresip", "1002")
    connect(caller, callee)
    caller.hang_up()
    callee.wait("closed")
    callee.do("unregister")


def baresip_is_refused(studio):
    phone = studio.phone("baresip", "1001", secret="wrong", register=False)
    with contextlib.suppress(AssertionError):
        phone.register()


def old_baresip_calls_by_tcp(studio):
    phone, callee = studio.old_baresip("1001", "tcp"), studio.phone("pjsua", "1002")
    phone.do("dial", f"sip:1002@{PBX};transport=tcp")
    callee.wait("incoming")
    callee.answer()
    callee.wait("established")
    time.sleep(1)
    phone.do("hangup")
    callee.wait("closed")
    # And the other way, over the connection that the phone has opened.
    callee.dial("1001")
    callee.wait("established")
    callee.hang_up()
    callee.wait("closed")


def pjsua_holds_and_resumes(studio):
    holder, other = studio.phone("pjsua", "1001"), studio.phone("baresip", "1002")
    connect(holder, other)
    holder.do("hold")
    other.wait("held")
    other.forget("resumed")
    holder.do("resume")
    other.wait("resumed")
    time.sleep(0.5)
    other.hang_up()
    holder.wait("closed")


def pjsua_calls_the_busy(studio):
    caller, callee = studio.phone("pjsua", "1001"), studio.phone("baresip", "1002")
    caller.dial("1002")
    callee.wait("incoming")
    callee.do("reject")
    caller.wait("closed")


def pjsua_and_baresip_ring_together(studio):
    caller = studio.phone("pjsua", "1001", transport="tcp")
    first, second = studio.phone("pjsua", "1002"), studio.phone("baresip", "1002")
    caller.dial("1002")
    first.wait("incoming")
    second.wait("incoming")
    first.answer()
    caller.wait("established")
    second.wait("closed")
    time.sleep(0.5)
    first.hang_up()
    caller.wait("closed")


def baresip_gives_up(studio):
    caller, callee = studio.phone("baresip", "1001"), studio.phone("pjsua", "1002")
    caller.dial("1002")
    callee.wait("incoming")
    caller.wait("ringing")
    caller.hang_up()
    callee.wait("closed")


def linphone_calls_baresip(studio):
    caller, callee = studio.linphone("1001"), studio.phone("baresip", "1002")
    caller.do(f"call sip:1002@{PBX}")
    callee.wait("incoming")
    callee.answer()
    caller.wait("Media streams established")
    callee.wait("established")
    time.sleep(1)
    caller.do("pause")
    callee.wait("held")
    caller.wait("is now paused")
    caller.do("resume")
    callee.wait("resumed")
    time.sleep(0.5)
    caller.do("terminate")
    callee.wait("closed")
    caller.do("unregister")
    time.sleep(0.5)
    caller.do("quit")


def baresip_calls_linphone(studio):
    callee, caller = studio.linphone("1002"), studio.phone("baresip", "1001")
    caller.dial("1002")
    caller.wait("ringing")
    callee.do("answer")
    caller.wait("established")
    time.sleep(1)
    callee.do("terminate")
    caller.wait("closed")


def sipp_calls_the_carrier(studio):
    carrier = studio.sipp("sipp-carrier", CARRIER, "-p", 5060)
    number = "+14155550199"
    # Left alone, SIPp signs another URI than the one that it calls.
    signed = ["-auth_uri", f"{number}@{PBX}:5060"]
    caller = studio.sipp("sipp-caller", next(studio.addresses), "-s", number, *signed)
    assert caller.popen.wait(20) == 0
    assert carrier.popen.wait(20) == 0


def sipp_calls_the_echo_by_ipv6(studio):
    signed = ["-auth_uri", "*43@[::1]:5060"]
    caller = studio.sipp("sipp-caller", "::1", "-s", "*43", *signed)
    assert caller.popen.wait(20) == 0


def pjsua_wants_it_reliable(studio):
    callee = studio.phone("baresip", "1002")
    command = [sys.executable, HERE / "reliable_phone.py", "1001", password("1001"), PBX]
    caller = studio.start([*command, next(studio.addresses), "1002"], "reliable")
    callee.wait("incoming")
    # Until the 180 is acknowledged.
    time.sleep(0.3)
    callee.answer()
    assert caller.popen.wait(20) == 0


def the_carrier_calls(studio):
    phones = [studio.phone("pjsua", "1001"), studio.phone("baresip", "1002")]
    carrier = studio.sipp("sipp-from-carrier", CARRIER, "-p", 5060, "-s", "+14155550100")
    for phone in phones:
        phone.wait("incoming")
    phones[1].answer()
    phones[0].wait("closed")
    phones[1].wait("established")
    time.sleep(1)
    phones[1].hang_up()
    assert carrier.popen.wait(20) == 0


def sipsak_pings_and_registers(studio):
    own = next(studio.addresses)
    run = ["sipsak", "-H", own, "-s"]
    login = ["-u", "1003", "-a", password("1003")]
    for words in (
        [f"sip:ping@{PBX}:5060"],
        [f"sip:1003@{PBX}:5060", "-U", "-C", f"sip:1003@{own}:5555", "-x", "120", *login],
        [f"sip:1003@{PBX}:5060", "-U", "-C", "*", "-x", "0", *login],
    ):
        subprocess.run([*run, *words], check=True, capture_output=True)


RECORDINGS = {
    "baresip-calls-baresip": baresip_calls_baresip,
    "baresip-calls-linphone": baresip_calls_linphone,
    "baresip-gives-up": baresip_gives_up,
    "baresip-is-refused": baresip_is_refused,
    "linphone-calls-baresip": linphone_calls_baresip,
    "old-baresip-calls-by-tcp": old_baresip_calls_by_tcp,
    "pjsua-and-baresip-ring-together": pjsua_and_baresip_ring_together,
    "pjsua-calls-the-busy": pjsua_calls_the_busy,
    "pjsua-holds-and-resumes": pjsua_holds_and_resumes,
    "pjsua-wants-it-reliable": pjsua_wants_it_reliable,
    "sipp-calls-the-carrier": sipp_calls_the_carrier,
    "sipp-calls-the-echo-by-ipv6": sipp_calls_the_echo_by_ipv6,
    "sipsak-pings-and-registers": sipsak_pings_and_registers,
    "the-carrier-calls": the_carrier_calls,
}


def main(names):
    for name in names or RECORDINGS:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            capture = scratch / f"{name}.pcap"
            studio = Studio(scratch, name, capture)
            with studio.running:
                try:
                    studio.begin()
                    RECORDINGS[name](studio)
                except Exception:
                    for log in sorted(scratch.glob("*.log")):
                        print(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}")
                    raise
                studio.end()
            (HERE / capture.name).write_bytes(capture.read_bytes())
            print(f"{name}: {(HERE / capture.name).stat().st_size} bytes")


main(sys.argv[1:])

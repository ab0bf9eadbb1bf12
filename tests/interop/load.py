"""SIPp as two telephones: one that calls, one that answers, each as often as wanted."""

import contextlib
import hashlib
import pathlib
import shutil
import socket
import subprocess

from pbx import password
from process import Process

SCENARIOS = pathlib.Path(__file__).parent / "sipp"
CALLER, CALLEE = "127.0.3.10", "127.0.3.11"


def program(name):
    found = shutil.which(name)
    assert found, f"{name} is missing: run `make install`"
    return found


def md5_users(*users):
    """Users that SIPp can be: it knows MD5 only, so that is all that is stored of them."""
    hashes = {u: hashlib.md5(f"{u}:tandem:{password(u)}".encode()).hexdigest() for u in users}
    return "\n".join(f'[user.{user}]\nha1 = "{ha1}"' for user, ha1 in hashes.items())


def free_port(address, pair=False):
    """A free port; an even one with the next one free as well where a pair is wanted."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beside,
        ):
            probe.bind((address, 0))
            port = probe.getsockname()[1]
            if not pair:
                return port
            with contextlib.suppress(OSError, OverflowError):
                beside.bind((address, port + 1))
                if port % 2 == 0:
                    return port


def sipp(folder, scenario, pbx, own, port, *arguments, user="1001", number="1002", uri=None):
    """The command line of SIPp with one scenario."""
    # Ten seconds of mu-law, which any bytes are. Never again while somebody reads it.
    voice = folder / "voice.ulaw"
    if not voice.exists():
        voice.write_bytes(bytes(range(256)) * 312)
    users = folder / f"{scenario}.csv"
    credentials = f"[authentication username={user} password={password(user)}]"
    users.write_text(f"SEQUENTIAL\n{user};{credentials};{number}\n")
    return [
        program("sipp"),
        pbx.address(),
        *("-i", own, "-mi", own, "-p", port, "-sf", SCENARIOS / f"{scenario}.xml"),
        *("-inf", users, "-nostdin", "-trace_err", "-error_file", folder / f"{scenario}-errors.log"),
        # Left alone, SIPp signs another URI than the one that it calls.
        *("-auth_uri", uri or f"{number}@{pbx.address()}"),
        *arguments,
    ]


def answering(folder, pbx):
    """Registers 1002 and starts what answers its calls."""
    port = free_port(CALLEE)
    command = sipp(folder, "register", pbx, CALLEE, port, "-m", "1", user="1002", uri=pbx.address())
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    command = sipp(folder, "callee", pbx, CALLEE, port)
    return Process(command, folder / "callee.log", cwd=folder)


def calling(folder, pbx, calls, per_second, talk_ms):
    """Starts the calls. It ends with 0 if every one went well."""
    command = sipp(
        folder, "caller", pbx, CALLER, free_port(CALLER),
        *("-m", calls, "-r", per_second, "-l", calls, "-d", talk_ms),
        *("-timeout", calls // per_second + talk_ms // 1000 + 60, "-timeout_error"),
    )
    return Process(command, folder / "caller.log", cwd=folder)

"""sipsak, the administrator's tool: OPTIONS and REGISTER."""

import subprocess

from load import md5_users, program
from pbx import password

OWN = "127.0.3.30"


def sipsak(*arguments):
    return subprocess.run(
        [program("sipsak"), "-H", OWN, "-vv", *arguments], capture_output=True, text=True, timeout=30
    )


def test_options_are_answered(pbx):
    done = sipsak("-s", f"sip:ping@{pbx.address()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 OK" in done.stdout


def test_it_registers(start_pbx):
    # sipsak knows MD5 only.
    pbx = start_pbx(users=("1002",), more=md5_users("1001"))
    done = sipsak(
        *("-U", "-x", "600", "-C", f"sip:1001@{OWN}:5555", "-s", f"sip:1001@{pbx.address()}"),
        *("-u", "1001", "-a", password("1001")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [row for row in pbx.ask("phones") if row["contacts"]]
    assert row["user"] == "1001"


def test_a_wrong_password_is_refused(start_pbx):
    pbx = start_pbx(users=("1002",), more=md5_users("1001"))
    done = sipsak(
        *("-U", "-x", "600", "-C", f"sip:1001@{OWN}:5555", "-s", f"sip:1001@{pbx.address()}"),
        *("-u", "1001", "-a", "wrong"),
    )
    assert done.returncode != 0
    assert not [row for row in pbx.ask("phones") if row["contacts"]]

"""linphonec, driven by its command line."""

import os
import subprocess
import time

from load import program
from pbx import password
from process import PATIENCE, Process, eventually

RC = """[sip]
sip_port={port}
sip_tcp_port=0
sip_tls_port=0
bind_address={own}
guess_hostname=0
register_only_when_network_is_up=0
auto_net_state_mon=0
default_proxy=0
[rtp]
audio_rtp_port={rtp}
[sound]
echocancellation=0
[video]
enabled=0
[proxy_0]
reg_proxy=<sip:{pbx};transport=udp>
reg_identity=sip:{user}@{host}
reg_expires=600
reg_sendregister=1
[auth_info_0]
username={user}
passwd={password}
realm=tandem
"""


class Linphone:
    """A running linphonec. Its answers are in its output, one prompt after the other."""

    def __init__(self, folder, pbx, user, own, port, rtp):
        self.folder, self.name = folder, "linphone"
        home = folder / "home"
        (home / ".local/share/linphone").mkdir(parents=True)
        rc = folder / "linphonerc"
        host = pbx.address().rsplit(":", 1)[0]
        rc.write_text(
            RC.format(
                port=port, own=own, rtp=rtp, pbx=pbx.address(), host=host, user=user,
                password=password(user),
            )
        )
        self.process = Process(
            [program("linphonec"), "-c", rc, "-d", "6", "-l", folder / "linphone-debug.log"],
            folder / "linphone.log",
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | {"HOME": str(home)},
            cwd=folder,
        )

    def said(self):
        return self.process.log.read_text(errors="replace")

    def order(self, line):
        self.process.popen.stdin.write(line + "\n")
        self.process.popen.stdin.flush()

    def ask(self, line, wanted, patience=PATIENCE):
        """Asks until the answer is there."""
        before = len(self.said())

        def answered():
            """the answer of linphonec"""
            self.order(line)
            time.sleep(0.3)
            return wanted in self.said()[before:]

        answered.__doc__ = f"linphonec says «{wanted}»"
        eventually(answered, patience)

    def wait(self, wanted, patience=PATIENCE):
        def said():
            return wanted in self.said()

        said.__doc__ = f"linphonec says «{wanted}»"
        eventually(said, patience)

    def close(self):
        if self.process.is_running():
            self.order("quit")
            try:
                self.process.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()

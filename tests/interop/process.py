"""Programs that a test starts and ends, by their own process id."""

import contextlib
import os
import signal
import subprocess
import time


# Longer than anything takes on a busy machine.
PATIENCE = 60


class Process:
    """A program with its output in a file."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "ab") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output} | options
            self.popen = subprocess.Popen([str(word) for word in command], **options)
        self.pid = self.popen.pid

    def is_running(self):
        return self.popen.poll() is None

    def stop(self, how=signal.SIGTERM, patience=PATIENCE):
        """Ends it and returns its exit status."""
        if self.is_running():
            self.popen.send_signal(how)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.popen.args[0]} did not end; see {self.log}") from None

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait()

    def fds(self):
        """What its open file descriptors are, sorted."""
        folder = f"/proc/{self.pid}/fd"
        found = []
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"{folder}/{number}"))
        return sorted(found)

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def eventually(what, patience=PATIENCE, every=0.05):
    """Calls until it returns something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience:g} s: {what.__doc__ or what.__name__}")
        time.sleep(every)

"""The temporary folder of a run, and the processes in it.

Every process of a run has its working directory in the folder, also the backends of PostgreSQL. So a run can find all
of its processes, whichever process started them. A guardian process ends them when the run ends in any way, even if the
run is killed.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def processes_in(folder):
    """Returns the ids of the processes whose working directory is the folder or inside it."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                directory = os.readlink(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if directory.removesuffix(" (deleted)") == str(folder) or directory.startswith(f"{folder}/"):
                found.append(int(entry))
    return found


def signal_all(pids, number):
    """Sends a signal to processes that may have ended meanwhile."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_in(folder):
    """Kills the processes in a folder until none is left."""
    while pids := processes_in(folder):
        signal_all(pids, signal.SIGKILL)
        time.sleep(0.02)


class Sandbox:
    """A temporary folder. PostgreSQL refuses to run as root, so for root the processes run as the user `nobody`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="annals-failover-"))
        self.folder.chmod(0o755)
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.guardian = subprocess.Popen(
            [sys.executable, __file__, self.folder], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
        )

    def make(self, name, mode=0o755):
        """Creates a folder that belongs to the user of the processes."""
        folder = self.folder / name
        folder.mkdir(mode=mode)
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
        return folder

    def options(self):
        """Returns the options of subprocess that select the user."""
        if not self.user:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def start(self, folder, command, environment=None, as_caller=False):
        """Starts a process in a folder. Its output is appended to the file `log` there."""
        base = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder)}
        with open(folder / "log", "ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=base | {name: str(value) for name, value in (environment or {}).items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **({} if as_caller else self.options()),
            )

    def close(self, keep):
        """Ends all processes. Removes the folder, unless its logs are needed."""
        self.guardian.communicate(b"keep" if keep else b"remove")


def main():
    """Waits until the run closes the pipe or ends, and cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    keep = sys.stdin.read() == "keep"
    kill_in(folder)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

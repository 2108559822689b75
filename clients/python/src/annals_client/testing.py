"""A test double of Annals that is Annals: `start_annals` runs the program with an empty store.

    with start_annals() as service:
        client = Annals(service.url)

`ANNALS_BIN` names the program. It runs a PostgreSQL of its own, whose programs it finds on the system or in
`ANNALS_PG_BIN`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx


def start_annals(binary: str | None = None, env: Mapping[str, str] | None = None) -> Service:
    """Starts a service with an empty store on a free port. `env` has settings, like `{"ANNALS_AUTH": "keys"}`."""
    program = binary or os.environ.get("ANNALS_BIN") or shutil.which("annals")
    if program is None:
        raise RuntimeError("the program `annals` was not found: set ANNALS_BIN to its path, or add it to PATH")
    service = Service(program, env or {})
    try:
        service.start()
    except BaseException:
        service.stop()
        raise
    return service


class Service:
    """A running service. As a context manager it stops at the end, and removes its store."""

    def __init__(self, program: str, env: Mapping[str, str]) -> None:
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="annals-"))
        self._folder.chmod(0o755)  # If this process is root, PostgreSQL runs as another user.
        self._log = self._folder / "log"
        self._address = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        # A database of the environment would not be empty.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
        self._env = {**inherited, **env, "ANNALS_DATA_DIR": str(self._folder / "data")}

    @property
    def url(self) -> str:
        return f"http://{self._address}"

    def start(self) -> None:
        """Starts the program; after `kill` with the same store and on the same port."""
        env = {**self._env, "ANNALS_LISTEN": self._address, "ANNALS_LOG": "json"}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([self._program, "serve"], env=env, stdout=log, stderr=log)
        while not (listening := re.search(r"listening on http://([0-9.:]+)", self.log())):
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._program} ended with status {self._process.returncode}:\n{self.log()}")
            time.sleep(0.02)
        self._address = listening[1]

    def log(self) -> str:
        """Returns what the program has logged since its start."""
        return self._log.read_text("utf-8", "replace")

    def run(self, *arguments: str) -> str:
        """Runs a command on the store, for example `run("keys", "list")`, and returns its output."""
        command = [self._program, *arguments]
        ended = subprocess.run(command, env=self._env, capture_output=True, encoding="utf-8", check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with status {ended.returncode}:\n{ended.stderr}")
        return ended.stdout

    def create_key(self, *grants: str, **limits: str) -> str:
        """Returns a new API key: `create_key("read:Order*", "append:Order", requests_per_minute="60")`."""
        flags = [flag for grant in grants for flag in ("--grant", grant)]
        flags += [flag for name, value in limits.items() for flag in ("--" + name.replace("_", "-"), value)]
        key = self.run("keys", "create", "--name", "test", *flags).strip()
        # The service reads the keys at most once a second, so a new key may be unknown at first.
        while httpx.get(f"{self.url}/events?limit=1", headers={"Authorization": f"Bearer {key}"}).status_code == 401:
            time.sleep(0.05)
        return key

    def kill(self) -> None:
        """Kills the program as a crash would (SIGKILL). `start` continues with the same store."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stops the program, and removes its store."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        # After `kill`, PostgreSQL still runs. It removes this file when it ends.
        pid_file = self._folder / "data/pg/postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
            give_up = time.monotonic() + 10
            while pid_file.exists() and time.monotonic() < give_up:
                time.sleep(0.02)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

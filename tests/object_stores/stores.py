"""The object stores: a server with the API of S3, and Azurite. Both run as processes of their own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

START_SECONDS = 60
STOP_SECONDS = 30


def wait_until(what: str, seconds: float, condition: Callable[[], object]) -> None:
    """Waits until a condition is true. The pause limits the load. It decides nothing."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: {what}")
        time.sleep(0.02)


def own_address() -> str:
    """Returns a loopback address that no other process is likely to use."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"


def free_port(host: str) -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


class Process:
    """A process with a log, which is ended with its children."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def check_runs(self) -> None:
        if self.child.poll() is not None:
            end = self.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"a process ended with status {self.child.returncode}; its log ends with:\n{end}")

    def stop(self) -> int:
        """Ends the process. Returns its exit status."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            return self.child.wait()


class Store:
    """An object store with one bucket, `annals`."""

    bucket = "annals"
    is_azure = False
    url: str
    permission_for_http: str

    def __init__(
        self, command: list[str], host: str, port: int, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.host, self.port = host, port
        self.process = Process(command, log, environment)
        wait_until("the store does not listen", START_SECONDS, self.listens)
        self.request("PUT", *self.creation())

    def listens(self) -> bool:
        self.process.check_runs()
        try:
            socket.create_connection((self.host, self.port), 1).close()
            return True
        except OSError:
            return False

    def creation(self) -> tuple[str, dict[str, str]]:
        """Returns the path and the query that create the bucket."""
        raise NotImplementedError

    def path(self, key: str) -> str:
        raise NotImplementedError

    def headers(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, str]:
        """Returns the headers of a request, with its signature."""
        return {}

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: bytes = b"",
        through: tuple[str, int] | None = None,
    ) -> bytes:
        """Sends a request to the store, past the proxy unless `through` names it. Returns the body of the response."""
        query = query or {}
        connection = http.client.HTTPConnection(*(through or (self.host, self.port)), timeout=30)
        target = quote(path)
        if query:
            target += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        connection.request(method, target, body or None, self.headers(method, quote(path), query, body))
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.status >= 300:
            raise AssertionError(f"{method} {target}: {response.status} {content[:500]!r}")
        return content

    def get(self, key: str) -> bytes:
        return self.request("GET", self.path(key))

    def put(self, key: str, content: bytes) -> None:
        raise NotImplementedError

    def keys(self, through: tuple[str, int] | None = None) -> list[str]:
        raise NotImplementedError

    def settings(self, endpoint: str, timeout: str) -> dict[str, str]:
        """Returns the variables with which Annals uses the store at an endpoint."""
        raise NotImplementedError

    def wrong_settings(self) -> dict[str, str]:
        """Returns values with which the store refuses Annals."""
        raise NotImplementedError


class S3(Store):
    """moto checks no signature, but a request must have one."""

    url = "s3://annals/archive/events"
    permission_for_http = "AWS_ALLOW_HTTP"

    def __init__(self, tools: Path, work: Path) -> None:
        host = own_address()
        port = free_port(host)
        program = str(tools / "environment/bin/moto_server")
        super().__init__([program, "-H", host, "-p", str(port)], host, port, work / "moto.log")

    def creation(self) -> tuple[str, dict[str, str]]:
        return f"/{self.bucket}", {}

    def path(self, key: str) -> str:
        return f"/{self.bucket}/{key}"

    def headers(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, str]:
        credential = "annals/20240101/us-east-1/s3/aws4_request"
        own = {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"}
        return {**own, "Content-Type": "application/octet-stream"} if body else own

    def put(self, key: str, content: bytes) -> None:
        self.request("PUT", self.path(key), body=content)

    def keys(self, through: tuple[str, int] | None = None) -> list[str]:
        listed = ElementTree.fromstring(
            self.request("GET", f"/{self.bucket}", {"list-type": "2"}, through=through).decode()
        )
        return [str(key.text) for key in listed.iter() if key.tag.endswith("Key")]

    def unfinished_uploads(self) -> int:
        listed = ElementTree.fromstring(self.request("GET", f"/{self.bucket}", {"uploads": ""}).decode())
        return sum(entry.tag.endswith("Upload") for entry in listed.iter())

    def settings(self, endpoint: str, timeout: str) -> dict[str, str]:
        return {
            "ARCHIVE_URL": self.url,
            "AWS_ENDPOINT": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "annals",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_TIMEOUT": timeout,
        }

    def wrong_settings(self) -> dict[str, str]:
        return {"ARCHIVE_URL": "s3://missing/archive"}


class Azure(Store):
    """Azurite checks the signature of each request."""

    is_azure = True
    account = "archiver"
    url = "az://annals/archive/events"
    permission_for_http = "AZURE_ALLOW_HTTP"

    def __init__(self, tools: Path, work: Path) -> None:
        self.key = secrets.token_bytes(32)
        host = own_address()
        port = free_port(host)
        accounts = f"{self.account}:{base64.b64encode(self.key).decode()}"
        program = str(tools / "node/node_modules/.bin/azurite-blob")
        options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        command = [program, "--blobHost", host, "--blobPort", str(port), *options]
        environment = {**os.environ, "AZURITE_ACCOUNTS": accounts}
        super().__init__(command, host, port, work / "azurite.log", environment)

    def creation(self) -> tuple[str, dict[str, str]]:
        return f"/{self.account}/{self.bucket}", {"restype": "container"}

    def path(self, key: str) -> str:
        return f"/{self.account}/{self.bucket}/{key}"

    def headers(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, str]:
        own = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        kind = ""
        if body:
            own["x-ms-blob-type"], kind = "BlockBlob", "application/octet-stream"
        lines = [method, "", "", str(len(body)) if body else "", "", kind, "", "", "", "", "", ""]
        lines += [f"{name}:{own[name]}" for name in sorted(own)]
        # The path of the resource begins with the account, and so does the path of the request.
        lines += [f"/{self.account}{path}", *(f"{name}:{query[name]}" for name in sorted(query))]
        digest = hmac.new(self.key, "\n".join(lines).encode(), hashlib.sha256).digest()
        own["Authorization"] = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        return {**own, "Content-Type": kind} if kind else own

    def put(self, key: str, content: bytes) -> None:
        self.request("PUT", self.path(key), body=content)

    def keys(self, through: tuple[str, int] | None = None) -> list[str]:
        query = {"restype": "container", "comp": "list"}
        listed = ElementTree.fromstring(
            self.request("GET", f"/{self.account}/{self.bucket}", query, through=through).decode("utf-8-sig")
        )
        return [str(name.text) for blob in listed.iter("Blob") for name in blob.iter("Name")]

    def settings(self, endpoint: str, timeout: str) -> dict[str, str]:
        return {
            "ARCHIVE_URL": self.url,
            "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{self.account}",
            "AZURE_ALLOW_HTTP": "true",
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(self.key).decode(),
            "AZURE_TIMEOUT": timeout,
        }

    def wrong_settings(self) -> dict[str, str]:
        other_key = base64.b64encode(secrets.token_bytes(32)).decode()
        return {"ARCHIVE_URL": "az://missing/archive", "AZURE_STORAGE_ACCOUNT_KEY": other_key}

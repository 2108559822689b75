"""Checks archives in object stores: archive, read, verify, restore, with and without faults of the store.

Started by scripts/check-object-stores, which prepares the servers. Each store has a thread, because a check waits more
than it computes.
"""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import proxy
from annals import CLOUD_EVENTS, EVENT_STREAM, LINES, Annals, Ended
from proxy import READS, WRITES, Fault, Proxy
from stores import S3, Azure, Store, own_address, wait_until

# The client gives up a request to the store after this time.
TIMEOUT = "3s"
# No single command or request may take longer than this, not even while the store refuses everything.
PATIENCE_SECONDS = 100
# Annals uploads files in parts of this size. Each file of the middle month is larger, so its upload has two parts.
PART_BYTES = 8 * 1024 * 1024
LARGE = "2024-02"
MONTHS = ["2024-01", LARGE, "2024-03"]
SMALL = "2024-01"
KNOWN = uuid.UUID(int=7)
ONE_EVENT = {"events": [{"event_type": "Placed", "event_data": {}}]}
# More readers than the service has connections to PostgreSQL.
READERS = 15
# Several requests that need no archive take less than this together.
QUICK_SECONDS = 5


def partition(month: str) -> str:
    return f"events_{month.replace('-', '_')}"


def history() -> list[dict[str, object]]:
    """Returns the lines of an import: three old months, and an event of a fourth one, so that all three are sealed."""
    noise = random.Random(1)
    lines: list[dict[str, object]] = []

    def add(month: str, second: int, aggregate: tuple[str, str], event: str, data: object, **members: object) -> None:
        time = datetime.fromisoformat(f"{month}-01T00:00:00+00:00") + timedelta(seconds=second, microseconds=second)
        lines.append(
            {
                "aggregate_type": aggregate[0],
                "aggregate_id": aggregate[1],
                "event_type": event,
                "event_data": data,
                "occurred_at": time.isoformat().replace("+00:00", "Z"),
                **members,
            }
        )

    for month in MONTHS:
        for n in range(100):
            add(month, 3 * n, ("Order", "always"), "Placed", {"n": n, "price": 1.10, "é\n": [n, None]})
            known = {"event_id": str(KNOWN)} if month == SMALL and n == 50 else {}
            add(month, 3 * n + 1, ("Order", f"{month} {n % 7}"), "Placed", {"n": n}, **known)
            correlation = str(uuid.UUID(int=n % 5 + 1))
            add(month, 3 * n + 2, ("Cart", "c 1"), "Filled", {"n": n}, metadata={"by": "a"}, correlation_id=correlation)
        if month == LARGE:
            for n in range(420):
                # Random text is hard to compress.
                text = base64.b64encode(noise.randbytes(24_000)).decode()
                add(month, 1000 + n, ("Blob", str(n % 3)), "Stored", {"text": text})
    add("2024-04", 0, ("Order", "always"), "Placed", {"n": 0})
    return lines


PATHS = [
    ("/events?limit=7", "*/*"),
    ("/events?after=90&limit=250", "*/*"),
    ("/events?direction=backward&limit=300", "*/*"),
    ("/events?limit=5", CLOUD_EVENTS),
    ("/events", LINES),
    ("/events?aggregate_type=Cart", LINES),
    (f"/events?correlation_id={uuid.UUID(int=3)}", LINES),
    ("/events?occurred_from=2024-01-01T00:02:00Z&occurred_to=2024-02-01T00:01:00Z", LINES),
    ("/events?after=0&aggregate_type=Order", EVENT_STREAM),
    ("/events?after=0", EVENT_STREAM),
    (f"/events/{KNOWN}", "*/*"),
    ("/streams/Order/always?limit=150", "*/*"),
    ("/streams/Order/always?direction=backward&limit=250", "*/*"),
    ("/streams/Order/always", LINES),
    ("/streams/Order/always", EVENT_STREAM),
    ("/streams/Order/always/1", "*/*"),
    ("/streams/Order/always/150", "*/*"),
    ("/streams/Blob/1?limit=20", "*/*"),
    ("/streams/Order/2024-01%203", "*/*"),
    ("/aggregates/Order/always?snapshot=ignore", "*/*"),
    ("/aggregates/Cart/c%201?snapshot=ignore", "*/*"),
    ("/aggregates/Cart/c%201/states?from_version=5&to_version=12", "*/*"),
]
# A path for each file and representation, for the rounds in which only a fault matters. A page of the log is not one of
# them, because a slow store makes it shorter.
FEW_PATHS = [PATHS[5], PATHS[8], PATHS[11], PATHS[15], PATHS[19]]


class Failed(AssertionError):
    """A check that failed."""


def require(holds: object, what: object) -> None:
    if not holds:
        raise Failed(str(what))


class Check:
    """The checks of one store."""

    def __init__(self, name: str, kind: type[S3] | type[Azure], tools: Path, work: Path) -> None:
        self.name = name
        self.kind = kind
        self.tools = tools
        self.work = work
        work.mkdir(mode=0o755)
        self.started = time.monotonic()
        self.store: Store
        self.proxy: Proxy
        self.annals: Annals
        self.before: dict[str, bytes] = {}
        self.exported = b""

    def say(self, what: str) -> None:
        print(f"check-object-stores: {self.name} {time.monotonic() - self.started:5.1f} s: {what}", file=sys.stderr)

    def run(self) -> None:
        try:
            self.prepare()
            self.archive_at_the_start()
            self.faults_of_writes()
            self.a_changed_upload()
            self.an_outage_of_writes()
            self.a_killed_run()
            self.faults_of_reads()
            self.a_store_that_does_not_respond()
            self.outages_of_reads()
            self.damage()
            self.erasures()
            self.finish()
        finally:
            self.end()

    def end(self) -> None:
        """Ends all processes."""
        if hasattr(self, "annals"):
            self.annals.end()
        if hasattr(self, "store"):
            self.store.process.stop()

    # --- Steps ---

    def prepare(self) -> None:
        """Fills a store of events, and reads everything before anything is archived."""
        self.store = self.kind(self.tools, self.work)
        self.proxy = Proxy(own_address(), (self.store.host, self.store.port), self.store.is_azure)
        self.annals = Annals(self.work, self.store.settings(self.proxy.url, TIMEOUT))
        events = self.work / "events.ndjson"
        lines = history()
        events.write_text("".join(json.dumps(line) + "\n" for line in lines))
        # The service runs during all checks, and with it its PostgreSQL.
        self.annals.run("migrate")
        imported = self.annals.run("import", str(events))
        require(imported.status == 0 and f"{len(lines)} new events" in imported.output, imported)
        self.annals.serve()
        require(f"the archive is {self.store.url}" in self.annals.log.read_text(), "the log does not name the archive")
        reducer = {"language": "merge-patch", "source": "", "snapshot_every": 10000}
        created = self.annals.request("PUT", "/reducers/Cart", reducer)
        require(created.status == 201, created)
        appended = self.annals.request("POST", "/streams/Order/now", ONE_EVENT)
        require(appended.status == 201, appended)
        head = json.loads(self.annals.get("/events?after=head"))["head"]
        wait_until(
            "the events are not counted", 30, lambda: json.loads(self.annals.get("/stats"))["as_of_position"] == head
        )
        self.before = self.annals.read(PATHS)
        self.exported = self.export()
        for name, value in self.store.wrong_settings().items():
            ended = self.annals.run("archive", "--yes", **{name: value})
            self.check_failure(ended)
            require(not any(map(self.is_archived, MONTHS)), f"with a wrong {name}: {ended}")
        ended = self.annals.run("archive", "--yes", **{self.store.permission_for_http: ""})
        require(ended.status != 0 and f"set {self.store.permission_for_http}=true" in ended.errors, ended)
        self.annals.stop()
        self.say(f"{len(lines)} events are imported")

    def archive_at_the_start(self) -> None:
        """The service archives with ARCHIVE_AFTER, while the store refuses the first requests."""
        fault = Fault(WRITES | READS, proxy.refuse, times=4)
        self.proxy.faults = [fault]
        self.annals.serve(ARCHIVE_AFTER="365d")
        wait_until("the months are not archived", 120, lambda: all(map(self.is_archived, MONTHS)))
        require(fault.acted == 4, f"the store refused {fault.acted} requests instead of 4")
        self.proxy.faults = []
        folder = self.annals.partitions()[partition(LARGE)]["archived_to"]
        size = len(self.store.get(f"archive/events/{folder}/by_position.parquet"))
        require(PART_BYTES < size, f"a file of the large month has {size} bytes, which fit into one part of an upload")
        self.check_reads(PATHS)
        self.check_store()
        self.lists_lag()
        # From here on only commands archive: the service would hold the lock at times.
        self.annals.stop()
        self.annals.serve()
        self.check_reads(PATHS)
        require(self.export() == self.exported, "the export differs")
        self.say("ARCHIVE_AFTER: three months are archived in spite of four refused requests")

    def lists_lag(self) -> None:
        """From now on, lists never have an object. Annals names each object that it reads or deletes."""
        lag = Fault(frozenset({"list"}), proxy.list_nothing, times=math.inf)
        self.proxy.faults = [lag]
        address = (self.proxy.host, self.proxy.server_port)
        require(self.store.keys() and not self.store.keys(through=address), "the list of the proxy is not empty")
        self.lag = lag

    def with_faults(self, *faults: Fault) -> None:
        self.proxy.faults = [*faults, self.lag]

    def faults_of_writes(self) -> None:
        """Faults that pass: a run succeeds, or it fails and the next one succeeds."""
        part, end, put = (frozenset({kind}) for kind in ("upload-part", "complete-upload", "put"))
        # With Azure, an upload begins with its first part.
        kinds = WRITES - {"begin-upload"} if self.store.is_azure else WRITES
        manifest = "manifest.json"
        rounds: list[tuple[str, str, list[Fault]]] = [
            (
                "503 for each kind of write",
                SMALL,
                [Fault(frozenset({kind}), proxy.refuse, times=1) for kind in sorted(kinds)],
            ),
            (
                "a time-out of a part and of the manifest",
                SMALL,
                [Fault(part, proxy.withhold, times=1), Fault(put, proxy.withhold, 1, manifest)],
            ),
            ("a time-out of the end of an upload", SMALL, [Fault(end, proxy.withhold, times=1)]),
            (
                "503 for parts, and cut uploads of a part and of the manifest",
                LARGE,
                [
                    Fault(part, proxy.refuse, times=2, skip=1),
                    Fault(part, proxy.cut_upload, times=1, skip=1),
                    Fault(put, proxy.cut_upload, 1, manifest),
                ],
            ),
            ("a manifest that appears late", SMALL, [Fault(READS, proxy.hide, 1, manifest, skip=1)]),
            ("a file that appears late", SMALL, [Fault(READS, proxy.hide, 1, "by_aggregate.parquet")]),
        ]
        for what, month, faults in rounds:
            self.restore(month)
            ended = self.archive_under(*faults)
            outcome = "succeeds by retrying"
            require(ended.status != 0 or "retry 1 of" in ended.errors, f"{what}: the client did not notice: {ended}")
            if ended.status != 0:
                self.check_failure(ended)
                require(not self.is_archived(month), f"{what}: the run failed, and the month is archived: {ended}")
                self.check_reads(FEW_PATHS)
                self.check_verify()
                self.archive(month)
                outcome = "fails, and the next run completes"
            require(self.is_archived(month), f"{what}: {month} is not archived: {ended}")
            self.check_reads(FEW_PATHS)
            self.check_store()
            self.say(f"{what}: archiving {outcome}")
        self.check_verify()

    def a_changed_upload(self) -> None:
        """The store accepts other bytes than those that Annals sent. The month stays in the database."""
        for name, kind in [("by_aggregate.parquet", "upload-part"), ("manifest.json", "put")]:
            self.restore(SMALL)
            ended = self.archive_under(Fault(frozenset({kind}), proxy.change_upload, 1, name))
            require(ended.status != 0 and not self.is_archived(SMALL), f"a changed {name} was accepted: {ended}")
            require(name in ended.errors, f"the message does not name {name}: {ended}")
            self.check_reads(FEW_PATHS)
            self.archive(SMALL)
        self.check_verify()
        self.say("one bit of an upload changes: archiving fails, and the next run completes")

    def an_outage_of_writes(self) -> None:
        """The store refuses all writes from the second file on. The month stays in the database."""
        outage = Fault(WRITES, proxy.refuse, math.inf, "by_aggregate.parquet")
        self.restore(SMALL)
        ended = self.archive_under(outage)
        self.check_failure(ended)
        require(not self.is_archived(SMALL), f"the month is archived: {ended}")
        self.check_reads(FEW_PATHS)
        self.check_verify()
        self.archive(SMALL)
        self.check_reads(FEW_PATHS)
        self.check_store()
        self.say(f"503 for every write: archiving fails after {outage.acted} attempts, and the next run completes")

    def a_killed_run(self) -> None:
        """A run is killed while the store has a part of an upload."""
        self.restore(LARGE)
        fault = Fault(frozenset({"upload-part"}), proxy.withhold, times=math.inf, skip=1)
        self.with_faults(fault)
        known = self.proxy.withheld
        child = self.annals.start("archive", "--yes")
        try:
            wait_until("no part is uploaded", 60, lambda: self.proxy.withheld > known or child.poll() is not None)
            require(child.poll() is None, "the run ended before it was killed")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        self.with_faults()
        require(not self.is_archived(LARGE), "the month is archived")
        self.check_reads(FEW_PATHS)

        def next_run() -> bool:
            # PostgreSQL notices the end of the killed process after a moment, and then releases its lock.
            ended = self.annals.run("archive", "--yes")
            require(ended.status == 0 or "another process archives" in ended.errors, ended)
            return ended.status == 0

        wait_until("the lock of the killed run is not released", 30, next_run)
        require(self.is_archived(LARGE), "the month is not archived")
        self.check_reads(FEW_PATHS)
        self.say("a run that was killed during an upload: the next run completes")

    def faults_of_reads(self) -> None:
        """Faults that pass: each command and each request succeeds by retrying."""
        faults: list[tuple[str, Callable[[], Fault]]] = [
            ("503 for three reads", lambda: Fault(READS, proxy.refuse, times=3)),
            ("three cut downloads", lambda: Fault(frozenset({"get"}), proxy.cut_download, 3, ".parquet")),
            ("a time-out of a read", lambda: Fault(frozenset({"get"}), proxy.withhold, 1, ".parquet")),
        ]
        for what, fault in faults:
            self.check_under(f"export, {what}", fault(), lambda: require(self.export() == self.exported, "it differs"))
            self.restore(SMALL)
            self.archive(SMALL)
            # The folder is new to the service, so the service has none of its parts in memory.
            self.check_under(f"reads, {what}", fault(), lambda: self.check_reads(FEW_PATHS))
            self.say(f"{what}: export and reads succeed by retrying")
        # The last fault takes long, and the commands read in the same way.
        for what, fault in faults[:-1]:
            self.check_under(f"verify, {what}", fault(), self.check_verify)
            self.check_under(f"restore, {what}", fault(), lambda: self.restore(SMALL))
            self.archive(SMALL)
            self.say(f"{what}: verify and restore succeed by retrying")
        self.restore(SMALL)
        self.archive(SMALL)
        self.check_under("pages", Fault(READS, proxy.refuse, times=3), self.check_pages)

    def a_store_that_does_not_respond(self) -> None:
        """Requests for archived events wait. They use nothing that other requests need."""
        self.restore(SMALL)
        self.archive(SMALL)
        silence = Fault(READS, proxy.withhold, times=math.inf)
        self.with_faults(silence)
        known = self.proxy.withheld
        responses: list[bytes] = []
        path = f"/streams/Order/always as {LINES}"
        readers = [
            threading.Thread(target=lambda: responses.append(self.annals.get("/streams/Order/always", LINES)))
            for _ in range(READERS)
        ]
        for reader in readers:
            reader.start()
        wait_until("no reader waits for the store", 30, lambda: self.proxy.withheld > known)
        begun = time.monotonic()
        for other in ("/streams/Order/now", "/events?direction=backward&limit=1", "/readyz", "/stats"):
            self.annals.get(other)
        appended = self.annals.request("POST", "/streams/Order/meanwhile", ONE_EVENT)
        require(appended.status == 201, appended)
        waited = time.monotonic() - begun
        require(waited < QUICK_SECONDS, f"other requests took {waited:.1f} s")
        self.with_faults()
        for reader in readers:
            reader.join()
        require(responses == [self.before[path]] * READERS, "the readers did not get what they wanted")
        # The log has one more event now.
        exported = self.export()
        require(exported.startswith(self.exported[: self.exported.rindex(b'{"end"')]), "the export differs")
        self.before, self.exported = self.annals.read(PATHS), exported
        self.say(
            f"no response to {READERS} readers: other requests take {waited * 1000:.0f} ms, and the readers succeed"
        )

    def outages_of_reads(self) -> None:
        """The store refuses all reads. Nothing changes, and the reads succeed afterwards."""
        self.restore(SMALL)
        self.archive(SMALL)
        outage = Fault(READS, proxy.refuse, times=math.inf)
        self.with_faults(outage)
        begun = time.monotonic()
        response = self.annals.request("GET", "/streams/Order/always/1")
        waited = time.monotonic() - begun
        problem = json.loads(response.body)
        require((response.status, problem.get("code")) == (503, "database_unavailable"), response)
        require(waited < PATIENCE_SECONDS, f"the response took {waited:.1f} s")
        self.check_took_place("a read", outage)
        appended = self.annals.request("GET", "/streams/Order/now")
        require(appended.status == 200, "a stream that is not archived cannot be read")
        # An error that the client does not retry takes less time.
        forbidden = Fault(READS, proxy.forbid, times=math.inf)
        self.with_faults(forbidden)
        ended = self.within_patience("verify")
        require(ended.status == 2, f"verify must end with 2: {ended}")
        self.check_failure(ended)
        ended = self.within_patience("restore-archive", SMALL)
        require(ended.status != 0 and self.is_archived(SMALL), ended)
        self.check_failure(ended)
        self.check_took_place("the commands", forbidden)
        # A service that starts meanwhile reports the outage, and serves what it can.
        self.annals.stop()
        self.annals.serve()
        require("the archive cannot be read" in self.annals.log.read_text(), "the start does not report the outage")
        require(self.annals.request("GET", "/streams/Order/now").status == 200, "the service does not serve")
        self.with_faults()
        self.check_reads(PATHS)
        self.check_verify()
        self.say(f"503 and 403 for every read: a request gets 503 after {waited:.1f} s, and succeeds afterwards")

    def damage(self) -> None:
        """One byte of an object changes, or an object is lost. Reads and verify report it, and no event differs."""
        folder = str(self.annals.partitions()[partition(SMALL)]["archived_to"])
        for name, path in [
            ("by_position.parquet", "/events?limit=7"),
            ("by_aggregate.parquet", "/streams/Order/always/1"),
            ("manifest.json", "/events?limit=7"),
        ]:
            key = f"archive/events/{folder}/{name}"
            content = self.store.get(key)
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            self.store.put(key, bytes(changed))
            # The service begins again, without parts of the file in memory.
            self.annals.stop()
            self.annals.serve()
            response = self.annals.request("GET", path)
            require((response.status, json.loads(response.body).get("code")) == (500, "internal"), response)
            log = self.annals.log.read_text()
            require(folder in log and name in log, f"the log does not name {folder}/{name}:\n{log[-2000:]}")
            verified = self.annals.run("verify")
            require(verified.status == 1 and "WRONG" in verified.output and folder in verified.output, verified)
            if name != "by_aggregate.parquet":  # A restore reads the other file.
                restored = self.annals.run("restore-archive", SMALL)
                require(restored.status != 0 and self.is_archived(SMALL), restored)
            self.store.put(key, content)
            # The service needs no restart after the repair.
            self.check_reads(FEW_PATHS)
        self.check_verify()
        self.say("one changed byte in each object: reads fail, and verify names it")

    def erasures(self) -> None:
        """Erased content is removed: the files of its month are written again, and all former ones are deleted."""
        erased = {"reason": "a check", "streams": [{"aggregate_type": "Order", "aggregate_id": f"{SMALL} 3"}]}
        created = self.annals.request("POST", "/erasures", erased)
        require(created.status == 201, created)
        path = f"/erasures/{json.loads(created.body)['erasure']}"
        # From here on, the log is the one without the content.
        self.before, self.exported = self.annals.read(PATHS), self.export()
        former = self.annals.partitions()[partition(SMALL)]["archived_to"]

        def is_removed() -> bool:
            return json.loads(self.annals.get(path))["removed_at"] is not None

        outage = Fault(WRITES, proxy.refuse, math.inf, "manifest.json")
        self.with_faults(outage)
        self.annals.stop()
        self.annals.serve(ERASE_REWRITE_EVERY="1ms")
        message = "failed to remove erased content from the files"
        wait_until("the removal does not fail", PATIENCE_SECONDS, lambda: message in self.annals.log.read_text())
        self.check_took_place("the removal", outage)
        require(not is_removed(), "the content counts as removed")
        self.check_reads(FEW_PATHS)
        kinds = ["complete-upload", "put", "get", "delete"]
        faults = [Fault(frozenset({kind}), proxy.refuse, times=1) for kind in kinds]
        self.with_faults(*faults)
        self.annals.stop()
        self.annals.serve(ERASE_REWRITE_EVERY="1ms")
        wait_until("the content is not removed", PATIENCE_SECONDS, is_removed)
        self.check_took_place("the removal", *faults)
        self.with_faults()
        current = self.annals.partitions()[partition(SMALL)]["archived_to"]
        require(current != former, "the month has the same folder")
        prefix = f"archive/events/{SMALL}-"
        left = [key for key in self.store.keys() if key.startswith(prefix) and str(current) not in key]
        require(not left, f"objects that may have the content are left: {left}")
        self.check_reads(PATHS)
        self.check_verify()
        self.check_store()
        self.say("erased content: the removal fails under an outage, and succeeds by retrying")

    def finish(self) -> None:
        """Everything is restored, and is what was imported."""
        for month in MONTHS:
            self.restore(month)
        self.check_reads(PATHS)
        require(self.export() == self.exported, "the export differs")
        self.check_verify()
        self.annals.stop()
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.proxy.requests.items()))
        if isinstance(self.store, S3):
            unfinished = self.store.unfinished_uploads()
            # The run that was killed has left one.
            require(unfinished <= 1, f"{unfinished} uploads are unfinished")
        self.say(f"all months are restored, and equal what was imported (requests: {counts})")

    # --- Commands ---

    def within_patience(self, *command: str) -> Ended:
        begun = time.monotonic()
        ended = self.annals.run(*command)
        waited = time.monotonic() - begun
        require(waited < PATIENCE_SECONDS, f"annals {' '.join(command)} took {waited:.1f} s: {ended}")
        return ended

    def archive(self, month: str) -> None:
        ended = self.annals.run("archive", "--yes")
        require(ended.status == 0 and partition(month) in ended.output, ended)
        require(self.is_archived(month), f"{month} is not archived: {ended}")

    def archive_under(self, *faults: Fault) -> Ended:
        self.with_faults(*faults)
        ended = self.within_patience("archive", "--yes")
        self.with_faults()
        self.check_took_place("the archiving", *faults)
        return ended

    def restore(self, month: str) -> None:
        ended = self.annals.run("restore-archive", month)
        require(ended.status == 0 and not self.is_archived(month), ended)

    def export(self) -> bytes:
        ended = self.annals.run("export")
        require(ended.status == 0, ended.errors)
        return ended.output.encode()

    def check_under(self, what: str, fault: Fault, check: Callable[[], None]) -> None:
        self.with_faults(fault)
        try:
            check()
        except AssertionError as failed:
            raise Failed(f"{what}: {failed}") from failed
        self.check_took_place(what, fault)
        self.with_faults()

    # --- What must hold ---

    def is_archived(self, month: str) -> bool:
        return self.annals.partitions()[partition(month)]["state"] == "archived"

    def check_took_place(self, what: str, *faults: Fault) -> None:
        for fault in faults:
            expected = fault.times if fault.times < math.inf else 1
            name = f"{fault.act.__name__} of {', '.join(sorted(fault.kinds))}"
            require(fault.acted >= expected, f"{what}: {name} took place {fault.acted} times instead of {expected}")

    def check_failure(self, ended: Ended) -> None:
        """The message names the archive and the remedy. It is no panic."""
        require(ended.status != 0, f"the command succeeded: {ended}")
        require("panicked" not in ended.errors, ended)
        for part in (
            "the archive cannot be read or written",
            "check the object store, ARCHIVE_URL and its credentials",
        ):
            require(part in ended.errors, f"the message is not clear: {ended}")

    def check_reads(self, paths: list[tuple[str, str]]) -> None:
        for what, body in self.annals.read(paths).items():
            if body != self.before[what]:
                (self.work / "expected.log").write_bytes(self.before[what])
                (self.work / "received.log").write_bytes(body)
            require(body == self.before[what], f"{what} differs from the response before the archiving")

    def check_pages(self) -> None:
        """Pages have all events. A page that waits for the store may be shorter than its limit."""

        def decode(text: bytes) -> Any:
            return json.loads(text, parse_float=str)

        events: list[object] = []
        after: object = 0
        while after is not None and len(events) < 300:
            page = decode(self.annals.get(f"/events?limit=250&after={after}"))
            events += page["events"]
            after = page["next_after"]
        lines = self.before[f"/events as {LINES}"].splitlines()
        require(events == [decode(line) for line in lines[: len(events)]], "the pages differ")

    def check_verify(self) -> None:
        ended = self.annals.run("verify")
        require(ended.status == 0 and "WRONG" not in ended.output, ended)

    def check_store(self) -> None:
        """Each archived month has its three objects."""
        keys = set(self.store.keys())
        for month in MONTHS:
            entry = self.annals.partitions()[partition(month)]
            if entry["state"] == "archived":
                for name in ("by_position.parquet", "by_aggregate.parquet", "manifest.json"):
                    key = f"archive/events/{entry['archived_to']}/{name}"
                    require(key in keys, f"{key} is not in the store")


def run_all(checks: list[Check]) -> list[str]:
    """Runs the checks side by side. Returns the names of those that failed."""
    failed: list[str] = []

    def run(check: Check) -> None:
        try:
            check.run()
        except BaseException:
            failed.append(check.name)
            print(f"check-object-stores: {check.name} FAILED\n{traceback.format_exc()}", file=sys.stderr)

    threads = [threading.Thread(target=run, args=[check], daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        # The program is interrupted, and its threads end with it.
        for check in checks:
            check.end()
        raise
    return failed


def main() -> int:
    tools = Path(sys.argv[1])
    kinds: dict[str, type[S3] | type[Azure]] = {"s3": S3, "azure": Azure}
    names = sys.argv[2:] or list(kinds)
    if unknown := [name for name in names if name not in kinds]:
        print(f"check-object-stores: unknown store {unknown[0]}: use s3 or azure", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # If Annals runs as root, its PostgreSQL runs as another user, which must be able to open the folder.
    work = Path(tempfile.mkdtemp(prefix="annals-object-stores-"))
    work.chmod(0o755)
    try:
        failed = run_all([Check(name, kinds[name], tools, work / name) for name in names])
    finally:
        logs = tools / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        for log in work.glob("*/*.log"):
            (logs / log.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(log, logs / log.parent.name)
        shutil.rmtree(work, ignore_errors=True)
    if failed:
        print(f"check-object-stores: failed: {', '.join(failed)}; the logs are in {logs}", file=sys.stderr)
        return 1
    print("check-object-stores: passed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

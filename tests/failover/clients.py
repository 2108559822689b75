"""The clients of a run: writers, probes, event streams, long polls, and a reader of its own writes.

Each client is a thread. All of them note in a shared history what the service has acknowledged and delivered.
"""

import bisect
import http.client
import itertools
import json
import random
import socket
import threading
import time
import uuid
from collections import namedtuple

# An event that a response has acknowledged.
Acknowledged = namedtuple("Acknowledged", "event_id stream version position epoch")
# An event as the log, or a reader of the log, has it.
Event = namedtuple("Event", "position event_id stream version")


def event_of(member):
    stream = f"{member['aggregate_type']}/{member['aggregate_id']}"
    return Event(member["global_position"], member["event_id"], stream, member["version"])


class Successes:
    """The times at which a client received a successful response, or an event."""

    def __init__(self):
        self.times = []

    def note(self):
        self.times.append(time.monotonic())

    def any_since(self, start):
        return bool(self.times) and self.times[-1] >= start

    def longest_gap(self, start, end):
        """Returns the longest time without a success that overlaps the period."""
        times = self.times
        first = max(bisect.bisect_left(times, start) - 1, 0)
        last = bisect.bisect_left(times, end) + 1
        part = times[first:last]
        return max((after - before for before, after in itertools.pairwise(part)), default=end - start)


class History:
    """What the clients of a run have sent and received."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = set()
        self.acknowledged = []
        self.faults = []
        self.refusals = {}
        self.rewinds = []
        # Ends the clients that append or probe, and then the subscribers.
        self.stop, self.end = threading.Event(), threading.Event()

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def refused(self, status, code):
        """Counts a response that a client repeats its request after."""
        with self.lock:
            self.refusals[status, code] = self.refusals.get((status, code), 0) + 1

    def note_sent(self, events):
        with self.lock:
            self.sent.update(event["event_id"] for event in events)

    def note_acknowledged(self, sent, body):
        """Checks the response to an append, and notes its events."""
        stream = f"{body['aggregate_type']}/{body['aggregate_id']}"
        events = [
            Acknowledged(event["event_id"], stream, event["version"], event["global_position"], body["epoch"])
            for event in body["events"]
        ]
        if [event.event_id for event in events] != [event["event_id"] for event in sent]:
            self.fault(f"the response to an append to {stream} names other events than were sent")
        with self.lock:
            self.acknowledged.extend(events)
        return events[-1]


class Client(threading.Thread):
    """A client of one instance, or of both in turn."""

    def __init__(self, history, name, instances, pace=0.0):
        super().__init__(name=name, daemon=True)
        self.history, self.instances, self.pace = history, list(instances), pace
        self.successes = Successes()
        self.connection, self.stop = None, history.stop

    def run(self):
        while not self.stop.is_set():
            try:
                self.step()
            except Exception as error:
                self.history.fault(f"{self.name}: {error!r}")
                return
            if self.pace:
                self.stop.wait(self.pace)

    def send(self, method, path, body=None, headers=None, seconds=30):
        """Sends a request to the first instance. Returns the status, the headers and the JSON document of the response;
        status 0 if there is no response."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.instances[0].address, timeout=seconds)
        headers = {"Content-Type": "application/json", **(headers or {})}
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = self.connection.getresponse()
            return response.status, response.headers, json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            return 0, {}, {"code": type(error).__name__}

    def next_instance(self):
        """Sends the next request to the other instance."""
        self.instances.append(self.instances.pop(0))
        if self.connection:
            self.connection.close()
            self.connection = None

    def try_until(self, statuses, *request, **options):
        """Repeats a request, on both instances in turn, until the response has one of the statuses. Returns the status
        and the document, or (None, None) if the run ends."""
        while not self.stop.is_set():
            status, headers, document = self.send(*request, **options)
            if status in statuses:
                return status, document
            if status not in (0, 503):
                raise AssertionError(f"unexpected response {status} {document} to {request[:2]}")
            self.history.refused(status, document["code"])
            self.stop.wait(float(headers.get("Retry-After", 0.2)) * random.uniform(0.2, 1))
            self.next_instance()
        return None, None


def new_events(count):
    return [{"event_id": str(uuid.uuid4()), "event_type": "Tried", "event_data": {"n": n}} for n in range(count)]


class Writer(Client):
    """Appends to streams of its own, at the version that it expects. Repeats each request until it is answered."""

    def __init__(self, history, name, instances, synchronous, seed):
        super().__init__(history, name, instances, pace=0.02)
        self.synchronous, self.random = synchronous, random.Random(seed)
        self.versions = {f"{name}-{number}": 0 for number in range(5)}

    def step(self):
        stream = self.random.choice(list(self.versions))
        version, events = self.versions[stream], new_events(self.random.choice((1, 1, 1, 2, 5)))
        self.history.note_sent(events)
        request = ("POST", f"/streams/Tried/{stream}", {"events": events}, {"If-Match": f'"{version}"'})
        status, document = self.try_until((200, 201, 412), *request)
        if status == 412:
            # No other client appends to the stream. So its end was lost, and what was acknowledged with it.
            current = document["current_version"]
            if self.synchronous or current > version:
                raise AssertionError(f"{stream} is at version {current}, and {version} was acknowledged")
            self.versions[stream] = current
        elif status:
            last = self.history.note_acknowledged(events, document)
            if last.version != version + len(events):
                raise AssertionError(f"{stream} is at version {last.version} after {version} and {len(events)} events")
            self.versions[stream] = last.version
            self.successes.note()


class OwnWrites(Writer):
    """Reads each of its writes from both databases, on the other instance, with `min_position`."""

    written = 0

    def step(self):
        # A stream gets 50 events, so that a load remains small.
        stream, events = f"{self.name}-{self.written // 50}", new_events(1)
        self.written += 1
        self.history.note_sent(events)
        status, document = self.try_until((200, 201), "POST", f"/streams/Tried/{stream}", {"events": events})
        if not status:
            return
        last = self.history.note_acknowledged(events, document)
        at = f"min_position={last.epoch}:{last.position}"
        for path in (
            f"/streams/Tried/{stream}?from_version={last.version}&limit=1&{at}",
            f"/aggregates/Tried/{stream}?{at}",
        ):
            self.next_instance()
            status, document = self.try_until((200, 409), "GET", path)
            if status == 409 and (self.synchronous or document["code"] != "epoch_changed"):
                raise AssertionError(f"{path}: {document}")
            if status != 200:
                return
            found = [event["event_id"] for event in document["events"]]
            if last.event_id not in found and document["version"] < last.version:
                raise AssertionError(f"{path} does not have the event that was acknowledged")
        self.successes.note()


class Probe(Client):
    """Sends a request every 100 ms to one instance and does not repeat it, to measure outages."""

    def __init__(self, history, name, instance):
        super().__init__(history, f"{name}, {instance.name}", [instance], pace=0.1)
        self.kind = name

    def probe(self, expected, *request):
        status, _, document = self.send(*request)
        if status in expected:
            self.successes.note()
            return document
        if status not in (0, 503):
            raise AssertionError(f"unexpected response {status} {document}")
        self.history.refused(status, document["code"])
        return None


class AppendProbe(Probe):
    def step(self):
        events = new_events(1)
        self.history.note_sent(events)
        document = self.probe((200, 201), "POST", f"/streams/Tried/{self.instances[0].name}", {"events": events})
        if document:
            self.history.note_acknowledged(events, document)


class StreamProbe(Probe):
    """Reads a stream, which the primary answers."""

    def step(self):
        self.probe((200, 404), "GET", f"/streams/Tried/{self.instances[0].name}?direction=backward&limit=1")


class LoadProbe(Probe):
    """Loads an aggregate, which the replica answers."""

    def step(self):
        self.probe((200, 404), "GET", "/aggregates/Tried/own-writes-0")


class Subscriber(Client):
    """Reads the log, and remembers every event of it."""

    def __init__(self, history, name, instance):
        super().__init__(history, f"{name}, {instance.name}", [instance])
        self.kind, self.events, self.cursor, self.socket = name, [], "0", None
        self.stop = history.end

    def head(self):
        return self.events[-1].position if self.events else 0

    def receive(self, event):
        if event.position <= self.head():
            raise AssertionError(f"received position {event.position} after {self.head()}")
        self.events.append(event)
        self.successes.note()

    def rewind(self, document):
        """Discards the events after the last position that is still the same."""
        if document["code"] != "epoch_changed":
            raise AssertionError(f"{document}")
        text = f"{self.name}: {self.cursor}, at {self.head()}, to {document['epoch']}:{document['rewind_to']}"
        with self.history.lock:
            self.history.rewinds.append(text)
        while self.events and self.events[-1].position > document["rewind_to"]:
            self.events.pop()
        self.cursor = f"{document['epoch']}:{document['rewind_to']}"


class LongPoll(Subscriber):
    def step(self):
        path = f"/events?after={self.cursor}&limit=1000&wait=5"
        status, headers, document = self.send("GET", path)
        if status == 200:
            for member in document["events"]:
                self.receive(event_of(member))
            self.cursor = f"{document['epoch']}:{document['next_after']}"
        elif status == 409:
            self.rewind(document)
        elif status in (0, 503):
            self.history.refused(status, document["code"])
            self.stop.wait(float(headers.get("Retry-After", 0.2)))
        else:
            raise AssertionError(f"unexpected response {status} {document}")


class EventStream(Subscriber):
    """Follows server-sent events. It connects again with the last id when the event stream ends."""

    def step(self):
        connection = http.client.HTTPConnection(*self.instances[0].address, timeout=45)
        try:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": self.cursor}
            connection.request("GET", "/events", headers=headers)
            self.socket = connection.sock
            response = connection.getresponse()
            if response.status == 200:
                self.follow(response)
            elif response.status == 409:
                self.rewind(json.loads(response.read()))
                return
            elif response.status == 503:
                self.history.refused(503, json.loads(response.read())["code"])
            else:
                raise AssertionError(f"unexpected response {response.status} {response.read()}")
        except (OSError, http.client.HTTPException) as error:
            self.history.refused(0, type(error).__name__)
        finally:
            connection.close()
        self.stop.wait(0.5)

    def follow(self, response):
        frame = {}
        while not self.stop.is_set() and (line := response.readline()):
            name, _, value = line.decode().rstrip("\n").partition(":")
            if name:
                frame[name] = value.removeprefix(" ")
                continue
            if "event" not in frame and "data" in frame:
                self.receive(event_of(json.loads(frame["data"])))
            self.cursor = frame.get("id", self.cursor)
            frame = {}

    def interrupt(self):
        """Ends a wait for the next line."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass


def clients_of(history, instances, synchronous, seed):
    """Returns the clients of a run."""
    clients = [Writer(history, f"writer-{number}", instances, synchronous, f"{seed}-{number}") for number in range(4)]
    clients.append(OwnWrites(history, "own-writes", instances, synchronous, seed))
    for instance in instances:
        clients += [
            AppendProbe(history, "appends", instance),
            StreamProbe(history, "reads of the primary", instance),
            LoadProbe(history, "reads of the standbys", instance),
            EventStream(history, "event streams", instance),
            LongPoll(history, "long polls", instance),
        ]
    return clients

"""Compares the final log with what the clients have sent and received."""

import json
import re

from clients import event_of


def epochs_of(text):
    """Returns (number, first position) of each epoch that `annals epoch` prints, in order."""
    return [(int(number), int(first)) for number, first in re.findall(r"(?m)^\s*(\d+)\s+(\d+)\s+\d{4}-", text)]


def log_of(lines):
    """Returns the events of an export, and faults of its form."""
    lines = [json.loads(line) for line in lines.splitlines()]
    if not lines or "end" not in lines[-1]:
        return [], ["the export has no end line"]
    return [event_of(line) for line in lines[:-1]], []


def check_log(log, epochs):
    """Positions increase by one within an epoch, and the versions of each stream are 1, 2, 3 …

    An epoch may begin with a gap, so that positions that a process has served are not assigned again.
    """
    faults, position, versions = [], 0, {}
    for event in log:
        begins_epoch = any(position < first <= event.position for _, first in epochs)
        if event.position != position + 1 and not begins_epoch:
            faults.append(f"position {event.position} follows {position}")
        position = event.position
        version = versions.get(event.stream, 0)
        if event.version != version + 1:
            faults.append(f"{event.stream}: version {event.version} follows {version}")
        versions[event.stream] = event.version
    if len({event.event_id for event in log}) != len(log):
        faults.append("the log has an event twice")
    return faults


def check_acknowledged(log, epochs, history, synchronous):
    """Every acknowledged event is in the log at the place that its response named. In asynchronous mode, an epoch that
    began at or before its position may have lost it. Returns the faults, and the number of lost events."""
    by_id = {event.event_id: event for event in log}
    faults, lost = [], 0
    for event in history.acknowledged:
        stored = by_id.get(event.event_id)
        if stored and (stored.stream, stored.version, stored.position) == event[1:4]:
            continue
        ended = any(number > event.epoch and first <= event.position for number, first in epochs)
        if stored:
            faults.append(f"{event} is in the log as {stored}")
        elif synchronous or not ended:
            faults.append(f"{event} was acknowledged, and is not in the log")
        else:
            lost += 1
    unknown = [event for event in log if event.event_id not in history.sent]
    faults += [f"{event} is in the log, and no client has sent it" for event in unknown]
    return faults, lost


def check_subscriber(log, subscriber):
    """A subscriber has received every event of the log in its order."""
    if subscriber.events == log:
        return []
    for received, stored in zip(subscriber.events, log, strict=False):
        if received != stored:
            return [f"{subscriber.name}: received {received} where the log has {stored}"]
    return [f"{subscriber.name}: received {len(subscriber.events)} events of {len(log)}"]

"""Measures decisions that conflict: 8 threads make 50 decisions each on one stream.

ANNALS_BIN=target/release/annals python examples/decide_in_parallel.py [threads] [decisions]
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

from annals_client import Annals, Event, NewEvent, Try, new_event
from annals_client.testing import start_annals


def evolve(count: int, event: Event) -> int:
    return count + 1


def main(threads: int = 8, decisions: int = 50) -> None:
    tries: Counter[str] = Counter()
    slowest = [0.0] * threads

    def count(sent: Try) -> None:
        tries["loads" if sent.method == "GET" else "appends"] += 1

    with start_annals() as service, Annals(service.url, on_request=count) as client:
        counters = client.aggregate("Counter", int, evolve)

        def run(thread: int) -> None:
            def decide(state: int) -> NewEvent:
                return new_event("Counted", {"state": state, "thread": thread})

            for _ in range(decisions):
                start = time.monotonic()
                counters.decide("one", decide)
                slowest[thread] = max(slowest[thread], time.monotonic() - start)

        running = [threading.Thread(target=run, args=[thread]) for thread in range(threads)]
        start = time.monotonic()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        seconds = time.monotonic() - start
        version = counters.load("one").version
    print(f"{version} of {threads * decisions} decisions in {seconds:.1f} s: {tries['appends']} appends were sent,")
    print(
        f"{tries['loads']} loads; the slowest decision of each thread took {min(slowest):.2f} to {max(slowest):.2f} s"
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))

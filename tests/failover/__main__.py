"""Makes faults in a cluster of Patroni under load, measures the outages, and checks that no acknowledged event is lost.

scripts/check-failover prepares and starts this program. It starts etcd, three nodes of Patroni with PostgreSQL,
HAProxy and two processes of Annals, with the configuration of deploy/ha. After each fault, the cluster, both processes
and every client must recover. At the end, the log is compared with what the clients have sent and received.
"""

import argparse
import random
import signal
import statistics
import sys
import time

import check
import faults
from clients import EventStream, History, Probe, Subscriber, clients_of
from cluster import Cluster, Failure, wait_for
from sandbox import Sandbox


def arguments():
    parser = argparse.ArgumentParser(prog="check-failover", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--faults",
        type=int,
        metavar="N",
        help="number of faults (default: one switchover, one crash and one node loss)",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides which faults occur in which order (default 1)")
    parser.add_argument("--mode", choices=("sync", "async"), default="sync", help="replication (default sync)")
    parser.add_argument("--only", metavar="FAULT,…", help=f"only these: {', '.join(faults.ALL | faults.ASYNCHRONOUS)}")
    for name in ("postgres", "patroni", "annals"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.functions = faults.ALL | (faults.ASYNCHRONOUS if options.mode == "async" else {})
    options.kinds = faults.SHORT
    if options.only or options.faults:
        options.kinds = options.only.split(",") if options.only else list(options.functions)
    if unknown := set(options.kinds) - set(options.functions):
        parser.error(f"no faults in this mode: {', '.join(unknown)}")
    return options


def plan(options):
    """Returns the names of the faults. Each kind occurs once before one occurs again."""
    if not options.faults:
        return options.kinds
    names, order = [], random.Random(options.seed)
    while len(names) < options.faults:
        names += order.sample(options.kinds, len(options.kinds))
    return names[: options.faults]


class Run:
    def __init__(self, options, cluster):
        self.options, self.cluster, self.history = options, cluster, History()
        self.clients, self.rows, self.lost = [], [], 0

    def of(self, kind):
        return [client for client in self.clients if isinstance(client, kind)]

    def check_clients(self):
        if self.history.faults:
            raise Failure("; ".join(self.history.faults))
        for instance in self.cluster.instances:
            instance.check_that_it_runs()

    def wait_for_successes(self, kind, what):
        """Waits until each client of a kind has a success from now on."""
        start = time.monotonic()

        def succeeded():
            self.check_clients()
            return all(client.successes.any_since(start) for client in self.of(kind))

        wait_for(what, succeeded)

    def inject(self, name):
        epochs = len(self.epochs())
        start = time.monotonic()
        steps = self.options.functions[name](self.cluster)
        next(steps)
        self.wait_for_successes(Probe, f"requests do not succeed during {name}")
        next(steps, None)
        self.cluster.wait_until_healthy()
        self.cluster.wait_until_ready()
        self.wait_for_successes(object, f"a client has not recovered from {name}")
        end = time.monotonic()
        row = {"fault": name, "epochs": len(self.epochs()) - epochs, "seconds": end - start}
        for client in self.of(Probe) + self.of(EventStream):
            row[client.kind] = max(row.get(client.kind, 0), client.successes.longest_gap(start, end))
        self.rows.append(row)
        print(line([row[column] for column in COLUMNS]), flush=True)

    def epochs(self):
        return check.epochs_of(self.cluster.run_annals("epoch"))

    def run(self):
        names = plan(self.options)
        start = time.monotonic()
        self.cluster.start()
        self.cluster.check_alerts()
        print(
            f"check-failover: the cluster runs after {time.monotonic() - start:.0f} s; faults: {len(names)}", flush=True
        )
        self.clients = clients_of(self.history, self.cluster.instances, self.cluster.synchronous, self.options.seed)
        for client in self.clients:
            client.start()
        self.wait_for_successes(object, "a client has no success")
        print(line(COLUMNS))
        for name in names:
            self.inject(name)
        self.finish()

    def finish(self):
        """Ends the clients that append, waits until each subscriber is at the head, and checks everything."""
        subscribers = self.of(Subscriber)
        self.history.stop.set()
        for client in self.clients:
            if client not in subscribers:
                client.join()
        log, found = check.log_of(self.cluster.run_annals("export"))
        head = log[-1].position
        wait_for("a subscriber is not at the head", lambda: all(reader.head() == head for reader in subscribers))
        self.history.end.set()
        for subscriber in subscribers:
            if isinstance(subscriber, EventStream):
                subscriber.interrupt()
            subscriber.join()
        epochs = self.epochs()
        found += self.history.faults + check.check_log(log, epochs)
        faults_of_events, self.lost = check.check_acknowledged(log, epochs, self.history, self.cluster.synchronous)
        found += faults_of_events
        for subscriber in subscribers:
            found += check.check_subscriber(log, subscriber)
        for instance in self.cluster.instances:
            instance.check_that_it_runs()
        self.cluster.run_annals("verify")
        self.summary(log, epochs)
        if found:
            raise Failure("\n    ".join([f"{len(found)} promises are broken:", *found[:20]]))

    def summary(self, log, epochs):
        refusals = ", ".join(
            f"{count} × {status or 'no response'} {code}"
            for (status, code), count in sorted(self.history.refusals.items())
        )
        print(f"acknowledged events: {len(self.history.acknowledged)}; in the log: {len(log)}; lost: {self.lost}")
        print(f"epochs: {len(epochs)}; refused requests: {refusals}")
        print("rewinds of subscribers:", "; ".join(self.history.rewinds) or "none")
        print("By fault, the median and the longest outage:")
        print(line(["fault", "number", *OUTAGES]))
        for name in sorted({row["fault"] for row in self.rows}):
            rows = [row for row in self.rows if row["fault"] == name]
            print(line([name, len(rows), *(spread([row[outage] for row in rows]) for outage in OUTAGES)]))


# The longest time without a success of a client that sends a request every 100 ms, or without an event of a stream. The
# longer time of the two instances counts.
OUTAGES = ["appends", "reads of the primary", "reads of the standbys", "event streams"]
COLUMNS = ["fault", *OUTAGES, "epochs", "seconds"]


def line(cells):
    """Returns a row of a table in Markdown."""
    return f"| {' | '.join(f'{cell:.1f} s' if isinstance(cell, float) else str(cell) for cell in cells)} |"


def spread(values):
    return f"{statistics.median(values):.1f} s ({max(values):.1f} s)"


def main():
    options = arguments()
    # A termination unwinds like Ctrl-C, so that the processes end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sandbox, keep = Sandbox(), False
    try:
        Run(options, Cluster(sandbox, options.postgres, options.patroni, options.annals, options.mode == "sync")).run()
        print("check-failover: passed")
    except Failure as failure:
        keep = True
        print(f"check-failover: {failure}\ncheck-failover: the logs are in {sandbox.folder}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        sandbox.close(keep)


main()

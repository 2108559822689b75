"""etcd, three nodes of Patroni with PostgreSQL, HAProxy, and two processes of Annals.

The configuration is that of deploy/ha, with the names of hosts and the folders replaced. Each machine of the example
has an address of its own in 127.0.0.0/8 with the usual ports, so runs in parallel do not collide.
"""

import http.client
import json
import os
import random
import re
import secrets
import signal
import subprocess
import time
from pathlib import Path

from sandbox import kill_in, processes_in, signal_all

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy/ha"
# Generous, because the machine may do other work. A condition usually holds much earlier.
DEADLINE = 120


class Failure(Exception):
    """The experiment cannot continue, or a promise is broken."""


def wait_for(what, condition, seconds=DEADLINE):
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failure(f"after {seconds} s: {what}")
        time.sleep(0.05)
    return value


def request(address, method, path, seconds=2):
    """Sends a request without a body. Returns the status and the body, or (None, "") if there is no response."""
    connection = http.client.HTTPConnection(*address, timeout=seconds)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        connection.close()


def replace(text, replacements):
    """Replaces texts that must occur."""
    for old, new in replacements.items():
        if old not in text:
            raise Failure(f"{EXAMPLES} has no {old!r}")
        text = text.replace(old, str(new))
    return text


class Node:
    """A machine with Patroni and PostgreSQL."""

    def __init__(self, cluster, name, address):
        self.cluster, self.name, self.address = cluster, name, address
        self.folder = cluster.sandbox.make(name)
        self.data = self.folder / "data"
        cluster.sandbox.make(f"{name}/socket")
        replacements = {
            "name: pg1": f"name: {name}",
            "pg1.example": address,
            "etcd1.example:2379,etcd2.example:2379,etcd3.example:2379": f"{cluster.hosts['etcd']}:2379",
            "/usr/lib/postgresql/15/bin": cluster.postgres,
            "/var/lib/postgresql/annals.pgpass": self.folder / "pgpass",
            "/var/lib/postgresql/annals": self.data,
            "/var/run/postgresql": self.folder / "socket",
            # The user of the operating system is not the one of the database here.
            "local all all peer": "local all all scram-sha-256",
            "pgbackrest --stanza=annals archive-push %p": "/bin/true",
            'pgbackrest --stanza=annals archive-get %f "%p"': "/bin/false",
            "synchronous_mode: true": f"synchronous_mode: {str(cluster.synchronous).lower()}",
        }
        self.configuration = self.folder / "patroni.yml"
        self.configuration.write_text(replace((EXAMPLES / "patroni.yml").read_text(), replacements))

    def start(self):
        passwords = {
            f"PATRONI_{role}_PASSWORD": self.cluster.password for role in ("SUPERUSER", "REPLICATION", "REWIND")
        }
        program = self.cluster.patroni / "bin/patroni"
        self.process = self.cluster.sandbox.start(self.folder, [program, self.configuration], passwords)

    def kill(self):
        """Kills Patroni and PostgreSQL, as the loss of the machine does."""
        kill_in(self.folder)
        self.process.wait()

    def crash(self):
        """Kills PostgreSQL. Patroni remains."""
        signal_all(processes_in(self.data), signal.SIGKILL)

    def processes(self, title):
        """Returns the processes of PostgreSQL with a word in their title."""

        def has_title(pid):
            try:
                return title in Path(f"/proc/{pid}/cmdline").read_text()
            except FileNotFoundError:
                return False

        return [pid for pid in processes_in(self.data) if has_title(pid)]

    def signal(self, number):
        signal_all(processes_in(self.folder), number)

    def patroni_status(self):
        """Returns what Patroni reports about this node, or None if it does not answer."""
        status, body = request((self.address, 8008), "GET", "/patroni")
        return json.loads(body) if status else None

    def metrics(self):
        """Returns the metrics of Patroni of this node, by name."""
        _, body = request((self.address, 8008), "GET", "/metrics")
        return {name: float(value) for name, value in re.findall(r"(?m)^(patroni_\w+)\{[^}]*\} (\S+)$", body)}


class Annals:
    """A process of Annals, with both addresses of HAProxy."""

    def __init__(self, cluster, name, address):
        self.name, self.address, self.cluster = name, (address, 8080), cluster
        self.folder = cluster.sandbox.make(name)
        self.process = cluster.sandbox.start(
            self.folder,
            [cluster.program, "serve"],
            {
                "ANNALS_LISTEN": f"{address}:8080",
                "ANNALS_LOG": "json",
                "DATABASE_URL": cluster.url(5000),
                "DATABASE_READ_URL": cluster.url(5001),
            },
            as_caller=True,
        )

    def check_that_it_runs(self):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} has ended with status {self.process.returncode}")

    def is_ready(self):
        self.check_that_it_runs()
        return request(self.address, "GET", "/readyz")[0] == 200


class Cluster:
    def __init__(self, sandbox, postgres, patroni, program, synchronous):
        self.sandbox, self.postgres, self.patroni = sandbox, Path(postgres), Path(patroni)
        self.program, self.synchronous = program, synchronous
        self.password = secrets.token_hex(12)
        network = f"127.{random.SystemRandom().randint(1, 254)}.{random.SystemRandom().randint(1, 254)}"
        hosts = ("pg1", "pg2", "pg3", "etcd", "haproxy", "annals-a", "annals-b")
        self.hosts = {name: f"{network}.{number}" for number, name in enumerate(hosts, 1)}
        self.nodes = {name: Node(self, name, self.hosts[name]) for name in hosts[:3]}
        self.instances = []

    def url(self, port):
        return f"postgres://annals:{self.password}@{self.hosts['haproxy']}:{port}/eventstore"

    # --- Start ---

    def start(self):
        self.etcd_folder = self.sandbox.make("etcd")
        self.start_etcd()
        # The first node creates the cluster, and the others copy it.
        self.nodes["pg1"].start()
        wait_for("no primary", self.leader)
        for name in ("pg2", "pg3"):
            self.nodes[name].start()
        self.start_haproxy()
        self.wait_until_healthy()
        self.create_database()
        self.instances = [Annals(self, name, self.hosts[name]) for name in ("annals-a", "annals-b")]
        self.wait_until_ready()

    def start_etcd(self):
        address = self.hosts["etcd"]
        self.etcd = self.sandbox.start(
            self.etcd_folder,
            [
                "etcd",
                "--name=etcd",
                f"--data-dir={self.etcd_folder}/data",
                f"--listen-client-urls=http://{address}:2379",
                f"--advertise-client-urls=http://{address}:2379",
                f"--listen-peer-urls=http://{address}:2380",
                f"--initial-advertise-peer-urls=http://{address}:2380",
                f"--initial-cluster=etcd=http://{address}:2380",
                "--logger=zap",
                "--log-level=warn",
            ],
        )
        wait_for("etcd does not answer", lambda: request((address, 2379), "GET", "/health")[0] == 200)

    def start_haproxy(self):
        folder = self.sandbox.make("haproxy")
        hosts = {f"{name}.example": node.address for name, node in self.nodes.items()}
        configuration = replace(
            (EXAMPLES / "haproxy.cfg").read_text(), hosts | {"bind 127.0.0.1": f"bind {self.hosts['haproxy']}"}
        )
        (folder / "haproxy.cfg").write_text(configuration)
        self.haproxy = self.sandbox.start(folder, ["haproxy", "-W", "-f", "haproxy.cfg"])

    def create_database(self):
        statements = [
            f"CREATE ROLE annals LOGIN CREATEROLE PASSWORD '{self.password}'",
            "CREATE DATABASE eventstore OWNER annals",
        ]
        psql = [self.postgres / "psql", "-X", "-q", "-h", self.leader().address, "-U", "postgres", "-d", "postgres"]
        for statement in statements:
            subprocess.run([*psql, "-c", statement], env=os.environ | {"PGPASSWORD": self.password}, check=True)

    def check_alerts(self):
        """Checks that Patroni has every metric of the alerts."""
        named = set(re.findall(r"\bpatroni_\w+", (EXAMPLES / "alerts.yml").read_text()))
        if missing := named - set(self.leader().metrics()):
            raise Failure(f"alerts.yml names metrics that Patroni does not have: {', '.join(missing)}")

    # --- State ---

    def members(self):
        """Returns the members of the cluster as a node reports them."""
        for node in self.nodes.values():
            status, body = request((node.address, 8008), "GET", "/cluster")
            if status == 200:
                return json.loads(body)["members"]
        return []

    def leader(self):
        """Returns the node that is the primary and accepts writes."""
        for node in self.nodes.values():
            if request((node.address, 8008), "GET", "/primary")[0] == 200:
                return node
        return None

    def standbys(self, role):
        return [self.nodes[member["name"]] for member in self.members() if member["role"] == role]

    def is_healthy(self):
        members = self.members()
        leaders = [member for member in members if member["role"] == "leader" and member["state"] == "running"]
        streaming = [member for member in members if member["state"] == "streaming"]
        synchronous = [member for member in streaming if member["role"] == "sync_standby"]
        return (
            len(leaders) == 1
            and len(streaming) == 2
            and len({member.get("timeline") for member in members}) == 1
            and len(synchronous) == (1 if self.synchronous else 0)
            and self.leader()
        )

    def wait_until_healthy(self):
        wait_for("the cluster has no primary with two standbys", self.is_healthy)

    def wait_until_ready(self):
        for instance in self.instances:
            wait_for(f"{instance.name} is not ready", instance.is_ready)

    def wait_for_another_leader(self, former):
        def another():
            leader = self.leader()
            return leader if leader and leader is not former else None

        return wait_for(f"no node has replaced {former.name}", another)

    def patronictl(self, *arguments):
        node = next(iter(self.nodes.values()))
        result = subprocess.run(
            [self.patroni / "bin/patronictl", "-c", node.configuration, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=node.folder,
            timeout=DEADLINE,
        )
        if result.returncode:
            raise Failure(f"patronictl {' '.join(arguments)}: {result.stdout}{result.stderr}")
        return result.stdout

    def run_annals(self, *arguments):
        """Runs a command of Annals on the primary, and returns what it prints."""
        result = subprocess.run(
            [self.program, *arguments],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": self.url(5000), "ANNALS_LOG_LEVEL": "warn"},
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise Failure(f"annals {' '.join(arguments)}: {result.stdout}{result.stderr}")
        return result.stdout

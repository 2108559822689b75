"""The faults. Each one is a generator: it makes the fault, yields as soon as requests should succeed again although the
fault lasts, and mends what it has broken when it is resumed. A fault without a lasting part yields once at its end.
"""

import signal
import time

from cluster import request, wait_for
from sandbox import signal_all


def switchover(cluster):
    """An operator moves the primary to a standby, as for maintenance."""
    leader = cluster.leader()
    candidates = cluster.standbys("sync_standby" if cluster.synchronous else "replica")
    candidate = candidates[0]
    cluster.patronictl("switchover", "--leader", leader.name, "--candidate", candidate.name, "--force")
    cluster.wait_for_another_leader(leader)
    yield


def crash(cluster):
    """All processes of the primary's PostgreSQL are killed. Patroni restarts it in place."""
    cluster.leader().crash()
    yield


def node_loss(cluster):
    """The primary's node disappears, and returns later as a standby."""
    leader = cluster.leader()
    leader.kill()
    cluster.wait_for_another_leader(leader)
    yield
    leader.start()


def freeze(cluster):
    """All processes of the primary's node stop, and continue after a standby has taken over."""
    leader = cluster.leader()
    leader.signal(signal.SIGSTOP)
    cluster.wait_for_another_leader(leader)
    yield
    leader.signal(signal.SIGCONT)


def standby_loss(cluster):
    """The node of a standby disappears, in synchronous mode that of the synchronous one. It returns later."""
    standby = cluster.standbys("sync_standby" if cluster.synchronous else "replica")[0]
    standby.kill()
    yield
    standby.start()


def lagging_node_loss(cluster):
    """The primary sends nothing to the standbys for a while. Then its node disappears, and with it the end of the log.
    Only in asynchronous mode, because appends wait in the other one."""
    leader = cluster.leader()
    signal_all(leader.processes("walsender"), signal.SIGSTOP)
    start = leader.metrics()["patroni_xlog_location"]
    wait_for("nothing is appended", lambda: leader.metrics()["patroni_xlog_location"] > start + 100_000)
    leader.kill()
    cluster.wait_for_another_leader(leader)
    yield
    leader.start()


def etcd_restart(cluster):
    """etcd is killed and starts again."""
    cluster.etcd.kill()
    cluster.etcd.wait()
    yield
    cluster.start_etcd()
    wait_until_seen(cluster)


def etcd_loss(cluster):
    """etcd is unavailable for longer than the lock of the primary lasts."""
    cluster.etcd.kill()
    cluster.etcd.wait()
    leader, start = cluster.leader(), time.monotonic()
    wait_for("the primary does not continue without etcd", lambda: continues(leader) and time.monotonic() - start > 25)
    yield
    cluster.start_etcd()
    wait_until_seen(cluster)


def wait_until_seen(cluster):
    """Waits until each node has reached etcd after now."""
    start = time.time()

    def all_have_seen():
        return all(node.metrics().get("patroni_dcs_last_seen", 0) > start for node in cluster.nodes.values())

    wait_for("a node does not reach etcd", all_have_seen)


def continues(node):
    """Returns whether a node is the primary, and knows that it continues without etcd."""
    is_primary = request((node.address, 8008), "GET", "/primary")[0] == 200
    return is_primary and node.metrics().get("patroni_failsafe_mode_is_active") == 1


ALL = {
    function.__name__.replace("_", "-"): function
    for function in (switchover, crash, node_loss, freeze, standby_loss, etcd_restart, etcd_loss)
}
ASYNCHRONOUS = {"lagging-node-loss": lagging_node_loss}
SHORT = ["switchover", "crash", "node-loss"]

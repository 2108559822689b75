"""Damages a correct log in every way that `check` must find."""

import unittest
from types import SimpleNamespace

import check
from clients import Acknowledged, Event, Successes

LOG = [Event(1, "a", "T/x", 1), Event(2, "b", "T/x", 2), Event(3, "c", "T/y", 1)]
EPOCHS = [(1, 1)]


def history(acknowledged, sent="abc"):
    return SimpleNamespace(acknowledged=acknowledged, sent=set(sent))


def acknowledged(event, epoch=1):
    return Acknowledged(event.event_id, event.stream, event.version, event.position, epoch)


class CheckTest(unittest.TestCase):
    def test_a_correct_log_has_no_faults(self):
        self.assertEqual(check.check_log(LOG, EPOCHS), [])
        self.assertEqual(check.check_acknowledged(LOG, EPOCHS, history(map(acknowledged, LOG)), True), ([], 0))

    def test_a_gap_is_a_fault_except_where_an_epoch_begins(self):
        log = [*LOG[:2], Event(5, "c", "T/y", 1)]
        self.assertEqual(check.check_log(log, EPOCHS), ["position 5 follows 2"])
        for first, faults in ((2, 1), (3, 0), (5, 0), (6, 1)):
            self.assertEqual(len(check.check_log(log, [(1, 1), (2, first)])), faults)

    def test_a_repeated_position_version_or_event_is_a_fault(self):
        self.assertEqual(check.check_log([*LOG, Event(3, "d", "T/y", 2)], EPOCHS), ["position 3 follows 3"])
        self.assertEqual(check.check_log([*LOG, Event(4, "d", "T/y", 1)], EPOCHS), ["T/y: version 1 follows 1"])
        self.assertEqual(check.check_log([*LOG, Event(4, "a", "T/y", 2)], EPOCHS), ["the log has an event twice"])

    def test_a_missing_event_is_a_fault_in_synchronous_mode(self):
        lost = history([acknowledged(Event(4, "d", "T/y", 2))])
        for epochs in (EPOCHS, [(1, 1), (2, 4)]):
            found, count = check.check_acknowledged(LOG, epochs, lost, True)
            self.assertEqual((len(found), count), (1, 0))

    def test_a_missing_event_is_a_loss_only_where_a_later_epoch_began(self):
        lost = history([acknowledged(Event(4, "d", "T/y", 2))])
        for epochs, faults, losses in (([(1, 1), (2, 4)], 0, 1), ([(1, 1), (2, 5)], 1, 0), (EPOCHS, 1, 0)):
            found, count = check.check_acknowledged(LOG, epochs, lost, False)
            self.assertEqual((len(found), count), (faults, losses))

    def test_an_event_at_another_place_is_a_fault(self):
        moved = history([acknowledged(Event(2, "c", "T/y", 1))])
        self.assertEqual(len(check.check_acknowledged(LOG, EPOCHS, moved, False)[0]), 1)

    def test_an_event_that_no_client_sent_is_a_fault(self):
        self.assertEqual(len(check.check_acknowledged(LOG, EPOCHS, history([], "ab"), True)[0]), 1)

    def test_a_subscriber_must_have_the_log(self):
        for events, faults in ((LOG, 0), (LOG[:2], 1), ([LOG[0], LOG[2]], 1), ([LOG[1], LOG[0], LOG[2]], 1)):
            subscriber = SimpleNamespace(name="subscriber", events=events)
            self.assertEqual(len(check.check_subscriber(LOG, subscriber)), faults)

    def test_epochs_are_read_from_the_command(self):
        text = (
            "     epoch  first position  began at                     reason\n"
            "         1               1  2026-11-23T18:44:46.739706Z  a new log\n"
            " 217623984            5288  2026-11-23T19:06:24.306620Z  volume of 19:00 put back\n"
        )
        self.assertEqual(check.epochs_of(text), [(1, 1), (217623984, 5288)])

    def test_the_longest_gap_overlaps_the_period(self):
        successes = Successes()
        successes.times = [0, 5, 6, 9, 10, 20]
        self.assertEqual(successes.longest_gap(5.5, 10), 3)
        self.assertEqual(successes.longest_gap(7, 11), 10)


if __name__ == "__main__":
    unittest.main()

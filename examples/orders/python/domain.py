"""What an order is: the state, the events that change it, and the decisions. No I/O, so tests need no server."""

from __future__ import annotations

from dataclasses import dataclass, replace

from annals_client import Event, NewEvent, new_event


class Refused(Exception):
    """The command is not possible in this state."""


@dataclass(frozen=True)
class Order:
    """Amounts are in cents."""

    status: str = "new"  # new, placed, paid or cancelled
    total: int = 0
    payments: tuple[tuple[str, int], ...] = ()  # The id and the amount of each payment.

    @property
    def paid(self) -> int:
        return sum(amount for _, amount in self.payments)


def evolve(order: Order, event: Event) -> Order:
    data = event["event_data"]
    if data is None:
        return order  # The content of the event is erased.
    match event["event_type"]:
        case "OrderPlaced":
            return replace(order, status="placed", total=data["total"])
        case "PaymentReceived":
            return replace(order, payments=(*order.payments, (data["payment_id"], data["amount"])))
        case "OrderPaid":
            return replace(order, status="paid")
        case "OrderCancelled":
            return replace(order, status="cancelled")
    return order  # An event type that this version does not know.


def place(order: Order, customer: str, total: int) -> list[NewEvent]:
    if total <= 0:
        raise Refused("the total must be more than 0")
    if order.status != "new":
        if order.total == total:
            return []  # The command was repeated: the caller chose the id of the order.
        raise Refused("an order with this id exists, with another total")
    return [new_event("OrderPlaced", {"customer": customer, "total": total})]


def pay(order: Order, payment_id: str, amount: int) -> list[NewEvent]:
    if any(known == payment_id for known, _ in order.payments):
        return []  # The command was repeated: the state remembers the ids of payments.
    if order.status != "placed":
        raise Refused(f"the order is {order.status}")
    if not 0 < amount <= order.total - order.paid:
        raise Refused(f"{order.total - order.paid} of {order.total} cents are open")
    events = [new_event("PaymentReceived", {"payment_id": payment_id, "amount": amount})]
    if order.paid + amount == order.total:
        events.append(new_event("OrderPaid", {}))
    return events


def cancel(order: Order, reason: str) -> list[NewEvent]:
    if order.status == "cancelled":
        return []
    if order.status != "placed" or order.payments:
        raise Refused("only an order that was placed and has no payment can be cancelled")
    return [new_event("OrderCancelled", {"reason": reason})]

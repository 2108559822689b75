// What an order is: the state, the events that change it, and the decisions. No I/O, so tests need no server.

import type { Event, NewEvent } from "annals";

/** The command is not possible in this state. */
export class Refused extends Error {}

/** Amounts are in cents. */
export interface Order {
    status: "new" | "placed" | "paid" | "cancelled";
    total: number;
    payments: { id: string; amount: number }[];
}

export const initial: Order = { status: "new", total: 0, payments: [] };

const paid = (order: Order) => order.payments.reduce((sum, { amount }) => sum + amount, 0);

export function evolve(order: Order, { event_type, event_data }: Pick<Event, "event_type" | "event_data">): Order {
    if (event_data === null) return order; // The content of the event is erased.
    switch (event_type) {
        case "OrderPlaced":
            return { ...order, status: "placed", total: event_data.total };
        case "PaymentReceived": {
            const payment = { id: event_data.payment_id, amount: event_data.amount };
            return { ...order, payments: [...order.payments, payment] };
        }
        case "OrderPaid":
            return { ...order, status: "paid" };
        case "OrderCancelled":
            return { ...order, status: "cancelled" };
        default:
            return order; // An event type that this version does not know.
    }
}

export function place(order: Order, customer: string, total: number): NewEvent[] {
    if (total <= 0) throw new Refused("the total must be more than 0");
    // The caller chose the id of the order, so a second command is a repetition.
    if (order.status !== "new" && order.total === total) return [];
    if (order.status !== "new") throw new Refused("an order with this id exists, with another total");
    return [{ event_type: "OrderPlaced", event_data: { customer, total } }];
}

export function pay(order: Order, paymentId: string, amount: number): NewEvent[] {
    // The state remembers the ids of payments, so a repeated command is recognised.
    if (order.payments.some(({ id }) => id === paymentId)) return [];
    if (order.status !== "placed") throw new Refused(`the order is ${order.status}`);
    const open = order.total - paid(order);
    if (amount <= 0 || amount > open) throw new Refused(`${open} of ${order.total} cents are open`);
    const received = { event_type: "PaymentReceived", event_data: { payment_id: paymentId, amount } };
    return amount < open ? [received] : [received, { event_type: "OrderPaid", event_data: {} }];
}

export function cancel(order: Order, reason: string): NewEvent[] {
    if (order.status === "cancelled") return [];
    if (order.status !== "placed" || order.payments.length > 0)
        throw new Refused("only an order that was placed and has no payment can be cancelled");
    return [{ event_type: "OrderCancelled", event_data: { reason } }];
}

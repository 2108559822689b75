// Appends events that show what the console can show: several types, correlations with causes, a reducer, projections
// that lag, groups with a claim and parked streams, names that need care, and an event of 1 MiB. Each event is dated by
// the service, so all of them are of now.

import { Annals } from "../../clients/javascript/annals.js";

/** Names that a page must show as they are. */
export const HOSTILE = {
    type: "Näme:100%",
    id: "\"quoted\" & <b>'日本'<b> %2F: 50%",
    eventType: "<img src=x onerror=alert(1)>",
};
export const LARGE = { type: "Report", id: "large-1" };
export const STREAM = { type: "Order", id: "ord-1001" };
export const GROUP = "mailer";
/** Streams that the group has set aside: by event type, the id, and whether an operator decides. */
export const PARKED = { OrderPaid: ["ord-1001", true], OrderShipped: ["ord-1002", false] };
export const CORRELATION = "6f1c1d1e-52a5-4c5e-9a4c-3d6a1f0f9b10";

const REDUCER = `({
  init: () => ({ status: 'new', items: {}, total: 0 }),
  OrderPlaced(state, { event_data }) { state.status = 'placed'; state.customer = event_data.customer; return state },
  ItemAdded(state, { event_data }) {
    state.items[event_data.sku] = (state.items[event_data.sku] ?? 0) + event_data.quantity;
    state.total = Math.round((state.total + event_data.quantity * event_data.price) * 100) / 100;
    return state;
  },
  ItemRemoved(state, { event_data }) {
    delete state.items[event_data.sku];
    state.total = Math.round((state.total - event_data.amount) * 100) / 100;
    return state;
  },
  OrderPaid(state, { event_data }) { state.status = 'paid'; state.payment = event_data.payment; return state },
  OrderShipped(state, { event_data }) { state.status = 'shipped'; state.parcels = event_data.parcels; return state },
  OrderDelivered(state) { state.status = 'delivered'; return state },
})`;

const SKUS = ["lamp-12", "desk-oak", "chair-3", "cable-2m", "shelf-90", "mug-blue"];

/** One order from its placement to its delivery, over three types, each event caused by another one. */
async function order(client, number, correlation) {
    const id = `ord-${number}`;
    let cause;
    const append = async (type, stream, event_type, event_data, from = cause) => {
        const event = {
            event_type,
            event_data,
            correlation_id: correlation,
            causation_id: from ?? null,
            metadata: { user: `user-${number % 7}`, service: `${type.toLowerCase()}s` },
        };
        const { events } = await client.append(type, stream, [event]);
        return events[0].event_id;
    };
    cause = await append("Order", id, "OrderPlaced", { customer: `cus-${100 + (number % 23)}` });
    const placed = cause;
    for (let item = 0; item < 2 + (number % 3); item++) {
        await append(
            "Order",
            id,
            "ItemAdded",
            {
                sku: SKUS[(number + item) % SKUS.length],
                quantity: 1 + ((number + item) % 3),
                price: 9.9 + ((number * 7 + item * 13) % 50),
            },
            placed,
        );
    }
    if (number % 4 === 1)
        await append("Order", id, "ItemRemoved", { sku: SKUS[number % SKUS.length], amount: 9.9 }, placed);
    cause = await append("Payment", `pay-${number}`, "PaymentRequested", { order: id, amount: 42.5 + number }, placed);
    cause = await append("Payment", `pay-${number}`, number % 9 === 8 ? "PaymentRefused" : "PaymentCaptured", {
        order: id,
        reference: `ch_${number}x8Kq`,
    });
    if (number % 9 === 8) return;
    cause = await append("Order", id, "OrderPaid", {
        payment: `pay-${number}`,
        method: number % 2 ? "card" : "transfer",
    });
    const paid = cause;
    cause = await append("Shipment", `shp-${number}`, "ShipmentPrepared", {
        order: id,
        warehouse: number % 2 ? "Basel" : "Lyon",
    });
    cause = await append("Shipment", `shp-${number}`, "ParcelHandedOver", {
        carrier: "Post",
        tracking: `99.00.${100000 + number}`,
    });
    await append("Order", id, "OrderShipped", { parcels: 1 + (number % 2) });
    await append(
        "Customer",
        `cus-${100 + (number % 23)}`,
        "LoyaltyPointsGranted",
        { points: 10 + (number % 5) * 5 },
        paid,
    );
    if (number % 3 !== 0) await append("Order", id, "OrderDelivered", { signed_by: "A. Keller" });
}

/** Creates a group whose workers have processed everything but two streams, and one of whom still has a claim. */
async function work(client) {
    const settings = { filter: { aggregate_type: ["Order"] }, partitions: 4, lease_seconds: 3600, retry_after: [3600] };
    const path = ["groups", GROUP];
    await client.request("PUT", path, { body: settings });
    await client.request("PUT", ["groups", "audit"], { body: { partitions: 2, paused: true } });
    const claim = async (worker) =>
        (await client.request("POST", [...path, "claims"], { query: { wait: 0, limit: 1000 }, body: { worker } })).body;
    for (let number = 1, claimed; (claimed = await claim(`mailer-${1 + (number % 2)}`)); number++) {
        const failed = claimed.events
            .filter(({ event_type, aggregate_id }) => PARKED[event_type]?.[0] === aggregate_id)
            .map(({ event_type, global_position }) => ({
                global_position,
                reason: event_type === "OrderPaid" ? "the address has no mail server" : "the mail server is full",
                ...(PARKED[event_type][1] && { retry_after: null }),
            }));
        const body = { last_processed_position: claimed.claimed_to, failed };
        await client.request("PUT", [...path, "claims", claimed.claim_id], { body });
    }
    await client.append("Order", "ord-1", [{ event_type: "OrderPlaced", event_data: { customer: "cus-1" } }]);
    await claim("mailer-3");
}

async function setProjection(client, name, position) {
    await client.request("PUT", ["projections", name], { body: { last_processed_position: position } });
}

export async function fill(url, key, { orders = 40, large = true } = {}) {
    const client = new Annals(url, { key });
    await client.request("PUT", ["reducers", "Order"], { body: { language: "javascript", source: REDUCER } });
    for (let number = 1001; number < 1001 + orders; number++) {
        const correlation =
            number === 1001 ? CORRELATION : `6f1c1d1e-52a5-4c5e-9a4c-${String(number).padStart(12, "0")}`;
        await order(client, number, correlation);
    }
    await client.append(HOSTILE.type, HOSTILE.id, [
        {
            event_type: HOSTILE.eventType,
            event_data: {
                "<script>alert(2)</script>": "</script><img src=x onerror=alert(3)>",
                日本: "語",
                quotes: "\"'`",
            },
        },
        { event_type: "Numbers", event_data: { within: 42, list: [1, 2.5, null, true] } },
    ]);
    if (large) {
        const rows = Array.from({ length: 9000 }, (_, index) => ({
            index,
            name: `row ${index}`,
            text: "x".repeat(70),
        }));
        await client.append(LARGE.type, LARGE.id, [{ event_type: "ReportStored", event_data: { rows } }]);
    }
    await work(client);
    const { body } = await client.request("GET", ["stats"]);
    await setProjection(client, "order-list", body.head);
    await setProjection(client, "search-index", Math.floor(body.head * 0.995));
    await setProjection(client, "monthly-report", Math.floor(body.head * 0.9));
    return client;
}

// What an application in TypeScript would write. Only the compiler reads it.

import { Annals, type Event, EpochChanged, JsonNumber, Problem, VersionConflict } from "annals";

const annals = new Annals(new URL("http://127.0.0.1:8080"), {
    key: async () => "annals_…",
    onRequest: () => undefined,
});

interface Order {
    total: number;
    isPaid: boolean;
}

const orders = annals.aggregate<Order>(
    "Order",
    { total: 0, isPaid: false },
    (state, event: Event<{ total: number }>) =>
        event.event_type === "OrderPaid" ? { ...state, isPaid: true } : { ...state, total: event.event_data.total },
);

export async function application(signal: AbortSignal) {
    const answer = await annals.append("Order", "a", { event_type: "OrderPlaced", event_data: { total: 1n } }, "none");
    const positions: number[] = answer.events.map((event) => event.global_position);
    const { state, events } = await orders.decide("a", ({ isPaid }) =>
        isPaid ? [] : { event_type: "OrderPaid", event_data: 1 },
    );
    const total: number = state.total + events.length;
    await orders.decide("a", async () => {});
    for await (const event of annals.follow({ event_type: ["A", "B"] }, "head", { signal }))
        positions.push(event.version);
    const reading = annals.readStream("Order", "a", { direction: "backward" });
    const version: number | undefined = reading.end?.version;
    await annals.project("orders", {}, async (batch, { cursor }) => console.log(batch.length, cursor.length), {
        onRewind: (position) => console.log(position + 1),
    });
    await annals.work("mailer", (event, { claim, signal }) =>
        console.log(event.version, claim.claim_id, signal.aborted),
    );
    const isPaid: boolean = (await annals.state<Order>("Order", "a", { version: 3 })).state.isPaid;
    const { body } = await annals.request<{ streams: { aggregate_id: string }[] }>("GET", ["streams", "Order"]);
    const digits: string = new JsonNumber("0.1").toString();
    return { total, version, isPaid, positions, digits, id: body.streams[0]?.aggregate_id };
}

export function explain(error: unknown): string | number {
    if (error instanceof VersionConflict) return error.current_version;
    if (error instanceof EpochChanged) return error.rewind_to;
    if (error instanceof Problem) return error.detail;
    return "unknown";
}

export function refused() {
    // @ts-expect-error an expected version in words must be "none" or "exists"
    void annals.append("Order", "a", [], "any");
    // @ts-expect-error events have no such member
    void annals.append("Order", "a", [{ event_type: "A", event_data: 1, occured_at: "" }]);
    // @ts-expect-error the log has no such filter
    void annals.follow({ type: "Order" });
    // @ts-expect-error a projection needs a function
    void annals.project("orders", {});
}

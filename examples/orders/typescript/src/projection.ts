// A projection of the orders: a table, which service.ts reads.
//
//     node dist/src/projection.js --annals http://127.0.0.1:8080 --table orders.db
//
// The effect of each batch of events and the cursor are stored in one step. So `kill -9` at any moment loses nothing and
// applies nothing twice: the next run begins after the last event whose effect was stored.

import { parseArgs } from "node:util";

import { Annals } from "annals";

import { openTable } from "./table.js";

const { values: options } = parseArgs({
    options: {
        annals: { type: "string", default: "http://127.0.0.1:8080" },
        table: { type: "string", default: "orders.json" },
        slow: { type: "string", default: "0" }, // Milliseconds after each event, for tests.
    },
});

const table = await openTable(options.table);
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
process.once("SIGINT", () => stop.abort());

const clock = new Int32Array(new SharedArrayBuffer(4));
const pause = () => void Atomics.wait(clock, 0, 0, Number(options.slow));

const client = new Annals(options.annals, { key: process.env.ANNALS_KEY });
await client.project(
    "orders",
    { aggregate_type: "Order" },
    (events, { cursor }) => table.apply(events, cursor, pause),
    {
        after: table.progress().cursor,
        batchSize: 100,
        signal: stop.signal,
        onReconnect: ({ error, pause }) => console.error(`${error.message}: again in ${pause.toFixed(1)} s`),
    },
);

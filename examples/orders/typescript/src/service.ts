// A service that takes orders: commands, with conflicts, and two kinds of reads.
//
//     node dist/src/service.js --annals http://127.0.0.1:8080 --table orders.db --listen 9000
//
//     PUT  /orders/{id}                {"customer": "Ann", "total": 4200}       places an order
//     POST /orders/{id}/payments       {"payment_id": "p-1", "amount": 1000}    pays a part of it
//     POST /orders/{id}/cancellation   {"reason": "too slow"}
//     GET  /orders/{id}[?version=2]    the state, now or in the past, from the reducer that Annals runs
//     GET  /orders?status=placed[&position=17]    a list from the table of the projection
//
// A command returns the `position` of its last event. A list with `position` waits until the projection has it, so that
// a client finds what it has just written. Run projection.ts beside this program.

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { json } from "node:stream/consumers";
import { parseArgs } from "node:util";

import { Annals, AnnalsError, type NewEvent } from "annals";

import { cancel, evolve, initial, type Order, pay, place, Refused } from "./domain.js";
import { openTable } from "./table.js";

const { values: options } = parseArgs({
    options: {
        annals: { type: "string", default: "http://127.0.0.1:8080" },
        table: { type: "string", default: "orders.json" },
        listen: { type: "string", default: "9000" },
    },
});

const client = new Annals(options.annals, { key: process.env.ANNALS_KEY });
const orders = client.aggregate<Order>("Order", initial, evolve);
const table = await openTable(options.table);

// The same source again changes nothing, so each instance registers it at its start.
const source = await readFile(new URL("../../reducer.js", import.meta.url), "utf8");
await client.request("PUT", ["reducers", "Order"], { body: { language: "javascript", source } });

/** The request is not valid. */
class Invalid extends Error {}

async function command(id: string, decision: (order: Order) => NewEvent[]) {
    const { state, version, events } = await orders.decide(id, decision);
    return { id, status: state.status, version, position: events.at(-1)?.global_position ?? null };
}

async function list(status: string, position: number | undefined) {
    if (position !== undefined)
        await client.request("GET", ["projections", "orders"], { query: { wait_for: position, timeout: 5 } });
    return table.rows(status).map(({ id, customer, open }) => ({ id, customer, open }));
}

/** Returns the members of a body, each of its type. */
async function members<Kinds extends Record<string, "string" | "number">>(request: IncomingMessage, kinds: Kinds) {
    const body = (await json(request).catch(() => null)) as Record<string, unknown> | null;
    for (const [name, kind] of Object.entries(kinds))
        if (typeof body?.[name] !== kind) throw new Invalid(`the body must have ${name}, a ${kind}`);
    return body as { [Name in keyof Kinds]: Kinds[Name] extends "string" ? string : number };
}

function whole(text: string | null) {
    if (text === null) return undefined;
    if (!/^\d+$/.test(text)) throw new Invalid(`${text} is not a whole number`);
    return Number(text);
}

/** Handles a request; returns undefined if there is no such path. */
async function route(request: IncomingMessage): Promise<unknown> {
    const url = new URL(request.url ?? "/", "http://localhost");
    const [, path, name, part] = /^\/(orders)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    const id = decodeURIComponent(name ?? "");
    switch (path && `${request.method} ${name ? "order" : "list"}${part ? `/${part}` : ""}`) {
        case "GET list": {
            const status = url.searchParams.get("status");
            if (status === null) throw new Invalid("the query must have a status");
            return list(status, whole(url.searchParams.get("position")));
        }
        case "GET order":
            return (await client.state("Order", id, { version: whole(url.searchParams.get("version")) })).state;
        case "PUT order": {
            const { customer, total } = await members(request, { customer: "string", total: "number" });
            return command(id, (order) => place(order, customer, total));
        }
        case "POST order/payments": {
            const { payment_id, amount } = await members(request, { payment_id: "string", amount: "number" });
            return command(id, (order) => pay(order, payment_id, amount));
        }
        case "POST order/cancellation": {
            const { reason } = await members(request, { reason: "string" });
            return command(id, (order) => cancel(order, reason));
        }
    }
}

/** Returns the response to an error. */
function failure(error: unknown): [number, string] {
    if (error instanceof Refused) return [409, error.message];
    if (error instanceof Invalid || error instanceof URIError) return [400, error.message];
    if (!(error instanceof AnnalsError)) throw error;
    switch (error.code) {
        case "stream_not_found":
        case "event_not_found":
            return [404, "there is no such order or version"];
        case "projection_behind":
        case "projection_not_found":
            return [503, "the list does not have this position yet"];
        case "version_conflict":
            return [503, "too many writers change this order"];
        case "invalid_request":
            return [400, error.message];
        default:
            console.error(error);
            return [503, "the event store is not available"];
    }
}

const server = createServer(async (request, response) => {
    let [status, body]: [number, unknown] = [200, undefined];
    try {
        body = await route(request);
        if (body === undefined) [status, body] = [404, { error: "there is no such path" }];
    } catch (error) {
        const [code, message] = failure(error);
        [status, body] = [code, { error: message }];
    }
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
});
server.listen(Number(options.listen), "127.0.0.1", () => {
    const address = server.address();
    if (address && typeof address === "object") console.log(`listening on http://127.0.0.1:${address.port}`);
});

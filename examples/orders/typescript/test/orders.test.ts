// Tests of the example: the decisions as functions, and the programs against a real service.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { Annals } from "annals";
import { startAnnals } from "annals/testing";

import { cancel, initial, pay, Refused } from "../src/domain.js";
import { openTable } from "../src/table.js";

const hasSqlite = await import("node:sqlite").then(
    () => true,
    () => false,
);
const kinds = hasSqlite ? ["db", "json"] : ["json"];

// --- Without a server ---

test("an order is paid in parts", () => {
    const placed = { ...initial, status: "placed" as const, total: 100 };
    const types = (events: { event_type: string }[]) => events.map(({ event_type }) => event_type);
    assert.deepEqual(types(pay(placed, "p-1", 40)), ["PaymentReceived"]);
    const partly = { ...placed, payments: [{ id: "p-1", amount: 40 }] };
    assert.deepEqual(types(pay(partly, "p-2", 60)), ["PaymentReceived", "OrderPaid"]);
    assert.deepEqual(pay(partly, "p-1", 40), []);
    assert.throws(() => pay(partly, "p-2", 61), { message: "60 of 100 cents are open" });
    assert.throws(() => cancel(partly, "too slow"), Refused);
});

// --- With a server ---

let annals: Awaited<ReturnType<typeof startAnnals>> | undefined;
const folder = await mkdtemp(join(tmpdir(), "orders-"));
let url: string;
const running: ChildProcess[] = [];

function program(name: string, ...args: string[]) {
    const path = fileURLToPath(new URL(`../src/${name}.js`, import.meta.url));
    const child = spawn(process.execPath, [path, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    running.push(child);
    return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
}

/** Waits until a condition holds. The runner limits the time of a test. */
async function until(condition: () => boolean | Promise<boolean>) {
    while (!(await condition())) await sleep(5);
}

async function call(method: string, path: string, body?: unknown) {
    const response = await fetch(url + path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    return { status: response.status, body: (await response.json()) as any };
}

before(
    async () => {
        annals = await startAnnals();
        const common = ["--annals", annals.url, "--table", join(folder, `orders.${kinds[0]}`)];
        const service = program("service", ...common, "--listen", "0");
        const [line] = await once(createInterface(service.stdout!), "line");
        url = line.split(" ").at(-1);
        program("projection", ...common);
    },
    { timeout: 60_000 },
);

after(
    async () => {
        await Promise.all(running.map((child) => end(child, "SIGTERM")));
        await annals?.stop();
        await rm(folder, { recursive: true });
    },
    { timeout: 60_000 },
);

test("commands conflict, and can be repeated", { timeout: 60_000 }, async () => {
    const placed = await call("PUT", "/orders/a", { customer: "Ann", total: 500 });
    assert.equal(placed.status, 200);
    assert.deepEqual([placed.body.status, placed.body.version], ["placed", 1]);
    const repeated = await call("PUT", "/orders/a", { customer: "Ann", total: 500 });
    assert.deepEqual([repeated.body.version, repeated.body.position], [1, null]);
    assert.equal((await call("PUT", "/orders/a", { customer: "Ann", total: 501 })).status, 409);
    assert.equal((await call("POST", "/orders/a/payments", { payment_id: 1 })).status, 400);
    assert.equal((await call("GET", "/orders/none")).status, 404);
    assert.equal((await call("GET", "/nothing")).status, 404);

    // Twelve payments of 100 cents at the same time, and each of them sent twice: five fit.
    const payments = Array.from({ length: 12 }, async (_, number) => {
        const body = { payment_id: `p-${number}`, amount: 100 };
        return [
            (await call("POST", "/orders/a/payments", body)).status,
            (await call("POST", "/orders/a/payments", body)).status,
        ];
    });
    const answers = (await Promise.all(payments)).flat();
    assert.equal(answers.filter((status) => status === 200).length, 10);
    assert.equal(answers.filter((status) => status === 409).length, 14);
    const { body } = await call("GET", "/orders/a");
    assert.deepEqual([body.status, body.paid, body.total], ["paid", 500, 500]);
    assert.equal((await call("GET", "/orders/a?version=1")).body.status, "placed");
    assert.equal((await call("GET", "/orders/a?version=99")).status, 404);
});

test("a client finds its own writes in the list", { timeout: 60_000 }, async () => {
    await until(async () => (await call("GET", "/orders?status=placed&position=1")).status === 200);
    for (let number = 0; number < 20; number++) {
        const placed = await call("PUT", `/orders/b-${number}`, { customer: "Bob", total: 100 });
        const found = await call("GET", `/orders?status=placed&position=${placed.body.position}`);
        assert.deepEqual(found.body, [{ id: `b-${number}`, customer: "Bob", open: 100 }]);
        const cancelled = await call("POST", `/orders/b-${number}/cancellation`, { reason: "test" });
        const empty = await call("GET", `/orders?status=placed&position=${cancelled.body.position}`);
        assert.deepEqual(empty.body, []);
    }
});

for (const kind of kinds) {
    test(`the projection survives a kill, with its table in .${kind}`, { timeout: 120_000 }, async () => {
        const store = await startAnnals();
        try {
            const client = new Annals(store.url);
            for (let number = 0; number < 100; number++) {
                const payments = Array.from({ length: 10 }, (_, n) => ({
                    event_type: "PaymentReceived",
                    event_data: { payment_id: `p-${n}`, amount: 100 },
                }));
                const placed = { event_type: "OrderPlaced", event_data: { customer: "Kim", total: 1000 } };
                const paid = { event_type: "OrderPaid", event_data: {} };
                await client.append("Order", `k-${number}`, [placed, ...payments, paid], "none");
            }
            const path = join(folder, `killed.${kind}`);
            const table = await openTable(path);
            const project = (slow: string) =>
                program("projection", "--annals", store.url, "--table", path, "--slow", slow);
            for (let kill = 0; kill < 3; kill++) {
                const start = table.progress().events;
                const child = project("2");
                await until(() => table.progress().events > start);
                await end(child, "SIGKILL");
            }
            const stored = table.progress().events;
            assert.ok(0 < stored && stored < 1200, `${stored} events were applied before the last kill`);
            const child = project("0");
            await until(async () => {
                // The position does not exist before the first report.
                const { body } = await client.request("GET", ["projections"]);
                return body.projections[0]?.lag === 0;
            });
            await end(child, "SIGTERM");
            assert.equal(table.progress().events, 1200);
            const rows = table.rows("paid");
            assert.equal(rows.length, 100);
            assert.ok(rows.every(({ open }) => open === 0));
        } finally {
            await store.stop();
        }
    });
}

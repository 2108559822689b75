// What the conformance list does not have: the parts of the client that are particular to JavaScript.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import * as api from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

import { Annals, JsonNumber, uuidv7 } from "../annals.js";
import { traceRequests } from "../annals-opentelemetry.js";
import { startAnnals } from "../start-annals.js";
import { startProxy } from "./support/proxy.js";

const run = promisify(execFile);
const placed = { event_type: "Placed", event_data: { total: 1 } };
let service;
let proxy;

before(async () => {
    service = await startAnnals();
    proxy = await startProxy(fileURLToPath(new URL("..", import.meta.url)));
    proxy.setTarget(service.url);
});
after(async () => {
    await proxy?.stop();
    await service?.stop();
});

for (const [runtime, ...command] of [
    ["Node.js", process.execPath],
    ["Deno", "deno", "run", "--allow-net", "--no-lock"],
    ["Bun", "bun", "run"],
]) {
    test(`the verbs work in ${runtime}, and the process ends by itself`, { timeout: 60_000 }, async () => {
        const script = fileURLToPath(new URL("support/runtime.js", import.meta.url));
        const { stdout } = await run(command[0], [...command.slice(1), script, service.url, runtime]);
        assert.equal(stdout, "every verb works\n");
    });
}

test("a span for each try, and the trace continues in the service", async () => {
    const exporter = new InMemorySpanExporter();
    api.trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
    api.propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    const problem = { code: "overloaded", status: 503, title: "Service overloaded", detail: "by the proxy" };
    const headers = { "content-type": "application/problem+json" };
    proxy.clear();
    proxy.rule({ method: "POST", answer: { status: 503, headers, body: problem } });
    const annals = new Annals(proxy.url, { onRequest: traceRequests(api) });
    await annals.append("Order", "traced", [placed]);
    const [failed, succeeded] = exporter.getFinishedSpans();
    assert.equal(exporter.getFinishedSpans().length, 2);
    assert.deepEqual(
        [failed, succeeded].map(({ name, kind, attributes, status }) => [
            name,
            kind,
            attributes["http.response.status_code"],
            attributes["http.request.resend_count"],
            attributes["error.type"],
            status.code,
        ]),
        [
            ["POST", api.SpanKind.CLIENT, 503, undefined, "overloaded", api.SpanStatusCode.ERROR],
            ["POST", api.SpanKind.CLIENT, 201, 1, undefined, api.SpanStatusCode.UNSET],
        ],
    );
    assert.equal(succeeded.attributes["url.full"], `${proxy.url}/streams/Order/traced`);
    const sent = proxy.log("traced").map((entry) => entry.headers.traceparent.split("-").slice(1, 3));
    const spans = [failed, succeeded].map((span) => [span.spanContext().traceId, span.spanContext().spanId]);
    assert.deepEqual(sent, spans);
});

test("UUIDs have version 7, the time, and the order of their sequence", () => {
    const ids = Array.from({ length: 1000 }, (_, sequence) => uuidv7(1_700_000_000_000, sequence));
    assert.deepEqual(ids, [...ids].sort());
    for (const id of [ids[0], ids[999], uuidv7()]) {
        assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    assert.equal(parseInt(ids[0].replaceAll("-", "").slice(0, 12), 16), 1_700_000_000_000);
});

test("a base URL may have a path, and links of the service lead below it", () => {
    const annals = new Annals("https://example.com/annals/?a=b#c");
    assert.equal(annals.url(["streams", "A b", "ü/%"]), "https://example.com/annals/streams/A%20b/%C3%BC%2F%25");
    assert.equal(annals.url("/events?after=1:2"), "https://example.com/annals/events?after=1:2");
    const query = { event_type: ["A", "B"], after: 0, limit: undefined };
    assert.equal(annals.url(["events"], query), "https://example.com/annals/events?event_type=A&event_type=B&after=0");
});

test("a base URL without http is refused", () => {
    for (const url of ["127.0.0.1:8080", "localhost:8080", "/annals", "ftp://127.0.0.1", "http://", undefined]) {
        const expected = {
            name: "TypeError",
            message: `"${url}" is not a URL with http:// or https://, such as "http://127.0.0.1:8080"`,
        };
        assert.throws(() => new Annals(url), expected);
    }
});

test("texts that are no numbers of JSON are refused", () => {
    for (const text of ["", "1.", "01", "+1", "NaN", "1,0", '1","x":"'])
        assert.throws(() => new JsonNumber(text), TypeError);
});

test("a string of 900,000 characters and one that looks like a mark survive exact numbers", async () => {
    const annals = new Annals(service.url, { exactNumbers: true });
    const event_data = { long: `${'x\\"'.repeat(150_000)}`, digits: "9007199254740993", n: 9007199254740993n };
    await annals.append("Order", "long", [{ event_type: "Placed", event_data }], "none");
    for await (const event of annals.readStream("Order", "long")) assert.deepEqual(event.event_data, event_data);
});

test("a response of another server is an error that names its type", async () => {
    proxy.clear();
    const html = { headers: { "content-type": "text/html" }, body: "<h1>Welcome</h1>" };
    proxy.rule({ times: 3, answer: html });
    const annals = new Annals(proxy.url);
    const collect = async (events) => {
        for await (const event of events) assert.fail(`an event of a page: ${event}`);
    };
    for (const request of [
        annals.append("Order", "html", [placed]),
        collect(annals.read()),
        collect(annals.follow()),
    ]) {
        await assert.rejects(request, { code: "unexpected_type", message: /text\/html/ });
    }
});

test("a response that was cut inside its JSON is a lost connection", async () => {
    proxy.clear();
    const cut = { status: 201, headers: { "content-type": "application/json" }, body: '{"aggregate_type":"Ord' };
    proxy.rule({ method: "POST", forward: true, answer: cut });
    const answer = await new Annals(proxy.url).append("Order", "cut", [placed], "none");
    assert.deepEqual([answer.version, answer.replayed], [1, true]);
});

test("a read is repeated until it begins", async () => {
    proxy.clear();
    const annals = new Annals(proxy.url);
    await annals.append("Order", "read-again", [placed]);
    proxy.rule({ path: "read-again", cutAnswer: true });
    proxy.rule({ path: "read-again", hold: true });
    const seen = [];
    const reading = annals.readStream("Order", "read-again", {}, { silence: 0.3 });
    for await (const { version } of reading) seen.push(version);
    assert.deepEqual([seen, proxy.log("read-again").length], [[1], 4]);
});

test("loops end when they are stopped, also if the service cannot be reached", async () => {
    const closed = await startProxy(fileURLToPath(new URL("..", import.meta.url)));
    await closed.stop();
    const annals = new Annals(closed.url);
    for (const loop of [
        (signal) => annals.project("unreachable", {}, () => assert.fail("a batch"), { signal }),
        (signal) => annals.work("unreachable", () => assert.fail("an event"), { signal }),
        async (signal) => {
            for await (const event of annals.follow({}, 0, { signal })) assert.fail(`an event: ${event}`);
        },
    ]) {
        const stop = new AbortController();
        setTimeout(() => stop.abort(), 200);
        await loop(stop.signal);
    }
});

test("a failed event is not forgotten if the lease cannot be extended", async () => {
    proxy.clear();
    const annals = new Annals(proxy.url);
    for (const id of ["m-1", "m-2"]) await annals.append("Mail", id, [placed]);
    const body = { filter: { aggregate_type: ["Mail"] }, partitions: 1, lease_seconds: 1 };
    await annals.request("PUT", ["groups", "forgetful"], { body });
    proxy.rule({ method: "PUT", path: "forgetful/claims", hold: true });
    const stop = new AbortController();
    const handle = async ({ aggregate_id }, { signal }) => {
        if (aggregate_id === "m-1") throw new Error(" no such address\ud83d");
        await once(signal, "abort");
        stop.abort();
    };
    await annals.work("forgetful", handle, { signal: stop.signal });
    const parked = await annals.request("GET", ["groups", "forgetful", "parked"]);
    assert.deepEqual(
        parked.body.parked_streams.map(({ aggregate_id, reason }) => [aggregate_id, reason]),
        [["m-1", "no such address\ufffd"]],
    );
    const group = await annals.request("GET", ["groups", "forgetful"]);
    assert.equal(group.body.open_claims, 0);
});

test("an error of this client in a handler does not park its stream for good", async () => {
    const annals = new Annals(service.url);
    await annals.append("Letter", "l-1", [placed]);
    const body = { filter: { aggregate_type: ["Letter"] } };
    await annals.request("PUT", ["groups", "letters"], { body });
    const stop = new AbortController();
    const handle = () => annals.append("Letter", "l-1", [placed], "none");
    await annals.work("letters", handle, { onFailed: () => stop.abort(), signal: stop.signal });
    const { body: parked } = await annals.request("GET", ["groups", "letters", "parked", "Letter", "l-1"]);
    assert.notEqual(parked.retry_at, null);
    assert.match(parked.reason, /^VersionConflict: /);
});

test("a failed event is reported on the console without onFailed", async (context) => {
    const annals = new Annals(service.url);
    await annals.append("Note", "n-1", placed);
    await annals.request("PUT", ["groups", "notes"], { body: { filter: { aggregate_type: ["Note"] } } });
    const stop = new AbortController();
    const warn = context.mock.method(console, "warn", () => stop.abort());
    const failure = new Error("no address");
    await annals.work("notes", () => Promise.reject(failure), { signal: stop.signal });
    assert.deepEqual(
        warn.mock.calls.map(({ arguments: [text, error] }) => [text, error]),
        [["event Note/n-1@1 failed, and its stream is parked:", failure]],
    );
});

test("a handler that is no function parks nothing", async () => {
    proxy.clear();
    await assert.rejects(new Annals(proxy.url).work("notes"), { name: "TypeError", message: /handle must be/ });
    assert.deepEqual(proxy.log("notes"), []);
});

test("headers give the ids of correlation and causation to events that have none", async () => {
    const annals = new Annals(service.url);
    const options = { correlationId: "req-77", causationId: uuidv7() };
    await annals.append("Order", "correlated-1", [placed], "none", options);
    await annals.appendAll([{ aggregate_type: "Order", aggregate_id: "correlated-2", events: [placed] }], options);
    const seen = [];
    for await (const event of annals.read({ correlation_id: "req-77" })) seen.push(event);
    assert.deepEqual(
        seen.map(({ aggregate_id, causation_id }) => [aggregate_id, causation_id]),
        ["correlated-1", "correlated-2"].map((id) => [id, options.causationId]),
    );
});

test("a single event needs no list, and a value that is no event is refused", async () => {
    const annals = new Annals(service.url);
    assert.equal((await annals.append("Order", "single", placed, "none")).version, 1);
    for (const wrong of [undefined, null, "Placed", [placed, null]])
        await assert.rejects(annals.append("Order", "single", wrong), {
            name: "TypeError",
            message: /^events must be/,
        });
});

test("an evolve function that returns nothing is an error", async () => {
    const annals = new Annals(service.url);
    await annals.append("Order", "evolved", [placed]);
    const orders = annals.aggregate("Order", {}, () => undefined);
    await assert.rejects(orders.load("evolved"), { name: "TypeError", message: /evolve returned no state for Placed/ });
});

test("a move of a projection whose response is lost is no conflict", async () => {
    proxy.clear();
    const annals = new Annals(proxy.url);
    await annals.append("Order", "projected", [placed]);
    proxy.rule({ method: "PUT", path: "projections", cutAnswer: true });
    const stop = new AbortController();
    const options = { signal: stop.signal };
    await annals.project("lost-response", { aggregate_type: "Order" }, () => stop.abort(), options);
    const [first, second] = proxy.log("projections/lost-response").filter(({ method }) => method === "PUT");
    assert.equal(first.headers["if-none-match"], "*");
    assert.deepEqual([first.status, second.status], [201, 412]);
});

test("startAnnals needs the program, and reports why it does not start", async () => {
    await assert.rejects(startAnnals({ binary: "/no/annals" }), /"\/no\/annals" was not found: set ANNALS_BIN/);
    await assert.rejects(startAnnals({ env: { ANNALS_MAX_BODY_BYTES: "many" } }), /annals ended with status 2/);
});

test("startAnnals finds the program in PATH", async () => {
    const { ANNALS_BIN, PATH } = process.env;
    const folder = await mkdtemp(join(tmpdir(), "annals-path-"));
    try {
        delete process.env.ANNALS_BIN;
        process.env.PATH = folder;
        await assert.rejects(startAnnals(), /"annals" was not found: set ANNALS_BIN to its path, or add it to PATH/);
        await symlink(resolve(ANNALS_BIN), join(folder, "annals"));
        process.env.PATH = `${folder}${delimiter}${PATH}`;
        await (await startAnnals()).stop();
    } finally {
        Object.assign(process.env, { ANNALS_BIN, PATH });
        await rm(folder, { recursive: true });
    }
});

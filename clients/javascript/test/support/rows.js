// The rows of clients/conformance.md, for Node.js and for browsers. Each row gets `url` and `keysUrl`, the functions of
// environment.js, and `stop`, an AbortController that is aborted after the row, also if it fails. Every row uses
// aggregate types and names of its own, because all rows share a store.

import {
    Annals,
    AnnalsError,
    ClaimLost,
    ConnectionLost,
    EpochChanged,
    EventIdReused,
    EventNotFound,
    EventPartlyKnown,
    Forbidden,
    InvalidRequest,
    JsonNumber,
    NoReducer,
    OutcomeUnknown,
    PositionBeyondHead,
    PositionConflict,
    PositionRegressed,
    Problem,
    ProjectionBehind,
    ProjectionNotFound,
    QuotaExceeded,
    StreamNotFound,
    Unauthenticated,
    VersionConflict,
    uuidv7,
} from "../../annals.js";
import { all, check, equal, fails, until } from "./assert.js";

const event = (event_type = "Happened", event_data = {}) => ({ event_type, event_data });
const events = (count) => Array.from({ length: count }, (_, n) => event("Counted", { n }));
const unique = (name) => `${name}-${uuidv7().slice(24)}`;
const versions = (list) => list.map(({ version }) => version);
const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);
const count = (annals, type) => annals.aggregate(type, 0, (state) => state + 1);

export const rows = {
    async C1({ url }) {
        const annals = new Annals(url);
        const type = unique("Order");
        equal((await annals.append(type, "a", [event()], "none")).version, 1);
        equal((await annals.append(type, "a", [event()], 1)).version, 2);
        equal((await annals.append(type, "a", [event()], "exists")).version, 3);
        equal((await annals.append(type, "a", [event()])).first_version, 4);
        equal((await annals.append(type, "b", [event()], 0)).version, 1);
        for (const [id, expected, current, missed] of [
            ["a", 1, 4, [2, 3, 4]],
            ["a", "none", 4, [1, 2, 3, 4]],
            ["c", "exists", 0, []],
            ["a", 9, 4, []],
        ]) {
            const conflict = await fails(annals.append(type, id, [event()], expected), "version_conflict");
            check(conflict instanceof VersionConflict && conflict instanceof Problem, "the class of the error");
            equal([conflict.status, conflict.expected_version, conflict.current_version], [412, expected, current]);
            equal(versions(conflict.missed_events), missed, "the missed events");
        }
        for (const expected of [null, -1, 1.5, "1"]) {
            const error = await annals.append(type, "a", [event()], expected).catch((error) => error);
            check(error instanceof TypeError, `${expected} was accepted as an expected version`);
        }
        const body = [
            { aggregate_type: type, aggregate_id: "a", expected_version: 4, events: [event()] },
            { aggregate_type: type, aggregate_id: "d", expected_version: "none", events: [event()] },
        ];
        equal(versions((await annals.appendAll(body)).appends), [5, 1]);
        const conflict = await fails(annals.appendAll(body), "version_conflict");
        equal(
            conflict.conflicts.map(({ current_version }) => current_version),
            [5, 1],
        );
    },

    async C2({ url, rule }) {
        const type = unique("Order");
        await rule({ method: "POST", path: type, cutAnswer: true });
        const answer = await new Annals(url).append(type, "a", events(2), "none");
        equal([answer.version, answer.replayed], [2, true]);
        equal((await all(new Annals(url).readStream(type, "a"))).length, 2);
    },

    async C3({ url, rule, log }) {
        const type = unique("Order");
        const answer = {
            status: 503,
            headers: problemHeaders({ "retry-after": "1" }),
            body: problem(503, "overloaded"),
        };
        await rule({ method: "POST", path: type, times: 2, answer });
        equal((await new Annals(url).append(type, "a", [event()])).replayed, false);
        const sent = await log(type);
        equal(sent.length, 3, "the number of tries");
        check(
            sent[1].at - sent[0].at >= 1000 && sent[2].at - sent[1].at >= 1000,
            "the client did not wait for a second",
        );
        check(
            sent.every(({ body }) => body === sent[0].body),
            "the tries have different bodies",
        );
        check(JSON.parse(sent[0].body).events[0].event_id, "the event has no id");
    },

    async C4({ url, rule, log }) {
        const type = unique("Order");
        const answer = {
            status: 503,
            headers: problemHeaders({ "retry-after": "0" }),
            body: problem(503, "outcome_unknown"),
        };
        await rule({ method: "POST", path: type, forward: true, answer });
        equal((await new Annals(url).append(type, "a", [event()])).replayed, true);
        equal(
            (await log(type)).map(({ status }) => status),
            [503, 200],
        );
        equal((await all(new Annals(url).readStream(type, "a"))).length, 1);
    },

    async C5({ keysUrl, createKey }) {
        const key = await createKey("--grant", "append:*", "--requests-per-minute", "30");
        const tries = [];
        const onRequest =
            ({ attempt }) =>
            ({ status }) =>
                void tries.push([attempt, status, performance.now()]);
        const patient = new Annals(keysUrl, { key, onRequest });
        const impatient = new Annals(keysUrl, { key, patience: 0.5 });
        const type = unique("Order");
        const refused = await until(async () => {
            const error = await impatient.append(type, "a", [event()]).catch((error) => error);
            return error instanceof AnnalsError && error;
        }, "the quota is used");
        equal([refused.code, refused.status], ["quota_exceeded", 429]);
        check(refused.retryAfter >= 1, `Retry-After is ${refused.retryAfter}`);
        await patient.append(type, "a", [event()]);
        const [first, last] = [tries.at(0), tries.at(-1)];
        equal([first[1], last[1], tries.length], [429, 201, 2]);
        check(last[2] - first[2] >= 1000, "the client did not wait");
    },

    async C6({ url, kill, start, log }) {
        const type = unique("Order");
        await kill();
        const error = await fails(new Annals(url, { patience: 0.3 }).append(type, "a", [event()]), "connection_lost");
        check(error instanceof ConnectionLost && error.message.includes(`${url}/streams/${type}/a`), error.message);
        const tries = (await log(type)).length;
        const appending = new Annals(url).append(type, "a", [event()], "none");
        await until(async () => (await log(type)).length > tries, "the append was sent");
        await start();
        equal((await appending).version, 1);
    },

    async C7({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const answer = await annals.append(type, "a", events(1000), "none");
        equal(versions(answer.events), upTo(1000));
        const ids = answer.events.map(({ event_id }) => event_id);
        equal(ids, [...ids].sort(), "the ids in their order");
        equal(
            (await all(annals.readStream(type, "a"))).map(({ event_id }) => event_id),
            ids,
        );
        const error = await fails(annals.append(type, "a", events(1001)), "invalid_request");
        check(error.errors[0].pointer, "the error names no place");
        equal((await log(type)).filter(({ method }) => method === "POST").length, 2, "the number of tries");
    },

    async C8({ url }) {
        const annals = new Annals(url);
        const names = [
            "a:b",
            "100%",
            "a%2Fb",
            "a?b",
            "a#b",
            "a+b",
            "a&b=c",
            `"a'`,
            "a b",
            "日本",
            "🦀",
            "$a",
            "a;b,c\\d",
            "...",
        ];
        const type = unique("Odd :%?#+&\"' 日本🦀");
        for (const id of names) {
            await annals.append(type, id, [event(id.replace("$", "x"))], "none");
            const [read] = await all(annals.readStream(type, id));
            equal([read.aggregate_type, read.aggregate_id, read.event_type], [type, id, id.replace("$", "x")]);
            equal((await count(annals, type).load(id)).version, 1);
            const filter = { aggregate_type: type, aggregate_id: id, event_type: id.replace("$", "x") };
            equal(
                (await all(annals.read(filter))).map(({ aggregate_id }) => aggregate_id),
                [id],
            );
        }
        const { body } = await annals.request("GET", ["streams", type], { query: { limit: 7 } });
        const { body: rest } = await annals.request("GET", body.next);
        const listed = [...body.streams, ...rest.streams].map(({ aggregate_id }) => aggregate_id);
        equal([...listed].sort(), [...names].sort());
        for (const id of ["", ".", ".."]) {
            const error = await annals.append(type, id, [event()]).catch((error) => error);
            check(error instanceof TypeError, `the name "${id}" was accepted`);
        }
    },

    async C9({ url }) {
        const annals = new Annals(url, { exactNumbers: true });
        const type = unique("Account");
        const decimal = "0.12345678901234567891";
        const text = `${"9".repeat(16)} "quoted\\" 9007199254740993`;
        const data = {
            large: 9007199254740993n,
            list: [-9007199254740993n, new JsonNumber(decimal)],
            plain: [1, 0.1, 0.30000000000000004, 9007199254740991, 1e21],
            [text]: text,
        };
        const appended = await annals.append(type, "a", [event("Counted", data)], "none");
        equal([appended.version, typeof appended.global_position], [1, "number"]);
        const check9 = (read) => {
            const { large, list, plain } = read.event_data;
            check(large === 9007199254740993n && list[0] === -9007199254740993n, "the integers have other digits");
            check(list[1] instanceof JsonNumber && String(list[1]) === decimal, "the decimal has other digits");
            equal(plain.slice(0, 4), data.plain.slice(0, 4));
            check(plain[4] === 1000000000000000000000n, "an integer beyond 2^53 is a bigint");
            equal(read.event_data[text], text);
            equal([read.version, typeof read.global_position], [1, "number"]);
            return read;
        };
        const [read] = (await all(annals.readStream(type, "a"))).map(check9);
        await annals.append(type, "b", [event("Counted", read.event_data)], "none");
        check9((await all(annals.read({ aggregate_type: type, aggregate_id: "b" })))[0]);
        const conflict = await fails(annals.append(type, "b", [event()], 0), "version_conflict");
        check9(conflict.missed_events[0]);
        const [rounded] = await all(new Annals(url).readStream(type, "a"));
        equal(rounded.event_data.large, 9007199254740992, "JSON.parse rounds without the option");
    },

    async C10({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const given = { ...event("Placed", { total: 1 }), event_id: uuidv7() };
        equal((await annals.append(type, "a", [given], "none")).replayed, false);
        const replayed = await annals.append(type, "a", [given], "none");
        equal([replayed.replayed, replayed.events[0].event_id], [true, given.event_id]);
        const other = { ...given, event_data: { total: 2 } };
        await fails(annals.append(type, "a", [other]), "event_id_reused");
        equal((await log(type)).length, 3, "the number of tries");
    },

    async C11({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Counter");
        await annals.append(type, "a", events(3));
        const seen = [];
        const decided = await count(annals, type).decide("a", async (state, version) => {
            seen.push([state, version]);
            if (seen.length === 1) await annals.append(type, "a", events(2));
            return [event("Decided", { state })];
        });
        equal(seen, [
            [3, 3],
            [5, 5],
        ]);
        equal([decided.state, decided.version, decided.events[0].event_data.state], [6, 6, 5]);
        equal((await log(type)).filter(({ method }) => method === "GET").length, 1, "the number of loads");
        const [stored] = await all(annals.readStream(type, "a", { from_version: 6 }));
        equal(
            Object.fromEntries(Object.entries(stored).sort()),
            Object.fromEntries(Object.entries(decided.events[0]).sort()),
        );
    },

    async C12({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Counter");
        const seen = [];
        const decided = await count(annals, type).decide("a", async (state, version) => {
            seen.push([state, version]);
            if (seen.length === 1) await annals.append(type, "a", events(150));
            return event("Decided");
        });
        equal(seen, [
            [0, 0],
            [150, 150],
        ]);
        equal(decided.version, 151);
        equal((await log(type)).filter(({ method }) => method === "GET").length, 2, "the number of loads");
    },

    async C13({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Counter");
        const seen = [];
        const decide = async (state, version) => {
            seen.push([state, version]);
            await annals.append(type, "a", [event()]);
            return [event("Decided")];
        };
        const conflict = await fails(count(annals, type).decide("a", decide, { tries: 6 }), "version_conflict");
        equal(conflict.current_version, 6);
        equal(
            seen,
            [0, 1, 2, 3, 4, 5].map((version) => [version, version]),
        );
        // One load at the start, and one after the first try and three retries.
        const requests = (await log(type)).map(({ method, headers }) => (headers["if-match"] ? "try" : method));
        equal(
            requests.filter((request) => request !== "POST"),
            ["GET", "try", "try", "try", "try", "GET", "try", "try"],
        );
    },

    async C14({ url }) {
        const annals = new Annals(url);
        const type = unique("Counter");
        const decider = async () => {
            for (let n = 0; n < 50; n++) await count(annals, type).decide("a", (state) => event("Decided", { state }));
        };
        await Promise.all(Array.from({ length: 8 }, decider));
        const stored = await all(annals.readStream(type, "a"));
        equal(versions(stored), upTo(400));
        equal(
            stored.map(({ event_data }) => event_data.state + 1),
            upTo(400),
            "the states of the decisions",
        );
    },

    async C15({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Counter");
        await annals.append(type, "a", events(2));
        for (const nothing of [[], undefined]) {
            const decided = await count(annals, type).decide("a", () => nothing);
            equal(decided, { state: 2, version: 2, events: [] });
        }
        const failure = new Error("out of stock");
        const thrown = await count(annals, type)
            .decide("a", () => Promise.reject(failure))
            .catch((error) => error);
        check(thrown === failure, "the error is another one");
        equal((await log(type)).filter(({ method }) => method === "POST").length, 1, "the number of appends");
    },

    async C16({ url }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const other = unique("Other");
        for (const size of [1000, 1000, 500]) {
            await annals.append(type, `id-${size}`, events(size));
            await annals.append(other, "a", events(10));
        }
        const reading = annals.read({ aggregate_type: type });
        const read = await all(reading);
        equal(read.length, 2500);
        check(
            read.every(({ global_position }, n) => n === 0 || global_position > read[n - 1].global_position),
            "the order",
        );
        equal(reading.end.count, 2500);
        check(reading.end.next_after >= read.at(-1).global_position, "the end of the read");
        equal((await all(annals.read({ aggregate_type: [type, other], limit: 2505 }))).length, 2505);
        const stream = annals.readStream(type, "id-1000", { from_version: 1999, direction: "backward" });
        equal(versions(await all(stream)), [2000, 1999]);
        equal(stream.end.version, 2000);
        await fails(all(annals.readStream(type, "missing")), "stream_not_found");
    },

    async C17({ url, rule }) {
        const annals = new Annals(url);
        const type = unique("Order");
        await annals.append(type, "a", events(5));
        for (const read of [() => annals.readStream(type, "a"), () => annals.read({ aggregate_type: type })]) {
            await rule({ method: "GET", path: type, lines: 3, then: "end" });
            const seen = [];
            const reading = async () => {
                for await (const { version } of read()) seen.push(version);
            };
            await fails(reading(), "incomplete_response");
            equal(seen, [1, 2, 3]);
            // Chromium takes a response whose connection was closed as complete.
            await rule({ method: "GET", path: type, lines: 3, then: "cut" });
            const error = await all(read()).catch((error) => error);
            check(["connection_lost", "incomplete_response"].includes(error.code), `the error is ${error}`);
        }
    },

    async C18({ url, rule }) {
        const type = unique("Order");
        const lines = [{ version: 1 }, { error: problem(503, "database_unavailable") }];
        const body = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
        await rule({ path: type, answer: { headers: { "content-type": "application/x-ndjson" }, body } });
        const seen = [];
        const reading = async () => {
            for await (const { version } of new Annals(url).readStream(type, "a")) seen.push(version);
        };
        const error = await fails(reading(), "database_unavailable");
        check(error instanceof Problem, "the class of the error");
        equal(seen, [1]);
    },

    async C19({ url, kill, start }) {
        const annals = new Annals(url);
        const type = unique("Order");
        await annals.append(type, "a", events(3));
        const seen = [];
        const reconnects = [];
        const onReconnect = ({ error }) => reconnects.push(error.code);
        for await (const { version } of annals.follow({ aggregate_type: type }, 0, { onReconnect })) {
            seen.push(version);
            if (version === 3) {
                await kill();
                await start();
                await annals.append(type, "a", events(3));
            }
            if (version === 6) break;
        }
        equal(seen, upTo(6));
        equal(reconnects[0], "connection_lost");
    },

    async C20({ url, cut, log, stop }) {
        const annals = new Annals(url);
        const [type, other] = [unique("Order"), unique("Other")];
        const heartbeats = [];
        const options = { signal: stop.signal, onHeartbeat: (cursor) => heartbeats.push(cursor) };
        const following = annals.follow({ aggregate_type: type }, "head", options);
        const seen = [];
        const done = (async () => {
            for await (const { version } of following) seen.push(version);
        })();
        await until(() => following.caughtUp, "caught up");
        const { global_position } = await annals.append(other, "a", [event()]);
        const position = () => Number(following.cursor.split(":")[1]);
        await until(() => position() >= global_position, "the heartbeat has moved the cursor");
        equal(heartbeats.at(-1), following.cursor);
        await cut(type);
        const resumed = await until(
            async () => (await log(type)).filter(({ method }) => method === "GET")[1],
            "resumed",
        );
        check(resumed.path.includes(`after=${encodeURIComponent(heartbeats.at(-1))}`), resumed.path);
        await annals.append(type, "a", [event()]);
        await until(() => seen.length === 1, "the event");
        stop.abort();
        await done;
        equal(seen, [1]);
    },

    async C21({ url, rule }) {
        const annals = new Annals(url, { silence: 0.5 });
        const type = unique("Order");
        await annals.append(type, "a", events(4));
        await rule({ path: `events.*${type}`, hold: true });
        // The first frame is `retry`, and each event has three lines: the response falls silent after two events.
        await rule({ path: `events.*${type}`, lines: 2 + 2 * 3, then: "silence" });
        const seen = [];
        const errors = [];
        const onReconnect = ({ error }) => errors.push(error);
        for await (const { version } of annals.follow({ aggregate_type: type }, 0, { onReconnect })) {
            seen.push(version);
            if (version === 4) break;
        }
        equal(seen, upTo(4));
        equal(
            errors.map(({ code }) => code),
            ["connection_lost", "connection_lost"],
        );
        check(errors[1].message.includes("silent for 0.5 s"), errors[1].message);
    },

    async C22({ url, beginEpoch, log }) {
        const annals = new Annals(url);
        const { cursor, rewindTo, type } = await changeEpoch(annals, beginEpoch);
        const error = await fails(all(annals.follow({ aggregate_type: type }, cursor)), "epoch_changed");
        check(error instanceof EpochChanged, "the class of the error");
        equal([error.status, error.rewind_to], [409, rewindTo]);
        equal((await log(`after=${encodeURIComponent(cursor)}`)).length, 1, "the number of tries");
    },

    async C23({ keysUrl, keysLog, createKey, revokeKey }) {
        const key = await createKey("--grant", "read:*", "--grant", "append:*");
        const annals = new Annals(keysUrl, { key });
        const type = unique("Order");
        await annals.append(type, "a", events(2));
        const seen = [];
        const following = async () => {
            for await (const { version } of annals.follow({ aggregate_type: type })) {
                seen.push(version);
                if (version === 2) await revokeKey(key);
            }
        };
        const error = await fails(following(), "unauthenticated");
        equal([error.status, seen], [401, [1, 2]]);
        equal(
            (await keysLog(`events.*${type}`)).map(({ status }) => status),
            [200, 401],
        );
    },

    async C24({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Order");
        await annals.append(type, "a", events(2));
        const isClosed = (path) => async () => (await log(path)).every((entry) => entry.isClosed);
        for await (const { version } of annals.follow({ aggregate_type: type })) if (version === 1) break;
        await until(isClosed(`events.*${type}`), "the event stream is closed");
        for await (const { version } of annals.readStream(type, "a")) if (version === 1) break;
        const stop = new AbortController();
        setTimeout(() => stop.abort(), 100);
        equal(versions(await all(annals.follow({ aggregate_type: type }, 0, { signal: stop.signal }))), [1, 2]);
        await until(isClosed(type), "all connections are closed");
        const failure = new Error("a handler fails");
        const project = annals.project(type, { aggregate_type: type }, () => Promise.reject(failure));
        check((await project.catch((error) => error)) === failure, "the error of the handler");
        await until(isClosed(type), "the connection of the projection is closed");
        const cancelled = annals.append(type, "a", [event()], undefined, { signal: AbortSignal.abort(failure) });
        check((await cancelled.catch((error) => error)) === failure, "the reason of the signal");
    },

    async C25({ url }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const name = unique("orders");
        await annals.append(type, "a", events(600));
        const seen = [];
        const run = async (last, batchSize) => {
            const stop = new AbortController();
            const handle = async (batch) => {
                check(batch.length <= batchSize, `a batch of ${batch.length}`);
                seen.push(...versions(batch));
                if (seen.at(-1) >= last) stop.abort();
            };
            await annals.project(name, { aggregate_type: type }, handle, { signal: stop.signal, batchSize });
        };
        await run(250, 50);
        check(seen.length < 600, "the projection was not stopped");
        await annals.append(type, "a", events(400));
        await run(1000, 500);
        equal(seen, upTo(1000));
        const stop = new AbortController();
        const running = annals.project(name, { aggregate_type: type }, () => {}, { signal: stop.signal });
        const { global_position } = await annals.append(unique("Other"), "a", events(5));
        const projection = await annals.waitFor(name, global_position, { timeout: 20 });
        check(projection.last_processed_position >= global_position, "the position does not follow the log");
        stop.abort();
        await running;
    },

    async C26({ url, log }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const name = unique("orders");
        await annals.append(type, "a", events(2));
        let calls = 0;
        const handle = async ([{ global_position }]) => {
            calls += 1;
            const body = { last_processed_position: global_position };
            if (calls === 1) await annals.request("PUT", ["projections", name], { body });
        };
        const project = annals.project(name, { aggregate_type: type }, handle, { batchSize: 1 });
        const error = await fails(project, "position_conflict");
        check(error instanceof PositionConflict && error.current_position > 0, "the class of the error");
        equal(calls, 1, "the number of calls");
        equal((await log(`projections/${name}`)).filter(({ method }) => method === "PUT").length, 2);
    },

    async C27({ url, beginEpoch, stop }) {
        const annals = new Annals(url);
        const { cursor, rewindTo, type } = await changeEpoch(annals, beginEpoch);
        const name = unique("orders");
        const position = Number(cursor.split(":")[1]);
        await annals.request("PUT", ["projections", name], { body: { last_processed_position: position } });
        const filter = { aggregate_type: type };
        await fails(
            annals.project(name, filter, () => {}, { after: cursor }),
            "epoch_changed",
        );
        const calls = [];
        const onRewind = (rewind, { cursor }) => void calls.push(["rewind", rewind, cursor.split(":")[1]]);
        const handle = async (batch) => {
            const { body } = await annals.request("GET", ["projections", name]);
            calls.push(["handle", versions(batch), body.last_processed_position]);
            stop.abort();
        };
        await annals.project(name, filter, handle, { after: cursor, onRewind, signal: stop.signal });
        equal(calls, [
            ["rewind", rewindTo, String(rewindTo)],
            ["handle", [2], rewindTo],
        ]);
    },

    async C28({ url, log, stop }) {
        const { annals, group, positions } = await startGroup(url, ["a", "b", "a", "c", "b", "a", "d"]);
        const seen = [];
        const parked = [];
        const handle = ({ aggregate_id, version }) => {
            seen.push([aggregate_id, version]);
            if (aggregate_id === "a") throw Object.assign(new Error("card declined"), { retryAfter: null });
            if (aggregate_id === "d") stop.abort();
        };
        const onFailed = ({ version }, error) => parked.push([version, error.message]);
        const options = { worker: "mailer-3", limit: 6, wait: 5, signal: stop.signal, onFailed };
        await annals.work(group, handle, options);
        equal(seen, [
            ["a", 1],
            ["b", 1],
            ["c", 1],
            ["b", 2],
            ["d", 1],
        ]);
        equal(parked, [[1, "card declined"]]);
        const [post, first, second, ...others] = await log(`${group}/claims`);
        equal([post.path, JSON.parse(post.body)], [`/groups/${group}/claims?limit=6&wait=5`, { worker: "mailer-3" }]);
        check(post.headers["idempotency-key"], "the request for a claim has no Idempotency-Key");
        equal(first.path.split("?")[1], "next=true&limit=6&wait=5");
        const failed = [{ global_position: positions[0], reason: "card declined", retry_after: null }];
        equal(JSON.parse(first.body), { last_processed_position: positions[5], failed });
        equal(JSON.parse(second.body), { last_processed_position: positions[6], failed: [], release: true });
        equal(others, []);
        const { body } = await annals.request("GET", ["groups", group, "parked", group, "a"]);
        equal([body.reason, body.attempts, body.waiting, body.retry_at], ["card declined", 1, 2, null]);
    },

    async C29({ url, log, stop }) {
        const { annals, group, positions } = await startGroup(url, ["a", "b"], { lease_seconds: 6 });
        const seen = [];
        const extensions = async () => (await log(`${group}/claims/`)).filter(({ path }) => !path.includes("?"));
        const rival = () => annals.work(group, () => seen.push("the rival"), { signal: stop.signal });
        let rivalling;
        const handle = async ({ aggregate_id }) => {
            if (aggregate_id === "b") {
                rivalling = rival();
                await until(async () => (await extensions()).length === 3, "the lease is extended three times");
            }
            seen.push(aggregate_id);
        };
        const working = annals.work(group, handle, { signal: stop.signal });
        await until(async () => (await processed(annals, group)) >= positions[1], "the claim is acknowledged");
        stop.abort();
        await Promise.all([working, rivalling]);
        equal(seen, ["a", "b"]);
        equal(
            (await extensions()).slice(0, 3).map(({ body }) => JSON.parse(body)),
            Array(3).fill({ last_processed_position: positions[0], failed: [] }),
        );
    },

    async C30({ url, log, stop }) {
        const { annals, group } = await startGroup(url, ["a", "b"], { lease_seconds: 1 });
        const claims = ["groups", group, "claims"];
        const seen = [];
        const losses = [];
        let other;
        const handle = async ({ aggregate_id }, { claim, signal }) => {
            seen.push([aggregate_id, claim.claim_id]);
            if (aggregate_id === "b") stop.abort();
            if (seen.length > 1) return;
            await annals.request("DELETE", [...claims, claim.claim_id]);
            other = (await annals.request("POST", claims, { body: { worker: "mailer-4" } })).body;
            await until(() => signal.aborted, "the handler learns that the claim is lost");
        };
        const onClaimLost = (error) => {
            losses.push([error instanceof ClaimLost, error.claimed_by]);
            void annals.request("DELETE", [...claims, other.claim_id]);
        };
        const onFailed = (_, error) => stop.abort(error);
        await annals.work(group, handle, { signal: stop.signal, onClaimLost, onFailed });
        equal(losses, [[true, "mailer-4"]]);
        equal(
            seen.map(([id]) => id),
            ["a", "a", "b"],
        );
        check(seen[0][1] !== seen[1][1] && seen[1][1] === seen[2][1], "the claims of the events");
        const posts = (await log(`${group}/claims\\?`)).map(({ headers }) => headers["idempotency-key"]);
        equal([posts.length, new Set(posts).size], [2, 2], "the requests for claims, and their keys");
    },

    async C31({ url }) {
        const annals = new Annals(url);
        const type = unique("Order");
        await annals.append(type, "a", [event("Placed", { total: 42 }), event("Paid", { by: "card" })]);
        await fails(annals.state(type, "a"), "no_reducer");
        await annals.request("PUT", ["reducers", type], { body: { language: "merge-patch" } });
        const now = await annals.state(type, "a");
        equal([now.version, now.state], [2, { by: "card", total: 42 }]);
        equal((await annals.state(type, "a", { version: 1 })).state, { total: 42 });
        await fails(annals.state(type, "a", { version: 3 }), "event_not_found");
        await fails(annals.state(type, "b"), "stream_not_found");
    },

    async C32({ url, keysUrl, createKey, rule, log }) {
        const type = unique("Order");
        await fails(
            new Annals(keysUrl, { key: "annals_000000000000_00" }).append(type, "a", [event()]),
            "unauthenticated",
        );
        const key = await createKey("--grant", "read:*");
        const forbidden = await fails(
            new Annals(keysUrl, { key: () => key }).append(type, "a", [event()]),
            "forbidden",
        );
        equal(forbidden.status, 403);
        check(forbidden.detail && forbidden.instance && forbidden.message.includes(forbidden.detail), "the members");
        const answer = { status: 502, headers: { "content-type": "text/html" }, body: "<h1>Bad gateway</h1>" };
        await rule({ path: type, answer });
        equal((await new Annals(url).append(type, "a", [event()])).version, 1);
        await rule({ path: type, times: 99, answer });
        const error = await fails(new Annals(url, { patience: 0.5 }).append(type, "a", [event()]), "http_error");
        equal([error.status, error.detail], [502, "<h1>Bad gateway</h1>"]);
        check((await log(type)).length > 3, "the 502 was not retried");
    },

    async C33({ keysUrl, createKey, keysLog }) {
        const key = await createKey("--grant", "append:*", "--grant", "read:*");
        const tries = [];
        const onRequest = ({ method, url, attempt, headers }) => {
            headers.set("X-Request-Id", `hook-${attempt}`);
            const seen = { method, url, attempt, hasKey: JSON.stringify([...headers]).includes(key) };
            return ({ status, error, duration }) => void tries.push({ ...seen, status, code: error?.code, duration });
        };
        const annals = new Annals(keysUrl, { key, onRequest });
        const type = unique("Order");
        await annals.append(type, "a", [event()]);
        await fails(annals.append(type, "a", [event()], "none"), "version_conflict");
        await all(annals.readStream(type, "a"));
        const url = `${keysUrl}/streams/${type}/a`;
        equal(
            tries.map(({ method, url, attempt, hasKey, status, code }) => [method, url, attempt, hasKey, status, code]),
            [
                ["POST", url, 1, false, 201, undefined],
                ["POST", url, 1, false, 412, "version_conflict"],
                ["GET", url, 1, false, 200, undefined],
            ],
        );
        check(
            tries.every(({ duration }) => duration > 0 && duration < 60),
            "the durations",
        );
        equal(
            (await keysLog(type)).map(({ headers }) => headers["x-request-id"]),
            ["hook-1", "hook-1", "hook-1"],
        );
    },
    async C34({ url, stop }) {
        const ids = ["a", "b", "a", "b", "a"];
        const { annals, group } = await startGroup(url, ids, { lease_seconds: 1 });
        let isKilled = false;
        const fetch = async (request) => {
            if (isKilled) throw new TypeError("the worker is killed");
            return globalThis.fetch(request);
        };
        const lost = [];
        const killed = new Annals(url, { fetch }).work(
            group,
            async ({ aggregate_id, version }, { signal }) => {
                lost.push([aggregate_id, version]);
                if (lost.length < 3) return;
                isKilled = true;
                await until(() => signal.aborted, "the handler learns that the lease cannot be extended");
            },
            { patience: 0 },
        );
        await fails(killed, "connection_lost");
        const seen = [];
        const handle = ({ aggregate_id, version }) => {
            if (seen.push([aggregate_id, version]) === ids.length) stop.abort();
        };
        await annals.work(group, handle, { signal: stop.signal });
        const all = [
            ["a", 1],
            ["b", 1],
            ["a", 2],
            ["b", 2],
            ["a", 3],
        ];
        equal([lost, seen], [all.slice(0, 3), all]);
    },

    async C35({ url, stop }) {
        const { annals, group } = await startGroup(url, ["a", "b", "a"], { retry_after: [0] });
        const seen = [];
        const handle = ({ aggregate_id, version }, { claim }) => {
            seen.push([aggregate_id, version, claim.retry]);
            if (seen.length === 1) throw new Error("mailbox full");
            if (version === 2) stop.abort();
        };
        await annals.work(group, handle, { signal: stop.signal });
        const retry = { aggregate_type: group, aggregate_id: "a", attempts: 1, reason: "mailbox full" };
        equal(seen, [
            ["a", 1, null],
            ["b", 1, null],
            ["a", 1, retry],
            ["a", 2, retry],
        ]);
        equal((await annals.request("GET", ["groups", group])).body.parked_streams, 0, "the parked streams");
    },

    async C36({ url, rule, log, stop }) {
        const { annals, group } = await startGroup(url, ["a", "b", "c"], { lease_seconds: 3600 });
        const claims = [];
        await rule({ method: "POST", path: `${group}/claims`, cutAnswer: true });
        await rule({ method: "PUT", path: `${group}/claims/.*next=true`, cutAnswer: true });
        const seen = [];
        const handle = async ({ aggregate_id }, { claim }) => {
            const extensions = (await log(claim.claim_id)).map(({ path, body }) => {
                equal(JSON.parse(body), { last_processed_position: claim.last_processed_position, failed: [] });
                return path;
            });
            seen.push([aggregate_id, extensions]);
            if (aggregate_id === "c") stop.abort();
            if (aggregate_id !== "c") claims.push(`/groups/${group}/claims/${claim.claim_id}`);
        };
        await annals.work(group, handle, { limit: 1, signal: stop.signal });
        equal(seen, [
            ["a", [claims[0]]],
            ["b", [claims[1]]],
            ["c", []],
        ]);
        const posts = await log(`${group}/claims\\?`);
        equal([posts.length, new Set(posts.map(({ headers }) => headers["idempotency-key"])).size], [2, 1]);
        const [first, second] = await log(`${group}/claims/.*next=true`);
        equal([second.path, second.body], [first.path, first.body], "the repeated acknowledgement");
    },

    async C37({ url, rule, log, stop }) {
        const { annals, group, positions } = await startGroup(url, ["a", "b", "c"], { lease_seconds: 3600 });
        const seen = [];
        const first = new AbortController();
        const handle = ({ aggregate_id }) => {
            seen.push(aggregate_id);
            first.abort();
        };
        await annals.work(group, handle, { signal: first.signal });
        const [released] = await log(`${group}/claims/`);
        equal(JSON.parse(released.body), { last_processed_position: positions[0], failed: [], release: true });
        // The second worker is stopped while the service has not answered its acknowledgement.
        await rule({ method: "PUT", path: `${group}/claims/.*next=true`, hold: true });
        const second = { limit: 1, signal: stop.signal };
        const working = annals.work(group, ({ aggregate_id }) => void seen.push(aggregate_id), second);
        await until(async () => (await log(`${group}/claims/.*next=true`)).length === 1, "the acknowledgement");
        stop.abort();
        await working;
        equal(seen, ["a", "b"]);
        equal((await annals.request("GET", ["groups", group])).body.open_claims, 0, "the open claims");
        const { body } = await annals.request("POST", ["groups", group, "claims"]);
        equal(
            body.events.map(({ aggregate_id }) => aggregate_id),
            ["c"],
        );
    },

    async C38({ url }) {
        const annals = new Annals(url);
        const type = unique("Order");
        const name = unique("orders");
        const { global_position } = await annals.append(type, "a", events(3));
        const seen = [];
        const run = async (options) => {
            const stop = new AbortController();
            const handle = (batch) => {
                seen.push(...versions(batch));
                if (batch.at(-1).version === 3) stop.abort();
            };
            await annals.project(name, { aggregate_type: type }, handle, { signal: stop.signal, ...options });
        };
        await run();
        const error = await fails(run({ after: "1:0" }), "position_regressed");
        check(error instanceof PositionRegressed && error.current_position >= global_position, "the error");
        equal(seen, [1, 2, 3], "the events before the reset");
        await run({ reset: true });
        equal(seen, [1, 2, 3, 1, 2, 3], "the events after it");
        check((await annals.waitFor(name, global_position)).last_processed_position >= global_position, "the position");
    },

    async C39({ url }) {
        const annals = new Annals(url);
        const name = unique("orders");
        const { global_position } = await annals.append(unique("Order"), "a", [event()]);
        await fails(annals.waitFor(name, global_position), "projection_not_found");
        const move = (position) =>
            annals.request("PUT", ["projections", name], { body: { last_processed_position: position } });
        await move(global_position - 1);
        const error = await fails(annals.waitFor(name, global_position, { timeout: 1 }), "projection_behind");
        check(error instanceof ProjectionBehind && error.lag >= 1, "the error");
        const waiting = annals.waitFor(name, global_position, { timeout: 30 });
        await move(global_position);
        equal((await waiting).last_processed_position, global_position);
    },

    async C40({ url, rule }) {
        const annals = new Annals(url, { patience: 0 });
        const codes = {
            version_conflict: VersionConflict,
            epoch_changed: EpochChanged,
            position_conflict: PositionConflict,
            claim_lost: ClaimLost,
            invalid_request: InvalidRequest,
            unauthenticated: Unauthenticated,
            forbidden: Forbidden,
            stream_not_found: StreamNotFound,
            event_not_found: EventNotFound,
            projection_not_found: ProjectionNotFound,
            event_id_reused: EventIdReused,
            event_partly_known: EventPartlyKnown,
            position_regressed: PositionRegressed,
            position_beyond_head: PositionBeyondHead,
            projection_behind: ProjectionBehind,
            no_reducer: NoReducer,
            quota_exceeded: QuotaExceeded,
            outcome_unknown: OutcomeUnknown,
            group_not_found: Problem,
        };
        for (const [code, kind] of Object.entries(codes)) {
            const body = problem(code === "outcome_unknown" ? 503 : 409, code);
            await rule({ path: "livez", answer: { status: body.status, headers: problemHeaders(), body } });
            const error = await fails(annals.request("GET", "/livez"), code);
            check(error.constructor === kind && error.name === kind.name, `the class of ${code}`);
            const text =
                kind === Problem ? "Problem: group_not_found: made by the proxy" : `${kind.name}: made by the proxy`;
            equal(String(error), text, "the text");
        }
    },
};

const problemHeaders = (headers = {}) => ({ "content-type": "application/problem+json", ...headers });

function problem(status, code, members = {}) {
    const document = {
        type: `/problems/${code}`,
        title: code,
        status,
        detail: "made by the proxy",
        instance: "1",
        code,
    };
    return { ...document, ...members };
}

/** Begins an epoch between two events. The cursor belongs to the epoch before, and is beyond its end. */
async function changeEpoch(annals, beginEpoch) {
    const type = unique("Order");
    const { global_position } = await annals.append(type, "a", [event()]);
    const page = async () => (await annals.request("GET", ["events"], { query: { after: "head", limit: 1 } })).body;
    const { epoch } = await page();
    await beginEpoch();
    await until(async () => (await page()).epoch !== epoch, "the service knows the new epoch");
    await annals.append(type, "a", [event()]);
    return { type, cursor: `${epoch}:${global_position + 1}`, rewindTo: global_position };
}

/** Appends an event to each of these streams, one after the other, and creates a group with one partition for them. */
async function startGroup(url, ids, settings = {}) {
    const annals = new Annals(url);
    const group = unique("Mail");
    const positions = [];
    for (const id of ids) positions.push((await annals.append(group, id, [event()])).global_position);
    const body = { filter: { aggregate_type: [group] }, partitions: 1, ...settings };
    await annals.request("PUT", ["groups", group], { body });
    return { annals, group, positions };
}

/** Returns the position up to which a group has processed the log. */
async function processed(annals, group) {
    return (await annals.request("GET", ["groups", group])).body.last_processed_position;
}

/** Runs a row. */
export async function runRow(row, environment) {
    const stop = new AbortController();
    try {
        await rows[row]({ ...environment, stop });
    } finally {
        stop.abort();
    }
}

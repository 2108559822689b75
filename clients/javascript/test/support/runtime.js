// Uses every verb that needs no proxy. Runs in Node.js, Deno and Bun, and ends only if nothing remains open.

import { Annals, uuidv7 } from "../../annals.js";
import { all, check, equal, fails } from "./assert.js";

const [url, runtime] = globalThis.Deno ? Deno.args : process.argv.slice(2);
const annals = new Annals(url, { exactNumbers: true });
const type = `${runtime}-${uuidv7().slice(24)}`;

await annals.append(type, "a", [{ event_type: "Counted", event_data: { n: 9007199254740993n } }], "none");
await fails(annals.append(type, "a", [{ event_type: "Counted", event_data: 1 }], "none"), "version_conflict");
const decided = await annals
    .aggregate(type, 0, (state) => state + 1)
    .decide("a", (state) => ({ event_type: "Decided", event_data: state }));
equal([decided.state, decided.version], [2, 2]);
const [first] = await all(annals.readStream(type, "a"));
check(first.event_data.n === 9007199254740993n, "the digits");
equal((await all(annals.read({ aggregate_type: type }))).length, 2);
const followed = [];
for await (const { version } of annals.follow({ aggregate_type: type })) if (followed.push(version) === 2) break;
equal(followed, [1, 2]);
const stop = new AbortController();
await annals.project(type, { aggregate_type: type }, () => stop.abort(), { signal: stop.signal });
await annals.request("PUT", ["groups", `${type}-group`], { body: { filter: { aggregate_type: [type] } } });
const worker = new AbortController();
await annals.work(`${type}-group`, ({ version }) => version === 2 && worker.abort(), { signal: worker.signal });
await annals.request("PUT", ["reducers", type], { body: { language: "merge-patch" } });
equal((await annals.state(type, "a", { version: 2 })).state, 1);
console.log("every verb works");

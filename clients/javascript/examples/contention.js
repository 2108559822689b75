// Measures `decide` under contention: eight deciders make 50 decisions each on one stream. Each has its own client.
//
//     ANNALS_BIN=target/release/annals node clients/javascript/examples/contention.js
//     node clients/javascript/examples/contention.js http://127.0.0.1:8080

import { Annals, uuidv7 } from "../annals.js";
import { startAnnals } from "../start-annals.js";

const DECIDERS = 8;
const DECISIONS = 50;

const service = process.argv[2] ? null : await startAnnals();
const url = process.argv[2] ?? service.url;
const stream = `contention-${uuidv7()}`;
const tries = [];
const seconds = [];

const decider = async () => {
    const counters = new Annals(url).aggregate("Counter", 0, (count) => count + 1);
    for (let n = 0; n < DECISIONS; n++) {
        const begun = performance.now();
        let calls = 0;
        await counters.decide(stream, (count) => {
            calls += 1;
            return { event_type: "Counted", event_data: { count: count + 1 } };
        });
        tries.push(calls);
        seconds.push((performance.now() - begun) / 1000);
    }
    return performance.now();
};

const begun = performance.now();
const ends = await Promise.all(Array.from({ length: DECIDERS }, decider));
const total = (performance.now() - begun) / 1000;
const { state, version } = await new Annals(url).aggregate("Counter", 0, (count) => count + 1).load(stream);
await service?.stop();

const sorted = (list) => [...list].sort((a, b) => a - b);
const [first, last] = [sorted(ends)[0], sorted(ends).at(-1)].map((end) => ((end - begun) / 1000).toFixed(2));
console.log(`${DECIDERS * DECISIONS} decisions in ${total.toFixed(2)} s; lost: ${DECIDERS * DECISIONS - state}`);
console.log(`the first decider ended after ${first} s, the last one after ${last} s`);
console.log(`tries of a decision: median ${sorted(tries)[tries.length >> 1]}, most ${Math.max(...tries)}`);
const [median, most] = [sorted(seconds)[seconds.length >> 1], Math.max(...seconds)];
console.log(`time of a decision: median ${median.toFixed(3)} s, most ${most.toFixed(3)} s`);
process.exitCode = version === DECIDERS * DECISIONS ? 0 : 1;

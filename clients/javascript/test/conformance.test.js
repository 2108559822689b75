// Every row of clients/conformance.md, in Node.js.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { startEnvironment } from "./support/environment.js";
import { rows, runRow } from "./support/rows.js";

const list = await readFile(new URL("../../conformance.md", import.meta.url), "utf8");
const titles = new Map([...list.matchAll(/^\| (C\d+) \| (.*?) \|/gm)].map(([, row, title]) => [row, title]));
let environment;

before(async () => {
    environment = await startEnvironment();
});
after(() => environment?.stop());

test("the list and the tests have the same rows", () => {
    assert.deepEqual([...titles.keys()], Object.keys(rows));
});

for (const row of Object.keys(rows)) {
    test(`${row} ${titles.get(row)}`, { timeout: 120_000 }, async () => {
        environment.calls.clear();
        await runRow(row, { url: environment.url, keysUrl: environment.keysUrl, ...environment.calls });
    });
}

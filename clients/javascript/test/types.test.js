// The types compile, agree with the OpenAPI document, and have what annals.js has.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

function run(program, ...args) {
    return new Promise((resolve) => {
        execFile(path(`../node_modules/.bin/${program}`), args, (error, stdout, stderr) => {
            resolve({ failed: error !== null, output: stdout + stderr });
        });
    });
}

test("the types agree with the OpenAPI document and with the code", { timeout: 120_000 }, async () => {
    await mkdir(path("types/generated"), { recursive: true });
    await copyFile(path("../annals.js"), path("types/generated/implementation.js"));
    const document = path("../../../openapi/openapi.json");
    const generated = await run("openapi-typescript", document, "--output", path("types/generated/openapi.ts"));
    assert.ok(!generated.failed, generated.output);
    const compiled = await run("tsc", "--project", path("types/tsconfig.json"));
    assert.equal(compiled.output, "");
});

// Every example of the README runs, and prints what its comments say.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { startAnnals } from "../start-annals.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = await readFile(join(root, "README.md"), "utf8");
const examples = [...readme.matchAll(/```js\n([^]*?)```/g)].map((match) => ({
    heading: /.*\n#+ ([^\n]*)/s.exec(`\n${readme.slice(0, match.index)}`)[1],
    code: match[1],
}));
const run = promisify(execFile);
let service;
let folder;

before(async () => {
    service = await startAnnals();
    folder = await mkdtemp(join(tmpdir(), "annals-readme-"));
    await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
});
after(async () => {
    await service?.stop();
    if (folder) await rm(folder, { recursive: true });
});

test("the README has an example for every verb", () => {
    const code = examples.map(({ code }) => code).join();
    for (const verb of [
        "append",
        "decide",
        "load",
        "read",
        "readStream",
        "follow",
        "project",
        "waitFor",
        "work",
        "state",
        "request",
    ]) {
        assert.ok(code.includes(`.${verb}(`), verb);
    }
});

for (const { heading, code } of examples) {
    test(`the example of "${heading}"`, { timeout: 60_000 }, async () => {
        const file = join(folder, `${heading.replace(/\W+/g, "-")}-${code.length}.js`);
        const local = (name) => JSON.stringify(new URL(`../${name}`, import.meta.url).href);
        const source = code
            .replaceAll('"http://127.0.0.1:8080"', JSON.stringify(service.url))
            .replaceAll('"annals"', local("annals.js"))
            .replaceAll('"annals/testing"', local("start-annals.js"));
        await writeFile(file, source);
        const { stdout } = await run(process.execPath, [file], { env: { ...process.env, NO_COLOR: "1" } });
        const expected = [...code.matchAll(/\/\/ prints (.*)$/gm)].map(([, text]) => text);
        assert.ok(expected.length > 0, "the example says what it prints");
        assert.deepEqual(stdout.trimEnd().split("\n"), expected);
    });
}

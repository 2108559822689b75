// Every row of clients/conformance.md, in Chromium. The page and the service have one origin, as in the console; the
// service with keys has another one.

import { existsSync } from "node:fs";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { startEnvironment } from "./support/environment.js";
import { rows } from "./support/rows.js";

const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
const skip = existsSync(executablePath) ? false : `${executablePath} does not exist: install Chromium`;
let environment;
let browser;
let page;
const faults = [];

before(async () => {
    if (skip) return;
    environment = await startEnvironment();
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    page = await browser.newPage();
    page.on("pageerror", (error) => faults.push(error.stack));
    await page.exposeFunction("call", (name, args) => environment.calls[name](...args));
    await page.goto(`${environment.url}/client/test/support/page.html`);
});
after(async () => {
    await browser?.close();
    await environment?.stop();
});

for (const row of Object.keys(rows)) {
    test(`${row} in Chromium`, { skip, timeout: 120_000 }, async () => {
        environment.calls.clear();
        const failure = await page.evaluate(
            async ({ row, urls, names }) => {
                const { runRow } = await import("/client/test/support/rows.js");
                const calls = names.map((name) => [name, (...args) => window.call(name, args)]);
                return runRow(row, { ...urls, ...Object.fromEntries(calls) }).then(
                    () => null,
                    (error) => error.stack,
                );
            },
            {
                row,
                urls: { url: environment.url, keysUrl: environment.keysUrl },
                names: Object.keys(environment.calls),
            },
        );
        if (failure) throw new Error(failure);
        if (faults.length > 0) throw new Error(`errors in the page: ${faults.splice(0).join("\n")}`);
    });
}

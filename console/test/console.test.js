// The console in headless Chromium, against a real service. `scripts/test-console` runs it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";

import { Annals } from "../../clients/javascript/annals.js";
import { startAnnals } from "../../clients/javascript/start-annals.js";
import { CORRELATION, HOSTILE, LARGE, STREAM, fill } from "./demo-data.js";
import { serve } from "./serve.js";

const run = promisify(execFile);
const AXE = await readFile(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
const path = (...segments) => segments.map(encodeURIComponent).join("/");
const PAGES = {
    overview: "",
    log: "log",
    streams: "streams",
    "streams of a type": "streams/Order?prefix=ord",
    stream: "streams/Order/ord-1001?version=4",
    "stream with odd names": path("streams", HOSTILE.type, HOSTILE.id),
    correlation: path("correlations", CORRELATION),
    projections: "projections",
    reducers: "reducers",
    reducer: "reducers/Order",
    operations: "operations",
};
/** What the static files of a first view and all files may weigh, and how many files it may load. */
const BUDGET = { gzip: 60_000, files: 12 };

let service;
let guarded;
let base;
let guardedBase;
let browser;
let profile;
const servers = [];

/** Returns the URL of the console of a service. CONSOLE_FROM_FOLDER=1 serves the files of the repository. */
async function consoleOf(started) {
    if (process.env.CONSOLE_FROM_FOLDER !== "1") return `${started.url}/console/`;
    const server = await serve({ target: () => started.url });
    servers.push(server);
    return `${server.url}/console/`;
}

async function createKey(...grants) {
    const output = await guarded.command(
        "keys",
        "create",
        "--name",
        `console ${grants.join(" ")}`,
        ...grants.flatMap((grant) => ["--grant", grant]),
    );
    const key = /annals_[0-9a-f]+_[0-9a-f]+/.exec(output)[0];
    // After an unknown key the service reads the keys again, at most once in a second.
    await eventually(
        async () =>
            (await fetch(`${guarded.url}/keys/self`, { headers: { Authorization: `Bearer ${key}` } })).status === 200,
    );
    return key;
}

async function eventually(holds) {
    for (const end = Date.now() + 30_000; ;) {
        if (await holds()) return;
        if (Date.now() > end) throw new Error(`not within 30 s: ${holds}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

before(async () => {
    [service, guarded] = await Promise.all([startAnnals(), startAnnals({ env: { ANNALS_AUTH: "keys" } })]);
    [base, guardedBase] = [await consoleOf(service), await consoleOf(guarded)];
    profile = await mkdtemp(join(tmpdir(), "annals-console-"));
    browser = await chromium.launch({
        executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
        args: [...SWITCHES, `--crash-dumps-dir=${profile}`],
    });
});

after(async () => {
    await browser?.close();
    for (const server of servers) server.stop();
    await Promise.all([service?.stop(), guarded?.stop()]);
    if (profile) await rm(profile, { recursive: true, force: true });
});

/** Opens a page, and records what the browser reports. `allowed` are texts of messages that the test provokes. */
async function open(url, { scheme = "light", width = 1440, height = 900, allowed = [], bypassCSP = false } = {}) {
    const context = await browser.newContext({
        viewport: { width, height },
        colorScheme: scheme,
        bypassCSP,
        acceptDownloads: true,
    });
    const page = await context.newPage();
    const faults = [];
    page.on("console", (message) => {
        const text = message.text();
        if (["error", "warning"].includes(message.type()) && !allowed.some((part) => text.includes(part)))
            faults.push(text);
    });
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.addInitScript(() =>
        addEventListener("securitypolicyviolation", (event) =>
            console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`),
        ),
    );
    await page.goto(url);
    await settled(page);
    const close = async () => {
        await context.close();
        assert.deepEqual(faults, [], url);
    };
    return { page, close, faults };
}

/** Waits until a page has read what it shows. */
async function settled(page) {
    await page.locator("h1").first().waitFor();
    await eventually(() => page.evaluate(() => !document.querySelector(".loading, [aria-busy=true]")));
}

test("an empty store shows three curl lines, and the first one fills it", async () => {
    const { page, close } = await open(base);
    const lines = await page.locator(".steps code").allTextContents();
    assert.equal(lines.length, 3);
    const { stdout } = await run("sh", ["-c", `${lines[0]} -s`]);
    assert.equal(JSON.parse(stdout).version, 1);
    const read = JSON.parse((await run("sh", ["-c", `${lines[1]} -s`])).stdout);
    assert.equal(read.events[0].event_type, "OrderPlaced");
    await page.getByRole("heading", { name: "Events over time" }).waitFor();
    await close();
    await fill(service.url, undefined, { orders: 12 });
});

test("every page loads without an error, without a violation of its policy, and accessible in both schemes", async () => {
    for (const scheme of ["light", "dark"]) {
        for (const [name, target] of Object.entries(PAGES)) {
            const { page, close } = await open(base + target, { scheme });
            assert.equal(await page.locator(".problem").count(), 0, name);
            // The policy forbids scripts from elsewhere, so the rules run through the protocol of the browser.
            await page.evaluate(AXE);
            const { violations } = await page.evaluate(() =>
                globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }),
            );
            const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
            assert.deepEqual(
                serious.map(({ id, nodes }) => [id, nodes.slice(0, 9).map(({ html }) => html)]),
                [],
                `${name}, ${scheme}`,
            );
            await close();
        }
    }
});

test("no page is wider than a phone or narrower than what it shows", async () => {
    for (const width of [390, 2560]) {
        for (const [name, target] of Object.entries(PAGES)) {
            const { page, close } = await open(base + target, { width });
            const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
            assert.ok(overflow <= 0, `${name} at ${width} px overflows by ${overflow} px`);
            await close();
        }
    }
});

test("names are text, never markup", async () => {
    const { page, close } = await open(base + PAGES["stream with odd names"]);
    assert.ok((await page.locator("h1").textContent()).endsWith(HOSTILE.id));
    await page.getByText(HOSTILE.eventType, { exact: true }).first().click();
    await page.getByRole("heading", { name: HOSTILE.eventType }).waitFor();
    assert.equal(await page.locator("#app img, #app script").count(), 0);
    await page.goto(`${base}log`);
    await settled(page);
    await page.locator("tr.event", { hasText: HOSTILE.eventType }).locator("button.row").click();
    await page.getByText("</script><img src=x onerror=alert(3)>").last().waitFor();
    await page.locator("tr.opened a.stream").click();
    await page.waitForURL((url) => decodeURIComponent(url.pathname).endsWith(HOSTILE.id));
    await settled(page);
    assert.ok((await page.locator("h1").textContent()).endsWith(HOSTILE.id));
    await close();
});

test("a link shows the same view, and the back button returns", async () => {
    const { page, close } = await open(base);
    await page.getByRole("link", { name: "Log", exact: true }).click();
    await page.getByRole("heading", { name: "Log" }).waitFor();
    await page.locator("tr.event a.stream").first().click();
    await page.locator(".travel").waitFor();
    await settled(page);
    const [url, title, state] = [
        page.url(),
        await page.locator("h1").textContent(),
        await page.locator(".stream-view").textContent(),
    ];
    await page.goBack();
    await page.getByRole("heading", { name: "Log" }).waitFor();
    await page.goBack();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.goForward();
    await page.goForward();
    await page.locator(".travel").waitFor();
    assert.equal(page.url(), url);
    const other = await open(url);
    assert.equal(await other.page.locator("h1").textContent(), title);
    assert.equal(await other.page.locator(".stream-view").textContent(), state);
    await other.close();
    await close();
});

test("each curl line of a page returns the JSON that the page received", async () => {
    const volatile = new Set(["lag_seconds", "details", "samples"]);
    const stable = (text) =>
        JSON.stringify(JSON.parse(text, (name, value) => (volatile.has(name) ? undefined : value)));
    for (const [name, target] of Object.entries(PAGES)) {
        const received = new Map();
        const context = await browser.newContext();
        const page = await context.newPage();
        const bodies = [];
        page.on("response", (response) => {
            if ((response.headers()["content-type"] ?? "").includes("json"))
                bodies.push(response.text().then((text) => received.set(response.url(), text)));
        });
        await page.goto(base + target);
        await settled(page);
        await page
            .locator(".requests summary")
            .click({ timeout: 1000 })
            .catch(() => {});
        const lines = await page.locator(".requests code").allTextContents();
        await Promise.all(bodies);
        assert.ok(lines.length > 0, name);
        for (const line of lines) {
            if (/ -N |\/metrics'|\/test'/.test(line)) continue;
            const { stdout } = await run("sh", ["-c", `${line} -s`], { maxBuffer: 32 * 1024 * 1024 });
            const url = /'(http[^']*(?:'\\''[^']*)*)'$/.exec(line)[1].replaceAll("'\\''", "'");
            const own = received.get(new URL(url).href);
            assert.ok(own !== undefined, `${name} has not sent ${url}`);
            assert.equal(stable(stdout), stable(own), line);
        }
        await context.close();
    }
});

test("the search field finds events, positions, streams and prefixes", async () => {
    const { page, close } = await open(base);
    const search = async (text) => {
        await page.locator("h1").click();
        await page.keyboard.press("/");
        await page.keyboard.type(text);
        await page.keyboard.press("Enter");
    };
    await search("3");
    await page.waitForURL(/\/events\//);
    const id = page.url().split("/").at(-1);
    await search("Order/ord-1001@2");
    await page.waitForURL(/\/streams\/Order\/ord-1001\?version=2/);
    await search(id.toUpperCase());
    await page.waitForURL((url) => url.pathname.endsWith(`/events/${id}`));
    await search("ord-100");
    await page.waitForURL(/\/streams\?prefix=ord-100/);
    await settled(page);
    await page.getByRole("link", { name: "Order/ord-1003" }).waitFor();
    await close();
    const correlation = await open(base, { allowed: ["404"] });
    await correlation.page.getByRole("searchbox").fill(CORRELATION);
    await correlation.page.keyboard.press("Enter");
    await correlation.page.waitForURL(/\/correlations\//);
    await settled(correlation.page);
    await correlation.page.getByRole("link", { name: "PaymentCaptured" }).waitFor();
    await correlation.close();
});

test("a stream shows the state at each version and what its event changed", async () => {
    const { page, close } = await open(base + PAGES.stream);
    const changed = page.locator("table.difference");
    await changed.getByText("items/desk-oak").waitFor();
    await page.keyboard.press("j");
    await page.waitForURL(/version=5/);
    await changed.getByText("items/chair-3").waitFor();
    await page.keyboard.press("k");
    await page.keyboard.press("k");
    await page.waitForURL(/version=3/);
    await page.getByRole("heading", { name: "State at version 3" }).waitFor();
    await page.getByRole("slider", { name: "Version" }).fill("1");
    await page.waitForURL(/version=1$/);
    await changed.getByText("customer").waitFor();
    await close();
});

test("an append form shows the events that a stale version missed", async () => {
    const { page, close } = await open(base + path("streams", STREAM.type, STREAM.id), { allowed: ["412"] });
    await page.getByText("Append an event").click();
    await page.getByLabel("Event type").fill("NoteAdded");
    await page.getByLabel("Data (JSON)").fill('{"big": 9007199254740993}');
    await page.getByLabel("Expected version").fill("1");
    await page.getByRole("button", { name: "Append", exact: true }).click();
    await page.getByText("Optimistic concurrency check failed").waitFor();
    await page.getByText("Events since the expected version:").waitFor();
    const version = Number(await page.getByRole("slider", { name: "Version" }).getAttribute("max"));
    await page.getByLabel("Expected version").fill(String(version));
    await page.getByRole("button", { name: "Append", exact: true }).click();
    await page.getByText(`Appended as version ${version + 1}.`).waitFor();
    await page.locator(".stream-view").getByText("9007199254740993").first().waitFor();
    await close();
});

test("the log follows, pauses, filters, and resumes after a restart of the service", async () => {
    const client = new Annals(service.url);
    const append = (id, type = "Live") => client.append(type, id, [{ event_type: "Happened", event_data: { id } }]);
    const { page, close } = await open(`${base}log`, { allowed: ["ERR_", "502", "503"] });
    await page.getByText("Following").waitFor();
    await append("live-1");
    await page.getByText("live-1").first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await append("live-2");
    assert.equal(await page.getByText("live-2").count(), 0);
    await page.getByRole("button", { name: "Follow" }).click();
    await page.getByText("live-2").first().waitFor();
    await page.evaluate(() => {
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    });
    await page.getByText("Paused while the page is hidden").waitFor();
    await append("live-3");
    await page.evaluate(() => {
        Object.defineProperty(document, "hidden", { value: false, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    });
    await page.getByText("live-3").first().waitFor();
    await service.kill();
    await page.getByText(/Reconnecting/).waitFor();
    await service.start();
    await append("live-4");
    await page.getByText("live-4").first().waitFor();
    await service.command("epoch", "--begin", "test of the console");
    await eventually(async () => {
        await append("live-5").catch(() => {});
        return (await page.getByText("live-5").count()) > 0;
    });
    await page.getByLabel("Event type").fill("Happened");
    await page.waitForURL(/event_type=Happened/);
    await eventually(
        async () =>
            (await page.locator("tr.event").count()) > 0 &&
            (await page.locator("tr.event", { hasNotText: "Happened" }).count()) === 0,
    );
    const wanted = page.waitForEvent("download");
    await page.getByRole("button", { name: /Export the whole filter/ }).click();
    const file = await (await wanted).path();
    const lines = (await readFile(file, "utf8"))
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
    assert.ok(lines.length >= 5 && lines.every(({ event_type }) => event_type === "Happened"), `${lines.length}`);
    await close();
});

test("the live view has at most 500 rows, and shows the last of 2,000 events", async () => {
    const { page, close } = await open(`${base}log`);
    await page.getByText("Following").waitFor();
    const client = new Annals(service.url);
    for (let batch = 0; batch < 20; batch++) {
        await client.append(
            "Burst",
            `burst-${batch}`,
            Array.from({ length: 100 }, (_, index) => ({
                event_type: "Burst",
                event_data: { number: batch * 100 + index },
            })),
        );
    }
    await page.getByText("number: 1999").waitFor();
    assert.equal(await page.locator("tr.event").count(), 500);
    await page.getByRole("button", { name: "Older events" }).click();
    await eventually(async () => (await page.locator("tr.event").count()) === 550);
    const positions = (await page.locator("tr.event .position").allTextContents()).map(Number);
    assert.deepEqual(
        positions,
        [...positions].sort((left, right) => right - left),
    );
    assert.equal(positions[0] - positions.at(-1), 549, "no position is missing");
    await close();
});

test("an event of 1 MiB starts folded, opens in parts, and has all of its text", async () => {
    const { page, close } = await open(base + path("streams", LARGE.type, LARGE.id));
    await page.evaluate(() => {
        globalThis.longest = 0;
        new PerformanceObserver((list) =>
            list.getEntries().forEach(({ duration }) => (globalThis.longest = Math.max(globalThis.longest, duration))),
        ).observe({ type: "longtask", buffered: true });
    });
    // The budget is 100 ms. The time depends on the machine, so it is reported and not checked.
    const nodes = () => page.evaluate(() => document.querySelectorAll(".json *").length);
    assert.ok((await nodes()) < 60, "it is folded");
    await page.locator(".json summary", { hasText: "{1}" }).click();
    await page.locator(".json summary", { hasText: "rows" }).click();
    await page.getByRole("button", { name: /show 100 more of 9,000/ }).click();
    assert.ok((await nodes()) < 3000, `${await nodes()}`);
    await page.getByRole("button", { name: "Raw" }).click();
    await page.getByRole("button", { name: /show more of/ }).click();
    console.log(
        `the longest task with an event of 1 MiB: ${await page.evaluate(() => Math.round(globalThis.longest))} ms`,
    );
    await close();
});

test("a reducer is tried on a stream, and its errors have a place", async () => {
    const { page, close } = await open(`${base}reducers/Order?id=ord-1001`, { allowed: ["422"] });
    await page.getByRole("button", { name: "Try it" }).click();
    await page.getByText("items/desk-oak").waitFor();
    await page.getByLabel("Source").fill("({\n  init: () => ({}),\n  a() {} b\n})");
    await page.getByRole("button", { name: "Try it" }).click();
    await page.getByText("Invalid reducer").waitFor();
    assert.match(await page.locator(".source-line").textContent(), /^3: {3}a\(\) \{\} b\n/);
    await page.getByLabel("Source").fill("({ $any: (state) => state })");
    await page.getByRole("button", { name: "Save …" }).click();
    await page.getByText(/of revision \d+ will be ignored/).waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await close();
});

test("a key is asked for, refused if it is wrong, and restricts panels and not the page", async () => {
    const admin = await createKey("admin:*");
    await fill(guarded.url, admin, { orders: 3, large: false });
    const reader = await createKey("read:Order*");
    const allowed = ["401", "403"];
    const { page, close } = await open(`${guardedBase}log`, { allowed });
    await page.getByText("This service requires an API key.").waitFor();
    await page.getByRole("textbox", { name: "API key" }).fill("annals_0000_0000");
    await page.getByRole("button", { name: "Use the key" }).click();
    await page.locator(".key-form").getByRole("alert").filter({ hasNotText: "This service requires" }).waitFor();
    await page.getByRole("textbox", { name: "API key" }).fill(reader);
    await page.getByRole("button", { name: "Use the key" }).click();
    await page.locator("tr.event").first().waitFor();
    assert.equal(await page.locator(".key-form").count(), 0);
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const types = new Set(await page.locator("tr.event a.stream .quiet:first-child").allTextContents());
    assert.deepEqual([...types], ["Order/"]);
    await page.getByRole("link", { name: "Operations" }).click();
    await page.locator(".problem", { hasText: "the key does not allow this" }).first().waitFor();
    assert.equal(await page.locator(".key-form").count(), 0);
    await page.getByRole("heading", { name: "Readiness" }).waitFor();
    await page.getByRole("link", { name: "Log", exact: true }).click();
    await page.getByText("Following").waitFor();
    await guarded.command("keys", "revoke", reader.split("_")[1]);
    await page.locator(".key-form").waitFor();
    await page.getByRole("textbox", { name: "API key" }).fill(admin);
    await page.getByLabel("Remember it in this browser").check();
    await page.getByRole("button", { name: "Use the key" }).click();
    await page.getByText("Following").waitFor();
    assert.equal(await page.evaluate(() => localStorage.length), 1);
    await page.reload();
    await page.getByText("Following").waitFor();
    await page.getByRole("button", { name: /API key/ }).click();
    await page.getByRole("button", { name: "Forget the key" }).click();
    await page.getByText("This service requires an API key.").waitFor();
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
    await close();
});

test("the console works below the path prefix of a proxy", async () => {
    const target = base.replace(/\/console\/$/, "");
    const proxy = await serve({ target: () => target, prefix: "/stores/first", own: false });
    servers.push(proxy);
    const { page, close } = await open(`${proxy.url}/console`);
    await page.getByRole("heading", { name: "Types" }).waitFor();
    await page.getByRole("link", { name: "Streams", exact: true }).click();
    await page.waitForURL(`${proxy.url}/console/streams`);
    await settled(page);
    await page.goto(`${proxy.url}/console/${PAGES.stream}`);
    await settled(page);
    await page.getByText("State at version 4").waitFor();
    await close();
});

test("the files are within the budget, and a first view loads few of them", async () => {
    const folder = new URL("../", import.meta.url);
    const names = (await readdir(folder, { recursive: true })).filter(
        (name) => /\.(m?js|css|html)$/.test(name) && !name.startsWith("test"),
    );
    let total = gzipSync(await readFile(new URL("../../clients/javascript/annals.js", import.meta.url))).length;
    for (const name of names) total += gzipSync(await readFile(new URL(name, folder))).length;
    console.log(`all files: ${total} bytes with gzip`);
    assert.ok(total <= BUDGET.gzip, `${total} bytes`);
    const context = await browser.newContext();
    const page = await context.newPage();
    const files = [];
    const api = [];
    page.on("request", (request) =>
        (request.url().startsWith(base) ? files : api).push(request.url().replace(base, "")),
    );
    await page.goto(base);
    await settled(page);
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    console.log(
        `first view: ${files.length} files, ${api.length} other requests, first contentful paint ${Math.round(paint)} ms`,
    );
    assert.ok(files.length <= BUDGET.files, files.join(" "));
    await context.close();
});

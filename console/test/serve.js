// Serves the files of this folder as the program does, and forwards everything else to a service. For work on the
// console without a build of the program:
//
//     node console/test/serve.js 8081 http://127.0.0.1:8080
//
// Tests use it as a proxy with a path prefix, which forwards /console/ too.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, request as send } from "node:http";
import { fileURLToPath } from "node:url";

const CONSOLE = new URL("../", import.meta.url);
const CLIENT = new URL("../../clients/javascript/annals.js", import.meta.url);
const FILES = /^(console\.css|(app|base)\.js|pages\/[a-z]+\.js|vendor\/[a-z]+\.mjs|annals\.js)$/;
const PAGES = [
    "",
    "log",
    "streams",
    "events",
    "positions",
    "correlations",
    "projections",
    "groups",
    "reducers",
    "operations",
];

/** Returns the policy of the program, so that both are the same. */
async function policy() {
    const source = await readFile(new URL("../src/http/html.rs", CONSOLE), "utf8");
    return /CONSOLE_POLICY: &str = "([^"]*)"/.exec(source)[1].replace(/\\\n\s*/g, "");
}

async function answer(path, headers, response) {
    const name = decodeURIComponent(path.slice("/console/".length));
    if (FILES.test(name)) {
        const content = await readFile(name === "annals.js" ? CLIENT : new URL(name, CONSOLE));
        const tag = `"${createHash("sha256").update(content).digest("hex").slice(0, 32)}"`;
        const type = name.endsWith(".css") ? "text/css" : "text/javascript";
        response.writeHead(headers["if-none-match"] === tag ? 304 : 200, {
            ETag: tag,
            "Cache-Control": "no-cache",
            "Content-Type": `${type}; charset=utf-8`,
        });
        return response.end(headers["if-none-match"] === tag ? undefined : content);
    }
    if (!PAGES.includes(name.split("/")[0])) return response.writeHead(404).end();
    const shell = await readFile(new URL("index.html", CONSOLE), "utf8");
    const depth = path.split("/").length - 3;
    response.writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": await policy() });
    return response.end(shell.replace("BASE", depth > 0 ? "../".repeat(depth) : "./"));
}

/** Starts the server. `prefix` is a path like `/store` that it removes; `own` says whether it serves the console. */
export function serve({ port = 0, target, prefix = "", own = true }) {
    const server = createServer((incoming, response) => {
        if (!incoming.url.startsWith(`${prefix}/`)) return response.writeHead(404).end();
        const url = incoming.url.slice(prefix.length);
        const path = url.split("?")[0];
        if (own && path === "/console") return response.writeHead(308, { Location: "console/" }).end();
        if (own && path.startsWith("/console/")) return answer(path, incoming.headers, response);
        const to = new URL(target());
        const options = {
            host: to.hostname,
            port: to.port,
            path: url,
            method: incoming.method,
            headers: incoming.headers,
        };
        const forwarded = send(options, (answered) => {
            response.writeHead(answered.statusCode, answered.headers);
            answered.on("error", () => response.destroy());
            answered.pipe(response);
        });
        forwarded.on("error", () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
        response.on("close", () => forwarded.destroy());
        return incoming.pipe(forwarded);
    });
    return new Promise((resolve) => {
        server.listen(port, "127.0.0.1", () =>
            resolve({
                url: `http://127.0.0.1:${server.address().port}${prefix}`,
                stop: () => (server.closeAllConnections(), server.close()),
            }),
        );
    });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const [, , port = "8081", target = "http://127.0.0.1:8080"] = process.argv;
    console.log(`${(await serve({ port: Number(port), target: () => target })).url}/console/`);
}

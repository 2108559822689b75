// A proxy between the client and the service, which cuts, delays and replaces responses by rules.
//
// A rule is JSON, so that a page in a browser can set it:
//
//     {method, path, times}             which requests: a method, a regular expression of path and query, how often
//     {answer: {status, headers, body}} answers itself; with `forward: true` after the service has answered
//     {cutAnswer: true}                 forwards the request, and closes the connection without an answer
//     {lines: n, then: "end" | "cut" | "silence"}   passes n lines of the answer, and then ends it as if it were
//                                       complete, closes the connection, or sends nothing more
//     {hold: true}                      never answers

import { readFile } from "node:fs/promises";
import http from "node:http";
import { join, normalize } from "node:path";

const types = { ".html": "text/html", ".js": "text/javascript" };

/** Starts a proxy. `setTarget` names the service; files below `folder` are served under `/client/`. */
export async function startProxy(folder) {
    const state = { target: null, rules: [], log: [], open: new Map() };
    const server = http.createServer((request, response) => {
        handle(state, folder, request, response).catch((error) => response.destroy(error));
    });
    server.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    return {
        url: `http://127.0.0.1:${server.address().port}`,
        setTarget: (url) => {
            state.target = url;
        },
        rule: (rule) => state.rules.push({ times: 1, ...rule }),
        log: (path = "") => state.log.filter((entry) => new RegExp(path).test(entry.path)),
        /** Removes all rules, and forgets the requests. */
        clear: () => {
            state.rules = [];
            state.log = [];
        },
        /** Closes the open connections of a path. */
        cut: (path) => {
            for (const [response, entry] of state.open) if (new RegExp(path).test(entry.path)) response.destroy();
        },
        stop: () => {
            server.closeAllConnections();
            return new Promise((resolve) => server.close(resolve));
        },
    };
}

async function handle(state, folder, request, response) {
    if (request.url.startsWith("/client/")) return serveFile(folder, request, response);
    const { method, url: path, headers } = request;
    const entry = { method, path, headers, at: performance.now(), status: null, isClosed: false, body: null };
    state.log.push(entry);
    state.open.set(response, entry);
    response.once("close", () => {
        entry.isClosed = true;
        state.open.delete(response);
    });
    const body = await readAll(request);
    entry.body = body.toString();
    const rule = state.rules.find((rule) => {
        return rule.times > 0 && (rule.method ?? method) === method && new RegExp(rule.path ?? "").test(path);
    });
    if (rule) rule.times -= 1;
    if (rule?.hold) return;
    if (rule?.answer && !rule.forward) return answer(entry, response, rule.answer);
    forward(state, request, body, response, (upstream) => {
        entry.status = upstream.statusCode;
        if (rule?.cutAnswer || rule?.answer) {
            upstream.resume();
            const end = rule.answer ? () => answer(entry, response, rule.answer) : () => response.destroy();
            return upstream.once("end", end);
        }
        response.writeHead(upstream.statusCode, upstream.headers);
        response.flushHeaders();
        if (rule?.lines === undefined) return upstream.pipe(response);
        passLines(upstream, response, rule);
    });
}

function forward(state, request, body, response, receive) {
    const headers = { ...request.headers };
    // Compressed lines could not be counted.
    delete headers["accept-encoding"];
    const options = { method: request.method, headers, agent: false };
    const outgoing = http.request(state.target + request.url, options, (upstream) => {
        upstream.once("error", () => response.destroy());
        receive(upstream);
    });
    outgoing.once("error", () => response.destroy());
    response.once("close", () => outgoing.destroy());
    outgoing.end(body);
}

function answer(entry, response, { status = 200, headers = {}, body }) {
    entry.status = status;
    const text = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
    response.writeHead(status, { ...(text === "" ? {} : { "content-type": "application/json" }), ...headers });
    response.end(text);
}

function passLines(upstream, response, { lines, then }) {
    let left = lines;
    upstream.on("data", (data) => {
        if (left === 0) return;
        let end = 0;
        while (left > 0 && (end = data.indexOf("\n", end) + 1) > 0) left -= 1;
        response.write(left === 0 ? data.subarray(0, end) : data);
        if (left > 0 || then === "silence") return;
        if (then === "cut") response.destroy();
        else response.end();
    });
    upstream.once("end", () => response.end());
}

async function serveFile(folder, request, response) {
    const name = normalize(new URL(request.url, "http://proxy").pathname.slice("/client/".length));
    const type = types[name.slice(name.lastIndexOf("."))];
    const content = type && !name.startsWith("..") ? await readFile(join(folder, name)).catch(() => null) : null;
    response.writeHead(content ? 200 : 404, { "content-type": type ?? "text/plain" });
    response.end(content ?? "");
}

async function readAll(request) {
    const parts = [];
    for await (const part of request) parts.push(part);
    return Buffer.concat(parts);
}

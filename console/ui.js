// What every page uses: markup, links, times, tables, errors, and the curl lines.

import htm from "htm";
import { h } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { ROOT, curl, requests, useStore } from "./api.js";

export const html = htm.bind(h);

/** Returns the URL of a page: a list of segments, and the query. */
export function href(segments, query = {}) {
    const url = new URL(segments.map(encodeURIComponent).join("/"), ROOT);
    for (const [name, value] of Object.entries(query)) {
        for (const one of [value].flat())
            if (one !== undefined && one !== null && one !== "") url.searchParams.append(name, one);
    }
    return url.pathname + url.search;
}

export const streamHref = (type, id, version) => href(["streams", type, id], { version });

/** Shows another page. `replace` keeps the history as it is, for filters that change while the user types. */
export function go(to, { replace = false } = {}) {
    history[replace ? "replaceState" : "pushState"](null, "", to);
    dispatchEvent(new Event("annals:navigate"));
}

const pad = (number, width = 2) => String(number).padStart(width, "0");
const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" });

/** Returns the name of the local time zone at a time. */
export const zoneName = (date = new Date()) =>
    zone.formatToParts(date).find((part) => part.type === "timeZoneName")?.value ?? "";

/** Returns a local time as `2026-11-29 20:41:05.123`. */
export function localTime(date, withMilliseconds = true) {
    const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
    const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
    return `${day} ${time}${withMilliseconds ? `.${pad(date.getMilliseconds(), 3)}` : ""}`;
}

/** A local time, with UTC when pointed at. Its date is quiet, since the eye compares times. */
export function Time({ at, short = false }) {
    if (!at) return html`<span class="quiet">–</span>`;
    const [day, time] = localTime(new Date(at), !short).split(" ");
    return html`<time datetime=${at} title=${`${at} (UTC)`}><span class="quiet">${day}</span> ${time}</time>`;
}

/** A local time beside UTC. */
export function FullTime({ at }) {
    const date = new Date(at);
    return html`<time datetime=${at}>${localTime(date)} ${zoneName(date)}</time> <span class="quiet nowrap utc">${at}</span>`;
}

const wholeNumber = new Intl.NumberFormat("en-GB");
export const count = (number) => (number === null || number === undefined ? "–" : wholeNumber.format(number));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${Number(number) === 1 ? one : many}`;

export function bytes(number) {
    if (number === null || number === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, number)) / 10));
    const value = number / 1024 ** power;
    return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** Returns a number of seconds as people say it. */
export function seconds(value) {
    if (value < 0.001) return "0 ms";
    if (value < 1) return `${Math.round(value * 1000)} ms`;
    if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
    if (value < 3600) return `${Math.round(value / 60)} min`;
    if (value < 172_800) return `${(value / 3600).toFixed(1)} h`;
    return `${Math.round(value / 86_400)} days`;
}

/** An error of a request: what has failed, and what to do about it. */
export function Problem({ error, what = "This part" }) {
    if (!error) return null;
    if (error.status === 401) return html`<p class="note">${what} needs an API key.</p>`;
    const title = error.status === 403 ? `${what}: the key does not allow this` : (error.title ?? "The request failed");
    const detail = error.detail ?? error.message;
    return html`<div class="problem" role="alert">
        <strong>${title}</strong>
        ${detail && detail !== title && html`<p>${detail}</p>`}
        ${error.code && html`<p class="quiet">${error.status ?? ""} <code>${error.code}</code>${error.instance && html` · request <code>${error.instance}</code>`}</p>`}
    </div>`;
}

/** The state of a read: its error, a sign that it is loading, or its children. */
export function Loaded({ read, what, children }) {
    if (read.error && read.data === null) return html`<${Problem} error=${read.error} what=${what} />`;
    if (read.data === null) return html`<p class="loading" role="status">Loading …</p>`;
    return html`${read.error && html`<p class="note" role="status">Not current: ${read.error.message}</p>`}${children(read.data)}`;
}

export function Panel({ title, level = 2, aside, children, className = "" }) {
    return html`<section class=${`panel ${className}`}>
        <header>${h(`h${level}`, null, title)}${aside && html`<div class="aside">${aside}</div>`}</header>
        ${children}
    </section>`;
}

/** A table that scrolls inside its panel. `columns` are `{name, numeric, cell}`. */
export function Table({ label, columns, rows, empty = "Nothing yet.", rowKey }) {
    if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table>
        <thead><tr>${columns.map((column) => html`<th scope="col" class=${`${column.numeric ? "number" : ""} ${column.className ?? ""}`}>${column.name}</th>`)}</tr></thead>
        <tbody>${rows.map(
            (row) =>
                html`<tr key=${rowKey?.(row)}>${columns.map((column) => html`<td class=${`${column.numeric ? "number" : ""} ${column.className ?? ""}`}>${column.cell(row)}</td>`)}</tr>`,
        )}</tbody>
    </table></div>`;
}

/** A type and an id, as a link to the stream. */
export function StreamLink({ type, id, version }) {
    return html`<a class="stream" href=${streamHref(type, id, version)}><span class="quiet">${type}/</span>${id}${version !== undefined && html`<span class="quiet">@${version}</span>`}</a>`;
}

export function Copy({ text, label = "Copy" }) {
    const [done, setDone] = useState(false);
    const copy = async () => {
        try {
            await navigator.clipboard.writeText(text);
        } catch {
            // Browsers offer no clipboard to a page without TLS on another host than localhost.
            const area = document.createElement("textarea");
            area.value = text;
            document.body.append(area);
            area.select();
            document.execCommand("copy");
            area.remove();
        }
        setDone(true);
        setTimeout(() => setDone(false), 1500);
    };
    return html`<button type="button" class="small" onClick=${copy} aria-live="polite">${done ? "Copied" : label}</button>`;
}

/** The requests of the page as curl lines. */
export function CurlLines() {
    const all = [...useStore(requests).values()];
    if (all.length === 0) return null;
    const [first, ...rest] = all;
    const line = (request) =>
        html`<div class="curl"><code>${curl(request)}</code><${Copy} text=${curl(request)} /></div>`;
    return html`<footer class="requests" aria-label="The requests of this page">
        ${line(first)}
        ${rest.length > 0 && html`<details><summary>${plural(rest.length, "more request")} of this page</summary>${rest.map(line)}</details>`}
    </footer>`;
}

/** Offers a text or a blob as a file. */
export function download(content, name, type = "application/json") {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Calls `act` when a value has been the same for a while. */
export function useDebounced(value, delay = 250) {
    const [settled, setSettled] = useState(value);
    const first = useRef(true);
    useEffect(() => {
        if (first.current) {
            first.current = false;
            return undefined;
        }
        const timer = setTimeout(() => setSettled(value), delay);
        return () => clearTimeout(timer);
    }, [value, delay]);
    return settled;
}

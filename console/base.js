// What every page uses: the client with the key of the user and hooks that read, then markup, links, times, tables,
// errors, questions, charts and the curl lines. It is one file, since each file is a request of the first view.

import htm from "htm";
import { h } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { Annals, JsonNumber } from "./annals.js";

export const html = htm.bind(h);

/** The console's own URL and that of the API. The base of the document does not change with the path. */
export const ROOT = new URL("./", document.baseURI);
export const API = new URL("../", ROOT);

/** How often a page that shows the present asks again, in seconds. */
export const REFRESH = 10;

const STORED_AS = "annals-key";

/** A value that components can watch. */
class Store {
    #watchers = new Set();

    constructor(value) {
        this.value = value;
    }

    set(value) {
        this.value = value;
        for (const watcher of [...this.#watchers]) watcher(value);
    }

    watch(watcher) {
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
    }
}

export function useStore(store) {
    const [value, setValue] = useState(store.value);
    useEffect(() => {
        setValue(store.value);
        return store.watch(setValue);
    }, [store]);
    return value;
}

/** Returns a storage of the browser, or undefined if the user forbids it. */
function storage(name) {
    try {
        return globalThis[name];
    } catch {
        return undefined;
    }
}
const session = storage("sessionStorage");
const lasting = storage("localStorage");

/** The key, and the error of the last request that needed another one. */
export const key = new Store(session?.getItem(STORED_AS) ?? lasting?.getItem(STORED_AS) ?? "");
export const refusal = new Store(null);

export const isKeyStored = () => typeof lasting?.getItem(STORED_AS) === "string";

/** Uses a key from now on. Every hook reads again. */
export function setKey(value, isLasting) {
    session?.removeItem(STORED_AS);
    lasting?.removeItem(STORED_AS);
    if (value) (isLasting ? lasting : session)?.setItem(STORED_AS, value);
    refusal.set(null);
    key.set(value);
}

export const client = new Annals(API, { key: () => key.value, patience: 4, exactNumbers: true });

/** Remembers that a key is missing or invalid, so that the page asks for one. */
export function notice(error) {
    if (error?.status === 401) refusal.set(error);
}

/** The requests of the page, for its curl lines, by their URLs. */
export const requests = new Store(new Map());

export function recordRequest(request) {
    const id = `${request.method ?? "GET"} ${request.url} ${request.accept ?? ""}`;
    const next = new Map(requests.value).set(id, request);
    requests.set(next);
    return () => {
        const rest = new Map(requests.value);
        rest.delete(id);
        requests.set(rest);
    };
}

/** Listens to an event while a component is shown. */
export function useListener(target, type, listener) {
    useEffect(() => {
        target.addEventListener(type, listener);
        return () => target.removeEventListener(type, listener);
    });
}

/** Calls `act` with a key that is pressed, unless the user types or holds a modifier. */
export function useKeys(act) {
    useListener(window, "keydown", (event) => {
        const isTyping = event.target.closest?.("input:not([type=range]), textarea, select");
        if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) act(event);
    });
}

/** Returns whether the page is visible. A hidden page sends no requests. */
export function useVisible() {
    const [visible, setVisible] = useState(!document.hidden);
    useListener(document, "visibilitychange", () => setVisible(!document.hidden));
    return visible;
}

/**
 * Reads a path with GET, again after a change and, with `every`, in intervals. A path of null reads nothing.
 * Returns `{data, error, loading, reload}`. The data of the same URL stays while it is read again, and
 * with `keep` also that of the URL before.
 */
export function useRead(path, query = {}, { every, headers, keep = false } = {}) {
    const [result, setResult] = useState({ data: null, error: null, loading: path !== null });
    const [turn, setTurn] = useState(0);
    const currentKey = useStore(key);
    const visible = useVisible();
    const url = path === null ? null : client.url(path, query);
    const last = useRef(null);

    useEffect(() => {
        if (url === null) return undefined;
        return recordRequest({ url, accept: headers?.Accept });
    }, [url]);

    useEffect(() => {
        if (url === null) {
            setResult({ data: null, error: null, loading: false });
            last.current = null;
            return undefined;
        }
        if (last.current !== url && !keep) setResult({ data: null, error: null, loading: true });
        last.current = url;
        const abort = new AbortController();
        const read = async () => {
            try {
                const { body } = await client.request("GET", path, { query, headers, signal: abort.signal });
                setResult({ data: body, error: null, loading: false });
            } catch (error) {
                if (abort.signal.aborted) return;
                notice(error);
                setResult((before) => ({ data: error.retryable ? before.data : null, error, loading: false }));
            }
        };
        read();
        return () => abort.abort();
    }, [url, currentKey, turn]);

    useEffect(() => {
        if (!every || !visible || url === null) return undefined;
        const timer = setInterval(() => setTurn((count) => count + 1), every * 1000);
        return () => clearInterval(timer);
    }, [every, visible, url]);

    const reload = useCallback(() => setTurn((count) => count + 1), []);
    return { ...result, reload };
}

/** Calls `perform` and returns `{run, busy, error, result}`, for buttons. */
export function useAction(perform) {
    const [state, setState] = useState({ busy: false, error: null, result: null });
    const run = async (...args) => {
        setState({ busy: true, error: null, result: null });
        try {
            const result = await perform(...args);
            setState({ busy: false, error: null, result });
        } catch (error) {
            notice(error);
            setState({ busy: false, error, result: null });
        }
    };
    return { ...state, run };
}

/**
 * Returns whether a key, by the answer of /keys/self, has a scope on a name. A grant is a scope and a pattern, like
 * `append:Order*`. The name `*` stands for all names.
 */
export function may(own, scope, name) {
    if (own?.auth === "none") return true;
    return (own?.grants ?? []).some((grant) => {
        const [granted, pattern] = grant.split(/:(.*)/s);
        const isScope = granted === scope || grant === "admin:*" || (granted === "admin" && scope !== "project");
        return isScope && (pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern);
    });
}

/** Quotes a text for a POSIX shell. */
const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

/** Returns the curl line of a request. The key stays out of it: the line names a variable. */
export function curl({ url, method, accept, body, headers = {} }) {
    const parts = ["curl"];
    if (accept === "text/event-stream") parts.push("-N");
    if (method && method !== "GET") parts.push("-X", method);
    if (key.value) parts.push("-H", `"Authorization: Bearer $ANNALS_KEY"`);
    if (accept) parts.push("-H", quoted(`Accept: ${accept}`));
    if (body !== undefined) parts.push("-H", quoted("Content-Type: application/json"));
    for (const [name, value] of Object.entries(headers)) parts.push("-H", quoted(`${name}: ${value}`));
    if (body !== undefined) parts.push("-d", quoted(body));
    parts.push(quoted(url));
    return parts.join(" ");
}

/** Parses JSON of the user. Numbers that JavaScript would round stay exact, or are refused where that is impossible. */
export function parseExact(text) {
    return JSON.parse(text, (_, value, context) => {
        if (typeof value !== "number" || String(value) === context?.source) return value;
        if (context?.source) return /[\d.]{16}/.test(context.source) ? new JsonNumber(context.source) : value;
        if (/[\d.]{16}/.test(text)) throw new SyntaxError("this browser would round a number of more than 15 digits");
        return value;
    });
}

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

const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" });
// Sweden writes times as ISO 8601 does.
const clock = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "medium" });

/** Returns the name of the local time zone at a time. */
export const zoneName = (date = new Date()) =>
    zone.formatToParts(date).find((part) => part.type === "timeZoneName")?.value ?? "";

/** Returns a local time as `2026-11-29 20:41:05.123`. */
export const localTime = (date, withMilliseconds = true) =>
    clock.format(date) + (withMilliseconds ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : "");

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
    if (value < 60) return `${Number(value.toFixed(value < 10 ? 1 : 0))} s`;
    if (value < 3600) return `${Math.round(value / 60)} min`;
    if (value < 172_800) return `${Number((value / 3600).toFixed(1))} h`;
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

/** A part of a page. With `read`, its children are a function of what was read. */
export function Panel({ title, aside, read, what = title, children, className = "" }) {
    return html`<section class=${`panel ${className}`}>
        <header><h2>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>
        ${read ? html`<${Loaded} read=${read} what=${what}>${children}<//>` : children}
    </section>`;
}

/** A column of a table: its name, a function from a row to the content of a cell, and the classes of its cells. */
export const column = (name, cell, className) => ({ name, cell, className });
/** Columns of numbers, sizes, times and streams. `key` is the member of a row that they show. */
export const countColumn = (name, key, className = "number") => column(name, (row) => count(row[key]), className);
export const bytesColumn = (name, key) => column(name, (row) => bytes(row[key]), "number");
export const timeColumn = (name, key, className = "nowrap") =>
    column(name, (row) => html`<${Time} at=${row[key]} short />`, className);
export const streamColumn = column(
    "Stream",
    (row) => html`<${StreamLink} type=${row.aggregate_type} id=${row.aggregate_id} />`,
    "long",
);

/** A table that scrolls inside its panel. Each row needs a key of `rowKey` if its cells have a state. */
export function Table({ label, columns, rows, empty = "Nothing yet.", rowKey }) {
    if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table>
        <thead><tr>${columns.map(({ name, className }) => html`<th scope="col" class=${className}>${name}</th>`)}</tr></thead>
        <tbody>${rows.map((row) => html`<tr key=${rowKey?.(row)}>${columns.map(({ cell, className }) => html`<td class=${className}>${cell(row)}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

/** The name and the value of a thing, for lists of them. */
export const member = (name, value, title) => html`<div><dt>${name}</dt><dd title=${title}>${value}</dd></div>`;

/** A button that asks before it calls `run`. Its children say what will happen, and `request` is what will be sent. */
export function Ask({ label, request, run, disabled, children }) {
    const [open, setOpen] = useState(false);
    const dialog = useRef(null);
    useEffect(() => open && dialog.current.showModal(), [open]);
    const confirm = (event) => {
        event.preventDefault();
        dialog.current.close();
        run();
    };
    return html`<button type="button" class="small" disabled=${disabled} onClick=${() => setOpen(true)}>${label} …</button>
        ${
            open &&
            html`<dialog ref=${dialog} aria-label=${label} onClose=${() => setOpen(false)}><form onSubmit=${confirm}>
            ${children}
            ${request && html`<${Line} text=${curl(request)} />`}
            <p class="more"><button>${label}</button><button type="button" class="plain" onClick=${() => dialog.current.close()}>Cancel</button></p>
        </form></dialog>`
        }`;
}

/** A type and an id, as a link to the stream. */
export function StreamLink({ type, id, version }) {
    return html`<a class="stream" href=${streamHref(type, id, version)}><span class="quiet">${type}/</span>${id}${version !== undefined && html`<span class="quiet">@${version}</span>`}</a>`;
}

/** A curl line, which can be copied. */
export function Line({ text }) {
    return html`<div class="curl"><code>${text}</code><${Copy} text=${text} /></div>`;
}

/** Buttons of which one is pressed. `options` are pairs of a value and a title. */
export function Choice({ label, options, value, onChoose }) {
    return html`<div class="choice" role="group" aria-label=${label}>${options.map(
        ([one, title]) =>
            html`<button type="button" class="small" aria-pressed=${one === value} onClick=${() => onChoose(one)}>${title}</button>`,
    )}</div>`;
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
    const lines = [...useStore(requests).values()].map((request) => html`<${Line} text=${curl(request)} />`);
    if (lines.length === 0) return null;
    const [first, ...rest] = lines;
    return html`<footer class="requests" aria-label="The requests of this page">
        ${first}
        ${rest.length > 0 && html`<details><summary>${plural(rest.length, "more request")} of this page</summary>${rest}</details>`}
    </footer>`;
}

/** The columns of projections that say how far they are behind. */
export const behindColumns = [
    column("Behind", ({ lag }) => (lag === 0 ? html`<span class="good">current</span>` : count(lag)), "number"),
    column("By time", ({ lag, lag_seconds }) => (lag === 0 ? "–" : seconds(lag_seconds)), "number"),
];

/** The trend is that of the last ten minutes, and needs one minute. What is less behind keeps up. */
export const TREND = 600;
const TREND_AT_LEAST = 60;

/** Returns in words whether a projection catches up, from samples of its position. */
export function trend(projection, samples) {
    const behind = ({ head, last_processed_position }) => head - last_processed_position;
    const last = samples.at(-1);
    const first = samples.find(({ at }) => Date.parse(at) >= Date.parse(last.at) - TREND * 1000);
    const time = (Date.parse(last.at) - Date.parse(first.at)) / 1000;
    if (behind(last) === 0 || projection.lag_seconds < TREND_AT_LEAST) return html`<span class="good">keeps up</span>`;
    // It has an event to process since then, and has stored no position since then.
    const idle = Math.min(projection.lag_seconds, (Date.now() - Date.parse(projection.last_processed_at)) / 1000);
    if (idle >= TREND_AT_LEAST) return html`<span class="bad">has not moved for ${seconds(idle)}</span>`;
    if (time < TREND_AT_LEAST) return html`<span class="quiet">no trend yet</span>`;
    const gained = behind(first) - behind(last);
    if (gained > 0)
        return html`<span class="good">catches up, current in about ${seconds((behind(last) * time) / gained)}</span>`;
    return gained < 0
        ? html`<span class="bad">falls behind</span>`
        : html`<span class="quiet">keeps its distance</span>`;
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

/** Calls `act` with a value that has changed and then stays the same for a while. */
export function useSettled(value, act, delay = 250) {
    const isFirst = useRef(true);
    useEffect(() => {
        if (isFirst.current) {
            isFirst.current = false;
            return undefined;
        }
        const timer = setTimeout(() => act(value), delay);
        return () => clearTimeout(timer);
    }, [value]);
}

const WIDTH = 600;
const HEIGHT = 120;

/** The area of a chart. `summary` says what it shows. */
function Plot({ summary, children }) {
    return html`<svg class="chart" role="img" aria-label=${summary} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
        <line class="axis" x1="0" x2=${WIDTH} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} />
        ${children}
    </svg>`;
}

/** Bars of equal width. `labels` are the texts of the bars. */
export function Bars({ values, labels, summary }) {
    const highest = Math.max(1, ...values);
    const width = WIDTH / values.length;
    return html`<${Plot} summary=${summary}>${values.map((value, index) => {
        const height = value === 0 ? 0 : Math.max(2, (value / highest) * (HEIGHT - 4));
        return html`<rect class="bar" x=${index * width + width * 0.1} width=${width * 0.8} y=${HEIGHT - height} height=${height}><title>${labels[index]}</title></rect>`;
    })}<//>`;
}

/** Lines over the same x. `series` are `{name, className, points: [[x, y], …]}`. */
export function Lines({ series, summary }) {
    const all = series.flatMap(({ points }) => points);
    const [left, right] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
    const [low, high] = [Math.min(...all.map(([, y]) => y)), Math.max(...all.map(([, y]) => y))];
    const place = ([x, y]) => {
        const along = right === left ? WIDTH : ((x - left) / (right - left)) * WIDTH;
        const up = high === low ? 0.5 : (y - low) / (high - low);
        return `${along.toFixed(1)},${(HEIGHT - 4 - up * (HEIGHT - 8)).toFixed(1)}`;
    };
    return html`<${Plot} summary=${summary}>${series.map(({ className, points }) => html`<polyline class=${`line ${className}`} points=${points.map(place).join(" ")} />`)}<//>`;
}

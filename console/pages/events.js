// The pages of events: the log, one event, and the events that belong together. The first part shows JSON with all its
// digits and the difference of two values, for other pages too.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { JsonNumber } from "../annals.js";
import {
    Copy,
    FullTime,
    Loaded,
    Problem,
    StreamLink,
    Time,
    bytes,
    client,
    count,
    download,
    go,
    href,
    html,
    key,
    member,
    notice,
    plural,
    recordRequest,
    seconds,
    useAction,
    useRead,
    useSettled,
    useVisible,
    zoneName,
} from "../base.js";

/** Above this size a value starts folded. */
const LARGE = 256 * 1024;
/** The children and the characters that one press shows. */
const CHUNK = 100;
const TEXT_CHUNK = 20_000;
/** A value of at most this many children is open at the start. */
const OPEN_AT_MOST = 30;
const DIFFERENCES_AT_MOST = 200;

const isContainer = (value) => typeof value === "object" && value !== null && !(value instanceof JsonNumber);
const entriesOf = (value) => (Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value));

/** Prints a value. Numbers of more than 53 bits are in it with all digits. */
export function print(value, indent = 2, depth = 0) {
    if (!isContainer(value))
        return typeof value === "bigint" || value instanceof JsonNumber ? String(value) : JSON.stringify(value);
    const isList = Array.isArray(value);
    const items = entriesOf(value).map(
        ([name, item]) => (isList ? "" : `${JSON.stringify(name)}: `) + print(item, indent, depth + 1),
    );
    const [open, close] = isList ? "[]" : "{}";
    if (items.length === 0) return open + close;
    if (indent === 0) return open + items.join(", ") + close;
    const space = " ".repeat(indent * (depth + 1));
    return `${open}\n${space}${items.join(`,\n${space}`)}\n${" ".repeat(indent * depth)}${close}`;
}

/** Returns the first characters of a value on one line. Only what is shown is printed. */
export function preview(value, length = 200) {
    if (!isContainer(value))
        return (typeof value === "string" ? JSON.stringify(value.slice(0, length)) : print(value)).slice(0, length);
    let text = "";
    for (const [name, item] of entriesOf(value)) {
        text += `${text && "  "}${Array.isArray(value) ? "" : `${name}: `}${isContainer(item) ? preview(item, length - text.length) : preview(item, length)}`;
        if (text.length >= length) return `${text.slice(0, length)}…`;
    }
    if (text === "") return Array.isArray(value) ? "[]" : "{}";
    return Array.isArray(value) ? `[${text}]` : text;
}

function Scalar({ value }) {
    const [all, setAll] = useState(false);
    if (typeof value === "string") {
        const long = value.length > 1000 && !all;
        return html`<span class="string">${JSON.stringify(long ? value.slice(0, 1000) : value)}</span>${long && html`<button type="button" class="small" onClick=${() => setAll(true)}>show all ${count(value.length)} characters</button>`}`;
    }
    return html`<span class=${value === null ? "null" : "literal"}>${print(value)}</span>`;
}

function Node({ name, value, changed, path, depth, folded }) {
    const isOpenAtFirst =
        isContainer(value) && !folded && (depth === 0 || (depth < 3 && Object.keys(value).length <= OPEN_AT_MOST));
    const [open, setOpen] = useState(isOpenAtFirst);
    const [shown, setShown] = useState(CHUNK);
    const mark = changed?.has(path) ? "changed" : "";
    const label = name !== undefined && html`<span class="name">${name}</span>`;
    if (!isContainer(value)) return html`<div class=${`leaf ${mark}`}>${label}<${Scalar} value=${value} /></div>`;
    const size = Object.keys(value).length;
    const kind = Array.isArray(value) ? `[${count(size)}]` : `{${count(size)}}`;
    if (size === 0)
        return html`<div class=${`leaf ${mark}`}>${label}<span class="quiet">${Array.isArray(value) ? "[]" : "{}"}</span></div>`;
    const children = () => {
        const entries = entriesOf(value);
        return html`${entries.slice(0, shown).map(([key, item]) => html`<${Node} key=${key} name=${key} value=${item} changed=${changed} path=${`${path}/${key}`} depth=${depth + 1} folded=${folded} />`)}
            ${entries.length > shown && html`<button type="button" class="small" onClick=${() => setShown(shown + CHUNK)}>show ${count(Math.min(CHUNK, entries.length - shown))} more of ${count(entries.length)}</button>`}`;
    };
    return html`<details open=${open} class=${mark} onToggle=${(event) => event.target === event.currentTarget && setOpen(event.currentTarget.open)}>
        <summary>${label}<span class="quiet">${kind}</span></summary>
        ${open && html`<div class="children">${children()}</div>`}
    </details>`;
}

function Raw({ value }) {
    const text = useMemo(() => print(value), [value]);
    const [shown, setShown] = useState(TEXT_CHUNK);
    return html`<pre tabindex="0">${text.slice(0, shown)}</pre>
        ${text.length > shown && html`<button type="button" class="small" onClick=${() => setShown(shown + TEXT_CHUNK)}>show more of ${bytes(text.length)}</button>`}`;
}

/** Estimates the size of a value, up to a limit, without printing it. */
function sizeOf(value, limit) {
    if (typeof value === "string") return value.length + 2;
    if (!isContainer(value)) return 6;
    let size = 2;
    for (const [name, item] of entriesOf(value)) {
        size += String(name).length + 4 + sizeOf(item, limit - size);
        if (size > limit) break;
    }
    return size;
}

/** A value as a tree, as text, and as a file. `changed` are the paths to mark. */
export function Json({ value, changed, name = "event.json" }) {
    const [raw, setRaw] = useState(false);
    const large = useMemo(() => sizeOf(value, LARGE) > LARGE, [value]);
    return html`<div class="json">
        <div class="tools">
            ${large && html`<span class="quiet">More than ${bytes(LARGE)}</span>`}
            <button type="button" class="small" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>Raw</button>
            ${!large && html`<${Copy} text=${print(value)} />`}
            <button type="button" class="small" onClick=${() => download(print(value), name)}>Download</button>
        </div>
        ${raw ? html`<${Raw} value=${value} />` : html`<${Node} key=${large} value=${value} changed=${changed} path="" depth=${large ? 1 : 0} folded=${large} />`}
    </div>`;
}

/** Returns what differs between two values: `{path, kind, before, after}`, in order. Lists are compared by index. */
export function difference(before, after) {
    const found = [];
    const compare = (left, right, path) => {
        if (found.length > DIFFERENCES_AT_MOST || left === right) return;
        if (isContainer(left) && isContainer(right) && Array.isArray(left) === Array.isArray(right)) {
            for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
                const inner = `${path}/${name}`;
                if (!Object.hasOwn(left, name)) found.push({ path: inner, kind: "added", after: right[name] });
                else if (!Object.hasOwn(right, name)) found.push({ path: inner, kind: "removed", before: left[name] });
                else compare(left[name], right[name], inner);
            }
        } else if (isContainer(left) || isContainer(right) || print(left) !== print(right)) {
            found.push({ path, kind: "changed", before: left, after: right });
        }
    };
    compare(before, after, "");
    return found;
}

/** The difference of two values as a table. The kind is a word, not a colour alone. */
export function Difference({ changes }) {
    if (changes.length === 0) return html`<p class="empty">The event did not change the state.</p>`;
    const cell = (value, has) => (has ? html`<code>${preview(value, 120)}</code>` : html`<span class="quiet">–</span>`);
    return html`<div class="scroll" tabindex="0" role="region" aria-label="What the event changed"><table class="difference">
        <thead><tr><th scope="col">Member</th><th scope="col">Before</th><th scope="col">After</th></tr></thead>
        <tbody>${changes.slice(0, DIFFERENCES_AT_MOST).map(
            (
                change,
            ) => html`<tr class=${change.kind}><th scope="row"><code>${change.path.slice(1) || "the state"}</code> <span class="tag">${change.kind}</span></th>
                <td>${cell(change.before, change.kind !== "added")}</td><td>${cell(change.after, change.kind !== "removed")}</td></tr>`,
        )}</tbody>
    </table></div>
    ${changes.length > DIFFERENCES_AT_MOST && html`<p class="note">The first ${DIFFERENCES_AT_MOST} differences.</p>`}`;
}

/** The parts of an event. */
export function EventDetail({ event, isPage = false }) {
    const id = (value, to) => html`<a href=${to}><code>${value}</code></a>`;
    return html`<div class="detail">
        <dl class="members">
            ${member("Time", html`<${FullTime} at=${event.occurred_at} />`)}
            ${member("Stream", html`<${StreamLink} type=${event.aggregate_type} id=${event.aggregate_id} version=${event.version} />`)}
            ${member("Position", html`<code>${String(event.global_position)}</code>`)}
            ${member("Event id", html`${isPage ? html`<code>${event.event_id}</code>` : id(event.event_id, href(["events", event.event_id]))} <${Copy} text=${event.event_id} />`)}
            ${event.correlation_id && member("Correlation", id(event.correlation_id, href(["correlations", event.correlation_id])))}
            ${event.causation_id && member("Cause", id(event.causation_id, href(["events", event.causation_id])))}
        </dl>
        <h3>Data</h3>
        <${Json} key=${event.event_id} value=${event.event_data} name=${`${event.event_id}.json`} />
        ${event.metadata && html`<h3>Metadata</h3><${Json} key=${`${event.event_id}-metadata`} value=${event.metadata} name=${`${event.event_id}-metadata.json`} />`}
    </div>`;
}

function ByPosition({ position }) {
    const valid = /^\d{1,15}$/.test(position) && Number(position) > 0;
    const read = useRead(valid ? ["events"] : null, { after: Number(position) - 1, limit: 1 });
    const event = read.data?.events[0];
    const isFound = event && String(event.global_position) === String(Number(position));
    useEffect(() => {
        if (isFound) go(href(["events", event.event_id]), { replace: true });
    }, [isFound]);
    if (!valid) return html`<h1>Position ${position}</h1><p class="empty">A position is a number from 1.</p>`;
    return html`<h1>Position ${position}</h1><${Loaded} read=${read} what="The event">${() => html`<p class="empty">${isFound ? "Loading …" : "No event that this key may read has this position."}</p>`}<//>`;
}

export function EventPage({ id, position }) {
    const read = useRead(id === undefined ? null : ["events", id]);
    if (position !== undefined) return html`<${ByPosition} position=${position} />`;
    return html`
        <h1>${read.data?.event_type ?? "Event"}</h1>
        ${
            read.error?.status === 404
                ? html`<p class="empty">No event has this id. Perhaps it is a <a href=${href(["correlations", id])}>correlation</a>.</p>`
                : html`<section class="panel"><${Loaded} read=${read} what="The event">${(event) => html`<${EventDetail} event=${event} isPage />`}<//></section>`
        }
    `;
}

const PAGE = 50;
/** The most rows of the live view. */
const ROWS = 500;
/** The filters that are lists, with their titles, and all filters. */
const LISTS = { aggregate_type: "Type", event_type: "Event type", correlation_id: "Correlation" };
const FILTERS = [...Object.keys(LISTS), "occurred_from", "occurred_to"];

/** Returns a local time of an input as UTC, and back. */
const toUtc = (text) => (text ? new Date(text).toISOString() : "");
function toLocal(text) {
    const date = new Date(text ?? "");
    if (Number.isNaN(date.getTime())) return "";
    return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

const filterOf = (query) =>
    Object.fromEntries(FILTERS.map((name) => [name, query.getAll(name)]).filter(([, values]) => values.length > 0));

function Filters({ query, onChange }) {
    const [values, setValues] = useState(() =>
        Object.fromEntries(FILTERS.map((name) => [name, query.getAll(name).join(", ")])),
    );
    useSettled(values, onChange, 400);
    const set = (name, value) => setValues((before) => ({ ...before, [name]: value }));
    const given = FILTERS.some((name) => values[name]);
    // On a narrow screen the fields would hide the events, so they are folded.
    const [isOpen] = useState(given || innerWidth > 760);
    return html`<details class="filter-box" open=${isOpen}><summary>Filters</summary><form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
        ${Object.entries(LISTS).map(([name, title]) => html`<label>${title} <input value=${values[name]} onInput=${(event) => set(name, event.currentTarget.value)} placeholder="all" autocomplete="off" spellcheck=${false} /></label>`)}
        <label>From <input type="datetime-local" step="1" value=${toLocal(values.occurred_from)} onChange=${(event) => set("occurred_from", toUtc(event.currentTarget.value))} /></label>
        <label>To <input type="datetime-local" step="1" value=${toLocal(values.occurred_to)} onChange=${(event) => set("occurred_to", toUtc(event.currentTarget.value))} /></label>
        ${given && html`<button type="button" class="plain" onClick=${() => setValues(Object.fromEntries(FILTERS.map((name) => [name, ""])))}>Clear</button>`}
    </form></details>`;
}

/** Writes every event of the filter into a file. */
function Export({ filter }) {
    const [state, setState] = useState({ events: null, error: null });
    const running = useRef(null);
    useEffect(() => () => running.current?.abort(), []);
    const run = async () => {
        const abort = new AbortController();
        running.current = abort;
        setState({ events: 0, error: null });
        const parts = [];
        let lines = [];
        let events = 0;
        try {
            for await (const event of client.read(filter, { signal: abort.signal })) {
                lines.push(print(event, 0));
                events += 1;
                if (lines.length < 1000) continue;
                parts.push(new Blob([`${lines.join("\n")}\n`]));
                lines = [];
                setState({ events, error: null });
            }
            if (lines.length > 0) parts.push(new Blob([`${lines.join("\n")}\n`]));
            download(new Blob(parts, { type: "application/x-ndjson" }), "events.ndjson");
            setState({ events: null, error: null });
        } catch (error) {
            if (!abort.signal.aborted) notice(error);
            setState({ events: null, error: abort.signal.aborted ? null : error });
        }
    };
    const title = "All events of this filter, not only this page, oldest first";
    return html`${
        state.events === null
            ? html`<button type="button" onClick=${run} title=${title}>Export the whole filter (NDJSON)</button>`
            : html`<button type="button" onClick=${() => running.current.abort()}>Stop the export at ${count(state.events)}</button>`
    }
        <${Problem} error=${state.error} what="The export" />`;
}

/** One event in a line, which opens. */
export function EventRow({ event, isOpen, onToggle, isNew }) {
    const toggle = (click) => {
        if (!click.target.closest("a, button.small") && !getSelection().toString()) onToggle();
    };
    return html`<tr class=${`event ${isNew ? "new" : ""}`} onClick=${toggle}>
            <td class="number position"><button type="button" class="row" aria-expanded=${isOpen} onClick=${(click) => {
                click.stopPropagation();
                onToggle();
            }}>${String(event.global_position)}</button></td>
            <td class="nowrap when"><${Time} at=${event.occurred_at} /></td>
            <td class="what">${event.event_type}</td>
            <td class="where"><${StreamLink} type=${event.aggregate_type} id=${event.aggregate_id} version=${event.version} /></td>
            <td class="data"><span>${preview(event.event_data)}</span></td>
        </tr>
        ${isOpen && html`<tr class="opened"><td colspan="5"><${EventDetail} event=${event} /></td></tr>`}`;
}

export function EventTable({ events, label, newSince }) {
    const [open, setOpen] = useState(() => new Set());
    const toggle = (id) =>
        setOpen((before) => {
            const next = new Set(before);
            if (!next.delete(id)) next.add(id);
            return next;
        });
    return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table class="events">
        <thead><tr><th scope="col" class="number">Position</th><th scope="col">Time (${zoneName()})</th><th scope="col">Event</th><th scope="col">Stream</th><th scope="col">Data</th></tr></thead>
        <tbody>${events.map((event) => html`<${EventRow} key=${event.event_id} event=${event} isOpen=${open.has(event.event_id)} onToggle=${() => toggle(event.event_id)} isNew=${newSince !== undefined && event.global_position > newSince} />`)}</tbody>
    </table></div>`;
}

/** The events of a filter, newest first: pages, and what is appended while the view follows. */
function useLog(filter, follows) {
    const query = { direction: "backward", limit: PAGE, ...filter };
    const read = useRead(["events"], query, { keep: true });
    const { data: page, reload } = read;
    const [log, setLog] = useState({ page: null, events: [], next: null, head: null });
    const [status, setStatus] = useState("");
    const [failure, setFailure] = useState(null);
    const [rewoundTo, setRewoundTo] = useState(null);
    const cursor = useRef(null);
    const visible = useVisible();

    useEffect(() => {
        cursor.current = page && `${page.epoch}:${page.head}`;
        setLog({ page, events: page?.events ?? [], next: page?.next, head: page?.head ?? null });
        setFailure(null);
    }, [page]);
    useEffect(() => {
        if (!follows || !page) return undefined;
        return recordRequest({
            url: client.url(["events"], { ...filter, after: "head" }),
            accept: "text/event-stream",
        });
    }, [follows, page]);
    useEffect(() => {
        if (!page || !follows) return setStatus("");
        if (!visible) return setStatus("Paused while the page is hidden");
        const abort = new AbortController();
        let waiting = [];
        let frame = 0;
        const flush = () => {
            frame = 0;
            const added = waiting.reverse();
            waiting = [];
            setLog((before) => {
                const all = [...added, ...before.events];
                const events = all.slice(0, ROWS);
                // Older pages continue after the last row that is shown.
                const older = { ...query, before: events.at(-1).global_position };
                const next =
                    all.length > ROWS ? client.url(["events"], older).slice(client.url([]).length) : before.next;
                return { ...before, events, next, head: Math.max(before.head, added[0].global_position) };
            });
        };
        const run = async () => {
            const following = client.follow(filter, cursor.current, {
                signal: abort.signal,
                onCaughtUp: () => setStatus("Following"),
                onReconnect: ({ error }) => setStatus(`Reconnecting: ${error.message}`),
            });
            try {
                for await (const event of following) {
                    cursor.current = following.cursor;
                    waiting.push(event);
                    frame ||= requestAnimationFrame(flush);
                }
            } catch (error) {
                if (abort.signal.aborted) return;
                notice(error);
                setStatus("");
                if (error.code !== "epoch_changed") return setFailure(error);
                setRewoundTo(error.rewind_to);
                reload();
            }
        };
        setStatus("Connecting");
        run();
        return () => {
            abort.abort();
            cancelAnimationFrame(frame);
            if (waiting.length > 0) flush();
        };
    }, [page, follows, visible]);

    const older = useAction(async () => {
        const { body } = await client.request("GET", log.next);
        setLog((before) => ({ ...before, events: [...before.events, ...body.events], next: body.next }));
    });
    const loading = read.loading || log.page !== page;
    return { ...log, status, rewoundTo, older, loading, error: read.error ?? older.error ?? failure };
}

export function Log({ query }) {
    const filter = filterOf(query);
    const follows = query.get("follow") !== "no" && !filter.occurred_to;
    const log = useLog(filter, follows);
    // Events after the first head are new.
    const [newSince, setNewSince] = useState(undefined);
    useEffect(() => setNewSince(undefined), [query.toString()]);
    useEffect(() => {
        if (newSince === undefined && log.head !== null) setNewSince(log.head);
    }, [log.head, newSince]);
    const show = (values) => {
        const lists = Object.entries(values).map(([name, text]) => [
            name,
            LISTS[name] ? text.trim().split(/\s*,\s*/) : text,
        ]);
        go(href(["log"], { ...Object.fromEntries(lists), follow: query.get("follow") }), { replace: true });
    };
    const setFollows = (value) => go(href(["log"], { ...filter, follow: value ? "" : "no" }), { replace: true });
    const isFiltered = Object.keys(filter).length > 0;
    return html`
        <div class="title"><h1>Log</h1>
            <span class="status" role="status">${log.status && html`<span class=${`dot ${log.status === "Following" ? "on" : ""}`}></span>${log.status}`}</span>
            <div class="actions">
                ${!filter.occurred_to && html`<button type="button" aria-pressed=${!follows} onClick=${() => setFollows(!follows)}>${follows ? "Pause" : "Follow"}</button>`}
                <${Export} filter=${filter} />
            </div>
        </div>
        <${Filters} query=${query} onChange=${show} />
        ${log.rewoundTo !== null && html`<p class="note" role="status">A new epoch has begun. The events after position ${count(log.rewoundTo)} may have changed, so the log was read again.</p>`}
        <${Problem} error=${log.error} what="The log" />
        ${log.events.length > 0 && html`<${EventTable} label="Events" events=${log.events} newSince=${newSince} />`}
        ${log.loading && log.events.length === 0 && html`<p class="loading" role="status">Loading …</p>`}
        ${!log.loading && !log.error && log.events.length === 0 && html`<p class="empty">${isFiltered ? "No event matches these filters." : html`The store is empty. The <a href=${href([])}>overview</a> shows how to begin.`}</p>`}
        ${
            log.events.length > 0 &&
            html`<p class="more">${
                log.next
                    ? html`<button type="button" disabled=${log.older.busy} onClick=${log.older.run}>${log.older.busy ? "Loading …" : "Older events"}</button>`
                    : html`<span class="quiet">This is the first event${isFiltered ? " of these filters" : ""}.</span>`
            } <span class="quiet">${plural(log.events.length, "event")} shown</span></p>`
        }
    `;
}

const MOST = 1000;

/** Returns the events without a cause in the list, and the effects of each event. */
function treeOf(events) {
    const byId = new Map(events.map((event) => [event.event_id, event]));
    const effects = new Map();
    const roots = [];
    for (const event of events) {
        const cause = byId.get(event.causation_id);
        // A cause comes first in the log, so the tree has no circle.
        if (cause && cause.global_position < event.global_position)
            effects.set(cause, [...(effects.get(cause) ?? []), event]);
        else roots.push(event);
    }
    return { roots, effects };
}

/** Lists the tree by depth: deep chains must not exhaust the stack. */
function linesOf({ roots, effects }) {
    const lines = [];
    const waiting = roots.map((event) => ({ event, depth: 0, cause: null })).reverse();
    while (waiting.length > 0) {
        const line = waiting.pop();
        lines.push(line);
        for (const effect of (effects.get(line.event) ?? []).toReversed())
            waiting.push({ event: effect, depth: line.depth + 1, cause: line.event });
    }
    return lines;
}

function Step({ event, depth, cause, first }) {
    const since = (Date.parse(event.occurred_at) - Date.parse((cause ?? first).occurred_at)) / 1000;
    const outside = !cause && event.causation_id;
    return html`<tr>
        <td class="nowrap"><${Time} at=${event.occurred_at} /></td>
        <td class="number nowrap">${event === first ? html`<span class="quiet">start</span>` : html`+${seconds(since)}`}</td>
        <td class="tree" style=${{ paddingLeft: `${10 + Math.min(depth, 9) * 16}px` }}>${depth > 0 && html`<span class="branch" aria-hidden="true">└</span>`}<a href=${href(["events", event.event_id])}>${event.event_type}</a>
            ${depth > 0 && html`<span class="hidden">, step ${depth}, caused by ${cause.event_type}</span>`}
            ${outside && html` <a class="quiet" href=${href(["events", event.causation_id])}>cause outside</a>`}</td>
        <td class="where"><${StreamLink} type=${event.aggregate_type} id=${event.aggregate_id} version=${event.version} /></td>
        <td class="data"><span>${preview(event.event_data)}</span></td>
    </tr>`;
}

function Tree({ events, isCut }) {
    const lines = useMemo(() => linesOf(treeOf(events)), [events]);
    if (events.length === 0) return html`<p class="empty">No event that this key may read has this correlation.</p>`;
    const span = (Date.parse(events.at(-1).occurred_at) - Date.parse(events[0].occurred_at)) / 1000;
    const streams = new Set(events.map((event) => `${event.aggregate_type}/${event.aggregate_id}`));
    return html`<p>${plural(events.length, "event")} in ${plural(streams.size, "stream")}, ${seconds(span)} from the first to the last. ${""}
            <a href=${href(["log"], { correlation_id: events[0].correlation_id })}>In the log</a></p>
        ${isCut && html`<p class="note">The first ${MOST} events. The log has all of them.</p>`}
        <div class="scroll" tabindex="0" role="region" aria-label="Events by cause"><table class="events correlation">
            <thead><tr><th scope="col">Time</th><th scope="col" class="number">After cause</th><th scope="col">Event</th><th scope="col">Stream</th><th scope="col">Data</th></tr></thead>
            <tbody>${lines.map((line) => html`<${Step} key=${line.event.event_id} ...${line} first=${events[0]} />`)}</tbody>
        </table></div>`;
}

export function Correlation({ id }) {
    const read = useRead(["events"], { correlation_id: id, after: 0, limit: MOST });
    return html`
        <h1>Correlation</h1>
        <p class="id"><code>${id}</code></p>
        <${Loaded} read=${read} what="The events">${(data) => html`<${Tree} events=${data.events} isCut=${data.events.length === MOST} />`}<//>
    `;
}

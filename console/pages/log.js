// Log: the newest events first, as pages, or as they are appended.

import { useEffect, useRef, useState } from "preact/hooks";

import { client, key, notice, recordRequest, useStore, useVisible } from "../api.js";
import { EventDetail } from "./event.js";
import { Problem, StreamLink, Time, count, download, go, href, html, plural, useDebounced, zoneName } from "../ui.js";
import { preview } from "../json.js";

const PAGE = 50;
/** The most rows of the live view. */
const ROWS = 500;
const FILTERS = ["aggregate_type", "event_type", "correlation_id", "occurred_from", "occurred_to"];

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
    const lists = { aggregate_type: "Type", event_type: "Event type", correlation_id: "Correlation" };
    const [values, setValues] = useState(() =>
        Object.fromEntries(FILTERS.map((name) => [name, query.getAll(name).join(", ")])),
    );
    const settled = useDebounced(values, 400);
    const first = useRef(true);
    useEffect(() => {
        if (!first.current) onChange(settled);
        first.current = false;
    }, [settled]);
    const set = (name, value) => setValues((before) => ({ ...before, [name]: value }));
    const given = FILTERS.some((name) => values[name]);
    // On a narrow screen the fields would hide the events, so they are folded.
    const [isOpen] = useState(given || innerWidth > 760);
    return html`<details class="filter-box" open=${isOpen}><summary>Filters</summary><form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
        ${Object.entries(lists).map(([name, title]) => html`<label>${title} <input value=${values[name]} onInput=${(event) => set(name, event.currentTarget.value)} placeholder="all" autocomplete="off" spellcheck=${false} /></label>`)}
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
            const { print } = await import("../json.js");
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
    const [log, setLog] = useState({ events: [], next: null, head: null, cursor: null, error: null, loading: true });
    const [status, setStatus] = useState("");
    const [turn, setTurn] = useState(0);
    const currentKey = useStore(key);
    const visible = useVisible();
    const filterText = JSON.stringify(filter);
    const query = { direction: "backward", limit: PAGE, ...filter };

    useEffect(() => recordRequest({ url: client.url(["events"], query) }), [filterText]);

    useEffect(() => {
        const abort = new AbortController();
        setLog((before) => ({ ...before, error: null, loading: true, cursor: null }));
        client.request("GET", ["events"], { query, signal: abort.signal }).then(
            ({ body }) =>
                setLog({
                    events: body.events,
                    next: body.next,
                    head: body.head,
                    cursor: `${body.epoch}:${body.head}`,
                    error: null,
                    loading: false,
                }),
            (error) => {
                if (abort.signal.aborted) return;
                notice(error);
                setLog({ events: [], next: null, head: null, cursor: null, error, loading: false });
            },
        );
        return () => abort.abort();
    }, [filterText, currentKey, turn]);

    const isLoaded = log.cursor !== null;
    const cursor = useRef(null);
    useEffect(() => {
        cursor.current = log.cursor;
    }, [isLoaded, filterText, turn]);
    useEffect(() => {
        if (!follows || !isLoaded) return undefined;
        return recordRequest({
            url: client.url(["events"], { ...filter, after: "head" }),
            accept: "text/event-stream",
        });
    }, [follows, isLoaded, filterText]);
    useEffect(() => {
        if (!isLoaded || !follows) return setStatus("");
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
                const events = all.slice(0, Math.max(ROWS, 0));
                // Older pages continue after the last row that is shown.
                const isCut = all.length > ROWS;
                return {
                    ...before,
                    events,
                    head: Math.max(before.head, added[0].global_position),
                    next: isCut
                        ? client
                              .url(["events"], { ...query, before: events.at(-1).global_position })
                              .slice(client.url([]).length)
                        : before.next,
                };
            });
        };
        const run = async () => {
            const following = client.follow(filter, cursor.current ?? log.cursor, {
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
                if (error.code === "epoch_changed") {
                    setStatus(
                        `A new epoch has begun: the events after position ${count(error.rewind_to)} may have changed`,
                    );
                    setTurn((before) => before + 1);
                } else setLog((before) => ({ ...before, error }));
            }
        };
        setStatus("Connecting");
        run();
        return () => {
            abort.abort();
            cancelAnimationFrame(frame);
            if (waiting.length > 0) flush();
        };
    }, [isLoaded, follows, visible, filterText, currentKey, turn]);

    const older = async () => {
        setLog((before) => ({ ...before, loading: true }));
        try {
            const { body } = await client.request("GET", log.next);
            setLog((before) => ({
                ...before,
                events: [...before.events, ...body.events],
                next: body.next,
                loading: false,
            }));
        } catch (error) {
            notice(error);
            setLog((before) => ({ ...before, error, loading: false }));
        }
    };
    return { ...log, status, older, reload: () => setTurn(turn + 1) };
}

export default function Log({ query }) {
    const filter = filterOf(query);
    const follows = query.get("follow") !== "no" && !filter.occurred_to;
    const log = useLog(filter, follows);
    const [newSince, setNewSince] = useState(undefined);
    useEffect(() => setNewSince(undefined), [query.toString()]);
    useEffect(() => {
        if (newSince === undefined && log.head !== null) setNewSince(log.head);
    }, [log.head, newSince]);
    const show = (values) => {
        const lists = Object.fromEntries(
            ["aggregate_type", "event_type", "correlation_id"].map((name) => [
                name,
                values[name]
                    .split(",")
                    .map((one) => one.trim())
                    .filter(Boolean),
            ]),
        );
        go(
            href(["log"], {
                ...lists,
                occurred_from: values.occurred_from,
                occurred_to: values.occurred_to,
                follow: query.get("follow"),
            }),
            { replace: true },
        );
    };
    const setFollows = (value) => {
        const next = new URLSearchParams(query);
        if (value) next.delete("follow");
        else next.set("follow", "no");
        go(`${href(["log"])}?${next}`.replace(/\?$/, ""), { replace: true });
    };
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
        <${Problem} error=${log.error} what="The log" />
        ${log.events.length > 0 && html`<${EventTable} label="Events" events=${log.events} newSince=${newSince} />`}
        ${log.loading && log.events.length === 0 && html`<p class="loading" role="status">Loading …</p>`}
        ${!log.loading && !log.error && log.events.length === 0 && html`<p class="empty">${isFiltered ? "No event matches these filters." : html`The store is empty. The <a href=${href([])}>overview</a> shows how to begin.`}</p>`}
        ${
            log.events.length > 0 &&
            html`<p class="more">${
                log.next
                    ? html`<button type="button" disabled=${log.loading} onClick=${log.older}>${log.loading ? "Loading …" : "Older events"}</button>`
                    : html`<span class="quiet">This is the first event${isFiltered ? " of these filters" : ""}.</span>`
            } <span class="quiet">${plural(log.events.length, "event")} shown</span></p>`
        }
    `;
}

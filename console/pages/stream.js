// Stream: its events, the chosen one, and the state at its version with what the event changed.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { client, key, notice, parseExact, recordRequest, useAction, useRead, useStore } from "../api.js";
import { EventDetail } from "./event.js";
import { Difference, Json, difference } from "../json.js";
import { Loaded, Panel, Problem, Time, count, go, href, html, plural, streamHref, useDebounced } from "../ui.js";

/** Events that the list loads at once. Windows begin at multiples, so that moving by one loads nothing. */
const WINDOW = 100;
/** States that the page remembers. */
const STATES = 50;

/** Reads the states before and at a version. Returns `{data: {before, at}, error, loading}`. */
function useStates(type, id, version) {
    const known = useRef(new Map());
    const currentKey = useStore(key);
    const [result, setResult] = useState({ data: null, error: null, loading: true });
    const path = ["aggregates", type, id, "states"];
    const query = { from_version: Math.max(1, version - 1), to_version: version };
    const settled = useDebounced(version, 80);

    useEffect(() => {
        known.current.clear();
    }, [currentKey]);
    useEffect(() => (version > 0 ? recordRequest({ url: client.url(path, query) }) : undefined), [version]);
    useEffect(() => {
        if (version === 0) return undefined;
        const show = () => {
            const at = known.current.get(version);
            const before = version === 1 ? null : known.current.get(version - 1);
            if (at === undefined || before === undefined) return false;
            setResult({ data: { before, at }, error: null, loading: false });
            return true;
        };
        if (show()) return undefined;
        setResult((last) => ({ ...last, loading: true }));
        if (settled !== version) return undefined;
        const abort = new AbortController();
        const read = async () => {
            try {
                let next = path;
                let parameters = query;
                while (next) {
                    const { body } = await client.request("GET", next, { query: parameters, signal: abort.signal });
                    for (const state of body.states) known.current.set(state.version, state);
                    [next, parameters] = [body.next, undefined];
                }
                while (known.current.size > STATES) known.current.delete(known.current.keys().next().value);
                show();
            } catch (error) {
                if (abort.signal.aborted) return;
                notice(error);
                setResult({ data: null, error, loading: false });
            }
        };
        read();
        return () => abort.abort();
    }, [version, settled, currentKey]);
    return result;
}

function State({ type, id, version }) {
    const reducers = useRead(["reducers"]);
    const has = reducers.data?.reducers.some((one) => one.aggregate_type === type);
    if (has) return html`<${ReducedState} type=${type} id=${id} version=${version} />`;
    return html`<${Loaded} read=${reducers} what="The reducers">${() => html`<p class="empty">The type ${type} has no reducer, so Annals computes no states.</p>
        <p><a href=${href(["reducers", type], { id })}>Try a reducer</a></p>`}<//>`;
}

function ReducedState({ type, id, version }) {
    const read = useStates(type, id, version);
    const changes = useMemo(
        () => (read.data ? difference(read.data.before?.state ?? {}, read.data.at.state) : []),
        [read.data],
    );
    const marked = useMemo(
        () => new Set(changes.filter(({ kind }) => kind !== "removed").map(({ path }) => path)),
        [changes],
    );
    return html`<${Loaded} read=${read} what="The state">${({
        at,
    }) => html`<div class=${read.loading ? "waiting" : ""} aria-busy=${read.loading}>
        <h3>What version ${at.version} changed</h3>
        <${Difference} changes=${changes} />
        <h3>State</h3>
        <${Json} key=${at.version} value=${at.state} changed=${marked} name=${`${type}-${id}-${at.version}.json`} />
    </div>`}<//>`;
}

/** Whether the key may append to a type: a grant is a scope and a pattern, like `append:Order*`. */
function mayAppend(own, type) {
    if (own?.auth === "none") return true;
    return (own?.grants ?? []).some((grant) => {
        const [scope, pattern = "*"] = grant.split(/:(.*)/s);
        const matches = pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : type === pattern;
        return ["append", "admin"].includes(scope) && matches;
    });
}

function Append({ type, id, head, onAppended }) {
    const own = useRead(["keys", "self"]);
    const [values, setValues] = useState({ event_type: "", data: "{}", expected: String(head) });
    useEffect(() => setValues((before) => ({ ...before, expected: String(head) })), [head]);
    const set = (name) => (event) => setValues((before) => ({ ...before, [name]: event.currentTarget.value }));
    const append = useAction(async () => {
        const event_data = parseExact(values.data);
        const expected = values.expected.trim() === "" ? undefined : Number(values.expected);
        const appended = await client.append(
            type,
            id,
            [{ event_type: values.event_type, event_data }],
            expected === 0 ? "none" : expected,
        );
        onAppended(appended.version);
        return appended;
    });
    if (!mayAppend(own.data, type)) return null;
    const submit = (event) => {
        event.preventDefault();
        append.run();
    };
    const missed = append.error?.missed_events ?? [];
    return html`<details class="panel append"><summary>Append an event</summary>
        <form onSubmit=${submit}>
            <label>Event type <input required value=${values.event_type} onInput=${set("event_type")} autocomplete="off" spellcheck=${false} /></label>
            <label>Expected version <input inputmode="numeric" pattern="[0-9]*" value=${values.expected} onInput=${set("expected")} placeholder="any" /></label>
            <label class="wide">Data (JSON) <textarea rows="4" value=${values.data} onInput=${set("data")} spellcheck=${false}></textarea></label>
            <button disabled=${append.busy}>Append</button>
            ${append.result && html`<span role="status">Appended as version ${append.result.version}.</span>`}
        </form>
        <${Problem} error=${append.error} what="The append" />
        ${missed.length > 0 && html`<p>Events since the expected version:</p><ul>${missed.map((event) => html`<li><a href=${streamHref(type, id, event.version)}>${event.version} ${event.event_type}</a> <${Time} at=${event.occurred_at} /></li>`)}</ul>`}
    </details>`;
}

function Events({ events, type, id, version, onOlder, onNewer }) {
    const list = useRef(null);
    useEffect(() => {
        const chosen = list.current?.querySelector("[aria-current]");
        const box = list.current;
        if (!chosen || !box) return;
        // Only the list scrolls, not the page.
        const [above, below] = [
            chosen.offsetTop - box.scrollTop,
            chosen.offsetTop + chosen.offsetHeight - box.scrollTop - box.clientHeight,
        ];
        if (above < 0) box.scrollTop += above;
        else if (below > 0) box.scrollTop += below;
    }, [version, events]);
    return html`
        ${onOlder && html`<button type="button" class="small" onClick=${onOlder}>Earlier events</button>`}
        <ol class="versions" ref=${list}>${events.map(
            (
                event,
            ) => html`<li key=${event.version}><a href=${streamHref(type, id, event.version)} aria-current=${event.version === version ? "true" : undefined}>
                <span class="number">${event.version}</span><span class="what">${event.event_type}</span><span class="when"><${Time} at=${event.occurred_at} short /></span></a></li>`,
        )}</ol>
        ${onNewer && html`<button type="button" class="small" onClick=${onNewer}>Later events</button>`}`;
}

export default function Stream({ query, type, id }) {
    const path = ["streams", type, id];
    const newest = useRead(path, { direction: "backward", limit: 1 });
    const head = newest.data?.version ?? 0;
    const asked = Number(query.get("version"));
    const version = head === 0 ? 0 : Number.isInteger(asked) && asked > 0 ? Math.min(asked, head) : head;
    const from = Math.floor((version - 1) / WINDOW) * WINDOW + 1;
    const page = useRead(version > 0 ? path : null, {
        from_version: from,
        to_version: from + WINDOW - 1,
        limit: WINDOW,
    });
    const events = page.data?.events ?? [];
    // A page ends early if its events are large.
    const isInPage = events.some((event) => event.version === version);
    const single = useRead(page.data && !isInPage ? [...path, String(version)] : null);
    const event =
        events.find((one) => one.version === version) ?? (single.data?.version === version ? single.data : null);

    const show = (next) => go(streamHref(type, id, Math.min(head, Math.max(1, next))), { replace: true });
    useEffect(() => {
        const move = (press) => {
            if (
                press.ctrlKey ||
                press.metaKey ||
                press.altKey ||
                press.target.closest?.("input:not([type=range]), textarea, select")
            )
                return;
            if (press.key === "j") show(version + 1);
            if (press.key === "k") show(version - 1);
        };
        addEventListener("keydown", move);
        return () => removeEventListener("keydown", move);
    }, [version, head]);

    if (newest.error?.status === 404) {
        return html`<h1><span class="quiet">${type}/</span>${id}</h1><p class="empty">This stream has no events. <a href=${href(["streams", type])}>Streams of ${type}</a></p><${Append} type=${type} id=${id} head=${0} onAppended=${newest.reload} />`;
    }
    return html`
        <h1 class="long"><a class="quiet" href=${href(["streams", type])}>${type}</a><span class="quiet">/</span>${id}</h1>
        <${Loaded} read=${newest} what="The stream">${() => html`
            <div class="travel">
                <button type="button" disabled=${version <= 1} onClick=${() => show(version - 1)}>Earlier <kbd>k</kbd></button>
                <input type="range" aria-label="Version" aria-valuetext=${`version ${version} of ${head}`} min="1" max=${head} value=${version} onInput=${(input) => show(Number(input.currentTarget.value))} />
                <button type="button" disabled=${version >= head} onClick=${() => show(version + 1)}>Later <kbd>j</kbd></button>
                <span>Version <strong>${count(version)}</strong> of ${count(head)}</span>
                <a href=${href(["log"], { aggregate_type: type })}>All events of ${type}</a>
            </div>
            <div class="stream-view">
                <${Panel} title=${plural(head, "event")}><${Loaded} read=${page} what="The events">${() => html`<${Events} events=${events} type=${type} id=${id} version=${version}
                    onOlder=${from > 1 && (() => show(from - 1))} onNewer=${from + WINDOW <= head && (() => show(from + WINDOW))} />`}<//><//>
                <${Panel} title=${event?.event_type ?? "Event"}>${event ? html`<${EventDetail} event=${event} />` : html`<${Loaded} read=${page.error ? page : single} what="The event">${() => null}<//>`}<//>
                <${Panel} title=${`State at version ${version}`}><${State} type=${type} id=${id} version=${version} /><//>
            </div>
            <${Append} type=${type} id=${id} head=${head} onAppended=${(next) => {
                newest.reload();
                page.reload();
                go(streamHref(type, id, next));
            }} />`}<//>
    `;
}

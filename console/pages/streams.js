// The pages of streams: the streams of a type or of all types, one stream with its states, and the reducers that
// compute these states.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import {
    Ask,
    Loaded,
    Panel,
    Problem,
    StreamLink,
    Table,
    Time,
    client,
    column,
    count,
    countColumn,
    go,
    href,
    html,
    key,
    may,
    notice,
    parseExact,
    plural,
    recordRequest,
    streamHref,
    timeColumn,
    useAction,
    useKeys,
    useRead,
    useSettled,
    useStore,
} from "../base.js";
import { Difference, EventDetail, Json, difference } from "./events.js";

const PAGE = 100;

export function Streams({ query, type }) {
    const prefix = query.get("prefix") || undefined;
    const [text, setText] = useState(prefix ?? "");
    const types = useRead(["stats", "aggregate-types"]);
    const path = type === undefined ? ["streams"] : ["streams", type];
    const read = useRead(path, { prefix, limit: PAGE });
    const [added, setAdded] = useState({ rows: [], next: null });
    useSettled(text, () => go(href(path, { prefix: text }), { replace: true }));
    useEffect(() => setAdded({ rows: [], next: read.data?.next }), [read.data]);
    const more = useAction(async () => {
        const { body } = await client.request("GET", added.next);
        setAdded({ rows: [...added.rows, ...body.streams], next: body.next });
    });
    const columns = [
        column(
            "Stream",
            (stream) => html`<${StreamLink} type=${stream.aggregate_type ?? type} id=${stream.aggregate_id} />`,
            "long",
        ),
        countColumn("Version", "version"),
        timeColumn("First event", "first_occurred_at", "nowrap minor"),
        timeColumn("Last event", "last_occurred_at"),
    ];
    const typeNames = types.data?.aggregate_types.map((one) => one.aggregate_type) ?? [];
    if (type !== undefined && !typeNames.includes(type)) typeNames.unshift(type);
    return html`
        <div class="title"><h1>${type === undefined ? "Streams" : html`Streams of ${type}`}</h1></div>
        <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
            <label>Type <select value=${type ?? ""} onChange=${(event) => go(href(event.currentTarget.value ? ["streams", event.currentTarget.value] : ["streams"], { prefix: text }))}>
                <option value="" selected=${type === undefined}>all types</option>
                ${typeNames.map((name) => html`<option value=${name} selected=${name === type}>${name}</option>`)}
            </select></label>
            <label>Id begins with <input value=${text} onInput=${(event) => setText(event.currentTarget.value)} autocomplete="off" spellcheck=${false} /></label>
            ${type !== undefined && html`<a href=${href(["log"], { aggregate_type: type })}>Events of ${type}</a> <a href=${href(["reducers", type])}>Reducer</a>`}
        </form>
        <${Loaded} read=${read} what="The streams">${(data) => html`
            <section class="panel"><${Table} label="Streams" columns=${columns} rows=${[...data.streams, ...added.rows]} rowKey=${(stream) => `${stream.aggregate_type ?? type}/${stream.aggregate_id}`}
                empty=${prefix ? "No stream has an id that begins like this." : "There is no stream yet."} /></section>
            <${Problem} error=${more.error} what="The next streams" />
            ${added.next && html`<p class="more"><button type="button" disabled=${more.busy} onClick=${more.run}>More streams</button></p>`}`}<//>
    `;
}

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
        // Versions that the user only passes are not read.
        const timer = setTimeout(read, 80);
        return () => {
            clearTimeout(timer);
            abort.abort();
        };
    }, [version, currentKey]);
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
    if (!may(own.data, "append", type)) return null;
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
        if (!chosen) return;
        // Only the list scrolls, not the page.
        const lowest = chosen.offsetTop + chosen.offsetHeight - box.clientHeight;
        box.scrollTop = Math.min(chosen.offsetTop, Math.max(lowest, box.scrollTop));
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

export function Stream({ query, type, id }) {
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
    useKeys(({ key: pressed }) => {
        if (pressed === "j") show(version + 1);
        if (pressed === "k") show(version - 1);
    });

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
                <${Panel} title=${plural(head, "event")} read=${page}>${() => html`<${Events} events=${events} type=${type} id=${id} version=${version}
                    onOlder=${from > 1 && (() => show(from - 1))} onNewer=${from + WINDOW <= head && (() => show(from + WINDOW))} />`}<//>
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

const EXAMPLE = `({
  init: () => ({ events: 0 }),
  $any(state, event) { state.events += 1; state.last = event.event_type; return state }
})`;
/** States of a trial that the page shows at once. */
const STATES_SHOWN = 50;

function ReducerList() {
    const reducers = useRead(["reducers"]);
    const types = useRead(["stats", "aggregate-types"]);
    const columns = [
        column("Type", ({ aggregate_type: type }) => html`<a href=${href(["reducers", type])}>${type}</a>`),
        column("Language", (one) => one.language),
        column("Snapshot every", (one) => plural(one.snapshot_every, "event"), "number"),
        countColumn("Revision", "revision"),
        timeColumn("Since", "created_at"),
    ];
    return html`<h1>Reducers</h1>
        <${Loaded} read=${reducers} what="The reducers">${(data) => {
            const known = new Set(data.reducers.map((one) => one.aggregate_type));
            const others = types.data?.aggregate_types.filter((one) => !known.has(one.aggregate_type)) ?? [];
            return html`<section class="panel"><${Table} label="Reducers" columns=${columns} rows=${data.reducers} empty="No type has a reducer. A reducer computes the state of a stream from its events." /></section>
                ${others.length > 0 && html`<p>Without a reducer: ${others.map((one, index) => html`${index > 0 && ", "}<a href=${href(["reducers", one.aggregate_type])}>${one.aggregate_type}</a>`)}</p>`}`;
        }}<//>`;
}

function TrialStates({ states }) {
    const [shown, setShown] = useState(STATES_SHOWN);
    const [open, setOpen] = useState(null);
    const changes = useMemo(
        () => states.map(({ state }, index) => difference(states[index - 1]?.state ?? {}, state)),
        [states],
    );
    return html`<div class="scroll" tabindex="0" role="region" aria-label="States"><table>
        <thead><tr><th scope="col" class="number">Version</th><th scope="col">Event</th><th scope="col">Changed</th></tr></thead>
        <tbody>${states.slice(0, shown).map(
            ({ version, event_type, state }, index) => html`
            <tr key=${version}><td class="number"><button type="button" class="row" aria-expanded=${open === version} onClick=${() => setOpen(open === version ? null : version)}>${version}</button></td>
                <td>${event_type}</td><td class="long">${changes[index].length === 0 ? html`<span class="quiet">nothing</span>` : changes[index].slice(0, 6).map(({ path }) => html`<code>${path.slice(1) || "the state"}</code> `)}${changes[index].length > 6 && html`<span class="quiet">and ${changes[index].length - 6} more</span>`}</td></tr>
            ${open === version && html`<tr class="opened"><td colspan="3"><${Json} value=${state} name=${`state-${version}.json`} /></td></tr>`}`,
        )}</tbody>
    </table></div>
    ${states.length > shown && html`<p class="more"><button type="button" onClick=${() => setShown(shown + STATES_SHOWN)}>Show more of ${plural(states.length, "state")}</button></p>`}`;
}

/** A failed trial. A fault of the source has a line and a column. */
function Failure({ error, source, what = "The trial" }) {
    if (!error?.line) return html`<${Problem} error=${error} what=${what} />`;
    const line = source.split("\n")[error.line - 1] ?? "";
    return html`<${Problem} error=${error} what=${what} /><pre class="source-line" tabindex="0">${error.line}: ${line}${"\n"}${" ".repeat(String(error.line).length + 2 + Math.max(0, (error.column ?? 1) - 1))}^</pre>`;
}

function Editor({ type, registered, query }) {
    const [values, setValues] = useState({
        language: registered?.language ?? "javascript",
        source: registered?.source || EXAMPLE,
        id: query.get("id") ?? "",
    });
    const coverage = useRead(["stats", "snapshot-coverage"]);
    const streams = useRead(["streams", type], { limit: 1 });
    const path = ["reducers", type];
    const set = (name) => (event) => setValues((before) => ({ ...before, [name]: event.currentTarget.value }));
    const definition = {
        language: values.language,
        ...(values.language === "javascript" && { source: values.source }),
    };
    const id = values.id || streams.data?.streams[0]?.aggregate_id || "";
    const body = JSON.stringify({ ...definition, aggregate_id: id });
    useEffect(() => recordRequest({ method: "POST", url: client.url([...path, "test"]), body }), [body]);
    const trial = useAction(
        async () =>
            (
                await client.request("POST", [...path, "test"], {
                    body: { ...definition, aggregate_id: id },
                    repeatable: true,
                })
            ).body.states,
    );
    const save = useAction(
        async () =>
            (
                await client.request("PUT", path, {
                    body: { ...definition, ...(registered && { snapshot_every: registered.snapshot_every }) },
                })
            ).body,
    );
    const isChanged =
        !registered ||
        registered.language !== definition.language ||
        (registered.source ?? "") !== (definition.source ?? registered.source ?? "");
    const snapshots = coverage.data?.aggregate_types.find((one) => one.aggregate_type === type)?.snapshots ?? 0;
    const consequence = registered
        ? `Saving makes a new revision. ${plural(snapshots, "snapshot")} of revision ${registered.revision} will be ignored, and Annals replaces them as streams are read.`
        : "Saving registers the first reducer of this type. Clients can then read states.";
    return html`
        <div class="grid">
            <${Panel} title="Source">
                <form class="editor" onSubmit=${(event) => {
                    event.preventDefault();
                    trial.run();
                }}>
                    <label>Language <select value=${values.language} onChange=${set("language")}><option value="javascript" selected=${values.language === "javascript"}>javascript</option><option value="merge-patch" selected=${values.language === "merge-patch"}>merge-patch</option></select></label>
                    ${
                        values.language === "javascript"
                            ? html`<label class="wide">Source <textarea rows="16" value=${values.source} onInput=${set("source")} spellcheck=${false} autocapitalize="off"></textarea></label>`
                            : html`<p class="quiet wide">The state is the JSON merge patch (RFC 7396) of all event data. It has no source.</p>`
                    }
                    <label>Try it on the stream <input value=${values.id} onInput=${set("id")} placeholder=${streams.data?.streams[0]?.aggregate_id ?? "id"} autocomplete="off" spellcheck=${false} /></label>
                    <button disabled=${trial.busy || !id}>${trial.busy ? "Trying …" : "Try it"}</button>
                    ${registered && html`<span class="quiet">revision ${registered.revision}</span>`}
                </form>
                <p><${Ask} label="Save" disabled=${save.busy || !isChanged} run=${save.run}><p>${consequence}</p><//></p>
                ${save.result && html`<p role="status">Saved as revision ${save.result.revision}.</p>`}
                <${Failure} error=${save.error} source=${values.source} what="The reducer" />
            <//>
            <${Panel} title="State after each event">
                <${Failure} error=${trial.error} source=${values.source} />
                ${trial.result ? html`<${TrialStates} states=${trial.result} />` : !trial.error && html`<p class="empty">A trial folds the first 1,000 events of a stream, and stores nothing.</p>`}
            <//>
        </div>`;
}

function Reducer({ type, query }) {
    const read = useRead(["reducers"]);
    return html`<h1>Reducer of ${type}</h1>
        <${Loaded} read=${read} what="The reducer">${({ reducers }) => {
            const registered = reducers.find((one) => one.aggregate_type === type);
            return html`${!registered && html`<p>The type has no reducer yet. <a href=${href(["streams", type])}>Streams of ${type}</a></p>`}
                <${Editor} type=${type} registered=${registered} query=${query} />`;
        }}<//>`;
}

export function Reducers({ type, query }) {
    return type === undefined ? html`<${ReducerList} />` : html`<${Reducer} type=${type} query=${query} />`;
}

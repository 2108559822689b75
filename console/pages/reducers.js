// Reducers: their source, and a trial on a stream that stores nothing.

import { useEffect, useMemo, useState } from "preact/hooks";

import { client, recordRequest, useAction, useRead } from "../api.js";
import { Json, difference } from "../json.js";
import { Loaded, Panel, Problem, Table, Time, count, go, href, html, plural } from "../ui.js";

const EXAMPLE = `({
  init: () => ({ events: 0 }),
  $any(state, event) { state.events += 1; state.last = event.event_type; return state }
})`;
/** States of a trial that the page shows at once. */
const SHOWN = 50;

function List() {
    const reducers = useRead(["reducers"]);
    const types = useRead(["stats", "aggregate-types"]);
    const columns = [
        {
            name: "Type",
            cell: (one) => html`<a href=${href(["reducers", one.aggregate_type])}>${one.aggregate_type}</a>`,
        },
        { name: "Language", cell: (one) => one.language },
        { name: "Snapshot every", numeric: true, cell: (one) => plural(one.snapshot_every, "event") },
        { name: "Revision", numeric: true, cell: (one) => one.revision },
        { name: "Since", className: "nowrap", cell: (one) => html`<${Time} at=${one.created_at} short />` },
    ];
    return html`<h1>Reducers</h1>
        <${Loaded} read=${reducers} what="The reducers">${(data) => {
            const known = new Set(data.reducers.map((one) => one.aggregate_type));
            const others = types.data?.aggregate_types.filter((one) => !known.has(one.aggregate_type)) ?? [];
            return html`<section class="panel"><${Table} label="Reducers" columns=${columns} rows=${data.reducers} empty="No type has a reducer. A reducer computes the state of a stream from its events." /></section>
                ${others.length > 0 && html`<p>Without a reducer: ${others.map((one, index) => html`${index > 0 && ", "}<a href=${href(["reducers", one.aggregate_type])}>${one.aggregate_type}</a>`)}</p>`}`;
        }}<//>`;
}

function States({ states }) {
    const [shown, setShown] = useState(SHOWN);
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
    ${states.length > shown && html`<p class="more"><button type="button" onClick=${() => setShown(shown + SHOWN)}>Show more of ${plural(states.length, "state")}</button></p>`}`;
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
    const [asks, setAsks] = useState(false);
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
                    <button type="button" disabled=${save.busy || !isChanged} onClick=${() => setAsks(true)}>Save …</button>
                    ${registered && html`<span class="quiet">revision ${registered.revision}</span>`}
                </form>
                ${
                    asks &&
                    html`<div class="note" role="alertdialog" aria-label="Save the reducer"><p>${consequence}</p>
                    <button type="button" onClick=${() => {
                        setAsks(false);
                        save.run();
                    }}>Save</button> <button type="button" class="plain" onClick=${() => setAsks(false)}>Cancel</button></div>`
                }
                ${save.result && html`<p role="status">Saved as revision ${save.result.revision}.</p>`}
                <${Failure} error=${save.error} source=${values.source} what="The reducer" />
            <//>
            <${Panel} title="State after each event">
                <${Failure} error=${trial.error} source=${values.source} />
                ${trial.result ? html`<${States} states=${trial.result} />` : !trial.error && html`<p class="empty">A trial folds the first 1,000 events of a stream, and stores nothing.</p>`}
            <//>
        </div>`;
}

function One({ type, query }) {
    const read = useRead(["reducers"]);
    return html`<h1>Reducer of ${type}</h1>
        <${Loaded} read=${read} what="The reducer">${({ reducers }) => {
            const registered = reducers.find((one) => one.aggregate_type === type);
            return html`${!registered && html`<p>The type has no reducer yet. <a href=${href(["streams", type])}>Streams of ${type}</a></p>`}
                <${Editor} type=${type} registered=${registered} query=${query} />`;
        }}<//>`;
}

export default function Reducers({ type, query }) {
    return type === undefined ? html`<${List} />` : html`<${One} type=${type} query=${query} />`;
}

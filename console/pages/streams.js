// Streams: the types, and the streams of a type or of all types, by a prefix of their ids.

import { useEffect, useRef, useState } from "preact/hooks";

import { client, notice, useRead } from "../api.js";
import { Loaded, Problem, StreamLink, Table, Time, count, go, href, html, useDebounced } from "../ui.js";

const PAGE = 100;

export default function Streams({ query, type }) {
    const prefix = query.get("prefix") ?? "";
    const [text, setText] = useState(prefix);
    const settled = useDebounced(text);
    const [more, setMore] = useState({ rows: [], next: undefined, error: null, busy: false });
    const types = useRead(["stats", "aggregate-types"]);
    const path = type === undefined ? ["streams"] : ["streams", type];
    const read = useRead(path, { prefix: prefix || undefined, limit: PAGE });

    const first = useRef(true);
    useEffect(() => {
        if (!first.current) go(href(path, { prefix: settled }), { replace: true });
        first.current = false;
    }, [settled]);
    useEffect(() => setMore({ rows: [], next: undefined, error: null, busy: false }), [prefix, type, read.data]);

    const next = more.next === undefined ? read.data?.next : more.next;
    const load = async () => {
        setMore((before) => ({ ...before, busy: true }));
        try {
            const { body } = await client.request("GET", next);
            setMore((before) => ({
                rows: [...before.rows, ...body.streams],
                next: body.next,
                error: null,
                busy: false,
            }));
        } catch (error) {
            notice(error);
            setMore((before) => ({ ...before, error, busy: false }));
        }
    };
    const columns = [
        {
            name: "Stream",
            className: "long",
            cell: (stream) => html`<${StreamLink} type=${stream.aggregate_type ?? type} id=${stream.aggregate_id} />`,
        },
        { name: "Version", numeric: true, cell: (stream) => count(stream.version) },
        {
            name: "First event",
            className: "nowrap minor",
            cell: (stream) => html`<${Time} at=${stream.first_occurred_at} short />`,
        },
        {
            name: "Last event",
            className: "nowrap",
            cell: (stream) => html`<${Time} at=${stream.last_occurred_at} short />`,
        },
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
            <section class="panel"><${Table} label="Streams" columns=${columns} rows=${[...data.streams, ...more.rows]} rowKey=${(stream) => `${stream.aggregate_type ?? type}/${stream.aggregate_id}`}
                empty=${prefix ? "No stream has an id that begins like this." : "There is no stream yet."} /></section>
            <${Problem} error=${more.error} what="The next streams" />
            ${next && html`<p class="more"><button type="button" disabled=${more.busy} onClick=${load}>More streams</button></p>`}`}<//>
    `;
}

// Overview: how much there is, what happened over time, and whether an operator has to act.

import { useMemo } from "preact/hooks";

import { API, REFRESH, key, useRead, useStore } from "../api.js";
import { Bars } from "../charts.js";
import {
    Copy,
    Loaded,
    Panel,
    StreamLink,
    Table,
    Time,
    bytes,
    count,
    go,
    href,
    html,
    localTime,
    plural,
    seconds,
} from "../ui.js";

const RANGES = { "1h": ["1 hour", 3600], "24h": ["24 hours", 86_400], "7d": ["7 days", 604_800], all: ["All", null] };
const BUCKETS = 60;
/** How many types and streams the page shows. */
const SHOWN = 12;

function Totals({ stats, ready }) {
    const item = (name, value, title) => html`<div><dt>${name}</dt><dd title=${title}>${value}</dd></div>`;
    return html`<dl class="totals">
        ${item("Events", count(stats.events))}
        ${item("Streams", count(stats.streams))}
        ${item("Types", count(stats.aggregate_types))}
        ${item("Snapshots", count(stats.snapshots))}
        ${item("Head", count(stats.head), `epoch ${stats.epoch}`)}
        ${item("Size", bytes(stats.sizes?.total), stats.sizes ? undefined : "for keys that may read all types")}
        ${ready && item("Service", html`<span class=${ready.status === "ok" ? "good" : "bad"}>${ready.status === "ok" ? "ready" : ready.status}</span> <small>${ready.details?.version}</small>`)}
    </dl>`;
}

/** Events over time: differences of positions. */
function Rates({ range }) {
    const length = RANGES[range][1];
    const first = useRead(length === null ? ["events"] : null, { after: 0, limit: 1 });
    const since = first.data?.events?.[0]?.occurred_at;
    // The borders move once in a refresh, not with every render.
    const turn = Math.floor(Date.now() / 1000 / REFRESH);
    const query = useMemo(() => {
        const to = new Date();
        const from = length === null ? since : new Date(to - length * 1000).toISOString();
        return { from, to: to.toISOString(), buckets: BUCKETS };
    }, [turn, length, since]);
    const read = useRead(length === null && !since ? null : ["stats", "rates"], query, { keep: true });
    if (first.error) return html`<${Loaded} read=${first} what="The first event">${() => null}<//>`;
    if (first.data && !since) return html`<p class="empty">No events yet.</p>`;
    return html`<${Loaded} read=${read} what="Events over time">${({ from, to, positions }) => {
        const [start, end] = [Date.parse(from), Date.parse(to)];
        const width = (end - start) / (positions.length - 1);
        const values = positions.slice(1).map((position, index) => position - positions[index]);
        const total = positions.at(-1) - positions[0];
        const short = (time) => localTime(new Date(time), false).slice(0, -3);
        const labels = values.map(
            (value, index) =>
                `${plural(value, "event")}, ${short(start + index * width)} to ${short(start + (index + 1) * width)}`,
        );
        const most = Math.max(...values);
        const per = `${seconds(width / 1000)} a bar`;
        return html`<${Bars} values=${values} labels=${labels} summary=${`${plural(total, "event")} from ${short(start)} to ${short(end)}, at most ${count(most)} in ${seconds(width / 1000)}`} />
            <div class="scale"><span>${short(start)}</span><span>${plural(total, "event")} · ${per} · highest ${count(most)}</span><span>${short(end)}</span></div>`;
    }}<//>`;
}

function Types({ types }) {
    const largest = Math.max(1, ...types.map((type) => type.events));
    const sorted = [...types].sort((left, right) => right.events - left.events);
    const columns = [
        {
            name: "Type",
            cell: (type) => html`<a href=${href(["streams", type.aggregate_type])}>${type.aggregate_type}</a>`,
        },
        { name: "Events", numeric: true, cell: (type) => count(type.events) },
        {
            name: "Share",
            className: "share",
            cell: (type) => html`<span style=${{ width: `${(type.events / largest) * 100}%` }}></span>`,
        },
        { name: "Streams", numeric: true, cell: (type) => count(type.streams) },
        {
            name: "Last event",
            className: "nowrap",
            cell: (type) => html`<${Time} at=${type.last_occurred_at} short />`,
        },
    ];
    return html`<${Table} label="Types" columns=${columns} rows=${sorted.slice(0, SHOWN)} rowKey=${(type) => type.aggregate_type} />
        ${sorted.length > SHOWN && html`<p class="quiet">${plural(sorted.length - SHOWN, "more type")}</p>`}`;
}

const streamColumns = [
    {
        name: "Stream",
        className: "long",
        cell: (stream) => html`<${StreamLink} type=${stream.aggregate_type} id=${stream.aggregate_id} />`,
    },
    { name: "Events", numeric: true, cell: (stream) => count(stream.events) },
];

const projectionColumns = [
    {
        name: "Projection",
        className: "long",
        cell: (projection) =>
            html`<a href=${href(["projections"], { name: projection.projection_name })}>${projection.projection_name}</a>`,
    },
    {
        name: "Behind",
        numeric: true,
        cell: (projection) => (projection.lag === 0 ? html`<span class="good">current</span>` : count(projection.lag)),
    },
    {
        name: "By time",
        numeric: true,
        cell: (projection) => (projection.lag === 0 ? "–" : seconds(projection.lag_seconds)),
    },
];

function FirstSteps() {
    const header = useStore(key) ? ` -H "Authorization: Bearer $ANNALS_KEY"` : "";
    const base = API.href.replace(/\/$/, "");
    const steps = [
        [
            "Append a first event",
            `curl -X POST${header} ${base}/streams/Order/ord-1 -H 'Content-Type: application/json' -d '{"events": [{"event_type": "OrderPlaced", "event_data": {"total": 42}}]}'`,
        ],
        ["Read its stream", `curl${header} ${base}/streams/Order/ord-1`],
        ["Follow the log", `curl -N${header} -H 'Accept: text/event-stream' ${base}/events`],
    ];
    return html`<${Panel} title="The store is empty">
        <p>Begin with these three lines. This page shows the first event as soon as it is there.</p>
        <ol class="steps">${steps.map(([title, line]) => html`<li>${title}<div class="curl"><code>${line}</code><${Copy} text=${line} /></div></li>`)}</ol>
    <//>`;
}

export default function Overview({ query }) {
    const range = Object.hasOwn(RANGES, query.get("range")) ? query.get("range") : "24h";
    const every = { every: REFRESH };
    const stats = useRead(["stats"], {}, every);
    const types = useRead(["stats", "aggregate-types"], {}, every);
    const projections = useRead(["projections"], {}, every);
    const largest = useRead(["stats", "largest-aggregates"], { limit: SHOWN });
    const ready = useRead("/readyz?verbose", {}, every);
    const isEmpty = stats.data && stats.data.head === 0;
    const choose = html`<div class="choice" role="group" aria-label="Time">${Object.entries(RANGES).map(
        ([name, [title]]) =>
            html`<button type="button" class="small" aria-pressed=${name === range} onClick=${() => go(href([], { range: name }), { replace: true })}>${title}</button>`,
    )}</div>`;
    return html`
        <h1>Overview</h1>
        <${Loaded} read=${stats} what="The totals">${(data) => html`<${Totals} stats=${data} ready=${ready.data} />`}<//>
        ${
            isEmpty
                ? html`<${FirstSteps} />`
                : html`
            <${Panel} title="Events over time" aside=${choose}><${Rates} range=${range} /><//>
            <div class="grid">
                <${Panel} title="Types"><${Loaded} read=${types} what="The types">${(data) => html`<${Types} types=${data.aggregate_types} />`}<//><//>
                <${Panel} title="Projections"><${Loaded} read=${projections} what="The projections">${(data) => html`<${Table} label="Projections" columns=${projectionColumns} rows=${data.projections} empty="No projection has stored a position." />`}<//><//>
                <${Panel} title="Longest streams"><${Loaded} read=${largest} what="The longest streams">${(data) => html`<${Table} label="Longest streams" columns=${streamColumns} rows=${data.aggregates} />`}<//><//>
            </div>`
        }
    `;
}

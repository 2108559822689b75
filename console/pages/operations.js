// The pages for operators: how far projections and groups are behind, what the workers of a group do and what is
// parked, and the state of the service.

import { useEffect, useMemo, useState } from "preact/hooks";

import {
    Ask,
    Choice,
    Lines,
    Loaded,
    Panel,
    Problem,
    REFRESH,
    StreamLink,
    Table,
    Time,
    behindColumns,
    bytes,
    bytesColumn,
    client,
    column,
    count,
    countColumn,
    go,
    href,
    html,
    localTime,
    may,
    member,
    plural,
    seconds,
    streamColumn,
    timeColumn,
    trend,
    useAction,
    useRead,
} from "../base.js";

const HOUR = 3600;
/** Every projection has a chart up to this number. Beyond it, the chosen one has. */
const CHARTS = 6;

/** The position of a projection or a group beside the head. `path` is that of its resource. */
function Chart({ path, projection }) {
    const read = useRead([...path, "history"], {}, { every: REFRESH });
    return html`<${Loaded} read=${read} what="The history">${({ samples, since }) => {
        const from = Date.now() - HOUR * 1000;
        const recent = samples.filter(({ at }) => Date.parse(at) >= from);
        if (recent.length < 2)
            return html`<p class="empty">The service samples positions every ${REFRESH} seconds. The chart appears with the second sample.</p>`;
        const points = (name) => recent.map((sample) => [Date.parse(sample.at), sample[name]]);
        const [first, last] = [recent[0], recent.at(-1)];
        const time = (at) => localTime(new Date(at), false).slice(11);
        return html`<${Lines} summary=${`From ${time(first.at)} to ${time(last.at)} the head moved from ${first.head} to ${last.head}, and ${path[1]} from ${first.last_processed_position} to ${last.last_processed_position}`}
                series=${[
                    { className: "head", points: points("head") },
                    { className: "position", points: points("last_processed_position") },
                ]} />
            <div class="scale"><span>${time(first.at)}</span><span><span class="key head">head ${count(last.head)}</span> <span class="key position">position ${count(last.last_processed_position)}</span></span><span>${time(last.at)}</span></div>
            <p>${trend(projection, recent)}${Date.parse(since) > from && html` <span class="quiet">· samples since ${time(since)}</span>`}</p>`;
    }}<//>`;
}

/** One projection: its position, its chart, and what it has to process next. */
function One({ projection }) {
    const { projection_name: name, last_processed_position: position, lag } = projection;
    const aside = html`<span class="quiet">position <strong>${count(position)}</strong> · ${lag === 0 ? "current" : `${count(lag)} behind`}</span>`;
    return html`<${Panel} title=${name} aside=${aside}>
        <${Chart} path=${["projections", name]} projection=${projection} />
        ${lag > 0 && html`<p><a href=${href(["positions", String(position + 1)])}>Next event to process: position ${count(position + 1)}</a></p>`}
    <//>`;
}

export function Projections({ query }) {
    const read = useRead(["projections"], {}, { every: REFRESH });
    const groups = useRead(["groups"], { limit: 1000 }, { every: REFRESH });
    const chosen = query.get("name");
    const groupOf = (name) => groups.data?.groups.find((group) => group.group_name === name);
    const isGroup = groupOf(chosen) !== undefined;
    useEffect(() => isGroup && go(href(["groups", chosen]), { replace: true }), [isGroup]);
    const columns = [
        column(
            "Name",
            ({ projection_name: name }) => {
                const group = groupOf(name);
                if (!group) return html`<a href=${href(["projections"], { name })}>${name}</a>`;
                const kind = group.paused ? "group, paused" : "group";
                return html`<a href=${href(["groups", name])}>${name}</a> <span class="tag">${kind}</span>`;
            },
            "long",
        ),
        ...behindColumns,
        column("Parked", ({ projection_name: name }) => count(groupOf(name)?.parked_streams), "number"),
        column(
            "For good",
            ({ projection_name: name }) => {
                const number = groupOf(name)?.parked_for_good;
                return html`<span class=${number > 0 ? "bad" : ""}>${count(number)}</span>`;
            },
            "number",
        ),
        countColumn("Position", "last_processed_position", "number minor"),
        timeColumn("Last moved", "last_processed_at", "nowrap minor"),
    ];
    return html`
        <h1>Projections and groups</h1>
        <${Loaded} read=${read} what="The projections">${({ projections }) => {
            if (projections.length === 0)
                return html`<p class="empty">No projection has stored a position. A projection stores it with <code>PUT /projections/{name}</code>, and <code>PUT /groups/{name}</code> creates a group of workers.</p>`;
            const byLag = projections.toSorted((left, right) => right.lag - left.lag);
            const charts = chosen
                ? projections.filter((one) => one.projection_name === chosen)
                : byLag.filter((one) => !groupOf(one.projection_name)).slice(0, CHARTS);
            const groupCount = groups.data?.groups.length ?? 0;
            const title = `${plural(projections.length - groupCount, "projection")}, ${plural(groupCount, "group")}`;
            return html`
                <${Panel} title=${title}><${Table} label="Projections and groups" columns=${columns} rows=${byLag} rowKey=${(one) => one.projection_name} />
                    ${groups.error && html`<p class="note">The groups could not be read: ${groups.error.message}</p>`}<//>
                ${chosen && html`<p><button type="button" class="small" onClick=${() => go(href(["projections"]))}>Charts of all projections</button></p>`}
                ${chosen && charts.length === 0 && html`<p class="empty">There is no projection ${chosen}.</p>`}
                <div class="grid">${charts.map((projection) => html`<${One} key=${projection.projection_name} projection=${projection} />`)}</div>`;
        }}<//>
    `;
}

/** The parked streams that one press shows, and the most that the page shows. */
const PARKED = 50;
const PARKED_AT_MOST = 1000;
/** The events of a parked stream that the page counts. */
const EVENTS_AT_MOST = 1000;

/** The end of a lease. An expired one counts until another worker has claimed the partition. */
const lease = ({ claimed_until: until }) =>
    html`<${Time} at=${until} short />${until && Date.parse(until) < Date.now() && html` <span class="bad">expired</span>`}`;

function Totals({ group }) {
    const { last_processed_position: position, lag, lag_seconds, parked_for_good: deciding } = group;
    return html`<dl class="totals">
        ${member("Position", count(position))}
        ${member("Behind", lag === 0 ? html`<span class="good">current</span>` : html`${count(lag)} <small>${seconds(lag_seconds)}</small>`)}
        ${member("Open claims", count(group.open_claims))}
        ${member("Parked streams", count(group.parked_streams))}
        ${member("An operator decides", html`<span class=${deciding > 0 ? "bad" : ""}>${count(deciding)}</span>`)}
    </dl>`;
}

function Settings({ group }) {
    const given = Object.entries(group.filter).filter(([, values]) => values.length > 0);
    const retries = [...group.retry_after.map(seconds), "then an operator decides"];
    return html`<dl class="members wide">
        ${given.map(([name, values]) => member(name.replaceAll("_", " "), values.join(", ")))}
        ${given.length === 0 && member("events", "all")}
        ${member("partitions", group.partitions)}
        ${member("lease", seconds(group.lease_seconds))}
        ${member("retries after", retries.join(", "))}
        ${member("last moved", html`<${Time} at=${group.last_processed_at} short />`)}
    </dl>
    ${!group.filter.aggregate_id?.length && html`<p><a href=${href(["log"], group.filter)}>Events of the group</a></p>`}`;
}

const partitionColumns = ({ last_processed_position: position, lag }) => [
    column("Partition", (one) => one.partition),
    countColumn("Position", "last_processed_position", "number minor"),
    column("Behind", (one) => count(Math.max(0, position + lag - one.last_processed_position)), "number"),
    column("Claim", (one) => one.claim_id ?? html`<span class="quiet">free</span>`, "nowrap minor"),
    column("Worker", (one) => one.worker ?? "–", "long"),
    column("Lease until", lease, "nowrap"),
    countColumn("Parked", "parked_streams"),
    timeColumn("Rests until", "not_before"),
];

const claimColumns = [
    column("Claim", (one) => html`<code>${one.claim_id}</code>`, "nowrap"),
    column("Worker", (one) => one.worker ?? "–", "long"),
    column("Lease until", lease, "nowrap"),
    column("Positions", (one) => `${count(one.last_processed_position + 1)} – ${count(one.claimed_to)}`, "number"),
    column(
        "Retry of",
        ({ retry }) =>
            retry
                ? html`<${StreamLink} type=${retry.aggregate_type} id=${retry.aggregate_id} /> <span class="quiet">after ${plural(retry.attempts, "failure")}: ${retry.reason}</span>`
                : html`<span class="quiet">new events</span>`,
        "long",
    ),
];

/** The events of a parked stream that a skip to a position leaves out. */
function Skipped({ group, parked, position }) {
    const { aggregate_type, aggregate_id, last_processed_position: after } = parked;
    const query = { ...group.filter, aggregate_type, aggregate_id, after, limit: EVENTS_AT_MOST };
    return html`<${Loaded} read=${useRead(["events"], query)} what="The events of the stream">${({ events }) => {
        const skipped = events.filter((event) => event.global_position <= position);
        const isCut = events.length === EVENTS_AT_MOST;
        return html`<p>The group never processes <strong>${plural(skipped.length, "event")}${isCut && " or more"}</strong>${skipped.length > 0 && ":"} ${skipped
            .slice(0, 5)
            .map((event) => `${event.event_type} (${event.global_position})`)
            .join(", ")}${skipped.length > 5 && " …"}</p>
            ${!isCut && html`<p class="quiet">${plural(events.length - skipped.length, "event")} of the stream behind it will be handed out.</p>`}`;
    }}<//>`;
}

/** What an operator can do with a parked stream. `change` is that of the group. */
function Actions({ group, parked, change }) {
    const [position, setPosition] = useState(parked.global_position);
    const { aggregate_type: type, aggregate_id: id, last_processed_position: current, waiting } = parked;
    const stream = html`<strong class="stream">${type}/${id}</strong>`;
    const moveTo = (to) =>
        change("PUT", ["parked", type, id], {
            body: { last_processed_position: to },
            headers: { "If-Match": `"${current}"` },
            done: () => `${type}/${id} continues after position ${count(to)}.`,
        });
    return html`<span class="choice">
        <${Ask} label="Retry" ...${moveTo(current)}>
            <p>Try the stream ${stream} again now, with its ${plural(waiting + 1, "event")} from position ${count(parked.global_position)} on.</p>
        <//>
        <${Ask} label="Skip" ...${moveTo(position)}>
            <p>Skip events of the stream ${stream}.</p>
            <label>Up to position <input type="number" required min=${parked.global_position} value=${position} onInput=${(event) => setPosition(Number(event.currentTarget.value))} /></label>
            <${Skipped} group=${group} parked=${parked} position=${position} />
        <//>
    </span>`;
}

const parkedColumns = [
    column("Reason", (one) => one.reason, "long"),
    column("Failed event", (one) => html`<a href=${href(["events", one.event_id])}>${one.event_type}</a>`, "long"),
    countColumn("Attempts", "attempts"),
    column(
        "Next try",
        (one) =>
            one.retry_at
                ? html`<${Time} at=${one.retry_at} short />`
                : html`<span class="bad">an operator decides</span>`,
        "nowrap",
    ),
    timeColumn("Failed", "failed_at"),
    countColumn("Waiting", "waiting"),
];

/** The parked streams of a group. With `change`, an operator can act on them. */
function Parked({ group, read, forGood, change, limit, onMore }) {
    const path = ["groups", group.group_name];
    const { parked_streams: all, parked_for_good: deciding } = group;
    const retryAll = change?.("POST", ["retries"], {
        body: {},
        done: ({ parked_streams: retried }) => `${plural(retried, "stream")} will be tried again.`,
    });
    const stream = column(
        "Stream",
        (one) =>
            html`${streamColumn.cell(one)} ${change && html`<${Actions} group=${group} parked=${one} change=${change} />`}`,
        "long",
    );
    const options = [
        [false, `All (${count(all)})`],
        [true, `An operator decides (${count(deciding)})`],
    ];
    const aside = html`<${Choice} label="Parked streams" options=${options} value=${forGood} onChoose=${(value) => go(href(path, { for_good: value || undefined }), { replace: true })} />
        ${change && all > 0 && html`<${Ask} label="Retry all" ...${retryAll}><p>Try <strong>${plural(all, "parked stream")}</strong> again now, also the ${count(deciding)} for which an operator decides.</p><//>`}`;
    return html`<${Panel} title="Parked streams" aside=${aside} read=${read}>${({ parked_streams: rows, next }) => html`
        <${Table} label="Parked streams" columns=${[stream, ...parkedColumns]} rows=${rows} rowKey=${(one) => `${one.aggregate_type}/${one.aggregate_id}`}
            empty=${forGood ? "No stream waits for an operator." : "No stream is parked."} />
        ${next && limit < PARKED_AT_MOST && html`<p class="more"><button type="button" onClick=${onMore}>Show more</button></p>`}
        ${next && limit >= PARKED_AT_MOST && html`<p class="note">The first ${count(limit)} streams.</p>`}`}<//>`;
}

/** Whether the group hands out events, and the button that changes that. */
function Status({ group, change }) {
    const { paused, open_claims: claims, last_processed_position: position, lag } = group;
    const pause = change?.("PUT", [], {
        body: { paused: !paused },
        done: (body) => (body.paused ? "The group is paused." : "The group is running."),
    });
    return html`<span class="status">${paused ? html`<span class="bad">paused</span>: it hands out nothing` : html`<span class="good">running</span>`}</span>
        ${
            change &&
            html`<div class="actions"><${Ask} label=${paused ? "Resume" : "Pause"} ...${pause}>
            <p>${paused ? `The group hands out events again, after position ${count(position)}. It is ${plural(lag, "position")} behind.` : `The group hands out nothing until it is resumed. Workers can finish ${plural(claims, "open claim")}.`}</p>
        <//></div>`
        }`;
}

export function Group({ id, query }) {
    const path = ["groups", id];
    const forGood = query.get("for_good") === "true";
    const [limit, setLimit] = useState(PARKED);
    const every = { every: REFRESH };
    const read = useRead(path, {}, every);
    const isKnown = read.data !== null;
    const claims = useRead(isKnown ? [...path, "claims"] : null, {}, every);
    const parkedQuery = { limit, for_good: forGood || undefined };
    const parked = useRead(isKnown ? [...path, "parked"] : null, parkedQuery, { ...every, keep: true });
    const own = useRead(["keys", "self"]);
    const action = useAction(async (method, segments, { done, ...options }) => {
        const { body } = await client.request(method, segments, options);
        for (const one of [read, claims, parked]) one.reload();
        return done(body);
    });
    const types = read.data?.filter.aggregate_type ?? [];
    const manages =
        may(own.data, "project", id) &&
        (types.length > 0 ? types : ["*"]).every((type) => may(own.data, "admin", type));
    /** Returns what a question needs to send a request below the path of the group. `done` says what has happened. */
    const request = (method, below, options) => {
        const segments = [...path, ...below];
        const { body, headers } = options;
        return {
            request: { method, url: client.url(segments), body: JSON.stringify(body), headers },
            run: () => action.run(method, segments, options),
            disabled: action.busy,
        };
    };
    const change = manages ? request : null;
    const more = () => setLimit(Math.min(PARKED_AT_MOST, limit * 2));
    return html`
        <div class="title"><h1><span class="quiet">Group</span> ${id}</h1>${read.data && html`<${Status} group=${read.data} change=${change} />`}</div>
        <${Problem} error=${action.error} what="The request" />
        ${action.result && html`<p class="note" role="status">${action.result}</p>`}
        ${
            read.error?.status === 404
                ? html`<p class="empty">There is no group ${id}. <a href=${href(["projections"])}>Projections and groups</a></p>`
                : html`<${Loaded} read=${read} what="The group">${(group) => html`
            <${Totals} group=${group} />
            <div class="grid">
                <${Panel} title="Position and head"><${Chart} path=${path} projection=${group} /><//>
                <${Panel} title="Settings"><${Settings} group=${group} /><//>
            </div>
            <${Parked} group=${group} read=${parked} forGood=${forGood} change=${change} limit=${limit} onMore=${more} />
            <${Panel} title="Open claims" read=${claims}>${(data) => html`<${Table} label="Open claims" columns=${claimColumns} rows=${data.claims} empty="No worker has a claim." />`}<//>
            <${Panel} title="Partitions"><${Table} label="Partitions" columns=${partitionColumns(group)} rows=${group.partition_states} /><//>`}<//>`
        }`;
}

/** Parses the text format of Prometheus: `{name, labels, value}` for each sample. */
function samplesOf(text) {
    const samples = [];
    for (const line of text.split("\n")) {
        const match = /^([a-z_:0-9]+)(?:\{(.*)\})? (\S+)$/i.exec(line);
        if (!match) continue;
        const labels = Object.fromEntries(
            [...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]),
        );
        samples.push({ name: match[1], labels, value: Number(match[3]) });
    }
    return samples;
}

function Readiness({ ready }) {
    const checks = Object.entries(ready.checks ?? {});
    return html`<ul class="checks">${checks.map(([name, result]) => html`<li><span class=${result === "ok" ? "good" : "bad"}>${result === "ok" ? "✓" : "✗"} ${result}</span> ${name}</li>`)}</ul>
        <dl class="members wide">${Object.entries(ready.details ?? {}).map(([name, value]) => member(name.replaceAll("_", " "), name === "started_at" ? html`<${Time} at=${value} short />` : value))}</dl>`;
}

function Metrics({ text }) {
    const samples = useMemo(() => samplesOf(text), [text]);
    const sum = (name, matches = () => true) =>
        samples
            .filter((sample) => sample.name === name && matches(sample.labels))
            .reduce((total, { value }) => total + value, 0);
    const one = (name) => samples.find((sample) => sample.name === name)?.value;
    const requests = sum("annals_http_request_duration_seconds_count");
    const failed = sum("annals_http_request_duration_seconds_count", ({ status }) => status >= "500");
    const refused = sum(
        "annals_http_request_duration_seconds_count",
        ({ status }) => status >= "400" && status < "500",
    );
    const appends = samples.filter(({ name, value }) => name === "annals_appends_total" && value > 0);
    const mean = sum("annals_append_duration_seconds_sum") / sum("annals_append_duration_seconds_count");
    const rows = [
        ["Requests", count(requests)],
        ["of them refused (4xx)", count(refused)],
        ["of them failed (5xx)", html`<span class=${failed > 0 ? "bad" : ""}>${count(failed)}</span>`],
        ...appends.map(({ labels, value }) => [`Appends: ${labels.result.replaceAll("_", " ")}`, count(value)]),
        ["Mean time of an append", Number.isFinite(mean) ? seconds(mean) : "–"],
        ["Append queue", count(one("annals_append_queue_length"))],
        [
            "Pool: in use, idle",
            `${count(sum("annals_db_pool_connections", ({ state }) => state === "in_use"))}, ${count(sum("annals_db_pool_connections", ({ state }) => state === "idle"))}`,
        ],
        ["Subscribers", count(sum("annals_subscribers"))],
        ["Failures of the archive", count(one("annals_archive_failures_total"))],
    ];
    return html`<table class="pairs"><tbody>${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td class="number">${value}</td></tr>`)}</tbody></table>
        <p class="quiet">Since the start of this process.</p>`;
}

const monthColumns = [
    column("Month", (one) => one.starts_at.slice(0, 7), "nowrap"),
    countColumn("Events", "events"),
    bytesColumn("Size", "total_bytes"),
    column("State", (one) => (one.archived_to ? "archived" : one.state), "nowrap"),
    column(
        "Positions",
        (one) => (one.first_position ? `${count(one.first_position)} – ${count(one.last_position)}` : "–"),
        "number",
    ),
];

const tableColumns = [
    column("Table", (one) => one.table),
    countColumn("Rows", "live_rows"),
    countColumn("Dead rows", "dead_rows"),
    bytesColumn("Heap", "heap_bytes"),
    bytesColumn("Indexes", "index_bytes"),
    bytesColumn("Total", "total_bytes"),
];

const coverageColumns = [
    column("Type", (one) => one.aggregate_type),
    countColumn("Streams", "streams"),
    column(
        "≥ 100 events",
        (one) => count(one.streams_by_size.find(({ at_least }) => at_least === 100)?.streams ?? 0),
        "number",
    ),
    countColumn("Snapshots", "snapshots"),
    column(
        "Coverage",
        (one) => `${(one.coverage * 100).toFixed(one.coverage > 0 && one.coverage < 0.1 ? 1 : 0)} %`,
        "number",
    ),
];

export function Operations() {
    const ready = useRead("/readyz?verbose", {}, { every: REFRESH });
    const tables = useRead(["stats", "tables"]);
    const coverage = useRead(["stats", "snapshot-coverage"]);
    const metrics = useRead(["metrics"], {}, { every: REFRESH, headers: { Accept: "text/plain" } });
    const size = tables.data?.tables.reduce((total, table) => total + table.total_bytes, 0);
    return html`
        <h1>Operations</h1>
        <div class="grid">
            <${Panel} title="Readiness" read=${ready}>${(data) => html`<${Readiness} ready=${data} />`}<//>
            <${Panel} title="This process" read=${metrics}>${(text) => html`<${Metrics} text=${text} />`}<//>
            <${Panel} title="Months" read=${tables}>${({ tables: all }) => html`<${Table} label="Months" columns=${monthColumns} rows=${all.flatMap((table) => table.partitions ?? []).toReversed()} />`}<//>
            <${Panel} title="Snapshot coverage" read=${coverage}>${(
                data,
            ) => html`<${Table} label="Snapshot coverage" columns=${coverageColumns} rows=${data.aggregate_types} />
                <p class="quiet">${plural(data.snapshots, "snapshot")} of ${plural(data.streams, "stream")}</p>`}<//>
            <${Panel} title="Tables" aside=${html`<span class="quiet">${bytes(size)}</span>`} className="double" read=${tables}>${({ tables: all }) => html`<${Table} label="Tables" columns=${tableColumns} rows=${all} />`}<//>
        </div>
    `;
}

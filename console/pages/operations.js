// Operations: what an operator looks at: readiness, months, tables, snapshots, queues and errors.

import { useMemo } from "preact/hooks";

import { REFRESH, useRead } from "../api.js";
import { Loaded, Panel, Table, Time, bytes, count, html, plural, seconds } from "../ui.js";

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
        <dl class="members">${Object.entries(ready.details ?? {}).map(([name, value]) => html`<div><dt>${name.replaceAll("_", " ")}</dt><dd>${name === "started_at" ? html`<${Time} at=${value} short />` : value}</dd></div>`)}</dl>`;
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

const partitionColumns = [
    { name: "Month", className: "nowrap", cell: (one) => one.starts_at.slice(0, 7) },
    { name: "Events", numeric: true, cell: (one) => count(one.events) },
    { name: "Size", numeric: true, cell: (one) => bytes(one.total_bytes) },
    { name: "State", className: "nowrap", cell: (one) => (one.archived_to ? "archived" : one.state) },
    {
        name: "Positions",
        className: "nowrap",
        numeric: true,
        cell: (one) => (one.first_position ? `${count(one.first_position)} – ${count(one.last_position)}` : "–"),
    },
];

const tableColumns = [
    { name: "Table", cell: (one) => one.table },
    { name: "Rows", numeric: true, cell: (one) => count(one.live_rows) },
    { name: "Dead rows", numeric: true, cell: (one) => count(one.dead_rows) },
    { name: "Heap", numeric: true, cell: (one) => bytes(one.heap_bytes) },
    { name: "Indexes", numeric: true, cell: (one) => bytes(one.index_bytes) },
    { name: "Total", numeric: true, cell: (one) => bytes(one.total_bytes) },
];

const coverageColumns = [
    { name: "Type", cell: (one) => one.aggregate_type },
    { name: "Streams", numeric: true, cell: (one) => count(one.streams) },
    {
        name: "≥ 100 events",
        numeric: true,
        cell: (one) => count(one.streams_by_size.find(({ at_least }) => at_least === 100)?.streams ?? 0),
    },
    { name: "Snapshots", numeric: true, cell: (one) => count(one.snapshots) },
    {
        name: "Coverage",
        numeric: true,
        cell: (one) => `${(one.coverage * 100).toFixed(one.coverage > 0 && one.coverage < 0.1 ? 1 : 0)} %`,
    },
];

export default function Operations() {
    const ready = useRead("/readyz?verbose", {}, { every: REFRESH });
    const tables = useRead(["stats", "tables"]);
    const coverage = useRead(["stats", "snapshot-coverage"]);
    const metrics = useRead(["metrics"], {}, { every: REFRESH, headers: { Accept: "text/plain" } });
    return html`
        <h1>Operations</h1>
        <div class="grid">
            <${Panel} title="Readiness"><${Loaded} read=${ready} what="Readiness">${(data) => html`<${Readiness} ready=${data} />`}<//><//>
            <${Panel} title="This process"><${Loaded} read=${metrics} what="The metrics">${(text) => html`<${Metrics} text=${text} />`}<//><//>
            <${Panel} title="Months"><${Loaded} read=${tables} what="The months">${({ tables: all }) => {
                const partitions = all.flatMap((table) => table.partitions ?? []).toReversed();
                return html`<${Table} label="Months" columns=${partitionColumns} rows=${partitions} />`;
            }}<//><//>
            <${Panel} title="Snapshot coverage"><${Loaded} read=${coverage} what="The coverage">${(
                data,
            ) => html`<${Table} label="Snapshot coverage" columns=${coverageColumns} rows=${data.aggregate_types} />
                <p class="quiet">${plural(data.snapshots, "snapshot")} of ${plural(data.streams, "stream")}</p>`}<//><//>
            <${Panel} title="Tables" className="double"><${Loaded} read=${tables} what="The tables">${({ tables: all }) => html`<${Table} label="Tables" columns=${tableColumns} rows=${all} />`}<//><//>
        </div>
    `;
}

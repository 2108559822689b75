// Projections: how far each one is behind the head, and how that changed over the last hour.

import { REFRESH, useRead } from "../api.js";
import { Lines } from "../charts.js";
import { Loaded, Panel, Table, Time, count, go, href, html, localTime, plural, seconds } from "../ui.js";

const HOUR = 3600;
/** Every projection has a chart up to this number. Beyond it, the chosen one has. */
const CHARTS = 6;

/** The trend is that of the last ten minutes, and needs one minute. */
const TREND = 600;
const TREND_AT_LEAST = 60;

/** Returns in words whether a projection catches up. */
function trend(samples) {
    const lag = ({ head, last_processed_position }) => head - last_processed_position;
    const last = samples.at(-1);
    const first = samples.find(({ at }) => Date.parse(at) >= Date.parse(last.at) - TREND * 1000);
    const time = (Date.parse(last.at) - Date.parse(first.at)) / 1000;
    const processed = last.last_processed_position - first.last_processed_position;
    if (lag(last) === 0) return { word: "keeps up", kind: "good" };
    if (time < TREND_AT_LEAST) return { word: "no trend yet", kind: "quiet" };
    if (processed <= 0) return { word: `has not moved for ${seconds(time)} or longer`, kind: "bad" };
    const gained = lag(first) - lag(last);
    if (gained > 0)
        return { word: `catches up, current in about ${seconds((lag(last) * time) / gained)}`, kind: "good" };
    return gained < 0 ? { word: "falls behind", kind: "bad" } : { word: "keeps its distance", kind: "quiet" };
}

function History({ projection }) {
    const name = projection.projection_name;
    const read = useRead(["projections", name, "history"], {}, { every: REFRESH });
    return html`<${Panel} title=${name} level="2" aside=${html`<span class="quiet">position <strong>${count(projection.last_processed_position)}</strong> · ${projection.lag === 0 ? "current" : `${count(projection.lag)} behind`}</span>`}>
        <${Loaded} read=${read} what="The history">${({ samples, since }) => {
            const from = Date.now() - HOUR * 1000;
            const recent = samples.filter(({ at }) => Date.parse(at) >= from);
            if (recent.length < 2)
                return html`<p class="empty">The service samples positions every ${REFRESH} seconds. The chart appears with the second sample.</p>`;
            const points = (member) => recent.map((sample) => [Date.parse(sample.at), sample[member]]);
            const [first, last] = [recent[0], recent.at(-1)];
            const { word, kind } = trend(recent);
            const time = (at) => localTime(new Date(at), false).slice(11);
            return html`<${Lines} summary=${`From ${time(first.at)} to ${time(last.at)} the head moved from ${first.head} to ${last.head}, and ${name} from ${first.last_processed_position} to ${last.last_processed_position}`}
                    series=${[
                        { className: "head", points: points("head") },
                        { className: "position", points: points("last_processed_position") },
                    ]} />
                <div class="scale"><span>${time(first.at)}</span><span><span class="key head">head ${count(last.head)}</span> <span class="key position">position ${count(last.last_processed_position)}</span></span><span>${time(last.at)}</span></div>
                <p><span class=${kind}>${word}</span>${Date.parse(since) > from && html` <span class="quiet">· samples since ${time(since)}</span>`}</p>`;
        }}<//>
        ${projection.lag > 0 && html`<p><a href=${href(["positions", String(projection.last_processed_position + 1)])}>Next event to process: position ${count(projection.last_processed_position + 1)}</a></p>`}
    <//>`;
}

const columns = [
    {
        name: "Projection",
        className: "long",
        cell: (one) => html`<a href=${href(["projections"], { name: one.projection_name })}>${one.projection_name}</a>`,
    },
    { name: "Position", numeric: true, cell: (one) => count(one.last_processed_position) },
    {
        name: "Behind",
        numeric: true,
        cell: (one) => (one.lag === 0 ? html`<span class="good">current</span>` : plural(one.lag, "event")),
    },
    { name: "By time", numeric: true, cell: (one) => (one.lag === 0 ? "–" : seconds(one.lag_seconds)) },
    { name: "Last moved", className: "nowrap", cell: (one) => html`<${Time} at=${one.last_processed_at} short />` },
];

export default function Projections({ query }) {
    const read = useRead(["projections"], {}, { every: REFRESH });
    const chosen = query.get("name");
    return html`
        <h1>Projections</h1>
        <${Loaded} read=${read} what="The projections">${({ projections }) => {
            if (projections.length === 0)
                return html`<p class="empty">No projection has stored a position. A projection stores it with <code>PUT /projections/{name}</code>.</p>`;
            const byLag = [...projections].sort((left, right) => right.lag - left.lag);
            const charts = chosen
                ? projections.filter((one) => one.projection_name === chosen)
                : byLag.slice(0, CHARTS);
            return html`
                <${Panel} title=${plural(projections.length, "projection")}><${Table} label="Projections" columns=${columns} rows=${byLag} rowKey=${(one) => one.projection_name} /><//>
                ${chosen && html`<p><button type="button" class="small" onClick=${() => go(href(["projections"]))}>Charts of all projections</button></p>`}
                ${chosen && charts.length === 0 && html`<p class="empty">There is no projection ${chosen}.</p>`}
                <div class="grid">${charts.map((projection) => html`<${History} key=${projection.projection_name} projection=${projection} />`)}</div>`;
        }}<//>
    `;
}

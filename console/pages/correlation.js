// Correlation: the events that belong together, as a tree of causes.

import { useMemo } from "preact/hooks";

import { useRead } from "../api.js";
import { preview } from "../json.js";
import { Loaded, StreamLink, Time, href, html, plural, seconds } from "../ui.js";

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
        <td class=${`tree depth-${Math.min(depth, 12)}`}>${depth > 0 && html`<span class="branch" aria-hidden="true">└</span>`}<a href=${href(["events", event.event_id])}>${event.event_type}</a>
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

export default function Correlation({ id }) {
    const read = useRead(["events"], { correlation_id: id, after: 0, limit: MOST });
    return html`
        <h1>Correlation</h1>
        <p class="id"><code>${id}</code></p>
        <${Loaded} read=${read} what="The events">${(data) => html`<${Tree} events=${data.events} isCut=${data.events.length === MOST} />`}<//>
    `;
}

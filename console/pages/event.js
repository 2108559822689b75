// Event: what one event says, and what it belongs to.

import { useEffect } from "preact/hooks";

import { useRead } from "../api.js";
import { Json } from "../json.js";
import { Copy, FullTime, Loaded, StreamLink, go, href, html } from "../ui.js";

/** The parts of an event. */
export function EventDetail({ event, isPage = false }) {
    const id = (value, to) => html`<a href=${to}><code>${value}</code></a>`;
    const member = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
    return html`<div class="detail">
        <dl class="members">
            ${member("Time", html`<${FullTime} at=${event.occurred_at} />`)}
            ${member("Stream", html`<${StreamLink} type=${event.aggregate_type} id=${event.aggregate_id} version=${event.version} />`)}
            ${member("Position", html`<code>${String(event.global_position)}</code>`)}
            ${member("Event id", html`${isPage ? html`<code>${event.event_id}</code>` : id(event.event_id, href(["events", event.event_id]))} <${Copy} text=${event.event_id} />`)}
            ${event.correlation_id && member("Correlation", id(event.correlation_id, href(["correlations", event.correlation_id])))}
            ${event.causation_id && member("Cause", id(event.causation_id, href(["events", event.causation_id])))}
        </dl>
        <h3>Data</h3>
        <${Json} key=${event.event_id} value=${event.event_data} name=${`${event.event_id}.json`} />
        ${event.metadata && html`<h3>Metadata</h3><${Json} key=${`${event.event_id}-metadata`} value=${event.metadata} name=${`${event.event_id}-metadata.json`} />`}
    </div>`;
}

function ByPosition({ position }) {
    const valid = /^\d{1,15}$/.test(position) && Number(position) > 0;
    const read = useRead(valid ? ["events"] : null, { after: Number(position) - 1, limit: 1 });
    const event = read.data?.events[0];
    const isFound = event && String(event.global_position) === String(Number(position));
    useEffect(() => {
        if (isFound) go(href(["events", event.event_id]), { replace: true });
    }, [isFound]);
    if (!valid) return html`<h1>Position ${position}</h1><p class="empty">A position is a number from 1.</p>`;
    return html`<h1>Position ${position}</h1><${Loaded} read=${read} what="The event">${() => html`<p class="empty">${isFound ? "Loading …" : "No event that this key may read has this position."}</p>`}<//>`;
}

export default function EventPage({ id, position }) {
    const read = useRead(id === undefined ? null : ["events", id]);
    if (position !== undefined) return html`<${ByPosition} position=${position} />`;
    return html`
        <h1>${read.data?.event_type ?? "Event"}</h1>
        ${
            read.error?.status === 404
                ? html`<p class="empty">No event has this id. Perhaps it is a <a href=${href(["correlations", id])}>correlation</a>.</p>`
                : html`<section class="panel"><${Loaded} read=${read} what="The event">${(event) => html`<${EventDetail} event=${event} isPage />`}<//></section>`
        }
    `;
}

// The frame of every page: navigation, search, the API key, and the page that the path names. The overview is here,
// since it is the first page: a file of its own would be one more request.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import {
    API,
    Bars,
    Choice,
    CurlLines,
    Line,
    Loaded,
    Panel,
    Problem,
    REFRESH,
    ROOT,
    TREND,
    Table,
    Time,
    behindColumns,
    client,
    column,
    count,
    countColumn,
    go,
    href,
    html,
    isKeyStored,
    key,
    localTime,
    member,
    notice,
    plural,
    refusal,
    seconds,
    setKey,
    streamColumn,
    streamHref,
    timeColumn,
    trend,
    useKeys,
    useListener,
    useRead,
    useStore,
} from "./base.js";

/** Returns a function that loads a page: the file that exports its component. */
const page = (file, name) => async () => (await import(`./pages/${file}.js`))[name];

/** The pages by the first segment of the path. The file of a page is loaded when the page is shown first. */
const PAGES = {
    "": { title: "Overview", load: async () => Overview },
    log: { title: "Log", load: page("events", "Log") },
    streams: { title: "Streams", load: page("streams", "Streams") },
    projections: { title: "Projections", load: page("operations", "Projections") },
    reducers: { title: "Reducers", load: page("streams", "Reducers") },
    operations: { title: "Operations", load: page("operations", "Operations") },
};
const STREAM = { load: page("streams", "Stream"), within: "streams" };
const GROUP = { load: page("operations", "Group"), within: "projections" };
const EVENT = { load: page("events", "EventPage") };
const CORRELATION = { load: page("events", "Correlation") };

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

function decode(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}

/** Returns the page of a location, and its properties. */
function route({ pathname, search }) {
    const segments = pathname.slice(ROOT.pathname.length).split("/").filter(Boolean).map(decode);
    const query = new URLSearchParams(search);
    const [first = "", second, third] = segments;
    if (first === "streams" && segments.length === 3)
        return { page: STREAM, query, type: second, id: third, name: `${second}/${third}` };
    if (segments.length === 2) {
        if (first === "events") return { page: EVENT, query, id: second, name: `Event ${second}` };
        if (first === "positions") return { page: EVENT, query, position: second, name: `Position ${second}` };
        if (first === "correlations") return { page: CORRELATION, query, id: second, name: `Correlation ${second}` };
        if (first === "groups") return { page: GROUP, query, id: second, name: `Group ${second}` };
    }
    const page = Object.hasOwn(PAGES, first) ? PAGES[first] : undefined;
    const isKnown = page && (segments.length < 2 || (["streams", "reducers"].includes(first) && segments.length === 2));
    return isKnown
        ? { page, query, first, type: second, name: second ? `${page.title}: ${second}` : page.title }
        : { page: null, query, name: "Not found" };
}

/** Finds what the text of the search field names, and shows it. */
async function find(text) {
    const slash = text.indexOf("/");
    if (UUID.test(text)) {
        const event = await client.request("GET", ["events", text.toLowerCase()]).catch((error) => {
            if (error.status === 404) return null;
            throw error;
        });
        return go(event ? href(["events", text.toLowerCase()]) : href(["correlations", text.toLowerCase()]));
    }
    if (/^\d+$/.test(text)) return go(href(["positions", text]));
    if (slash > 0 && slash < text.length - 1) {
        const [, id, version] = /^(.*?)(?:@(\d+))?$/.exec(text.slice(slash + 1));
        return go(streamHref(text.slice(0, slash), id, version));
    }
    if (slash > 0) return go(href(["streams", text.slice(0, slash)]));
    return go(href(["streams"], { prefix: text }));
}

function Search() {
    const field = useRef(null);
    const [failure, setFailure] = useState("");
    useKeys((event) => {
        if (event.key !== "/") return;
        event.preventDefault();
        field.current.focus();
        field.current.select();
    });
    const submit = async (event) => {
        event.preventDefault();
        const text = field.current.value.trim();
        if (!text) return;
        setFailure("");
        try {
            await find(text);
        } catch (error) {
            notice(error);
            setFailure(error.message);
        }
    };
    return html`<form role="search" onSubmit=${submit}>
        <input ref=${field} type="search" aria-label="Find an event, a position, a stream or a prefix" aria-keyshortcuts="/" placeholder="UUID, position, Type/id or prefix  ( / )" autocomplete="off" spellcheck=${false} />
        ${failure && html`<p class="note" role="alert">${failure}</p>`}
    </form>`;
}

/** The field for the key, and what the key in use may do. It appears if a request needs a key, or on demand. */
function KeyForm({ error, onClose }) {
    const field = useRef(null);
    const lasting = useRef(null);
    const hadKey = useStore(key) !== "";
    const own = useRead(hadKey && !error ? ["keys", "self"] : null);
    useEffect(() => field.current.focus(), []);
    const use = (text, isLasting) => {
        setKey(text, isLasting);
        onClose();
    };
    const submit = (event) => {
        event.preventDefault();
        use(field.current.value.trim(), lasting.current.checked);
    };
    return html`<form class="key-form" onSubmit=${submit} aria-label="API key">
        <label>API key <input ref=${field} type="password" name="key" autocomplete="off" spellcheck=${false} required placeholder="annals_…" /></label>
        <label class="check"><input ref=${lasting} type="checkbox" defaultChecked=${isKeyStored()} /> Remember it in this browser</label>
        <button>Use the key</button>
        ${hadKey && html`<button type="button" class="plain" onClick=${() => use("", false)}>Forget the key</button>`}
        ${!error && html`<button type="button" class="plain" onClick=${onClose}>Close</button>`}
        ${error && html`<p role="alert">${hadKey ? error.detail : "This service requires an API key."} <span class="quiet"><code>annals keys create</code> makes one.</span></p>`}
        ${own.data && html`<p>${own.data.auth === "none" ? "This service requires no keys." : html`In use: ${own.data.name ?? own.data.key_id} <span class="quiet">with the grants</span> ${own.data.grants.join(", ")}`}</p>`}
    </form>`;
}

/** How the overview names its ranges, and their lengths in seconds. */
const RANGES = { "1h": ["1 hour", 3600], "24h": ["24 hours", 86_400], "7d": ["7 days", 604_800], all: ["All", null] };
const BUCKETS = 60;
/** How many types, streams and projections the overview shows. */
const SHOWN = 12;

/** The totals of the types that the key may read. */
function Totals({ types, ready }) {
    const sum = (name) => count(types.reduce((total, type) => total + type[name], 0));
    const { status, details } = ready.data ?? {};
    return html`<dl class="totals">
        ${member("Events", sum("events"))}
        ${member("Streams", sum("streams"))}
        ${member("Types", count(types.length))}
        ${member("Snapshots", sum("snapshots"))}
        ${details && member("Head", count(details.head), `epoch ${details.epoch}`)}
        ${status && member("Service", html`<span class="good">ready</span> <small>${details?.version}</small>`)}
        ${ready.error && member("Service", html`<span class="bad">not ready</span>`, ready.error.message)}
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
    if (first.error) return html`<${Problem} error=${first.error} what="The first event" />`;
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
        const bar = seconds(width / 1000);
        return html`<${Bars} values=${values} labels=${labels} summary=${`${plural(total, "event")} from ${short(start)} to ${short(end)}, at most ${count(most)} in ${bar}`} />
            <div class="scale"><span>${short(start)}</span><span>${plural(total, "event")} · ${bar} a bar · highest ${count(most)}</span><span>${short(end)}</span></div>`;
    }}<//>`;
}

/** The first rows of a table, and the number of the others. */
function First({ label, columns, rows, one, empty }) {
    const others = rows.length - SHOWN;
    return html`<${Table} label=${label} columns=${columns} rows=${rows.slice(0, SHOWN)} empty=${empty} />
        ${others > 0 && html`<p class="quiet">${plural(others, `more ${one}`)}</p>`}`;
}

function Types({ types }) {
    const largest = Math.max(1, ...types.map((type) => type.events));
    const columns = [
        column("Type", ({ aggregate_type: type }) => html`<a href=${href(["streams", type])}>${type}</a>`),
        countColumn("Events", "events"),
        column(
            "Share",
            ({ events }) => html`<span style=${{ width: `${(events / largest) * 100}%` }}></span>`,
            "share",
        ),
        countColumn("Streams", "streams"),
        timeColumn("Last event", "last_occurred_at"),
    ];
    const rows = types.toSorted((left, right) => right.events - left.events);
    return html`<${First} label="Types" columns=${columns} rows=${rows} one="type" />`;
}

/** The positions that the overview has read, by projection, for the trend. Histories would be a request for each. */
const seen = new Map();

function Projections({ projections }) {
    const rows = useMemo(() => {
        const now = Date.now();
        const at = new Date(now).toISOString();
        for (const { projection_name, last_processed_position, lag } of projections) {
            const sample = { at, last_processed_position, head: last_processed_position + lag };
            const before = seen.get(projection_name) ?? [];
            const recent = before.filter((one) => Date.parse(one.at) >= now - TREND * 1000);
            seen.set(projection_name, [...recent, sample]);
        }
        return projections.toSorted((left, right) => right.lag - left.lag);
    }, [projections]);
    const columns = [
        column(
            "Name",
            ({ projection_name: name }) => html`<a href=${href(["projections"], { name })}>${name}</a>`,
            "long",
        ),
        ...behindColumns,
        column("Trend", (one) => trend(one, seen.get(one.projection_name))),
    ];
    return html`<${First} label="Projections and groups" columns=${columns} rows=${rows} one="projection" empty="No projection has stored a position." />`;
}

/** The longest streams. They are read when the user opens the panel. */
function Longest() {
    const [isOpen, setOpen] = useState(false);
    const read = useRead(isOpen ? ["stats", "largest-aggregates"] : null, { limit: SHOWN });
    const columns = [streamColumn, countColumn("Events", "events")];
    return html`<details class="panel" onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>Longest streams</summary>
        ${isOpen && html`<${Loaded} read=${read} what="The longest streams">${({ aggregates }) => html`<${Table} label="Longest streams" columns=${columns} rows=${aggregates} />`}<//>`}
    </details>`;
}

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
        <ol class="steps">${steps.map(([title, line]) => html`<li>${title}<${Line} text=${line} /></li>`)}</ol>
    <//>`;
}

/** How much there is, what happened over time, and whether an operator has to act. */
function Overview({ query }) {
    const range = Object.hasOwn(RANGES, query.get("range")) ? query.get("range") : "24h";
    const every = { every: REFRESH };
    const types = useRead(["stats", "aggregate-types"], {}, every);
    const projections = useRead(["projections"], {}, every);
    const ready = useRead("/readyz?verbose", {}, every);
    const isEmpty = types.data?.aggregate_types.length === 0 && ready.data?.details?.head === "0";
    const choose = html`<${Choice} label="Time" options=${Object.entries(RANGES).map(([name, [title]]) => [name, title])} value=${range} onChoose=${(name) => go(href([], { range: name }), { replace: true })} />`;
    return html`
        <h1>Overview</h1>
        <${Loaded} read=${types} what="The totals">${(data) => html`<${Totals} types=${data.aggregate_types} ready=${ready} />`}<//>
        ${
            isEmpty
                ? html`<${FirstSteps} />`
                : html`
            <${Panel} title="Events over time" aside=${choose}><${Rates} range=${range} /><//>
            <div class="grid">
                <${Panel} title="Types" read=${types}>${(data) => html`<${Types} types=${data.aggregate_types} />`}<//>
                <${Panel} title="Projections and groups" read=${projections}>${(data) => html`<${Projections} projections=${data.projections} />`}<//>
            </div>
            <${Longest} />`
        }
    `;
}

/** Loads a page. Returns its component, null while it is loaded, or the error. */
function usePage(page) {
    const [loaded, setLoaded] = useState({});
    useEffect(() => {
        let isCurrent = true;
        const finish = (result) => isCurrent && setLoaded({ page, ...result });
        page?.load().then(
            (component) => finish({ component }),
            (error) => finish({ error }),
        );
        return () => (isCurrent = false);
    }, [page]);
    return loaded.page === page ? loaded : {};
}

function NotFound() {
    return html`<h1>Not found</h1><p>The console has no page with this path. <a href=${href([])}>Overview</a></p>`;
}

function App() {
    const [location, setLocation] = useState(() => ({
        pathname: window.location.pathname,
        search: window.location.search,
    }));
    const [asksKey, setAsksKey] = useState(false);
    const refused = useStore(refusal);
    const hasKey = useStore(key) !== "";
    const main = useRef(null);
    const current = useMemo(() => route(location), [location]);
    const { component: Page, error } = usePage(current.page);

    const update = () => setLocation({ pathname: window.location.pathname, search: window.location.search });
    useListener(window, "annals:navigate", update);
    useListener(window, "popstate", update);
    useListener(document, "click", (event) => {
        const link = event.target.closest?.("a[href]");
        const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
        if (!link || !isPlain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
        const url = new URL(link.href);
        if (url.origin !== ROOT.origin || !url.pathname.startsWith(ROOT.pathname)) return;
        event.preventDefault();
        if (url.href !== window.location.href) go(url.pathname + url.search);
    });

    // A new page begins at its top, and a screen reader reads from there.
    const shown = useRef(location.pathname);
    useEffect(() => {
        document.title = `${current.name} · Annals`;
        if (shown.current === location.pathname) return;
        shown.current = location.pathname;
        scrollTo(0, 0);
        main.current.focus({ preventScroll: true });
    }, [current]);

    const isActive = (first) => current.first === first || current.page?.within === first;
    return html`
        <a class="skip" href=${window.location.href} onClick=${(event) => {
            event.preventDefault();
            main.current.focus();
        }}>To the content</a>
        <header class="top">
            <a class="brand" href=${href([])}>Annals</a>
            <nav aria-label="Pages">${Object.entries(PAGES).map(
                ([first, { title }]) =>
                    html`<a href=${href(first ? [first] : [])} aria-current=${isActive(first) ? "page" : undefined}>${title}</a>`,
            )}</nav>
            <${Search} />
            <button type="button" class="plain" onClick=${() => setAsksKey(true)} aria-label="API key">${hasKey ? "Key in use" : "Key"}</button>
        </header>
        ${(refused || asksKey) && html`<${KeyForm} key=${refused?.instance} error=${refused} onClose=${() => setAsksKey(false)} />`}
        <main ref=${main} tabindex="-1">
            ${!current.page && html`<${NotFound} />`}
            ${error && html`<p class="problem" role="alert">The page could not be loaded: ${error.message}</p>`}
            ${current.page && !Page && !error && html`<p class="loading" role="status">Loading …</p>`}
            ${Page && html`<${Page} key=${location.pathname} ...${current} />`}
        </main>
        <${CurlLines} />
    `;
}

render(html`<${App} />`, document.getElementById("app"));

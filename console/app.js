// The frame of every page: navigation, search, the API key, and the page that the path names.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { ROOT, client, isKeyStored, key, notice, refusal, setKey, useRead, useStore } from "./api.js";
import { CurlLines, go, href, html, streamHref } from "./ui.js";

/** The pages by the first segment of the path. A page is loaded when it is shown first. */
const PAGES = {
    "": { title: "Overview", load: () => import("./pages/overview.js") },
    log: { title: "Log", load: () => import("./pages/log.js") },
    streams: { title: "Streams", load: () => import("./pages/streams.js") },
    projections: { title: "Projections", load: () => import("./pages/projections.js") },
    reducers: { title: "Reducers", load: () => import("./pages/reducers.js") },
    operations: { title: "Operations", load: () => import("./pages/operations.js") },
};
const STREAM = { title: "Stream", load: () => import("./pages/stream.js") };
const EVENT = { title: "Event", load: () => import("./pages/event.js") };
const CORRELATION = { title: "Correlation", load: () => import("./pages/correlation.js") };

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
    if (first === "events" && segments.length === 2) return { page: EVENT, query, id: second, name: `Event ${second}` };
    if (first === "positions" && segments.length === 2)
        return { page: EVENT, query, position: second, name: `Position ${second}` };
    if (first === "correlations" && segments.length === 2)
        return { page: CORRELATION, query, id: second, name: `Correlation ${second}` };
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
    useEffect(() => {
        const focus = (event) => {
            const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
            if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
            event.preventDefault();
            field.current.focus();
            field.current.select();
        };
        addEventListener("keydown", focus);
        return () => removeEventListener("keydown", focus);
    }, []);
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

/** The field for the key. It appears if a request needs a key, or on demand. */
function KeyForm({ error, onClose }) {
    const field = useRef(null);
    const lasting = useRef(null);
    const hadKey = useStore(key) !== "";
    useEffect(() => field.current.focus(), []);
    const submit = (event) => {
        event.preventDefault();
        setKey(field.current.value.trim(), lasting.current.checked);
        onClose();
    };
    return html`<form class="key-form" onSubmit=${submit} aria-label="API key">
        <label>API key <input ref=${field} type="password" name="key" autocomplete="off" spellcheck=${false} required placeholder="annals_…" /></label>
        <label class="check"><input ref=${lasting} type="checkbox" defaultChecked=${isKeyStored()} /> Remember it in this browser</label>
        <button>Use the key</button>
        ${
            hadKey &&
            html`<button type="button" class="plain" onClick=${() => {
                setKey("", false);
                onClose();
            }}>Forget the key</button>`
        }
        ${!error && html`<button type="button" class="plain" onClick=${onClose}>Close</button>`}
        ${error && html`<p role="alert">${hadKey ? error.detail : "This service requires an API key."} <span class="quiet"><code>annals keys create</code> makes one.</span></p>`}
    </form>`;
}

function KeyButton({ onOpen }) {
    const current = useStore(key);
    const refused = useStore(refusal);
    const own = useRead(current && !refused ? ["keys", "self"] : null);
    if (!current) return html`<button type="button" class="plain" onClick=${onOpen}>Key</button>`;
    const grants = own.data?.grants?.join(", ") ?? "";
    return html`<button type="button" class="plain" onClick=${onOpen} title=${grants} aria-label=${`API key ${own.data?.name ?? ""}`}>Key: ${own.data?.name ?? own.data?.key_id ?? (own.data ? "not needed" : "…")}</button>`;
}

/** Loads the module of a page. Returns its component, null while it is loaded, or the error. */
function usePage(page) {
    const [loaded, setLoaded] = useState({ page: null, component: null, error: null });
    useEffect(() => {
        let isCurrent = true;
        page?.load().then(
            (module) => isCurrent && setLoaded({ page, component: module.default, error: null }),
            (error) => isCurrent && setLoaded({ page, component: null, error }),
        );
        return () => (isCurrent = false);
    }, [page]);
    return loaded.page === page ? loaded : { component: null, error: null };
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
    const main = useRef(null);
    const current = useMemo(() => route(location), [location]);
    const { component: Page, error } = usePage(current.page);

    useEffect(() => {
        const update = () => setLocation({ pathname: window.location.pathname, search: window.location.search });
        const follow = (event) => {
            const link = event.target.closest?.("a[href]");
            const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
            if (!link || !isPlain || event.defaultPrevented || link.target || link.hasAttribute("download")) return;
            const url = new URL(link.href);
            if (url.origin !== ROOT.origin || !url.pathname.startsWith(ROOT.pathname)) return;
            event.preventDefault();
            if (url.href !== window.location.href) go(url.pathname + url.search);
        };
        addEventListener("annals:navigate", update);
        addEventListener("popstate", update);
        document.addEventListener("click", follow);
        return () => {
            removeEventListener("annals:navigate", update);
            removeEventListener("popstate", update);
            document.removeEventListener("click", follow);
        };
    }, []);

    // A new page begins at its top, and a screen reader reads from there.
    const shown = useRef(location.pathname);
    useEffect(() => {
        document.title = `${current.name} · Annals`;
        if (shown.current === location.pathname) return;
        shown.current = location.pathname;
        scrollTo(0, 0);
        main.current.focus({ preventScroll: true });
    }, [current]);

    const isActive = (first) => current.first === first || (first === "streams" && current.page === STREAM);
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
            <${KeyButton} onOpen=${() => setAsksKey(true)} />
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

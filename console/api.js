// The data layer: the client with the key of the user, the requests of the page, and hooks that read.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { Annals, JsonNumber } from "./annals.js";

/** The console's own URL and that of the API. The base of the document does not change with the path. */
export const ROOT = new URL("./", document.baseURI);
export const API = new URL("../", ROOT);

/** How often a page that shows the present asks again, in seconds. */
export const REFRESH = 10;

const STORED_AS = "annals-key";

/** A value that components can watch. */
class Store {
    #watchers = new Set();

    constructor(value) {
        this.value = value;
    }

    set(value) {
        this.value = value;
        for (const watcher of [...this.#watchers]) watcher(value);
    }

    watch(watcher) {
        this.#watchers.add(watcher);
        return () => this.#watchers.delete(watcher);
    }
}

export function useStore(store) {
    const [value, setValue] = useState(store.value);
    useEffect(() => {
        setValue(store.value);
        return store.watch(setValue);
    }, [store]);
    return value;
}

/** Returns a storage of the browser, or undefined if the user forbids it. */
function storage(name) {
    try {
        return globalThis[name];
    } catch {
        return undefined;
    }
}
const session = storage("sessionStorage");
const lasting = storage("localStorage");

/** The key, and the error of the last request that needed another one. */
export const key = new Store(session?.getItem(STORED_AS) ?? lasting?.getItem(STORED_AS) ?? "");
export const refusal = new Store(null);

export const isKeyStored = () => typeof lasting?.getItem(STORED_AS) === "string";

/** Uses a key from now on. Every hook reads again. */
export function setKey(value, isLasting) {
    session?.removeItem(STORED_AS);
    lasting?.removeItem(STORED_AS);
    if (value) (isLasting ? lasting : session)?.setItem(STORED_AS, value);
    refusal.set(null);
    key.set(value);
}

export const client = new Annals(API, { key: () => key.value, patience: 4, exactNumbers: true });

/** Remembers that a key is missing or invalid, so that the page asks for one. */
export function notice(error) {
    if (error?.status === 401) refusal.set(error);
}

/** The requests of the page, for its curl lines, by their URLs. */
export const requests = new Store(new Map());

export function recordRequest(request) {
    const id = `${request.method ?? "GET"} ${request.url} ${request.accept ?? ""}`;
    const next = new Map(requests.value).set(id, request);
    requests.set(next);
    return () => {
        const rest = new Map(requests.value);
        rest.delete(id);
        requests.set(rest);
    };
}

/** Returns whether the page is visible. A hidden page sends no requests. */
export function useVisible() {
    const [visible, setVisible] = useState(!document.hidden);
    useEffect(() => {
        const update = () => setVisible(!document.hidden);
        document.addEventListener("visibilitychange", update);
        return () => document.removeEventListener("visibilitychange", update);
    }, []);
    return visible;
}

/**
 * Reads a path with GET, again after a change and, with `every`, in intervals. A path of null reads nothing.
 * Returns `{data, error, loading, reload}`. The data of the same URL stays while it is read again, and
 * with `keep` also that of the URL before.
 */
export function useRead(path, query = {}, { every, headers, keep = false } = {}) {
    const [result, setResult] = useState({ data: null, error: null, loading: path !== null });
    const [turn, setTurn] = useState(0);
    const currentKey = useStore(key);
    const visible = useVisible();
    const url = path === null ? null : client.url(path, query);
    const last = useRef(null);

    useEffect(() => {
        if (url === null) return undefined;
        return recordRequest({ url, accept: headers?.Accept });
    }, [url]);

    useEffect(() => {
        if (url === null) {
            setResult({ data: null, error: null, loading: false });
            last.current = null;
            return undefined;
        }
        if (last.current !== url && !keep) setResult({ data: null, error: null, loading: true });
        last.current = url;
        const abort = new AbortController();
        const read = async () => {
            try {
                const { body } = await client.request("GET", path, { query, headers, signal: abort.signal });
                setResult({ data: body, error: null, loading: false });
            } catch (error) {
                if (abort.signal.aborted) return;
                notice(error);
                setResult((before) => ({ data: error.retryable ? before.data : null, error, loading: false }));
            }
        };
        read();
        return () => abort.abort();
    }, [url, currentKey, turn]);

    useEffect(() => {
        if (!every || !visible || url === null) return undefined;
        const timer = setInterval(() => setTurn((count) => count + 1), every * 1000);
        return () => clearInterval(timer);
    }, [every, visible, url]);

    const reload = useCallback(() => setTurn((count) => count + 1), []);
    return { ...result, reload };
}

/** Calls `perform` and returns `{run, busy, error, result}`, for buttons. */
export function useAction(perform) {
    const [state, setState] = useState({ busy: false, error: null, result: null });
    const run = async (...args) => {
        setState({ busy: true, error: null, result: null });
        try {
            const result = await perform(...args);
            setState({ busy: false, error: null, result });
        } catch (error) {
            notice(error);
            setState({ busy: false, error, result: null });
        }
    };
    return { ...state, run };
}

/** Quotes a text for a POSIX shell. */
const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

/** Returns the curl line of a request. The key stays out of it: the line names a variable. */
export function curl({ url, method, accept, body, headers = {} }) {
    const parts = ["curl"];
    if (accept === "text/event-stream") parts.push("-N");
    if (method && method !== "GET") parts.push("-X", method);
    if (key.value) parts.push("-H", `"Authorization: Bearer $ANNALS_KEY"`);
    if (accept) parts.push("-H", quoted(`Accept: ${accept}`));
    if (body !== undefined) parts.push("-H", quoted("Content-Type: application/json"));
    for (const [name, value] of Object.entries(headers)) parts.push("-H", quoted(`${name}: ${value}`));
    if (body !== undefined) parts.push("-d", quoted(body));
    parts.push(quoted(url));
    return parts.join(" ");
}

/** Parses JSON of the user. Numbers that JavaScript would round stay exact, or are refused where that is impossible. */
export function parseExact(text) {
    return JSON.parse(text, (_, value, context) => {
        if (typeof value !== "number" || String(value) === context?.source) return value;
        if (context?.source) return /[\d.]{16}/.test(context.source) ? new JsonNumber(context.source) : value;
        if (/[\d.]{16}/.test(text)) throw new SyntaxError("this browser would round a number of more than 15 digits");
        return value;
    });
}

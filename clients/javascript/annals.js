/**
 * The client of Annals for JavaScript: Node.js 20 or later, browsers, Deno and Bun, without dependencies.
 *
 * Members of requests, responses and filters have the names of the HTTP API (`event_type`). Options of the client have
 * names in camel case (`onRequest`). All durations are in seconds. `annals.d.ts` has the types.
 */

/** The base of all errors of this client. `code` says what has failed, and is the value to decide by. */
export class AnnalsError extends Error {
    /** True if the same request can succeed later. */
    retryable = false;
    /** True if the service may have carried out the request, or an earlier try of it. */
    outcomeUnknown = false;

    /** @param {string} code @param {string} message @param {ErrorOptions} [options] */
    constructor(code, message, options) {
        super(message, options);
        this.code = code;
        this.name = this.constructor.name;
    }
}

/** The connection failed, or the service was silent (`connection_lost`). */
export class ConnectionLost extends AnnalsError {
    retryable = true;
    outcomeUnknown = true;

    /** @param {string} message @param {unknown} [cause] */
    constructor(message, cause) {
        super("connection_lost", message, { cause });
    }
}

/** A response of lines ended without its last line, so events may be missing (`incomplete_response`). */
export class IncompleteResponse extends AnnalsError {}

/** An error response. It has the members of the problem document: `code`, `status`, `detail`, and those of the code. */
export class Problem extends AnnalsError {
    /** @param {Record<string, any>} document @param {number | null} retryAfter */
    constructor(document, retryAfter) {
        const text = document.detail || document.title;
        const label = document.code === "http_error" ? `HTTP ${document.status}` : document.code;
        // The name of a class of its own says the code.
        super(document.code, new.target === Problem ? `${label}: ${text}` : text);
        Object.assign(this, document);
        this.retryAfter = retryAfter;
        // Without a `Retry-After`, a quota is one that time does not lift.
        const isQuota = document.code === "quota_exceeded" && retryAfter === null;
        // A proxy that has no response of the service answers with one of these, and without a code of Annals.
        const isOfProxy = document.code === "http_error" && [502, 503, 504].includes(document.status);
        this.retryable = isOfProxy || document.status === 503 || (document.status === 429 && !isQuota);
        this.outcomeUnknown = isOfProxy || document.code === "outcome_unknown";
    }
}

// `annals.d.ts` describes these classes.
export class VersionConflict extends Problem {}
export class EpochChanged extends Problem {}
export class PositionConflict extends Problem {}
export class ClaimLost extends Problem {}
export class InvalidRequest extends Problem {}
export class Unauthenticated extends Problem {}
export class Forbidden extends Problem {}
export class StreamNotFound extends Problem {}
export class EventNotFound extends Problem {}
export class ProjectionNotFound extends Problem {}
export class EventIdReused extends Problem {}
export class EventPartlyKnown extends Problem {}
export class PositionRegressed extends Problem {}
export class PositionBeyondHead extends Problem {}
export class ProjectionBehind extends Problem {}
export class NoReducer extends Problem {}
export class QuotaExceeded extends Problem {}
export class OutcomeUnknown extends Problem {}

/** The classes of problems by their codes. The other codes have `Problem`. @type {Record<string, typeof Problem>} */
const problemClasses = {
    version_conflict: VersionConflict,
    epoch_changed: EpochChanged,
    position_conflict: PositionConflict,
    claim_lost: ClaimLost,
    invalid_request: InvalidRequest,
    unauthenticated: Unauthenticated,
    forbidden: Forbidden,
    stream_not_found: StreamNotFound,
    event_not_found: EventNotFound,
    projection_not_found: ProjectionNotFound,
    event_id_reused: EventIdReused,
    event_partly_known: EventPartlyKnown,
    position_regressed: PositionRegressed,
    position_beyond_head: PositionBeyondHead,
    projection_behind: ProjectionBehind,
    no_reducer: NoReducer,
    quota_exceeded: QuotaExceeded,
    outcome_unknown: OutcomeUnknown,
};

/** @param {Record<string, any>} document @param {number | null} [retryAfter] */
const toProblem = (document, retryAfter = null) => new (problemClasses[document.code] ?? Problem)(document, retryAfter);

const NDJSON = "application/x-ndjson";
const EVENT_STREAM = "text/event-stream";

/** The seconds within which the service answers an append, with a margin. */
const WRITE_TIMEOUT = 20;
/** The same for reads. */
const READ_TIMEOUT = 35;

/** One service of Annals. `annals.d.ts` describes the verbs. */
export class Annals {
    #base;
    #options;
    #json;

    /** @param {string | URL} url @param {import("./annals.js").AnnalsOptions} [options] */
    constructor(url, options = {}) {
        const parsed = URL.canParse(url) ? new URL(url) : null;
        if (!["http:", "https:"].includes(parsed?.protocol))
            throw new TypeError(`"${url}" is not a URL with http:// or https://, such as "http://127.0.0.1:8080"`);
        parsed.search = parsed.hash = "";
        this.#base = parsed.href.replace(/\/+$/, "");
        const { patience = 30, silence = 45, tries = 100, fetch = globalThis.fetch, key, onRequest } = options;
        this.#options = { patience, silence, tries, fetch, key, onRequest };
        this.#json = jsonFormat(options.exactNumbers);
    }

    /**
     * Returns the URL of a path: a list of names, which are encoded, or a path that the service has returned.
     * @param {string | unknown[]} path @param {Record<string, unknown>} [query]
     */
    url(path, query = {}) {
        const parameters = new URLSearchParams();
        for (const [name, value] of Object.entries(query)) {
            for (const one of Array.isArray(value) ? value : [value])
                if (one != null) parameters.append(name, String(one));
        }
        const pathText = typeof path === "string" ? path : path.map((name) => `/${encodeName(name)}`).join("");
        const search = parameters.toString();
        return this.#base + pathText + (search && `?${search}`);
    }

    /** Sends a request of any route, with retries, and returns `{status, headers, body}`. */
    async request(method, path, options = {}) {
        const { query, signal, patience = this.#options.patience, repeatable = method !== "POST" } = options;
        const headers = new Headers({ Accept: "application/json", ...options.headers });
        const body = options.body === undefined ? undefined : this.#json.print(options.body);
        if (body !== undefined) headers.set("Content-Type", "application/json");
        const held = Number(query?.wait ?? query?.timeout ?? 0);
        const { timeout = held + (["GET", "HEAD"].includes(method) ? READ_TIMEOUT : WRITE_TIMEOUT) } = options;
        return retried(patience, repeatable, signal, async (attempt) => {
            const link = new LinkedController(signal);
            try {
                return await this.#once(
                    method,
                    this.url(path, query),
                    { headers, body, timeout, link },
                    attempt,
                    (response) => this.#complete(response, headers.get("Accept")),
                );
            } finally {
                link.unlink();
            }
        });
    }

    /** Sends a request once. `consume` receives the response if it is not an error. */
    async #once(method, url, { headers, body, timeout, link }, attempt, consume) {
        const sent = new Headers(headers);
        // The hook is called before the key is added, so that no trace has the key.
        const finish = this.#options.onRequest?.({ method, url, attempt, headers: sent });
        const key = typeof this.#options.key === "function" ? await this.#options.key() : this.#options.key;
        if (key) sent.set("Authorization", `Bearer ${key}`);
        const request = new Request(url, { method, headers: sent, body, signal: link.signal });
        const late = () => link.abort(new ConnectionLost(`${method} ${url}: no response within ${timeout} s`));
        const timer = setTimeout(late, timeout * 1000);
        const begun = performance.now();
        const result = { status: undefined, error: undefined, duration: 0 };
        try {
            const response = await (0, this.#options.fetch)(request);
            result.status = response.status;
            if (!response.ok && response.status !== 304) throw await this.#problem(response);
            return await consume(response);
        } catch (error) {
            result.error = failureOf(`${method} ${url}`, error, link.signal);
            throw result.error;
        } finally {
            clearTimeout(timer);
            result.duration = (performance.now() - begun) / 1000;
            finish?.(result);
        }
    }

    async #complete(response, accepted) {
        const { status, headers } = response;
        const text = await response.text();
        if (text === "") return { status, headers, body: null };
        const type = headers.get("Content-Type") ?? "";
        if (!accepted.includes("json")) return { status, headers, body: text };
        if (!type.includes("json")) throw unexpectedType(response, accepted);
        return { status, headers, body: this.#json.parse(text) };
    }

    async #problem(response) {
        const { status, statusText: title, headers } = response;
        const text = await response.text();
        const isProblem = headers.get("Content-Type")?.startsWith("application/problem+json");
        // Proxies send error pages of their own.
        const other = { code: "http_error", status, title, detail: text.slice(0, 200) };
        return toProblem(isProblem ? this.#json.parse(text) : other, secondsOf(headers.get("Retry-After")));
    }

    /** Yields the complete lines of a response, as a list for each part that arrives. */
    async *#lines(accept, path, query, { signal, patience = 0, silence = this.#options.silence }) {
        const url = this.url(path, query);
        const request = { headers: new Headers({ Accept: accept }), timeout: Math.min(silence, READ_TIMEOUT) };
        let link;
        let timer;
        try {
            const response = await retried(patience, true, signal, (attempt) => {
                link?.unlink();
                link = new LinkedController(signal);
                return this.#once("GET", url, { ...request, link }, attempt, (response) => {
                    const type = response.headers.get("Content-Type");
                    if (!type?.startsWith(accept)) throw unexpectedType(response, accept);
                    return response;
                });
            });
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            let rest = "";
            for (;;) {
                const silent = () => link.abort(new ConnectionLost(`GET ${url}: silent for ${silence} s`));
                timer = setTimeout(silent, silence * 1000);
                const { done, value } = await reader.read().catch((error) => {
                    throw failureOf(`GET ${url}`, error, link.signal);
                });
                clearTimeout(timer);
                if (done) return;
                const end = value.lastIndexOf("\n");
                const complete = end < 0 ? null : rest + value.slice(0, end);
                rest = end < 0 ? rest + value : value.slice(end + 1);
                if (complete !== null) yield complete.split("\n");
            }
        } finally {
            clearTimeout(timer);
            // Ends the connection if the caller stops early.
            link?.unlink();
            link?.abort();
        }
    }

    /** Yields the frames of the event stream of the log, as a list for each part that arrives, and resumes for ever. */
    async *#frames(filter, cursor, { signal, silence, onReconnect }) {
        for (let failures = 0; !signal?.aborted;) {
            let failure = new ConnectionLost(
                `GET ${this.url(["events"], filter)}: the service has ended the event stream`,
            );
            const parse = frameParser(this.#json);
            try {
                const query = { ...filter, after: cursor };
                for await (const lines of this.#lines(EVENT_STREAM, ["events"], query, { signal, silence })) {
                    const frames = parse(lines);
                    if (frames.length === 0) continue;
                    if (frames.some((frame) => frame.name !== "caught-up")) failures = 0;
                    cursor = frames.at(-1).id;
                    yield frames;
                }
            } catch (error) {
                if (signal?.aborted) return;
                if (!(error instanceof AnnalsError) || !error.retryable) throw error;
                failure = error;
            }
            const pause = pauseBefore(++failures, failure);
            onReconnect?.({ error: failure, cursor, pause });
            await sleep(pause, signal).catch(() => {});
        }
    }

    async append(aggregateType, aggregateId, events, expected, options = {}) {
        const headers = { ...precondition(expected), Prefer: "return=representation" };
        return this.#post(["streams", aggregateType, aggregateId], headers, { events: withIds(events) }, options);
    }

    async appendAll(appends, options = {}) {
        const body = { appends: appends.map((append) => ({ ...append, events: withIds(append.events) })) };
        return this.#post(["appends"], {}, body, options);
    }

    async #post(path, headers, body, options) {
        if (options.correlationId !== undefined) headers["X-Correlation-Id"] = options.correlationId;
        if (options.causationId !== undefined) headers["X-Causation-Id"] = options.causationId;
        const answer = await this.request("POST", path, { ...options, headers, body, repeatable: true });
        return { ...answer.body, replayed: answer.headers.get("Idempotent-Replayed") === "true" };
    }

    aggregate(aggregateType, initial, evolve, options = {}) {
        return new Aggregate(this, aggregateType, initial, evolve, { tries: this.#options.tries, ...options });
    }

    read(filter = {}, options = {}) {
        return this.#read(["events"], filter, { patience: this.#options.patience, ...options });
    }

    readStream(aggregateType, aggregateId, range = {}, options = {}) {
        const path = ["streams", aggregateType, aggregateId];
        return this.#read(path, range, { patience: this.#options.patience, ...options });
    }

    #read(path, query, options) {
        const client = this;
        const reading = {
            end: null,
            async *[Symbol.asyncIterator]() {
                for await (const lines of client.#lines(NDJSON, path, query, options)) {
                    for (const line of lines.filter(Boolean)) {
                        const value = client.#json.parse(line);
                        // A line of an event has no such members.
                        if (value.error) throw toProblem(value.error);
                        if (!value.end) yield value;
                        else reading.end = value.end;
                    }
                }
                if (!reading.end)
                    throw new IncompleteResponse("incomplete_response", `GET ${client.url(path)}: no end line`);
            },
        };
        return reading;
    }

    follow(filter = {}, after = "0", options = {}) {
        const client = this;
        const following = {
            cursor: String(after),
            caughtUp: false,
            async *[Symbol.asyncIterator]() {
                for await (const frames of client.#frames(filter, following.cursor, options)) {
                    for (const frame of frames) {
                        following.cursor = frame.id;
                        if (frame.name === "message") yield frame.event;
                        else if (frame.name === "heartbeat") options.onHeartbeat?.(frame.id);
                        else if (frame.name === "caught-up") {
                            following.caughtUp = true;
                            options.onCaughtUp?.(frame.id);
                        }
                    }
                }
            },
        };
        return following;
    }

    async project(name, filter, handle, options = {}) {
        return this.#project(name, filter, handle, options).catch(unlessAborted(options.signal));
    }

    async #project(name, filter, handle, options) {
        const { onRewind, signal, batchSize = 500, reset } = options;
        const path = ["projections", name];
        let stored = await this.request("GET", path, this.#lasting(options)).then(
            (answer) => answer.body.last_processed_position,
            (error) => {
                if (error.code !== "projection_not_found") throw error;
                return null;
            },
        );
        const store = async (position, query) => {
            if (position === stored) return;
            const headers = stored === null ? { "If-None-Match": "*" } : { "If-Match": `"${stored}"` };
            const body = { last_processed_position: position };
            try {
                await this.request("PUT", path, { query, headers, body, ...this.#lasting(options) });
            } catch (error) {
                // An earlier try of this request has moved the position, and its response was lost.
                const isOwn =
                    error instanceof PositionConflict && error.outcomeUnknown && error.current_position === position;
                if (!isOwn) throw error;
            }
            stored = position;
        };
        let cursor = String(options.after ?? (reset ? 0 : (stored ?? 0)));
        // Without `reset`, the service refuses to move the position back.
        if (stored > positionOf(cursor)) await store(positionOf(cursor), { reset });
        while (!signal?.aborted) {
            const link = new LinkedController(signal);
            try {
                const frames = this.#frames(filter, cursor, { ...options, signal: link.signal });
                for await (const batch of gathered(frames, batchSize)) {
                    const events = batch.filter((frame) => frame.name === "message").map((frame) => frame.event);
                    const next = batch.at(-1).id;
                    if (events.length > 0) await handle(events, { cursor: next });
                    cursor = next;
                    await store(positionOf(cursor));
                    if (signal?.aborted) return;
                }
            } catch (error) {
                if (!(error instanceof EpochChanged) || !onRewind) throw error;
                cursor = `${error.epoch}:${error.rewind_to}`;
                await onRewind(error.rewind_to, { cursor, problem: error });
                if (stored > error.rewind_to) await store(error.rewind_to, { reset: true });
            } finally {
                link.unlink();
                link.abort();
            }
        }
    }

    async waitFor(projection, position, { timeout = 5, ...options } = {}) {
        const query = { wait_for: position, timeout };
        return (await this.request("GET", ["projections", projection], { ...options, query })).body;
    }

    async work(group, handle, options = {}) {
        return this.#work(group, handle, options).catch(unlessAborted(options.signal));
    }

    async #work(group, handle, options) {
        const { signal, onClaimLost, onRewind } = options;
        // Otherwise each call would fail, and park one stream after another.
        if (typeof handle !== "function") throw new TypeError(`handle must be a function, and is ${handle}`);
        let lease = null;
        let next = null;
        while (!signal?.aborted) {
            try {
                // `claimed_until` is a time of the database, whose clock may differ from that of the client.
                lease ??= (await this.request("GET", ["groups", group], this.#lasting(options))).body.lease_seconds;
                next = next
                    ? await this.#handleClaim(group, next, lease, handle, options)
                    : await this.#claim(group, options);
                // A service that does not hold the request would be asked without a pause.
                if (!next && options.wait === 0) await sleep(1, signal);
            } catch (error) {
                next = null;
                if (error instanceof ClaimLost) {
                    // The settings of the group may have a shorter lease since it was read.
                    lease = null;
                    onClaimLost?.(error);
                } else if (error instanceof EpochChanged && onRewind) {
                    await onRewind(error.rewind_to, { problem: error });
                } else throw error;
            }
        }
        if (next) await this.request("DELETE", ["groups", group, "claims", next.claim.claim_id]);
    }

    /** Returns for how long a request of a loop is repeated: until it is stopped. What remains then has to end. */
    #lasting({ signal, patience = Infinity }) {
        return signal?.aborted ? {} : { signal, patience };
    }

    async #claim(group, options) {
        const { limit = 100, wait = 20, worker } = options;
        // The key makes a repeated request return the same claim.
        const headers = { "Idempotency-Key": uuidv7() };
        const request = { query: { limit, wait }, headers, body: { worker }, repeatable: true };
        const answer = await this.request("POST", ["groups", group, "claims"], {
            ...request,
            ...this.#lasting(options),
        });
        return claimOf(answer.body, answer);
    }

    /** Handles the events of a claim, and returns the next claim, or null. */
    async #handleClaim(group, { claim, isReplayed }, lease, handle, options) {
        const { signal, limit = 100, wait = 20, onFailed = warnOfFailure } = options;
        const third = lease / 3;
        const failedStreams = new Set();
        let failed = [];
        let reached = claim.last_processed_position;
        // An earlier request may have received this claim, so its lease may be nearly over.
        let extendedAt = isReplayed ? -Infinity : performance.now();
        const acknowledge = async (request, members) => {
            const sent = failed;
            const sentAt = performance.now();
            const body = { last_processed_position: reached, failed: sent, ...members };
            const answer = await this.request("PUT", ["groups", group, "claims", claim.claim_id], { ...request, body });
            extendedAt = sentAt;
            failed = failed.slice(sent.length);
            return claimOf(answer.body.claim, answer);
        };
        const lost = new AbortController();
        let extending = null;
        const extend = () => {
            // Together, the pause and the tries are shorter than the lease.
            extending ??= acknowledge({ patience: third, timeout: third })
                .catch((error) => {
                    clearInterval(timer);
                    lost.abort(error);
                })
                .finally(() => (extending = null));
            return extending;
        };
        const timer = setInterval(extend, third * 1000);
        let handled = 0;
        try {
            for (const event of claim.events) {
                if (performance.now() - extendedAt > third * 1000) await extend();
                if (signal?.aborted || lost.signal.aborted) break;
                const stream = `${event.aggregate_type}/${event.aggregate_id}`;
                try {
                    // The service hands the later events of a failed stream out again.
                    if (!failedStreams.has(stream)) await handle(event, { claim, signal: lost.signal });
                } catch (error) {
                    if (lost.signal.aborted) break;
                    failedStreams.add(stream);
                    failed = [...failed, failureOfEvent(event, error)];
                    onFailed(event, error);
                }
                reached = event.global_position;
                handled += 1;
            }
        } finally {
            clearInterval(timer);
            await extending;
        }
        // Without a connection the lease may have ended. What was handled before is acknowledged.
        if (lost.signal.aborted && !lost.signal.reason.retryable) throw lost.signal.reason;
        const isComplete = handled === claim.events.length && !signal?.aborted;
        if (isComplete) reached = claim.claimed_to;
        const end = (request, wait) =>
            isComplete
                ? acknowledge({ ...request, query: { next: true, limit, wait } })
                : acknowledge(request, { release: true });
        const next = await end(this.#lasting(options), wait).catch(unlessAborted(signal));
        // A worker that is stopped meanwhile finds the next claim by the same request, and then releases it.
        return next === undefined ? end({}, 0) : next;
    }

    async state(aggregateType, aggregateId, at = {}, options = {}) {
        const path = ["aggregates", aggregateType, aggregateId, "state"];
        return (await this.request("GET", path, { ...options, query: at })).body;
    }
}

/** The aggregates of a type, with the function that folds their events. */
class Aggregate {
    #client;
    #type;
    #initial;
    #evolve;
    #tries;

    constructor(client, aggregateType, initial, evolve, { tries }) {
        this.#client = client;
        this.#type = aggregateType;
        this.#initial = initial;
        this.#evolve = evolve;
        this.#tries = tries;
    }

    /** Returns `{state, version}`; the version is 0 if the stream does not exist. */
    async load(id, options = {}) {
        const initial = this.#initial;
        const state = typeof initial === "function" ? await initial() : structuredClone(initial);
        return this.#resume(id, { state, version: 0 }, options);
    }

    /** Folds the events of the stream after a version that is already folded. */
    async #resume(id, from, options) {
        let current = from;
        let path = ["aggregates", this.#type, id];
        let query = { snapshot: "ignore" };
        if (from.version > 0) {
            path = ["streams", this.#type, id];
            query = { from_version: from.version + 1, limit: 1000 };
        }
        while (path) {
            const answer = await this.#client.request("GET", path, { ...options, query }).catch((error) => {
                if (error.code === "stream_not_found") return null;
                throw error;
            });
            if (!answer) return current;
            current = this.#fold(current, answer.body.events);
            path = answer.body.next;
            query = undefined;
        }
        return current;
    }

    /** Loads, decides and appends, and decides again if another writer was faster. */
    async decide(id, decide, options = {}) {
        const { tries = this.#tries, ...request } = options;
        let current = await this.load(id, request);
        let atOnce = 0;
        let pauses = 0;
        for (let attempt = 1; ; attempt++) {
            const decided = await decide(current.state, current.version);
            const events = withIds(decided ?? []);
            if (events.length === 0) return { ...current, events: [] };
            try {
                const answer = await this.#client.append(this.#type, id, events, current.version, request);
                const appended = events.map((event, index) => ({
                    ...{
                        aggregate_type: this.#type,
                        aggregate_id: id,
                        metadata: null,
                        correlation_id: null,
                        causation_id: null,
                    },
                    ...event,
                    ...answer.events[index],
                }));
                return { ...this.#fold(current, appended), events: appended };
            } catch (error) {
                if (!(error instanceof VersionConflict) || attempt >= tries) throw error;
                const missed = error.missed_events_truncated ? [] : (error.missed_events ?? []);
                if (atOnce < AT_ONCE && missed[0]?.version === current.version + 1) {
                    atOnce += 1;
                    current = this.#fold(current, missed);
                } else {
                    // Deciders that conflict for the fourth time in a row have to be spread.
                    await sleep(Math.random() * Math.min(MAX_PAUSE, MIN_PAUSE * 2 ** pauses++), request.signal);
                    const isBehind = error.current_version > current.version;
                    current = isBehind ? await this.#resume(id, current, request) : await this.load(id, request);
                    atOnce = 0;
                }
            }
        }
    }

    #fold({ state, version }, events) {
        for (const event of events) {
            state = this.#evolve(state, event);
            if (state === undefined) throw new TypeError(`evolve returned no state for ${event.event_type}: return it`);
            version = event.version;
        }
        return { state, version };
    }
}

/** The number of times that `decide` retries at once before it pauses, and the bounds of the pause in seconds. */
const AT_ONCE = 3;
const MIN_PAUSE = 0.05;
const MAX_PAUSE = 0.25;

/** A JSON number that JavaScript would round, as text. Appended, it is a number with all of its digits. */
export class JsonNumber {
    /** @param {string} text */
    constructor(text) {
        if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text))
            throw new TypeError(`${text} is not a number of JSON`);
        this.text = text;
    }

    toString() {
        return this.text;
    }
}

/**
 * Returns how JSON is printed and parsed. Numbers that JavaScript cannot represent pass through JSON.stringify and
 * JSON.parse as strings that begin with a mark. The service refuses U+0000, so no stored string has the mark.
 */
function jsonFormat(exactNumbers) {
    const id = uuidv7();
    const mark = `\u0000${id}:`;
    const marked = new RegExp(`"\\\\u0000${id}:([^"]*)"`, "g");
    const significant = (text) => text.replace(/[eE].*|[-.]/g, "").replace(/^0+|0+$/g, "");
    const isExact = (text) =>
        /^-?\d+$/.test(text)
            ? Number.isSafeInteger(Number(text))
            : significant(text) === significant(String(Number(text)));
    const token = (text) => (text[0] === '"' || isExact(text) ? text : `"\\u0000${id}:${text}"`);
    const unmark = (_, value) => {
        if (typeof value !== "string" || !value.startsWith(mark)) return value;
        const text = value.slice(mark.length);
        return /^-?\d+$/.test(text) ? BigInt(text) : new JsonNumber(text);
    };
    const toMarked = (_, value) => (typeof value === "bigint" || value instanceof JsonNumber ? mark + value : value);
    return {
        print: (value) => JSON.stringify(value, toMarked).replace(marked, "$1"),
        parse: (text) =>
            // Every number of at most 15 digits is exact.
            exactNumbers && /[\d.]{16}/.test(text)
                ? JSON.parse(text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g, token), unmark)
                : JSON.parse(text),
    };
}

/** Returns a UUID of version 7. Ids of a list, made with one time and a rising `sequence`, are in order. */
export function uuidv7(time = Date.now(), sequence = Math.floor(Math.random() * 4096)) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    new DataView(bytes.buffer).setBigUint64(0, (BigInt(time) << 16n) | 0x7000n | BigInt(sequence & 0xfff));
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Returns a list of the events with an id each, so that the append can be repeated. */
function withIds(oneOrMore) {
    const events = [oneOrMore].flat();
    if (!events.every((event) => Object(event) === event)) throw new TypeError("events must be an event or a list");
    const time = Date.now();
    const first = Math.floor(Math.random() * 3072);
    return events.map((event, index) => ({ ...event, event_id: event.event_id ?? uuidv7(time, first + index) }));
}

/** Returns the header that expects a version. */
function precondition(expected) {
    if (expected === undefined) return {};
    if (expected === "none") return { "If-None-Match": "*" };
    if (expected === "exists") return { "If-Match": "*" };
    if (Number.isSafeInteger(expected) && expected >= 0) return { "If-Match": `"${expected}"` };
    throw new TypeError(`expected must be a version, "none", "exists" or absent, and is ${expected}`);
}

/** Encodes a name for a path. A URL drops the segments `.` and `..`, so these would name another route. */
function encodeName(name) {
    const text = String(name);
    if (["", ".", ".."].includes(text)) throw new TypeError(`"${text}" cannot be a name in a path`);
    return encodeURIComponent(text);
}

/** Calls `attempt` until it succeeds, fails for good, or would exceed `patience`. */
async function retried(patience, repeatable, signal, attempt) {
    const begun = performance.now();
    let outcomeUnknown = false;
    for (let tries = 1; ; tries++) {
        try {
            return await attempt(tries);
        } catch (error) {
            if (!(error instanceof AnnalsError)) throw error;
            outcomeUnknown ||= error.outcomeUnknown;
            error.outcomeUnknown = outcomeUnknown;
            const pause = pauseBefore(tries, error);
            const isOver = (performance.now() - begun) / 1000 + pause > patience;
            if (!error.retryable || isOver || (outcomeUnknown && !repeatable)) throw error;
            await sleep(pause, signal);
        }
    }
}

/** Returns the pause after a failed try: what the service asks for, or else exponential, both with jitter. */
function pauseBefore(tries, error) {
    const backoff = Math.min(5, 0.1 * 2 ** (tries - 1)) * (0.5 + Math.random() / 2);
    return Math.max(backoff, (error.retryAfter ?? 0) * (1 + Math.random() / 4));
}

/** Waits, or rejects with the reason of the signal. */
function sleep(seconds, signal) {
    return new Promise((resolve, reject) => {
        const end = () => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", end);
            if (signal?.aborted) reject(signal.reason);
            else resolve(undefined);
        };
        const timer = setTimeout(end, seconds * 1000);
        signal?.addEventListener("abort", end);
        if (signal?.aborted) end();
    });
}

/** Returns a handler of errors that ignores the reason of the signal. */
const unlessAborted = (signal) => (error) => {
    if (!signal?.aborted || error !== signal.reason) throw error;
};

/** A controller that another signal aborts, too. `AbortSignal.any` is missing in the first releases of Node.js 20. */
class LinkedController extends AbortController {
    #source;
    #follow = () => this.abort(this.#source.reason);

    constructor(source) {
        super();
        this.#source = source;
        source?.addEventListener("abort", this.#follow);
        if (source?.aborted) this.#follow();
    }

    unlink() {
        this.#source?.removeEventListener("abort", this.#follow);
    }
}

/** Returns the error of a failed request: that of the client, the reason of the signal, or a lost connection. */
function failureOf(request, error, signal) {
    if (signal.aborted) return signal.reason;
    if (error instanceof AnnalsError) return error;
    // fetch and body readers reject with a TypeError, a complete body that was cut gives a SyntaxError.
    return new ConnectionLost(`${request}: ${error.cause?.message ?? error.message}`, error);
}

function unexpectedType(response, accepted) {
    const type = response.headers.get("Content-Type");
    return new AnnalsError("unexpected_type", `${response.url} answered ${type}, not ${accepted}: is it Annals?`);
}

/** Returns the seconds of `Retry-After`, which is a number or a date; null if there is none. */
function secondsOf(header) {
    if (header === null) return null;
    const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
    return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}

/** Returns a function that turns lines of an event stream into its complete frames. */
function frameParser(json) {
    let id = null;
    let name = "message";
    let data = "";
    return (lines) => {
        const frames = [];
        for (const line of lines) {
            if (line.startsWith("id: ")) id = line.slice(4);
            else if (line.startsWith("event: ")) name = line.slice(7);
            else if (line.startsWith("data: ")) data += line.slice(6);
            else if (line === "") {
                if (data !== "" && id !== null) frames.push({ id, name, event: json.parse(data) });
                name = "message";
                data = "";
            }
        }
        return frames;
    };
}

/** Joins the lists of an iterator that have arrived while the caller was busy, up to a size. */
async function* gathered(lists, size) {
    const iterator = lists[Symbol.asyncIterator]();
    const take = () => {
        const taken = iterator.next();
        // The rejection is reported where the promise is awaited.
        taken.catch(() => {});
        return taken;
    };
    let next = take();
    for (;;) {
        const { done, value } = await next;
        if (done) return;
        const joined = [...value];
        next = take();
        while (joined.length < size) {
            const more = await Promise.race([next, sleep(0)]).catch(() => null);
            if (!more || more.done) break;
            joined.push(...more.value);
            next = take();
        }
        while (joined.length > 0) yield joined.splice(0, size);
    }
}

/** Returns the position of a cursor, `epoch:position` or a position. */
const positionOf = (cursor) => Number(cursor.slice(cursor.indexOf(":") + 1));

/** Returns the claim of a response, or null, and whether an earlier request may have received it. */
const claimOf = (claim, { headers }) => claim && { claim, isReplayed: headers.has("Idempotent-Replayed") };

function warnOfFailure({ aggregate_type, aggregate_id, version }, error) {
    console.warn(`event ${aggregate_type}/${aggregate_id}@${version} failed, and its stream is parked:`, error);
}

/** Returns the entry of a failed event. `retryAfter` of the error overrides the pauses of the group; null parks. */
function failureOfEvent(event, error) {
    const text = (error instanceof AnnalsError ? String(error) : String(error?.message ?? error)).slice(0, 1000);
    // The service refuses a reason with NUL or with a half of a surrogate pair.
    const reason = text.replace(/[\0\p{Surrogate}]/gu, "\ufffd").trim() || "the handler failed";
    const entry = { global_position: event.global_position, reason };
    // An error of this client has the `Retry-After` of a response, or null if it had none.
    const retryAfter = error instanceof AnnalsError ? undefined : error?.retryAfter;
    return retryAfter === undefined ? entry : { ...entry, retry_after: retryAfter && Math.ceil(retryAfter) };
}

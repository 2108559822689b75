/** The types of the client of Annals. Answers have the members of the OpenAPI document of the service. */

/** An event as an append sends it. */
export interface NewEvent {
    event_type: string;
    event_data: unknown;
    /** A UUID. Without one, the client makes it. */
    event_id?: string | null;
    metadata?: Record<string, unknown> | null;
    correlation_id?: string | null;
    causation_id?: string | null;
}

/** An event as every read returns it. */
export interface Event<Data = any> {
    event_id: string;
    aggregate_type: string;
    aggregate_id: string;
    version: number;
    global_position: number;
    event_type: string;
    event_data: Data;
    metadata: Record<string, unknown> | null;
    occurred_at: string;
    correlation_id: string | null;
    causation_id: string | null;
}

export interface RecordedEvent {
    event_id: string;
    version: number;
    global_position: number;
    occurred_at: string;
}

export interface AppendResult {
    aggregate_type: string;
    aggregate_id: string;
    version: number;
    first_version: number;
    global_position: number;
    epoch: number;
    snapshot_due: boolean;
    events: RecordedEvent[];
}

export interface AggregateState<State = any> {
    aggregate_type: string;
    aggregate_id: string;
    version: number;
    occurred_at: string;
    state: State;
    snapshot_version: number | null;
    events_folded: number;
}

/** A version, or whether the stream exists. Absent: any version. */
export type ExpectedVersion = number | "none" | "exists";

export interface StreamAppend {
    aggregate_type: string;
    aggregate_id: string;
    expected_version?: ExpectedVersion;
    events: NewEvent[];
}

type OneOrMore = string | string[];

/** The filters of the log, as the parameters of `GET /events`. */
export interface Filter {
    aggregate_type?: OneOrMore;
    /** Needs exactly one `aggregate_type`. */
    aggregate_id?: OneOrMore;
    event_type?: OneOrMore;
    correlation_id?: OneOrMore;
    occurred_from?: string;
    occurred_to?: string;
    /** `i/n`: one of `n` parts of all streams. */
    partition?: string;
}

export interface LogRange extends Filter {
    after?: string | number;
    limit?: number;
    min_position?: number;
}

export interface StreamRange {
    from_version?: number;
    to_version?: number;
    direction?: "forward" | "backward";
    limit?: number;
    min_position?: number;
}

export interface RequestOptions {
    signal?: AbortSignal;
    /** The seconds for which failed tries are repeated. */
    patience?: number;
}

export interface ReadOptions extends RequestOptions {
    /** The seconds after which a silent connection is dead. */
    silence?: number;
}

export interface AppendOptions extends RequestOptions {
    /** The correlation id of the events that have none: a UUID, or any text. */
    correlationId?: string;
    causationId?: string;
}

/** A try of a request. The hook may add headers. */
export interface RequestTry {
    method: string;
    url: string;
    /** 1 for the first try. */
    attempt: number;
    headers: Headers;
}

export interface RequestResult {
    /** Absent if there was no response. */
    status: number | undefined;
    error: AnnalsError | Error | undefined;
    /** Seconds, until the response is complete; for an event stream and for lines, until it begins. */
    duration: number;
}

export interface AnnalsOptions {
    /** The API key, or a function that returns the current one. */
    key?: string | (() => string | Promise<string>);
    /** The seconds for which failed tries are repeated. Default 30. */
    patience?: number;
    /** The seconds after which a silent connection is dead. Default 45. */
    silence?: number;
    /** The number of tries of `decide`. Default 100. */
    tries?: number;
    /** Returns numbers that JavaScript would round as `bigint`, or as `JsonNumber` if they are not integers. */
    exactNumbers?: boolean;
    /** Called before each try. The function that it returns is called after the try. */
    onRequest?: (request: RequestTry) => ((result: RequestResult) => void) | void;
    fetch?: typeof globalThis.fetch;
}

export interface Answer<Body = any> {
    status: number;
    headers: Headers;
    /** Null if the response has no body. */
    body: Body;
}

/** The events of a response of lines. `end` is set after the last one. */
export interface Reading<End> extends AsyncIterable<Event> {
    end: End | null;
}

export interface FollowOptions {
    signal?: AbortSignal;
    silence?: number;
    /** Every event that existed when the connection was opened has been yielded. */
    onCaughtUp?: (cursor: string) => void;
    /** The log has advanced without an event that matches. */
    onHeartbeat?: (cursor: string) => void;
    onReconnect?: (reconnect: { error: AnnalsError; cursor: string; pause: number }) => void;
}

export interface Following extends AsyncIterable<Event> {
    /** The cursor after the event that was yielded last, or after the last heartbeat. */
    cursor: string;
    caughtUp: boolean;
}

export interface ProjectOptions extends RequestOptions {
    /** The cursor to begin after, if the application stores it. Default: the position that the service has. */
    after?: string | number;
    /** Begins again with the first event, or after `after`, and moves the position in the service back. */
    reset?: boolean;
    /** The most events of a batch. Default 500. */
    batchSize?: number;
    /** Discards the effects of the events after a position. Without it, `project` fails with `EpochChanged`. */
    onRewind?: (position: number, context: { cursor: string; problem: EpochChanged }) => void | Promise<void>;
    silence?: number;
    onReconnect?: FollowOptions["onReconnect"];
}

/** A projection and its position. */
export interface Projection {
    projection_name: string;
    last_processed_position: number;
    last_processed_at: string;
    lag: number;
    lag_seconds: number;
}

/** Events that the group has handed out to a worker, under a lease. */
export interface Claim {
    /** `epoch.partition.number`. The number only increases, so it is a fencing token for a store of your own. */
    claim_id: string;
    partition: number;
    worker: string | null;
    epoch: number;
    last_processed_position: number;
    claimed_to: number;
    claimed_until: string;
    /** The parked stream whose events are tried again; null for new events. */
    retry: { aggregate_type: string; aggregate_id: string; attempts: number; reason: string } | null;
    events: Event[];
}

export interface WorkOptions extends RequestOptions {
    /** The name of this worker, for operators. */
    worker?: string;
    /** The most events of a claim. Default 100. */
    limit?: number;
    /** The seconds for which the service holds a request for a claim. Default 20. */
    wait?: number;
    /** Gets each failed event. Default: writes a warning to the console. */
    onFailed?: (event: Event, error: unknown) => void;
    /** Another worker may have the events of the claim. This one discards the claim, and asks for another one. */
    onClaimLost?: (error: ClaimLost) => void;
    /** The events after a position may be lost, and the worker has handled some of them. Without it, `work` fails. */
    onRewind?: (position: number, context: { problem: EpochChanged }) => void | Promise<void>;
}

export interface Loaded<State> {
    state: State;
    /** 0 if the stream does not exist. */
    version: number;
}

export interface Decided<State> extends Loaded<State> {
    /** The events that were appended. */
    events: Event[];
}

export interface Aggregate<State> {
    load(id: string, options?: RequestOptions): Promise<Loaded<State>>;
    /** Loads, decides, appends with the version, and decides again after a conflict. */
    decide(
        id: string,
        decide: (state: State, version: number) => Decision | Promise<Decision>,
        options?: AppendOptions & { tries?: number },
    ): Promise<Decided<State>>;
}

type Decision = NewEvent | NewEvent[] | undefined | void;

export class Annals {
    constructor(url: string | URL, options?: AnnalsOptions);

    /** Appends an event or a list to a stream. Every retry is safe, because each event has an id before the first try. */
    append(
        aggregateType: string,
        aggregateId: string,
        events: NewEvent | NewEvent[],
        expected?: ExpectedVersion,
        options?: AppendOptions,
    ): Promise<AppendResult & { replayed: boolean }>;

    /** Appends to several streams in one atomic step. */
    appendAll(
        appends: StreamAppend[],
        options?: AppendOptions,
    ): Promise<{ appends: AppendResult[]; replayed: boolean }>;

    /** Returns the aggregates of a type. `initial` is a value, which is copied for each load, or a function. */
    aggregate<State>(
        aggregateType: string,
        initial: State | (() => State | Promise<State>),
        evolve: (state: State, event: Event) => State,
        options?: { tries?: number },
    ): Aggregate<State>;

    /** Reads the log up to its head. The iterator fails if a part of the response is missing. */
    read(filter?: LogRange, options?: ReadOptions): Reading<{ count: number; next_after: number }>;

    /** Reads a stream. The iterator fails if a part of the response is missing. */
    readStream(
        aggregateType: string,
        aggregateId: string,
        range?: StreamRange,
        options?: ReadOptions,
    ): Reading<{ count: number; version: number }>;

    /** Follows the log after a cursor (`epoch:position`, a position, or `head`), without end. */
    follow(filter?: Filter, after?: string | number, options?: FollowOptions): Following;

    /** Handles the log in batches, and stores the position in the service by compare-and-set. */
    project(
        name: string,
        filter: Filter,
        handle: (events: Event[], context: { cursor: string }) => unknown,
        options?: ProjectOptions,
    ): Promise<void>;

    /**
     * Waits until a projection has processed a position. Fails with `ProjectionBehind` after `timeout` seconds
     * (default 5).
     */
    waitFor(projection: string, position: number, options?: RequestOptions & { timeout?: number }): Promise<Projection>;

    /**
     * Works for a consumer group: claims events, handles them, and acknowledges them with the next claim. The `signal`
     * of the handler is aborted when the claim is lost.
     */
    work(
        group: string,
        handle: (event: Event, context: { claim: Claim; signal: AbortSignal }) => unknown,
        options?: WorkOptions,
    ): Promise<void>;

    /** Returns the state of an aggregate from the reducer of its type: now, at a version or at a time. */
    state<State = any>(
        aggregateType: string,
        aggregateId: string,
        at?: { version?: number; at?: string; min_position?: number },
        options?: RequestOptions,
    ): Promise<AggregateState<State>>;

    /** Sends a request of any route, with retries. */
    request<Body = any>(
        method: string,
        path: string | string[],
        options?: RequestOptions & {
            query?: object;
            headers?: Record<string, string>;
            body?: unknown;
            /** Repeats the request if its outcome is unknown. Default: every method but POST. */
            repeatable?: boolean;
            /** The seconds within which a try must be complete. */
            timeout?: number;
        },
    ): Promise<Answer<Body>>;

    /** Returns the URL of a path: a list of names, which are encoded, or a path that the service has returned. */
    url(path: string | string[], query?: object): string;
}

/** The base of all errors of this client. */
export class AnnalsError extends Error {
    constructor(code: string, message: string, options?: ErrorOptions);
    /** What has failed: a code of the service, or `connection_lost`, `incomplete_response`, `unexpected_type`. */
    code: string;
    /** True if the same request can succeed later. */
    retryable: boolean;
    /** True if the service may have carried out the request. */
    outcomeUnknown: boolean;
}

/** The connection failed, or the service was silent. */
export class ConnectionLost extends AnnalsError {
    constructor(message: string, cause?: unknown);
}

/** A response of lines ended without its last line, so events may be missing. */
export class IncompleteResponse extends AnnalsError {}

/** An error response: the members of the problem document, and those of its code. */
export class Problem extends AnnalsError {
    constructor(document: Record<string, any>, retryAfter: number | null);
    type: string;
    title: string;
    status: number;
    detail: string;
    /** The id of the request, which the log of the service has, too. */
    instance: string;
    /** The seconds of `Retry-After`, or null. */
    retryAfter: number | null;
    [member: string]: any;
}

/** The stream is at another version than expected. */
export class VersionConflict extends Problem {
    expected_version: ExpectedVersion | null;
    current_version: number;
    missed_events?: Event[];
    missed_events_truncated?: boolean;
}

/** The events after `rewind_to` may be lost, and other events may have their positions. */
export class EpochChanged extends Problem {
    rewind_to: number;
    epoch?: number;
}

/** Another instance has moved the position of the projection. */
export class PositionConflict extends Problem {
    /** Null if the projection does not exist. */
    current_position: number | null;
}

/** The claim has ended, and another worker may have its events. */
export class ClaimLost extends Problem {
    last_processed_position: number | null;
    claimed_by: string | null;
}

/** 400: `errors` says where. */
export class InvalidRequest extends Problem {}
/** 401: no key, or one that is unknown, expired or revoked. */
export class Unauthenticated extends Problem {}
/** 403: `detail` names the grant that the key lacks. */
export class Forbidden extends Problem {}
/** 404: the stream has no event. */
export class StreamNotFound extends Problem {}
/** 404: there is no event with this id, version or time. */
export class EventNotFound extends Problem {}
/** 404: the projection has no position. */
export class ProjectionNotFound extends Problem {}
/** 409: an event with this id exists, with other content or in another stream. */
export class EventIdReused extends Problem {}
/** 409: some events of the append were written before, and others were not. */
export class EventPartlyKnown extends Problem {}
/** 409: the projection is at a later position (`current_position`). */
export class PositionRegressed extends Problem {
    current_position: number;
}
/** 422: no event has this position. */
export class PositionBeyondHead extends Problem {}
/** 504: the projection did not reach the position in time. */
export class ProjectionBehind extends Problem {}
/** 409: the type has no reducer. */
export class NoReducer extends Problem {}
/** 429: the key has used its quota. */
export class QuotaExceeded extends Problem {}
/** 503: the append may have been written. Repeating it with the same event ids is safe. */
export class OutcomeUnknown extends Problem {}

/** A JSON number that JavaScript would round, as text. Appended, it is a number with all of its digits. */
export class JsonNumber {
    constructor(text: string);
    readonly text: string;
    toString(): string;
}

/** Returns a UUID of version 7. */
export function uuidv7(time?: number, sequence?: number): string;

import type { AnnalsOptions } from "./annals.js";

/** Returns a hook for `onRequest`. `api` is the module `@opentelemetry/api` of the application. */
export function traceRequests(api: object): NonNullable<AnnalsOptions["onRequest"]>;

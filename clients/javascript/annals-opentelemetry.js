/**
 * Traces the requests of the client with OpenTelemetry: a span for each try, and `traceparent` in the request.
 *
 *     import * as api from "@opentelemetry/api";
 *     const annals = new Annals(url, { onRequest: traceRequests(api) });
 */

/** Returns a hook for `onRequest`. `api` is the module `@opentelemetry/api` of the application. */
export function traceRequests(api) {
    const tracer = api.trace.getTracer("annals");
    return ({ method, url, attempt, headers }) => {
        const { hostname, port, protocol } = new URL(url);
        const attributes = {
            "http.request.method": method,
            "url.full": url,
            "server.address": hostname,
            "server.port": Number(port) || (protocol === "https:" ? 443 : 80),
        };
        // The semantic conventions count the tries after the first.
        if (attempt > 1) attributes["http.request.resend_count"] = attempt - 1;
        const span = tracer.startSpan(method, { kind: api.SpanKind.CLIENT, attributes });
        const context = api.trace.setSpan(api.context.active(), span);
        api.propagation.inject(context, headers, { set: (carrier, name, value) => carrier.set(name, value) });
        return ({ status, error }) => {
            if (status !== undefined) span.setAttribute("http.response.status_code", status);
            if (error) {
                span.setAttribute("error.type", error.code ?? error.name);
                span.setStatus({ code: api.SpanStatusCode.ERROR, message: error.message });
            }
            span.end();
        };
    };
}

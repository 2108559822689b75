"""Spans of OpenTelemetry for each request: `Annals(url, on_request=tracing())`.

Needs `annals-client[opentelemetry]`. The span is sent in `traceparent`, which the log of the service has as well.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from ._effects import Try


def tracing(tracer: Tracer | None = None) -> Callable[[Try], Callable[[Try], None]]:
    """Returns a hook that makes a span of each request, retries included."""
    spans = tracer or trace.get_tracer("annals_client")

    def on_request(sent: Try) -> Callable[[Try], None]:
        url = urlsplit(sent.url)
        # The name has no ids: tools group spans by their names.
        name = f"{sent.method} /{url.path.lstrip('/').partition('/')[0]}"
        attributes: dict[str, str | int] = {"http.request.method": sent.method, "url.full": sent.url}
        attributes["server.address"] = url.hostname or ""
        if sent.number > 1:
            attributes["http.request.resend_count"] = sent.number - 1
        span = spans.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        propagate.inject(sent.headers, context=trace.set_span_in_context(span))

        def finish(answered: Try) -> None:
            if answered.status is not None:
                span.set_attribute("http.response.status_code", answered.status)
            if answered.error is not None:
                span.record_exception(answered.error)
            if answered.error is not None or (answered.status or 0) >= 400:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return finish

    return on_request

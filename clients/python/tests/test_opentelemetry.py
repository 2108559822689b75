"""The adapter for OpenTelemetry makes a span of each request."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import numbers
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from proxy import cut, status

from annals_client import Annals, ConnectionLost
from annals_client.opentelemetry import tracing


def test_each_request_is_a_span_and_the_service_gets_its_id(proxy: Any, kind: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    proxy.next("POST", "/streams", status(503, "overloaded", Retry_After="0"), cut)
    with Annals(proxy.url, on_request=tracing(provider.get_tracer("test"))) as client:
        client.append(kind, "a", numbers(1))
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["POST /streams"] * 3
    assert [(span.attributes or {}).get("http.response.status_code") for span in spans] == [503, None, 200]
    assert [(span.attributes or {}).get("http.request.resend_count") for span in spans] == [None, 1, 2]
    assert [span.status.is_ok for span in spans] == [False, False, True]
    for span, sent in zip(spans, proxy.requests, strict=True):
        assert sent.headers["traceparent"].split("-")[1] == format(span.context.trace_id, "032x")


def test_a_response_that_never_comes_is_an_error_of_the_span(kind: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hook = tracing(provider.get_tracer("test"))
    with Annals("http://127.0.0.1:1", patience=0, on_request=hook) as client, pytest.raises(ConnectionLost):
        client.append(kind, "a", numbers(1))
    [span] = exporter.get_finished_spans()
    assert span.events[0].name == "exception"

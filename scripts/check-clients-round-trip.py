"""Appends payloads of every kind of JSON with a generated client, and reads them back unchanged."""

import sys

import annals_generated
from annals_generated.api.streams_api import StreamsApi

PAYLOADS = [{"total": 42, "nested": {"a": [1, None]}}, [1, "two", None], "text", 42, 1.5, True, False]

with annals_generated.ApiClient(annals_generated.Configuration(host=sys.argv[1])) as client:
    streams = StreamsApi(client)
    append = annals_generated.StreamAppend.from_dict(
        {"events": [{"event_type": "Tried", "event_data": payload} for payload in PAYLOADS]}
    )
    written = streams.append_to_stream("Order", "ord-1", append)
    assert written.version == len(PAYLOADS), written
    page = streams.read_stream("Order", "ord-1")
    returned = [event.event_data for event in page.events]
    assert returned == PAYLOADS, returned
    several = annals_generated.MultiAppend.from_dict(
        {
            "appends": [
                {"aggregate_type": "Order", "aggregate_id": "ord-1", "expected_version": len(PAYLOADS),
                 "events": [{"event_type": "Tried", "event_data": {"n": 1}}]},
                {"aggregate_type": "Order", "aggregate_id": "ord-2", "expected_version": "none",
                 "events": [{"event_type": "Tried", "event_data": {"n": 2}}]},
            ]
        }
    )
    streams.append_to_streams(several)
    try:
        streams.append_to_stream("Order", "ord-1", append, if_match='"1"')
    except annals_generated.ApiException as error:
        assert error.status == 412, error
        assert error.data.current_version == len(PAYLOADS) + 1, error.data
    else:
        raise AssertionError("the second append must be a conflict")

"""The hooks of scripts/check-contract: they shorten waits, and check responses by the error codes of Annals."""

import json
import re

import schemathesis
from schemathesis.core.failures import Failure

# Rules that span several parameters or members. OpenAPI cannot express them, so a request that conforms to the schema
# of each one can still violate them. Each entry has an operation and a pattern of the `detail` of the problem. The
# patterns repeat the texts in src/http and src/wire: if such a text changes, change its pattern here too.
SPANNING = [
    ("GET /aggregates/{aggregate_type}/{aggregate_id}/state", "parameter at: must not be sent together with version"),
    ("GET /aggregates/{aggregate_type}/{aggregate_id}/states", "from_version: must not be above to_version"),
    ("GET /events", "aggregate_id: requires exactly one aggregate_type"),
    ("GET /events", "occurred_from: must not be later than occurred_to"),
    ("GET /events", "before: requires direction=backward"),
    ("GET /events", "(after|wait): must not be sent together with direction=backward"),
    ("GET /stats/rates", "parameter from: must be earlier than to"),
    # The length of each of the two names.
    ("GET /streams", "after: both names must have at most 255 characters"),
    ("GET /streams/{aggregate_type}/{aggregate_id}", "from_version: must not be above to_version"),
    ("POST /appends", "the stream occurs twice in the request"),
    ("POST /appends", "a request has at most 1000 events"),
    ("POST /appends", "/event_id: occurs twice in the request"),
    ("POST /erasures", "must name at least one event"),
    ("POST /erasures", "from_version: must not be above to_version"),
    ("POST /streams/{aggregate_type}/{aggregate_id}", "If-None-Match: must not be sent together with If-Match"),
    ("POST /streams/{aggregate_type}/{aggregate_id}", "/event_id: occurs twice in the request"),
    ("POST /reducers/{aggregate_type}/test", "/event_id: occurs twice in the request"),
    # The schema of event_data accepts every value, because generators drop the operation otherwise.
    ("POST /streams/{aggregate_type}/{aggregate_id}", "/event_data: is required: any JSON value but null"),
    ("POST /appends", "/event_data: is required: any JSON value but null"),
    ("POST /reducers/{aggregate_type}/test", "/event_data: is required: any JSON value but null"),
    ("PUT /projections/{projection_name}", "If-None-Match: must not be sent together with If-Match"),
    ("PUT /groups/{group_name}/claims/{claim_id}", "/global_position: must be at most last_processed_position"),
    # The length of each of the two names.
    ("GET /groups/{group_name}/parked", "after: must be an aggregate type and an aggregate id"),
    ("PUT /groups/{group_name}/parked/{aggregate_type}/{aggregate_id}", "If-None-Match: must not be sent together with"),
    ("PUT /groups/{group_name}", "/filter/aggregate_id: requires exactly one aggregate_type"),
    ("PUT /groups/{group_name}", "/last_processed_position: is required with reset=true"),
    ("PUT /groups/{group_name}", "If-None-Match: must not be sent together with If-Match"),
    ("PUT /reducers/{aggregate_type}", "/source: is required"),
    ("POST /reducers/{aggregate_type}/test", "/source: is required|/events: send either events or aggregate_id"),
]
# The document describes the parameters of all representations at once: a page has at most 1,000 events, NDJSON has any
# number, and an event stream supports neither `limit` nor an end. Each entry has the value of `Accept` and a pattern of
# the `detail`.
OF_REPRESENTATIONS = [
    (None, r"parameter limit: must be a whole number from 1 to 1000$"),
    ("application/cloudevents-batch+json", r"parameter limit: must be a whole number from 1 to 1000$"),
    (None, r"parameter lastEventId: is unknown"),
    ("application/cloudevents-batch+json", r"parameter lastEventId: is unknown"),
    ("application/x-ndjson", r"parameter lastEventId: is unknown"),
    ("application/x-ndjson", r"parameter wait: is only supported for pages"),
    ("text/event-stream", r"parameter (limit|wait|to_version|direction): .*event stream"),
    ("text/event-stream", r"parameter direction: must be forward: only pages of JSON go backward"),
    ("application/x-ndjson", r"parameter direction: must be forward: only pages of JSON go backward"),
    ("application/cloudevents-batch+json", r"parameter direction: must be forward: only pages of JSON go backward"),
    # The other representations ignore this header, so the document allows every value.
    ("text/event-stream", r"header Last-Event-ID: "),
]
# JSON Schema accepts 1.0 as an integer, and Annals does not.
WHOLE_FLOAT = r"must be a whole number, and is (-?[0-9]+\.0\b|-?[0-9.]+e\+?[0-9]+)"
# The codes of problems that a valid request can cause: they depend on the stored data, or on rules for a document that
# a schema cannot express.
DEPENDS = {
    "version_conflict", "position_conflict", "position_beyond_head", "version_beyond_head", "invalid_event_data",
    "invalid_reducer", "reducer_failed", "epoch_changed", "event_id_reused", "event_partly_known", "snapshot_stale",
    "reducer_exists", "no_reducer", "position_regressed", "stream_not_found", "event_not_found", "snapshot_not_found",
    "reducer_not_found", "projection_not_found", "problem_not_found",
    "group_not_found", "group_differs", "moved_by_group", "claims_open", "claim_not_found", "claim_lost",
    "position_beyond_claim", "parked_stream_not_found", "too_many_parked", "erasure_not_found", "erasure_too_large",
}
# The codes with a 5xx status that a valid request can cause on a healthy server, because it waits for a position.
PATIENCE = {"replica_behind", "projection_behind"}
CODES = DEPENDS | PATIENCE | {
    "invalid_request", "unauthenticated", "forbidden", "quota_exceeded", "route_not_found", "method_not_allowed",
    "not_acceptable", "payload_too_large", "unsupported_media_type", "internal", "overloaded", "database_unavailable",
    "outcome_unknown", "too_many_subscribers", "shutting_down", "clock_skew", "uri_too_long", "headers_too_large",
    "host_refused",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Sets valid waits to their minimum. The generator chooses up to 60 seconds, which would only take time."""
    for name, least in (("wait", 0), ("timeout", 1)):
        value = (case.query or {}).get(name)
        if re.fullmatch(r"[0-9]{1,2}", str(value)) and least < int(value) <= 60:
            case.query[name] = least
    if case.operation.method.upper() == "HEAD":
        # A position beyond the head gets 503 without a body, which has no code to compare.
        (case.query or {}).pop("min_position", None)
    if "wait_for" in (case.query or {}):
        case.query.setdefault("timeout", 1)


def expects_a_float(case):
    """Returns whether an `expected_version` is a float. WHOLE_FLOAT cannot match it: its `detail` has no value."""
    appends = case.body.get("appends", []) if isinstance(case.body, dict) else []
    return any(isinstance(append.get("expected_version"), float) for append in appends)


def problem_of(response):
    """Returns the problem document of a response, or None if the response is not a problem."""
    # A response to HEAD has no body.
    if response.headers.get("content-type", [""])[0] != "application/problem+json" or not response.content:
        return None
    return response.json()


def breaks_a_pattern(case):
    """Returns whether a header violates its pattern in the document.

    The coverage phase declares "0" as valid if it cannot generate a value for a pattern.
    """
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    for parameter in case.operation.definition.raw.get("parameters", []):
        pattern, value = parameter["schema"].get("pattern"), headers.get(parameter["name"].lower())
        if parameter["in"] == "header" and pattern and value is not None and not re.search(pattern, value):
            return True
    return False


@schemathesis.check
def problem_is_whole(context, response, case):
    """Checks that every error response is a problem with a known code, its own status and the request id."""
    if response.status_code < 400:
        return
    problem = problem_of(response)
    if case.operation.method.upper() == "HEAD":
        return
    if problem is None:
        message = "An error response is not a problem document"
        raise Failure(operation=case.operation.label, title="Not a problem", message=message)
    faults = []
    if problem.get("code") not in CODES:
        faults.append(f"unknown code {problem.get('code')}")
    if problem.get("status") != response.status_code:
        faults.append(f"status {problem.get('status')} in a response with status {response.status_code}")
    if problem.get("type") != f"/problems/{problem.get('code')}":
        faults.append(f"type {problem.get('type')}")
    if problem.get("instance") != response.headers.get("x-request-id", [None])[0]:
        faults.append("instance is not X-Request-Id")
    if problem.get("code") == "invalid_request" and not problem.get("errors"):
        faults.append("invalid_request without errors")
    if faults:
        raise Failure(operation=case.operation.label, title="Invalid problem", message=", ".join(faults))


@schemathesis.check
def lines_are_complete(context, response, case):
    """Checks that NDJSON ends with an end line. On a healthy server every read is complete."""
    if response.headers.get("content-type", [""])[0] != "application/x-ndjson" or response.status_code != 200:
        return
    lines = [json.loads(line) for line in response.content.splitlines()]
    if not lines or lines[-1].get("end", {}).get("count") != len(lines) - 1:
        message = f"The last line is {lines[-1:]}"
        raise Failure(operation=case.operation.label, title="Incomplete lines", message=message)


@schemathesis.check
def valid_is_accepted(context, response, case):
    """Replaces positive_data_acceptance and extends not_a_server_error: it checks the code, not only the status."""
    problem = problem_of(response)
    if problem is None:
        return
    code, detail = problem.get("code"), problem.get("detail", "")
    operation = case.operation.label
    if response.status_code >= 500 and code not in PATIENCE:
        raise Failure(operation=operation, title="Server error", message=f"{code}: {detail}")
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code >= 500:
        return
    if detail.startswith("header ") and breaks_a_pattern(case):
        return
    if "/expected_version: must be a version" in detail and expects_a_float(case):
        return
    if code in DEPENDS or re.search(WHOLE_FLOAT, detail):
        return
    if any(operation == where and re.search(what, detail) for where, what in SPANNING):
        return
    accept = response.request.headers.get("Accept")
    accept = None if accept in (None, "*/*") else accept
    if any(accept == of and re.search(what, detail) for of, what in OF_REPRESENTATIONS):
        return
    raise Failure(operation=operation, title="Valid request refused", message=f"{code}: {detail}")

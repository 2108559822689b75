"""What scripts/check-contract adds to Schemathesis: bounded waits, and checks that know the problems of Annals."""

import json
import re

import schemathesis
from schemathesis.core.failures import Failure

# Rules that span several parameters or members, which OpenAPI cannot say: requests that follow the schema of each one
# may still break them. (Operation, the `detail` of the problem).
SPANNING = [
    ("GET /aggregates/{aggregate_type}/{aggregate_id}/state", "version exclude each other"),
    ("GET /events", "aggregate_id: needs exactly one aggregate_type"),
    ("GET /events", "occurred_from: is later than occurred_to"),
    ("GET /streams/{aggregate_type}/{aggregate_id}", "from_version: is above to_version"),
    ("POST /appends", "the stream stands twice in the request"),
    ("POST /appends", "a request has at most 1000 events"),
    ("POST /appends", "/event_id: stands twice in the request"),
    ("POST /streams/{aggregate_type}/{aggregate_id}", "If-None-Match: and If-Match exclude each other"),
    ("POST /streams/{aggregate_type}/{aggregate_id}", "/event_id: stands twice in the request"),
    ("POST /reducers/{aggregate_type}/test", "/event_id: stands twice in the request"),
    ("PUT /projections/{projection_name}", "If-None-Match: and If-Match exclude each other"),
    ("PUT /reducers/{aggregate_type}", "/source: is required"),
    ("POST /reducers/{aggregate_type}/test", "/source: is required|/events: must stand there, or aggregate_id"),
]
# Pages have at most 1,000 events, lines (NDJSON) any number, and an event stream takes neither `limit` nor an end: the
# document describes the parameters of all representations at once. (`Accept`, the `detail`).
OF_REPRESENTATIONS = [
    (None, r"parameter limit: must be a whole number from 1 to 1000$"),
    ("application/cloudevents-batch+json", r"parameter limit: must be a whole number from 1 to 1000$"),
    ("application/x-ndjson", r"parameter wait: is for pages"),
    ("text/event-stream", r"parameter (limit|wait|to_version|direction): .*event stream"),
    # Pages and lines pass over it, whatever it is.
    ("text/event-stream", r"header Last-Event-ID: "),
]
# JSON Schema counts 1.0 as an integer; Annals does not.
WHOLE_FLOAT = r"invalid type: floating point `-?[0-9]+\.0`|invalid type: floating point `[0-9.]+e\+?[0-9]+`"
# What depends on what is stored, or on more of a document than a schema can say, has codes of its own.
DEPENDS = {
    "version_conflict", "position_conflict", "position_beyond_head", "version_beyond_head", "invalid_event_data",
    "invalid_reducer", "reducer_failed", "epoch_changed", "event_id_reused", "event_partly_known", "snapshot_stale",
    "reducer_exists", "no_reducer", "position_regressed", "stream_not_found", "event_not_found", "snapshot_not_found",
    "reducer_not_found", "projection_not_found", "problem_not_found",
}
# Of the answers that are not the request's fault, those that a generated request can bring about on a healthy server.
PATIENCE = {"replica_behind", "projection_behind"}
CODES = DEPENDS | PATIENCE | {
    "invalid_request", "unauthenticated", "forbidden", "quota_exceeded", "route_not_found", "method_not_allowed",
    "not_acceptable", "payload_too_large", "unsupported_media_type", "internal", "overloaded", "database_unavailable",
    "outcome_unknown", "too_many_subscribers", "shutting_down",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes valid waits as short as they may be: a minute is as valid as a second, and takes a minute."""
    for name, least in (("wait", 0), ("timeout", 1)):
        value = (case.query or {}).get(name)
        if re.fullmatch(r"[0-9]{1,2}", str(value)) and least < int(value) <= 60:
            case.query[name] = least
    if "wait_for" in (case.query or {}):
        case.query.setdefault("timeout", 1)


def expects_a_float(case):
    """The same of `expected_version`, whose fault does not tell the value."""
    appends = case.body.get("appends", []) if isinstance(case.body, dict) else []
    return any(isinstance(append.get("expected_version"), float) for append in appends)


def problem_of(response):
    if response.headers.get("content-type", [""])[0] != "application/problem+json":
        return None
    return response.json()


def breaks_a_pattern(case):
    """Whether a header is not what the document says: the coverage phase sends "0" as valid where it cannot make a
    value of a pattern."""
    headers = {name.lower(): value for name, value in (case.headers or {}).items()}
    for parameter in case.operation.definition.raw.get("parameters", []):
        pattern, value = parameter["schema"].get("pattern"), headers.get(parameter["name"].lower())
        if parameter["in"] == "header" and pattern and value is not None and not re.search(pattern, value):
            return True
    return False


@schemathesis.check
def problem_is_whole(context, response, case):
    """Every refusal is a problem with a code of the list, its own status, and the id of the request."""
    if response.status_code < 400:
        return
    problem = problem_of(response)
    if problem is None:
        raise Failure(operation=case.operation.label, title="No problem", message="A refusal that is not a problem")
    faults = []
    if problem.get("code") not in CODES:
        faults.append(f"unknown code {problem.get('code')}")
    if problem.get("status") != response.status_code:
        faults.append(f"status {problem.get('status')} in an answer with {response.status_code}")
    if problem.get("type") != f"/problems/{problem.get('code')}":
        faults.append(f"type {problem.get('type')}")
    if problem.get("instance") != response.headers.get("x-request-id", [None])[0]:
        faults.append("instance is not X-Request-Id")
    if problem.get("code") == "invalid_request" and not problem.get("errors"):
        faults.append("invalid_request without errors")
    if faults:
        raise Failure(operation=case.operation.label, title="Broken problem", message=", ".join(faults))


@schemathesis.check
def lines_are_complete(context, response, case):
    """NDJSON ends with a line that says so: on a healthy server nothing breaks off."""
    if response.headers.get("content-type", [""])[0] != "application/x-ndjson" or response.status_code != 200:
        return
    lines = [json.loads(line) for line in response.content.splitlines()]
    if not lines or lines[-1].get("end", {}).get("count") != len(lines) - 1:
        raise Failure(operation=case.operation.label, title="Broken lines", message=f"The end is {lines[-1:]}")


@schemathesis.check
def valid_is_accepted(context, response, case):
    """positive_data_acceptance and the rest of not_a_server_error, with a look at the code instead of the status."""
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

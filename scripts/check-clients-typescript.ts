// What an application would write with the types that openapi-typescript makes. Only the compiler reads it.

import type { components, operations } from "./annals";

type NewEvent = components["schemas"]["NewEvent"];
type Append = operations["append_to_stream"]["requestBody"]["content"]["application/json"];
type Conflict = operations["append_to_stream"]["responses"][412]["content"]["application/problem+json"];

const payloads: NewEvent["event_data"][] = [{ total: 42 }, [1, "two"], "text", 1.5, true];
export const append: Append = { events: payloads.map((event_data) => ({ event_type: "OrderPlaced", event_data })) };

export const appends: components["schemas"]["MultiAppend"] = {
  appends: [
    { aggregate_type: "Order", aggregate_id: "ord-1", expected_version: 3, events: append.events },
    { aggregate_type: "Order", aggregate_id: "ord-2", expected_version: "none", events: append.events },
  ],
};

export function missed(problem: Conflict): components["schemas"]["Event"][] {
  return problem.code === "version_conflict" && problem.current_version > 0 ? (problem.missed_events ?? []) : [];
}

export function known(problem: operations["append_to_stream"]["responses"][409]["content"]["application/problem+json"]) {
  return problem.known_event_ids;
}

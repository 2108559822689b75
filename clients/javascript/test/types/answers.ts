// The types of answers and requests agree with the OpenAPI document of the service. Only the compiler reads it.

import type * as client from "annals";

import type { components, operations } from "./generated/openapi.js";

type Schemas = components["schemas"];

/** The service sends every member, null ones too. The generator has `Record<string, never>` for any object. */
type Answered<T> =
    T extends Record<string, never>
        ? Record<string, unknown>
        : T extends (infer Item)[]
          ? Answered<Item>[]
          : T extends object
            ? { [Name in keyof T]-?: Answered<Exclude<T[Name], undefined>> }
            : T;

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
type Within<A, B> = [A] extends [B] ? true : false;
type Query<Operation extends keyof operations> = NonNullable<operations[Operation]["parameters"]["query"]>;
type Members<T, Name extends keyof T> = Required<Pick<T, Name>>;

const agreed: true[] = [];
const agrees = <_ extends true>() => agreed.push(true);

agrees<Same<client.Event<unknown>, Answered<Schemas["Event"]>>>();
agrees<Same<client.RecordedEvent, Answered<Schemas["RecordedEvent"]>>>();
agrees<Same<client.AppendResult, Answered<Schemas["AppendResult"]>>>();
agrees<Same<client.Claim, Answered<Schemas["Claim"]>>>();
agrees<Same<client.Projection, Answered<Schemas["Projection"]>>>();
agrees<Same<client.AggregateState<unknown>, Answered<Schemas["AggregateState"]>>>();
agrees<Same<keyof client.NewEvent, keyof Schemas["NewEvent"]>>();
agrees<Same<keyof client.StreamAppend, keyof Schemas["MultiAppendItem"]>>();

// The parameters of requests. `partition` has a route in a later version of the document.
agrees<Within<Exclude<keyof client.LogRange, "partition">, keyof Query<"read_log">>>();
agrees<Within<keyof client.StreamRange, keyof Query<"read_stream">>>();

// The members of problems.
type Conflict = "expected_version" | "current_version" | "missed_events_truncated";
agrees<Same<Members<client.VersionConflict, Conflict>, Members<Schemas["VersionConflict"], Conflict>>>();
agrees<Within<"missed_events", keyof Schemas["VersionConflict"]>>();
type Rewind = "rewind_to" | "epoch";
agrees<Same<Members<client.EpochChanged, Rewind>, Members<Schemas["EpochChanged"], Rewind>>>();
type Position = "current_position";
agrees<Same<Members<client.PositionConflict, Position>, Members<Schemas["PositionConflict"], Position>>>();
type Lost = "claimed_by" | "last_processed_position";
agrees<Same<Members<client.ClaimLost, Lost>, Members<Schemas["ClaimLost"], Lost>>>();
agrees<Within<keyof Schemas["Problem"], keyof client.Problem>>();

// The comparison can fail.
// @ts-expect-error a member is missing
agrees<Same<Omit<client.Event<unknown>, "metadata">, Answered<Schemas["Event"]>>>();
// @ts-expect-error a member has another type
agrees<Same<client.RecordedEvent & { version: string }, Answered<Schemas["RecordedEvent"]>>>();

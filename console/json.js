// JSON with all its digits: text, a tree that opens step by step, and the difference of two values.

import { useMemo, useState } from "preact/hooks";

import { JsonNumber } from "./annals.js";
import { Copy, bytes, count, download, html } from "./ui.js";

/** Above this size a value starts folded. */
const LARGE = 256 * 1024;
/** The children and the characters that one press shows. */
const CHUNK = 100;
const TEXT_CHUNK = 20_000;
/** A value of at most this many children is open at the start. */
const OPEN_AT_MOST = 30;
const DIFFERENCES_AT_MOST = 200;

const isContainer = (value) => typeof value === "object" && value !== null && !(value instanceof JsonNumber);
const entriesOf = (value) => (Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value));

/** Prints a value. Numbers of more than 53 bits are in it with all digits. */
export function print(value, indent = 2, depth = 0) {
    if (!isContainer(value))
        return typeof value === "bigint" || value instanceof JsonNumber ? String(value) : JSON.stringify(value);
    const isList = Array.isArray(value);
    const items = entriesOf(value).map(
        ([name, item]) => (isList ? "" : `${JSON.stringify(name)}: `) + print(item, indent, depth + 1),
    );
    const [open, close] = isList ? "[]" : "{}";
    if (items.length === 0) return open + close;
    if (indent === 0) return open + items.join(", ") + close;
    const space = " ".repeat(indent * (depth + 1));
    return `${open}\n${space}${items.join(`,\n${space}`)}\n${" ".repeat(indent * depth)}${close}`;
}

/** Returns the first characters of a value on one line. Only what is shown is printed. */
export function preview(value, length = 200) {
    if (!isContainer(value))
        return (typeof value === "string" ? JSON.stringify(value.slice(0, length)) : print(value)).slice(0, length);
    let text = "";
    for (const [name, item] of entriesOf(value)) {
        text += `${text && "  "}${Array.isArray(value) ? "" : `${name}: `}${isContainer(item) ? preview(item, length - text.length) : preview(item, length)}`;
        if (text.length >= length) return `${text.slice(0, length)}…`;
    }
    if (text === "") return Array.isArray(value) ? "[]" : "{}";
    return Array.isArray(value) ? `[${text}]` : text;
}

function Scalar({ value }) {
    const [all, setAll] = useState(false);
    if (typeof value === "string") {
        const long = value.length > 1000 && !all;
        return html`<span class="string">${JSON.stringify(long ? value.slice(0, 1000) : value)}</span>${long && html`<button type="button" class="small" onClick=${() => setAll(true)}>show all ${count(value.length)} characters</button>`}`;
    }
    return html`<span class=${value === null ? "null" : "literal"}>${print(value)}</span>`;
}

function Node({ name, value, changed, path, depth, folded }) {
    const isOpenAtFirst =
        isContainer(value) && !folded && (depth === 0 || (depth < 3 && Object.keys(value).length <= OPEN_AT_MOST));
    const [open, setOpen] = useState(isOpenAtFirst);
    const [shown, setShown] = useState(CHUNK);
    const mark = changed?.has(path) ? "changed" : "";
    const label = name !== undefined && html`<span class="name">${name}</span>`;
    if (!isContainer(value)) return html`<div class=${`leaf ${mark}`}>${label}<${Scalar} value=${value} /></div>`;
    const size = Object.keys(value).length;
    const kind = Array.isArray(value) ? `[${count(size)}]` : `{${count(size)}}`;
    if (size === 0)
        return html`<div class=${`leaf ${mark}`}>${label}<span class="quiet">${Array.isArray(value) ? "[]" : "{}"}</span></div>`;
    const children = () => {
        const entries = entriesOf(value);
        return html`${entries.slice(0, shown).map(([key, item]) => html`<${Node} key=${key} name=${key} value=${item} changed=${changed} path=${`${path}/${key}`} depth=${depth + 1} folded=${folded} />`)}
            ${entries.length > shown && html`<button type="button" class="small" onClick=${() => setShown(shown + CHUNK)}>show ${count(Math.min(CHUNK, entries.length - shown))} more of ${count(entries.length)}</button>`}`;
    };
    return html`<details open=${open} class=${mark} onToggle=${(event) => event.target === event.currentTarget && setOpen(event.currentTarget.open)}>
        <summary>${label}<span class="quiet">${kind}</span></summary>
        ${open && html`<div class="children">${children()}</div>`}
    </details>`;
}

function Raw({ value }) {
    const text = useMemo(() => print(value), [value]);
    const [shown, setShown] = useState(TEXT_CHUNK);
    return html`<pre tabindex="0">${text.slice(0, shown)}</pre>
        ${text.length > shown && html`<button type="button" class="small" onClick=${() => setShown(shown + TEXT_CHUNK)}>show more of ${bytes(text.length)}</button>`}`;
}

/** Estimates the size of a value, up to a limit, without printing it. */
function sizeOf(value, limit) {
    if (typeof value === "string") return value.length + 2;
    if (!isContainer(value)) return 6;
    let size = 2;
    for (const [name, item] of entriesOf(value)) {
        size += String(name).length + 4 + sizeOf(item, limit - size);
        if (size > limit) break;
    }
    return size;
}

/** A value as a tree, as text, and as a file. `changed` are the paths to mark. */
export function Json({ value, changed, name = "event.json" }) {
    const [raw, setRaw] = useState(false);
    const large = useMemo(() => sizeOf(value, LARGE) > LARGE, [value]);
    return html`<div class="json">
        <div class="tools">
            ${large && html`<span class="quiet">More than ${bytes(LARGE)}</span>`}
            <button type="button" class="small" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>Raw</button>
            ${!large && html`<${Copy} text=${print(value)} />`}
            <button type="button" class="small" onClick=${() => download(print(value), name)}>Download</button>
        </div>
        ${raw ? html`<${Raw} value=${value} />` : html`<${Node} key=${large} value=${value} changed=${changed} path="" depth=${large ? 1 : 0} folded=${large} />`}
    </div>`;
}

/** Returns what differs between two values: `{path, kind, before, after}`, in order. Lists are compared by index. */
export function difference(before, after) {
    const found = [];
    const compare = (left, right, path) => {
        if (found.length > DIFFERENCES_AT_MOST || left === right) return;
        if (isContainer(left) && isContainer(right) && Array.isArray(left) === Array.isArray(right)) {
            for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
                const inner = `${path}/${name}`;
                if (!Object.hasOwn(left, name)) found.push({ path: inner, kind: "added", after: right[name] });
                else if (!Object.hasOwn(right, name)) found.push({ path: inner, kind: "removed", before: left[name] });
                else compare(left[name], right[name], inner);
            }
        } else if (isContainer(left) || isContainer(right) || print(left) !== print(right)) {
            found.push({ path, kind: "changed", before: left, after: right });
        }
    };
    compare(before, after, "");
    return found;
}

/** The difference of two values as a table. The kind is a word, not a colour alone. */
export function Difference({ changes }) {
    if (changes.length === 0) return html`<p class="empty">The event did not change the state.</p>`;
    const cell = (value, has) => (has ? html`<code>${preview(value, 120)}</code>` : html`<span class="quiet">–</span>`);
    return html`<div class="scroll" tabindex="0" role="region" aria-label="What the event changed"><table class="difference">
        <thead><tr><th scope="col">Member</th><th scope="col">Before</th><th scope="col">After</th></tr></thead>
        <tbody>${changes.slice(0, DIFFERENCES_AT_MOST).map(
            (
                change,
            ) => html`<tr class=${change.kind}><th scope="row"><code>${change.path.slice(1) || "the state"}</code> <span class="tag">${change.kind}</span></th>
                <td>${cell(change.before, change.kind !== "added")}</td><td>${cell(change.after, change.kind !== "removed")}</td></tr>`,
        )}</tbody>
    </table></div>
    ${changes.length > DIFFERENCES_AT_MOST && html`<p class="note">The first ${DIFFERENCES_AT_MOST} differences.</p>`}`;
}

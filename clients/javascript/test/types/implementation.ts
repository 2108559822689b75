// `annals.js` has what `annals.d.ts` declares. The test copies annals.js to `generated/implementation.js`, because the
// compiler would read annals.d.ts in its place. Only the compiler reads this file.

import * as declared from "annals";

import * as implementation from "./generated/implementation.js";

const names: Record<keyof typeof declared, unknown> = implementation;
const rest: Record<keyof typeof implementation, unknown> = declared;
export const annals: Pick<declared.Annals, keyof declared.Annals> = new implementation.Annals("http://127.0.0.1:8080");
export const methods: Record<keyof implementation.Annals, unknown> = new declared.Annals("http://127.0.0.1:8080");
export const number: declared.JsonNumber = new implementation.JsonNumber("1");
export const id: string = implementation.uuidv7();
export const all = [names, rest];

// Assertions that run in Node.js and in browsers.

const print = (value) =>
    JSON.stringify(value, (_, member) => (typeof member === "bigint" ? `${member}n` : (member ?? null)));

export function equal(actual, expected, what = "") {
    if (print(actual) !== print(expected)) throw new Error(`${what} is ${print(actual)}, expected ${print(expected)}`);
}

export function check(condition, what) {
    if (!condition) throw new Error(what);
}

/** Returns the error of a promise that must reject with an error of this code. */
export async function fails(promise, code) {
    const error = await promise.then(
        () => null,
        (error) => error,
    );
    if (!error) throw new Error(`nothing failed, expected ${code}`);
    if (error.code !== code) throw new Error(`the error is ${error.stack}, expected ${code}`, { cause: error });
    return error;
}

/** Waits until a condition holds. */
export async function until(condition, what) {
    for (let round = 0; round < 3000; round++) {
        const result = await condition();
        if (result) return result;
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`not within 30 seconds: ${what}`);
}

/** Returns all items of an iterator. */
export async function all(iterable) {
    const items = [];
    for await (const item of iterable) items.push(item);
    return items;
}

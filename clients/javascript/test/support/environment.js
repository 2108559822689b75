// What the rows of the conformance list need outside the client: a proxy, a service without keys, one with keys.

import { fileURLToPath } from "node:url";

import { startAnnals } from "../../start-annals.js";
import { until } from "./assert.js";
import { startProxy } from "./proxy.js";

const folder = fileURLToPath(new URL("../..", import.meta.url));

/** Starts everything. All results are JSON, so that a page in a browser can call the functions. */
export async function startEnvironment() {
    const proxy = await startProxy(folder);
    const keysProxy = await startProxy(folder);
    const [service, keysService] = await Promise.all([
        startAnnals(),
        // A page of the proxy's origin may call the service with keys.
        startAnnals({ env: { ANNALS_AUTH: "keys", ANNALS_CORS_ORIGINS: proxy.url } }),
    ]);
    proxy.setTarget(service.url);
    keysProxy.setTarget(keysService.url);
    const calls = {
        rule: (rule) => void proxy.rule(rule),
        log: (path) => proxy.log(path),
        // Pages of another origin ask for permission first.
        keysLog: (path) => keysProxy.log(path).filter(({ method }) => method !== "OPTIONS"),
        clear: () => proxy.clear(),
        cut: (path) => proxy.cut(path),
        kill: () => service.kill(),
        start: () => service.start(),
        beginEpoch: async () => void (await service.command("epoch", "--begin", "conformance")),
        createKey: async (...args) => {
            const output = await keysService.command("keys", "create", "--name", "conformance", ...args);
            const key = /annals_[0-9a-f]+_[0-9a-f]+/.exec(output)[0];
            // After an unknown key the service reads the keys again, but at most once in a second.
            const headers = { Authorization: `Bearer ${key}` };
            const isKnown = async () => (await fetch(`${keysService.url}/projections`, { headers })).status !== 401;
            await until(isKnown, "the key is known");
            return key;
        },
        revokeKey: async (key) => void (await keysService.command("keys", "revoke", key.split("_")[1])),
    };
    const stop = async () => {
        await Promise.all([proxy.stop(), keysProxy.stop()]);
        await Promise.all([service.stop(), keysService.stop()]);
    };
    return { url: proxy.url, keysUrl: keysProxy.url, calls, stop };
}

/**
 * A test double of Annals that is Annals: starts the program on a free port with an empty store, and stops it.
 *
 * Only for Node.js. `ANNALS_BIN` names the program, otherwise it is `annals` in the `PATH`. It starts a PostgreSQL of
 * its own, whose programs it finds on the system or in `ANNALS_PG_BIN`.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Starts a service with an empty store, and returns it when it accepts requests. */
export async function startAnnals({ binary = process.env.ANNALS_BIN || "annals", env = {} } = {}) {
    const folder = await mkdtemp(join(tmpdir(), "annals-"));
    // Annals runs PostgreSQL as another user if it is started by root.
    await chmod(folder, 0o755);
    const service = new Service(binary, folder, env);
    try {
        await service.start();
    } catch (error) {
        await service.stop();
        throw error;
    }
    return service;
}

class Service {
    #binary;
    #folder;
    #env;
    #address = "127.0.0.1:0";
    #process = null;
    #log = "";

    constructor(binary, folder, env) {
        this.#binary = binary;
        this.#folder = folder;
        this.#env = { ...process.env, ...env, ANNALS_DATA_DIR: join(folder, "data") };
        // A database of the environment would not be empty.
        for (const name of ["DATABASE_URL", "DATABASE_HOST"]) if (!(name in env)) delete this.#env[name];
    }

    get url() {
        return `http://${this.#address}`;
    }

    /** Starts the program, again with the same store and on the same port after `kill`. */
    async start() {
        const settings = { ...this.#env, ANNALS_LISTEN: this.#address, ANNALS_LOG: "json" };
        const child = spawn(this.#binary, ["serve"], { env: settings, stdio: ["ignore", "pipe", "pipe"] });
        this.#process = child;
        this.#log = "";
        const atExit = () => child.kill();
        process.once("exit", atExit);
        child.once("exit", () => process.removeListener("exit", atExit));
        await new Promise((resolve, reject) => {
            const receive = (text) => {
                this.#log = (this.#log + text).slice(-100_000);
                const listening = /listening on http:\/\/([0-9.:]+)/.exec(this.#log);
                if (listening) resolve((this.#address = listening[1]));
            };
            child.stdout.setEncoding("utf8").on("data", receive);
            child.stderr.setEncoding("utf8").on("data", receive);
            child.once("error", (error) => {
                const remedy = "set ANNALS_BIN to its path, or add it to PATH";
                reject(error.code === "ENOENT" ? new Error(`"${this.#binary}" was not found: ${remedy}`) : error);
            });
            child.once("exit", (status) => reject(new Error(`annals ended with status ${status}:\n${this.#log}`)));
        });
    }

    /** Kills the program as a crash would (SIGKILL). The store remains, and `start` continues with it. */
    async kill() {
        await this.#end("SIGKILL");
    }

    /** Stops the program and removes its store. */
    async stop() {
        const wasKilled = this.#process === null;
        await this.#end("SIGTERM");
        // After a crash PostgreSQL still runs. The next command that uses it stops it.
        if (wasKilled) await this.command("epoch").catch(() => {});
        await rm(this.#folder, { recursive: true, force: true });
    }

    async #end(signal) {
        const child = this.#process;
        this.#process = null;
        if (!child || child.exitCode !== null || child.signalCode !== null) return;
        const ended = once(child, "exit");
        child.kill(signal);
        await ended;
    }

    /** Runs a command of the program on the same store, for example `keys`, and returns its standard output. */
    async command(...args) {
        const child = spawn(this.#binary, args, { env: this.#env, stdio: ["ignore", "pipe", "pipe"] });
        const output = { stdout: "", stderr: "" };
        for (const name of ["stdout", "stderr"]) {
            child[name].setEncoding("utf8").on("data", (text) => {
                output[name] += text;
            });
        }
        const [status] = await once(child, "close");
        if (status !== 0) throw new Error(`annals ${args.join(" ")} ended with status ${status}:\n${output.stderr}`);
        return output.stdout;
    }
}

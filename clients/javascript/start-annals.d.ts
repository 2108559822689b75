/** A service with an empty store, for tests. */
export interface Service {
    readonly url: string;
    /** Starts the program again after `kill`, with the same store and on the same port. */
    start(): Promise<void>;
    /** Kills the program as a crash would. */
    kill(): Promise<void>;
    /** Stops the program and removes its store. */
    stop(): Promise<void>;
    /** Runs a command of the program on the same store, and returns its standard output. */
    command(...args: string[]): Promise<string>;
}

/** Starts a service with an empty store on a free port. `binary` is `ANNALS_BIN` by default, or `annals` in the `PATH`. */
export function startAnnals(options?: { binary?: string; env?: Record<string, string> }): Promise<Service>;

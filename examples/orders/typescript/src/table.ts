// The table of the projection: rows, and the cursor of the last event that is part of them. Both are stored in one step,
// in SQLite (a file that ends with .db, with Node.js 22.13 or later) or in a file of JSON that is replaced as a whole.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";

import type { Event } from "annals";

export interface Row {
    id: string;
    customer: string;
    status: string;
    open: number;
}

export interface Table {
    /** Returns the cursor, and the number of events that were applied. */
    progress(): { cursor: string; events: number };
    /** Applies events and stores the cursor, in one step. `pause` is called after each event. */
    apply(events: Event[], cursor: string, pause: () => void): void;
    /** Discards everything. */
    clear(): void;
    rows(status: string): Row[];
}

export async function openTable(path: string): Promise<Table> {
    if (!path.endsWith(".db")) return new FileTable(path);
    const { DatabaseSync } = await import("node:sqlite");
    return new SqliteTable(new DatabaseSync(path));
}

/** Returns the row after an event. An event that is applied twice would be noticed: `open` is decremented. */
function changed(row: Row | undefined, { aggregate_id: id, event_type, event_data }: Event): Row | undefined {
    if (event_data === null) return row; // The content of the event is erased.
    if (event_type === "OrderPlaced")
        return { id, customer: event_data.customer, status: "placed", open: event_data.total };
    if (!row) return undefined;
    if (event_type === "PaymentReceived") return { ...row, open: row.open - event_data.amount };
    if (event_type === "OrderPaid") return { ...row, status: "paid" };
    if (event_type === "OrderCancelled") return { ...row, status: "cancelled" };
    return row;
}

class SqliteTable implements Table {
    constructor(private readonly database: DatabaseSync) {
        database.exec(`
            PRAGMA journal_mode = WAL; -- Readers do not wait for the writer.
            PRAGMA busy_timeout = 5000;
            CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, status TEXT, open INTEGER);
            CREATE TABLE IF NOT EXISTS progress (cursor TEXT, events INTEGER);
            INSERT INTO progress SELECT '0', 0 WHERE NOT EXISTS (SELECT 1 FROM progress);
        `);
    }

    progress() {
        return this.database.prepare("SELECT cursor, events FROM progress").get() as { cursor: string; events: number };
    }

    apply(events: Event[], cursor: string, pause: () => void) {
        const read = this.database.prepare("SELECT * FROM orders WHERE id = ?");
        const write = this.database.prepare("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)");
        this.inTransaction(() => {
            for (const event of events) {
                const row = changed(read.get(event.aggregate_id) as unknown as Row | undefined, event);
                if (row) write.run(row.id, row.customer, row.status, row.open);
                pause();
            }
            const progress = this.database.prepare("UPDATE progress SET cursor = ?, events = events + ?");
            progress.run(cursor, events.length);
        });
    }

    clear() {
        this.inTransaction(() =>
            this.database.exec("DELETE FROM orders; UPDATE progress SET cursor = '0', events = 0"),
        );
    }

    rows(status: string) {
        const select = this.database.prepare("SELECT * FROM orders WHERE status = ? ORDER BY id");
        return select.all(status).map((row) => ({ ...row }) as unknown as Row);
    }

    private inTransaction(work: () => void) {
        this.database.exec("BEGIN IMMEDIATE");
        try {
            work();
            this.database.exec("COMMIT");
        } catch (error) {
            this.database.exec("ROLLBACK");
            throw error;
        }
    }
}

interface Content {
    cursor: string;
    events: number;
    orders: Record<string, Row>;
}

class FileTable implements Table {
    constructor(private readonly path: string) {}

    progress() {
        return this.read();
    }

    apply(events: Event[], cursor: string, pause: () => void) {
        const content = this.read();
        for (const event of events) {
            const row = changed(content.orders[event.aggregate_id], event);
            if (row) content.orders[row.id] = row;
            pause();
        }
        this.write({ ...content, cursor, events: content.events + events.length });
    }

    clear() {
        this.write({ cursor: "0", events: 0, orders: {} });
    }

    rows(status: string) {
        const rows = Object.values(this.read().orders).filter((row) => row.status === status);
        return rows.sort((a, b) => (a.id < b.id ? -1 : 1));
    }

    private read(): Content {
        if (!existsSync(this.path)) return { cursor: "0", events: 0, orders: {} };
        return JSON.parse(readFileSync(this.path, "utf8"));
    }

    /** Replaces the file, so that a reader finds the old content or the new one, even after a crash. */
    private write(content: Content) {
        const file = openSync(`${this.path}.new`, "w");
        writeSync(file, JSON.stringify(content));
        fsyncSync(file); // The content must reach the disk before the name does.
        closeSync(file);
        renameSync(`${this.path}.new`, this.path);
    }
}

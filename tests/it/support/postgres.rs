//! One PostgreSQL for the run, made like the one that `annals serve` makes, and a database of its own for each test.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::within_a_minute;
use annals::devdb::OwnPostgres;
use annals::store::database::{ConnectOptions, DatabaseConfig};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor, PgConnection};

const TEMPLATE: &str = "template_of_tests";

struct Server {
    postgres: OwnPostgres,
    /// Closed by the system when this process ends, however it ends; then the shell at its other end cleans up.
    _lifeline: ChildStdin,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // In a thread and a runtime of its own: each test's runtime ends with the test.
        std::thread::spawn(|| tokio::runtime::Runtime::new().expect("a runtime").block_on(start()))
            .join()
            .expect("PostgreSQL starts")
    })
}

async fn start() -> Server {
    let folder = tempfile::Builder::new().prefix("annals-test-").tempdir().expect("a temporary folder").keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    let bin = std::env::var_os("ANNALS_PG_BIN").map(PathBuf::from);
    let settings = ["max_connections=400", "shared_buffers=256MB"];
    let postgres = OwnPostgres::start_in(folder.clone(), bin, &settings).await.expect("PostgreSQL starts");
    eprintln!("testing against PostgreSQL {}", postgres.major());
    #[expect(clippy::zombie_processes, reason = "it outlives this process, to clean up after it")]
    let mut lifeline = Command::new("/bin/sh")
        .args(["-c", "read _; kill -INT $0; while kill -0 $0; do sleep 0.1; done; rm -rf \"$1\""])
        .args([&postgres.pid().to_string(), &folder.display().to_string()])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let lifeline = lifeline.stdin.take().expect("it was piped");

    let mut connection = postgres.options_for("postgres").connect().await.expect("a connection");
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"))).await.expect("a database");
    super::migrated(&config(postgres.options_for(TEMPLATE))).await;
    Server { postgres, _lifeline: lifeline }
}

fn config(options: ConnectOptions) -> DatabaseConfig {
    DatabaseConfig {
        options,
        max_connections: 10,
        idle_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
    }
}

/// A database that one test has to itself.
#[derive(Clone)]
pub struct TestDatabase {
    pub name: String,
}

impl TestDatabase {
    /// With the schema, and no event.
    pub async fn create() -> Self {
        Self::create_from(TEMPLATE).await
    }

    /// With nothing in it.
    pub async fn create_empty() -> Self {
        Self::create_from("template1").await
    }

    async fn create_from(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = server().postgres.options_for("postgres").connect().await.expect("a connection");
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}")))
            .await
            .expect("a database");
        Self { name }
    }

    pub fn options(&self) -> ConnectOptions {
        server().postgres.options_for(&self.name)
    }

    pub fn config(&self) -> DatabaseConfig {
        config(self.options())
    }

    /// The socket that a proxy connects to.
    pub fn socket(&self) -> PathBuf {
        server().postgres.data_dir().join("pg/.s.PGSQL.5432")
    }

    /// A session beside the service's, as the owner.
    pub async fn session(&self) -> Session {
        Session(self.options().connect().await.expect("a connection"))
    }
}

/// A session that a test uses to look, to lock and to disturb.
pub struct Session(pub PgConnection);

impl Session {
    pub async fn run(&mut self, sql: &str) {
        self.0.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub async fn number(&mut self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut self.0)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut self.0)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Takes the append lock, as an append does, and keeps it until [`Session::end`].
    pub async fn hold_append_lock(&mut self) {
        self.run("BEGIN").await;
        self.run("SELECT pg_advisory_xact_lock('events'::regclass::oid::integer, 1)").await;
    }

    pub async fn end(&mut self) {
        self.run("ROLLBACK").await;
    }

    /// Waits until `count` sessions of this database wait for the append lock.
    pub async fn wait_for_appends_to_queue(&mut self, count: i64) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1
                          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let queued = async {
            while self.number(waiting).await < count {
                tokio::task::yield_now().await;
            }
        };
        within_a_minute("appends queue for the lock", queued).await;
    }
}

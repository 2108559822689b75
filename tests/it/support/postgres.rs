//! No promise: one PostgreSQL for the run, started as `annals serve` starts its own, and a database for each test.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{pause_between_polls, within_a_minute};
use annals::own_postgres::server::OwnPostgres;
use annals::store::connection::config::{ConnectOptions, DatabaseConfig};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor, PgConnection};

const TEMPLATE: &str = "template_of_tests";

struct Server {
    postgres: OwnPostgres,
    /// The standard input of a shell. When this process ends or is killed, the operating system closes the pipe. Then
    /// the shell stops PostgreSQL and removes its folder.
    _lifeline: ChildStdin,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // In a runtime of its own, because the runtime of a test ends with the test.
        std::thread::spawn(|| tokio::runtime::Runtime::new().expect("a runtime").block_on(start()))
            .join()
            .expect("PostgreSQL starts")
    })
}

async fn start() -> Server {
    let server = Server::start(data_dir(), &["max_connections=400", "shared_buffers=256MB"]).await;
    eprintln!("testing against PostgreSQL {}", server.postgres.major());
    let mut connection = server.postgres.options_for("postgres").connect().await.expect("a connection");
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"))).await.expect("a database");
    super::migrate_schema(&config(server.postgres.options_for(TEMPLATE))).await;
    server
}

/// Creates a folder for a cluster. An unprivileged user can access it.
fn data_dir() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("annals-test-").tempdir().expect("a temporary folder").keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("the mode of the folder is set");
    folder
}

async fn own_postgres(bin: Option<PathBuf>, folder: &Path, settings: &[&str]) -> OwnPostgres {
    OwnPostgres::start_in(folder.to_owned(), bin, settings).await.expect("PostgreSQL starts")
}

fn bin() -> Option<PathBuf> {
    std::env::var_os("ANNALS_PG_BIN").map(PathBuf::from)
}

impl Server {
    async fn start(folder: PathBuf, settings: &[&str]) -> Self {
        Self::start_program(bin(), folder, settings).await
    }

    /// Starts the PostgreSQL whose programs are in `bin`.
    async fn start_program(bin: Option<PathBuf>, folder: PathBuf, settings: &[&str]) -> Self {
        let postgres = own_postgres(bin, &folder, settings).await;
        #[expect(clippy::zombie_processes, reason = "the shell outlives this process, and cleans up after it")]
        let mut lifeline = Command::new("/bin/sh")
            .args(["-c", "read _; kill -INT $0; while kill -0 $0; do sleep 0.1; done; rm -rf \"$1\""])
            .args([&postgres.pid().to_string(), &folder.display().to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let lifeline = lifeline.stdin.take().expect("the standard input is a pipe");
        Self { postgres, _lifeline: lifeline }
    }
}

/// A PostgreSQL for one test, which the test may back up, kill and restore.
pub struct DedicatedServer(Server);

impl DedicatedServer {
    /// Starts a server with an empty cluster.
    pub async fn start(settings: &[&str]) -> Self {
        Self(Server::start(data_dir(), settings).await)
    }

    /// Starts a server of a PostgreSQL whose folder also has `program`. If the tested PostgreSQL does not have it,
    /// `scripts/get-postgres` fetches another one. Returns the server and the path of the program.
    pub async fn start_with_program(program: &str) -> (Self, PathBuf) {
        let has = |bin: &PathBuf| bin.join(program).is_file();
        let bin = bin().filter(has).unwrap_or_else(|| {
            let fetch = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/get-postgres");
            let fetched = Command::new(fetch).arg("18").stderr(Stdio::inherit()).output().expect("the script runs");
            PathBuf::from(String::from_utf8(fetched.stdout).expect("a path").trim())
        });
        assert!(has(&bin), "{} does not contain {program}", bin.display());
        (Self(Server::start_program(Some(bin.clone()), data_dir(), &[]).await), bin.join(program))
    }

    /// Starts a server on a copy of a backup. `prepare` changes the copy before the start.
    pub async fn start_on_copy(backup: &Path, settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = data_dir();
        copy_files(backup, &folder.join("pg"));
        prepare(&folder.join("pg"));
        Self(Server::start(folder, settings).await)
    }

    pub fn database(&self) -> TestDatabase {
        TestDatabase::on(&self.0, "eventstore")
    }

    /// Returns the folder of the cluster.
    pub fn files(&self) -> PathBuf {
        self.0.postgres.data_dir().join("pg")
    }

    /// Creates a folder that the server may write to. It is removed together with the folder of the server.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.0.postgres.data_dir().join(name);
        std::fs::create_dir(&folder).expect("a new folder");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))
            .expect("the mode of the folder is set");
        folder
    }

    /// Returns the address of the database, for a program.
    pub fn url(&self) -> String {
        format!("postgres://annals@localhost/eventstore?host={}", self.files().display())
    }
}

/// Copies files with their owner and their mode.
pub fn copy_files(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} was not copied", from.display());
}

/// A primary and a streaming standby of it.
pub struct ReplicationPair {
    primary: Server,
    standby: Server,
}

impl ReplicationPair {
    /// Starts both servers. The standby begins with a copy of the stopped primary, which is the simplest base backup.
    pub async fn start() -> Self {
        let (folder, other) = (data_dir(), data_dir());
        let small = ["max_connections=60", "shared_buffers=32MB"];
        let first = own_postgres(bin(), &folder, &small).await;
        super::migrate_schema(&config(first.options())).await;
        first.stop().await.expect("the primary stops");
        copy_files(&folder.join("pg"), &other.join("pg"));
        std::fs::write(other.join("pg/standby.signal"), "").expect("standby.signal is written");
        let primary = Server::start(folder.clone(), &small).await;
        // ALTER SYSTEM writes the same file, so a test can disconnect the standby.
        let conninfo = format!("primary_conninfo = 'host={} user=annals'\n", folder.join("pg").display());
        std::fs::write(other.join("pg/postgresql.auto.conf"), conninfo).expect("the configuration is written");
        let standby = Server::start(other, &small).await;
        Self { primary, standby }
    }

    /// Returns the database on the primary.
    pub fn primary(&self) -> TestDatabase {
        TestDatabase::on(&self.primary, "eventstore")
    }

    /// Returns the database on the standby.
    pub fn standby(&self) -> TestDatabase {
        TestDatabase::on(&self.standby, "eventstore")
    }

    /// Kills the primary's postmaster, and promotes the standby.
    pub async fn fail_over(&self) {
        let pid = nix::unistd::Pid::from_raw(self.primary.postgres.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the postmaster is killed");
        self.standby().session().await.run("SELECT pg_promote()").await;
    }
}

fn config(options: ConnectOptions) -> DatabaseConfig {
    DatabaseConfig {
        servers: vec![options],
        max_connections: 10,
        idle_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        archive: None,
    }
}

/// A database for one test.
#[derive(Clone)]
pub struct TestDatabase {
    pub name: String,
    options: ConnectOptions,
    socket: PathBuf,
}

impl TestDatabase {
    /// Creates a database with the schema and without events.
    pub async fn create() -> Self {
        Self::create_from(TEMPLATE).await
    }

    /// Creates an empty database.
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
        Self::on(server(), &name)
    }

    fn on(server: &Server, name: &str) -> Self {
        let socket = server.postgres.data_dir().join("pg/.s.PGSQL.5432");
        Self { name: name.to_owned(), options: server.postgres.options_for(name), socket }
    }

    pub fn options(&self) -> ConnectOptions {
        self.options.clone()
    }

    pub fn config(&self) -> DatabaseConfig {
        config(self.options())
    }

    /// Returns another database of the same server.
    pub fn sibling(&self, name: &str) -> Self {
        Self { name: name.to_owned(), options: self.options().database(name), socket: self.socket() }
    }

    /// Returns the socket of the server.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Opens a session as the owner of the database. The service does not use it.
    pub async fn session(&self) -> Session {
        Session(self.options.connect().await.expect("a connection"))
    }
}

/// A session in which a test queries, locks and damages the database.
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

    /// Acquires the append lock, as an append does, and holds it until the transaction ends.
    pub async fn hold_append_lock(&mut self) {
        self.run("BEGIN").await;
        self.run("LOCK TABLE append_lock IN EXCLUSIVE MODE").await;
    }

    pub async fn rollback(&mut self) {
        self.run("ROLLBACK").await;
    }

    /// Waits until `count` sessions of this database wait for the append lock.
    pub async fn wait_for_blocked_appends(&mut self, count: i64) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'append_lock'::regclass
                          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let queued = async {
            while self.number(waiting).await < count {
                pause_between_polls().await;
            }
        };
        within_a_minute(&format!("{count} appends wait for the lock"), queued).await;
    }
}

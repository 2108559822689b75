//! Promise P10: a start that fails says once which of the usual causes it is and what helps, and shows no password.

use std::process::{Command, Stdio};

use annals::store::connection::config::to_url;
use reqwest::header::HeaderValue;

use crate::cli::{annals, output};
use crate::support::{Proxy, TestDatabase, http_client, pause_between_polls, within_a_minute};

/// Starts the service with these variables. Returns what it printed before it failed.
async fn failed_start(variables: &[(&str, &str)]) -> String {
    let mut command: Command = annals(None);
    command.env("ANNALS_LISTEN", "127.0.0.1:0").env("DATABASE_START_TIMEOUT", "0s").envs(variables.iter().copied());
    let output = output(command).await;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{variables:?}: {printed}");
    assert!(!printed.contains("geheim"), "{printed}");
    printed
}

/// The address of a database, with another user or name.
fn url(database: &TestDatabase, user: &str, name: &str) -> String {
    let socket = database.socket();
    format!("postgres://{user}:geheim@/{name}?host={}", socket.parent().expect("a folder").display())
}

#[tokio::test]
async fn a_start_that_fails_names_the_cause_and_the_remedy_once() {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    let role = format!("app_{}", database.name);
    session.run(&format!("CREATE ROLE {role} LOGIN")).await;
    session.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    for (url, cause, remedy) in [
        ("postgres://me:geheim@127.0.0.1:1/x".to_owned(), "is not reachable on 127.0.0.1:1", "that the server runs"),
        ("postgres://me:geheim@nohost.invalid/x".to_owned(), "is not reachable on nohost.invalid", "Check the address"),
        (
            url(&database, "annals", "no_such_name"),
            "has no database \"no_such_name\"",
            "CREATE DATABASE \"no_such_name\"",
        ),
        (url(&database, "no_such_role", &database.name), "no_such_role", "refuses the login"),
        (url(&database, &role, &database.name), "lacks a right", "GRANT CREATE, USAGE ON SCHEMA public TO"),
    ] {
        let printed = failed_start(&[("DATABASE_URL", &url)]).await;
        assert!(printed.contains(cause) && printed.contains(remedy), "{url}: {printed}");
        assert_eq!(printed.trim().lines().count(), 1, "{printed}");
        assert!(!printed.contains("at line"), "{printed}");
    }
    session.run(&format!("GRANT ALL ON SCHEMA public TO {role}")).await;
    session.run(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    let printed = failed_start(&[("DATABASE_URL", &url(&database, &role, &database.name))]).await;
    assert!(printed.contains("is read-only") && printed.contains("the address of the primary"), "{printed}");
    session.run(&format!("DROP OWNED BY {role}")).await;
    session.run(&format!("DROP ROLE {role}")).await;
}

/// A service whose database is away for a moment waits for it: a restart would only lengthen the outage.
#[tokio::test]
async fn a_service_waits_for_its_database_at_the_start_and_answers_probes() {
    let database = TestDatabase::create_empty().await;
    let proxy = Proxy::start(&database).await;
    proxy.down();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let mut command = annals(None);
    command.env("DATABASE_URL", to_url(&proxy.config(&database).servers[0])).env("ANNALS_LISTEN", &address);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process(command.spawn().expect("the binary runs"));
    let base = format!("http://{address}");
    let client = http_client().build().expect("a client");
    let get = |path: &str| client.get(format!("{base}{path}")).send();
    let waiting = within_a_minute("the service answers", async {
        loop {
            if let Ok(reply) = get("/readyz").await {
                return reply;
            }
            pause_between_polls().await;
        }
    })
    .await;
    assert_eq!(waiting.status(), 503);
    let text = waiting.text().await.expect("a body");
    assert!(text.contains("\"status\":\"unavailable\",\"checks\":{\"database\":\""), "{text}");
    assert_eq!(get("/livez").await.expect("a reply").status(), 200);
    let append = client.post(format!("{base}/streams/Order/1")).header("x-request-id", "r1").body("{}").send();
    let refused = append.await.expect("a reply");
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &HeaderValue::from_static("1")));
    let problem = refused.text().await.expect("a body");
    assert!(
        problem.contains("\"code\":\"database_unavailable\"") && problem.contains("\"instance\":\"r1\""),
        "{problem}"
    );
    within_a_minute("the reason is shown", async {
        while !get("/readyz").await.expect("a reply").text().await.expect("a body").contains("PostgreSQL") {
            pause_between_polls().await;
        }
    })
    .await;
    proxy.up();
    within_a_minute("the service is ready", async {
        while get("/readyz").await.expect("a reply").status() != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    process.terminate().await;

    // A service that waits ends at once.
    proxy.down();
    let mut process = Process(command.spawn().expect("the binary runs"));
    within_a_minute("the service answers", async {
        while get("/livez").await.is_err() {
            pause_between_polls().await;
        }
    })
    .await;
    process.terminate().await;
}

/// A process that is killed when it is dropped.
struct Process(std::process::Child);

impl Process {
    /// Sends SIGTERM, and waits for an orderly end.
    async fn terminate(&mut self) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("the signal is sent");
        let ended = within_a_minute("the process ends", async {
            loop {
                if let Some(status) = self.0.try_wait().expect("the state of the process") {
                    return status;
                }
                pause_between_polls().await;
            }
        });
        assert!(ended.await.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// With a pooler in transaction mode, a setting ends with its transaction. The database pretends that: its own function
/// hides that of PostgreSQL.
#[tokio::test]
async fn a_pooler_in_transaction_mode_is_recognized() {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    session.run("CREATE SCHEMA hiding").await;
    session
        .run(
            "CREATE FUNCTION hiding.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS
             $$ SELECT pg_catalog.set_config($1, $2, true) $$",
        )
        .await;
    let path = format!("ALTER DATABASE {} SET search_path = hiding, pg_catalog, public", database.name);
    session.run(&path).await;
    let printed = failed_start(&[("DATABASE_URL", &url(&database, "annals", &database.name))]).await;
    assert!(printed.contains("a connection pooler in transaction mode"), "{printed}");
}

/// The driver reads the variables of libpq. A service that is started beside other programs must not.
#[tokio::test]
async fn variables_of_libpq_and_empty_variables_have_no_effect() {
    let database = TestDatabase::create_empty().await;
    let mut command = annals(Some(&database));
    for (name, value) in [
        ("PGHOST", "nowhere.invalid"),
        ("PGPORT", "1"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLCERT", "/no/such/file"),
        ("PGOPTIONS", "-c search_path=nowhere"),
        ("DATABASE_HOST", ""),
        ("DATABASE_MAX_CONNECTIONS", ""),
        ("DATABASE_CONNECT_TIMEOUT", ""),
        ("ANNALS_LOG_LEVEL", ""),
        ("ANNALS_LOG", "json\n"),
        ("ARCHIVE_URL", ""),
        // Kubernetes sets it for a Service with the name database.
        ("DATABASE_PORT", "tcp://10.0.0.1:5432"),
    ] {
        command.env(name, value);
    }
    command.arg("migrate");
    let output = output(command).await;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("DATABASE_PORT is ignored"), "{printed}");

    let printed = failed_start(&[
        ("DATABASE_HOST", "db"),
        ("DATABASE_NAME", "x"),
        ("DATABASE_USER", "x"),
        ("DATABASE_PORT", "tcp://10.0.0.1:5432"),
    ])
    .await;
    assert!(printed.contains("a Service with the name database"), "{printed}");
}

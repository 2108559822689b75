//! No promise: erased content is in no response and in no file, and the events have their places. Two processes serve
//! the log. `tests/it/support/erasure_model.rs` has the scenario and its rules.

use annals::archive::place::Archive;
use annals::domain::quota::Quotas;
use annals::keyring;
use annals::store::connection::config::DatabaseConfig;

use crate::support::erasure_model::{Place, run_scenario};
use crate::support::{DedicatedServer, TestApp, TestOptions, http_client, migrate_schema};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_breaks_no_rule() {
    let server = DedicatedServer::start(&[]).await;
    let (database, archive) = (server.database(), server.folder("archive"));
    migrate_schema(&database.config()).await;
    let place = archive.to_str().expect("a path").to_owned();
    let config =
        DatabaseConfig { archive: Some(Archive::open(&place).expect("the folder exists")), ..database.config() };
    let mut apps = Vec::new();
    for needs_keys in [false, false, true] {
        let mut options = TestOptions::default();
        options.settings.needs_keys = needs_keys;
        apps.push(TestApp::start_with_config(config.clone(), database.clone(), options).await);
    }
    let grants = ["read:*", "append:*", "admin:Unrelated"].map(|grant| grant.parse().expect("a grant"));
    let (key, new) = keyring::generate("a test".to_owned(), &grants, Quotas::default(), None).expect("randomness");
    apps[2].app.primary.create_key(&new).await.expect("the key is stored");
    apps[2].app.keyring.refresh(&apps[2].app.primary).await.expect("the keys are read");

    let broken = run_scenario(Place {
        bases: [apps[0].base.clone(), apps[1].base.clone()],
        base_with_keys: apps[2].base.clone(),
        key,
        client: http_client().build().expect("a client"),
        session: database.session().await.0,
        old_session: database.session().await.0,
        program: env!("CARGO_BIN_EXE_annals").into(),
        environment: vec![("DATABASE_URL".to_owned(), server.url()), ("ARCHIVE_URL".to_owned(), place)],
        files: server.files(),
        archive,
    });
    let broken = broken.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(broken.is_empty(), "{broken:#?}");
}

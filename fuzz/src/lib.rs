//! The PostgreSQL of the targets that need one: Annals' own, in a temporary folder.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use annals::own_postgres::server::OwnPostgres;

/// The runtime of everything that is asynchronous. The targets are not.
pub static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

static POSTGRES: LazyLock<OwnPostgres> = LazyLock::new(|| {
    // The script that runs the targets stops the server, and removes the folder.
    let folder = std::env::var_os("ANNALS_FUZZ_DATA").map(PathBuf::from).expect("scripts/fuzz sets ANNALS_FUZZ_DATA");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("the mode can be set");
    let bin = std::env::var_os("ANNALS_PG_BIN").map(PathBuf::from);
    RUNTIME.block_on(OwnPostgres::start_in(folder, bin, &[])).expect("PostgreSQL starts")
});

/// Returns the server. The first call starts it.
pub fn postgres() -> &'static OwnPostgres {
    &POSTGRES
}

//! No promise: the rules of the source. Dependencies point one way and have no cycles. Some libraries are used only by
//! certain modules. Every file of SQL is used and described, and every setting is documented.

use std::collections::BTreeSet;

use clap::CommandFactory;

use crate::support::imports::ImportGraph;
use crate::support::sources::{code, files, names, read};

/// The top-level modules, the lowest layer first. A module imports only from layers below its own.
const LAYERS: &[&[&str]] = &[
    &["domain", "clock", "shutdown", "mutants", "shares"],
    &["wire"],
    &["metrics"],
    &["archive"],
    &["store"],
    &["keyring", "subscriptions", "reducers"],
    &["groups"],
    &["erasures"],
    &["append", "jobs"],
    &["app"],
    &["http"],
    &["startup"],
    &["config", "own_postgres"],
    &["cli"],
];

/// The libraries that only the listed modules may name.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("axum", &["http"]),
    ("parquet", &["archive"]),
    ("object_store", &["archive"]),
    ("utoipa", &["http", "wire", "append"]),
];

/// Modules, with the names that they must not use.
const FORBIDDEN: &[(&str, &str)] =
    &[("domain", "tokio"), ("domain", "Utc::now"), ("archive", "tokio::fs"), ("archive", "Utc::now")];

fn import_graph() -> ImportGraph {
    let sources: Vec<_> = files("src", ".rs").into_iter().map(|file| (read(&file), file)).collect();
    ImportGraph::from_sources(sources.iter().map(|(text, file)| (file.as_str(), text.as_str())))
}

#[test]
fn dependencies_point_one_way() {
    let violations = import_graph().imports_against_order(LAYERS);
    assert!(violations.is_empty(), "imports against the order of the layers:\n{}", violations.join("\n"));
}

#[test]
fn top_level_modules_have_no_cycle() {
    let cycle = import_graph().cycle_of_modules();
    assert!(cycle.is_none(), "a cycle of modules: {}", cycle.unwrap_or_default());
}

#[test]
fn files_have_no_cycle() {
    let cycle = import_graph().cycle_of_files();
    assert!(cycle.is_none(), "a cycle of files: {}", cycle.unwrap_or_default());
}

#[test]
fn an_import_against_the_order_is_found() {
    let graph = ImportGraph::from_sources([
        ("src/domain/event.rs", "pub struct Event;"),
        ("src/store/mod.rs", "pub mod read;"),
        ("src/store/read.rs", "use crate::domain::event::Event; fn page() { crate::http::cache::clear() }"),
        ("src/http/mod.rs", "pub mod cache;"),
        ("src/http/cache.rs", "pub fn clear() {} // use crate::cli::Cli;"),
        ("src/extra.rs", "use crate::domain::event::Event;"),
    ]);
    let expected = ["extra is in no layer", "src/store/read.rs imports src/http/cache.rs"];
    assert_eq!(graph.imports_against_order(LAYERS), expected);
    assert_eq!((graph.cycle_of_modules(), graph.cycle_of_files()), (None, None));
}

#[test]
fn a_cycle_of_two_top_level_modules_is_found() {
    let graph = ImportGraph::from_sources([
        ("src/app.rs", "use crate::jobs::{maintenance, repeat};\npub struct App;"),
        ("src/jobs/mod.rs", "pub mod maintenance; pub mod repeat;"),
        ("src/jobs/maintenance.rs", "pub fn run(app: &crate::app::App) {}"),
        ("src/jobs/repeat.rs", "pub fn repeat() { let text = \"crate::app::App\"; }"),
    ]);
    let expected = "app → jobs → app (src/app.rs imports src/jobs/maintenance.rs, \
                    src/jobs/maintenance.rs imports src/app.rs)";
    assert_eq!(graph.cycle_of_modules().as_deref(), Some(expected));
}

#[test]
fn a_cycle_of_files_in_one_module_is_found() {
    // The imports use different forms of paths: `super`, an imported name, and the name of a child module.
    let graph = ImportGraph::from_sources([
        ("src/store/mod.rs", "pub mod log; pub mod read;"),
        ("src/store/log/mod.rs", "mod head; pub fn newest() -> head::Head { head::Head }"),
        ("src/store/log/head.rs", "use super::super::read; pub struct Head; fn page() -> read::Page { read::Page }"),
        ("src/store/read.rs", "use crate::store::log as the_log; pub struct Page; fn next() { the_log::newest(); }"),
        ("src/store/test_only.rs", "#[cfg(test)]\nmod tests {\n    use crate::store::log::head;\n}\n"),
    ]);
    let expected = "src/store/log/mod.rs → src/store/log/head.rs → src/store/read.rs → src/store/log/mod.rs";
    assert_eq!(graph.cycle_of_files().as_deref(), Some(expected));
    assert_eq!(graph.cycle_of_modules(), None);
    assert!(graph.imports_against_order(LAYERS).is_empty());
}

#[test]
fn each_library_is_named_only_by_its_modules() {
    for file in files("src", ".rs") {
        let code = code(&read(&file));
        let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        for (library, allowed) in LIBRARIES {
            assert!(allowed.contains(&module) || !names(&code, library), "{file} must not name {library}");
        }
        for (forbidden_in, name) in FORBIDDEN {
            assert!(*forbidden_in != module || !names(&code, name), "{file} must not name {name}");
        }
    }
}

#[test]
fn every_statement_file_is_used_and_has_a_header() {
    let store: String = files("src/store", ".rs").iter().map(|file| read(file)).collect();
    for file in files("src/store/sql", ".sql") {
        let name = file.trim_start_matches("src/store/");
        assert!(store.contains(&format!("{name}\")")), "{file} is not included");
        assert!(read(&file).starts_with("-- "), "{file} has no header");
    }
}

#[test]
fn every_function_file_has_a_header_and_the_function_of_its_name() {
    for file in files("migrations/functions", ".sql") {
        let (text, name) = (read(&file), file.trim_start_matches("migrations/functions/").trim_end_matches(".sql"));
        assert!(text.starts_with("-- "), "{file} has no header");
        let created = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("CREATE OR REPLACE FUNCTION ");
            rest.or_else(|| line.strip_prefix("CREATE OR REPLACE PROCEDURE "))?.split('(').next()
        });
        assert_eq!(created.collect::<Vec<_>>(), [name], "{file}");
    }
}

/// Returns the text between two marks.
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("the text does not contain {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("the text does not contain {end} after {start}")).0
}

/// Returns the text of a function file, with single spaces.
fn function(name: &str) -> String {
    let text = read(&format!("migrations/functions/{name}.sql"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `append_events_locked` computes the heads of a whole batch, and therefore repeats the query of `stream_head`. Both
/// queries must find the same version.
#[test]
fn an_append_reads_the_head_of_a_stream_as_stream_head_does() {
    let (read_side, append_side) = (function("stream_head"), function("append_events_locked"));
    // The read also returns the time of the last event.
    let of_read = between(&read_side, "LEFT JOIN LATERAL ( ", "LIMIT 1)");
    let of_read = of_read.replacen("SELECT e.version, e.occurred_at ", "SELECT e.version ", 1);
    // The append has its own names for the stream and for the bound. Its second bound excludes no event, because no
    // event is later than the end of the log under the lock.
    let of_append = between(&append_side, "WHEN t.sealed_version IS NULL THEN t.head ELSE greatest( (", "LIMIT 1)");
    let of_append = of_append
        .replacen("= t.aggregate_type", "= p_aggregate_type", 1)
        .replacen("= t.aggregate_id", "= p_aggregate_id", 1)
        .replacen(">= open_from", ">= p_open_from", 1)
        .replacen(" AND e.occurred_at <= log_time", "", 1);
    assert_eq!(of_append, of_read);
    // Both use the version that sealing wrote, if it is higher.
    assert!(read_side.contains("SELECT greatest(o.version, s.version),"));
    assert_eq!(between(&append_side, "LIMIT 1), t", " END"), ".sealed_version)");
}

/// Returns every variable that any command reads.
fn variables() -> BTreeSet<String> {
    fn collect(command: &clap::Command, found: &mut BTreeSet<String>) {
        for argument in command.get_arguments() {
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            if let Some(variable) = variable {
                let flag =
                    argument.get_long().expect("every variable also has a flag").replace('-', "_").to_uppercase();
                assert_eq!(flag, variable, "a flag and its variable have the same name");
                let shown = argument.get_value_names().map(|names| names[0].to_string());
                assert_eq!(
                    shown.as_ref(),
                    Some(&variable),
                    "the name of the value is the variable, so that errors name the variable"
                );
                found.insert(variable);
            }
        }
        command.get_subcommands().for_each(|command| collect(command, found));
    }
    let mut found = BTreeSet::new();
    collect(&annals::cli::command::Cli::command(), &mut found);
    found
}

#[test]
fn the_command_line_is_well_formed() {
    annals::cli::command::Cli::command().debug_assert();
}

#[test]
fn the_example_of_the_environment_is_complete() {
    let text = read(".env.example");
    let listed: BTreeSet<String> = text
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(listed, variables());
}

#[test]
fn the_reference_lists_every_variable() {
    let text = read("docs/reference/configuration.md");
    for variable in variables() {
        assert!(text.contains(&format!("`{variable}`")), "docs/reference/configuration.md does not mention {variable}");
    }
}

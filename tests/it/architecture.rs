//! What the documents claim about the source, held against the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|extension| extension.to_str()) {
                None if path.is_dir() => folders.push(path),
                Some("rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// The code of a file: without comments, which may name anything.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn dependencies_point_one_way() {
    for (folder, forbidden) in [
        (
            "src/domain",
            &["sqlx", "axum", "tokio", "crate::store", "crate::http", "crate::clock", "Utc::now", "utoipa"][..],
        ),
        (
            "src/store",
            &[
                "axum",
                "parquet::",
                "object_store",
                "utoipa",
                "crate::http",
                "crate::cli",
                "crate::app",
                "crate::config",
                "crate::devdb",
            ],
        ),
        ("src/archive", &["sqlx", "axum", "tokio::fs", "crate::store", "crate::http", "crate::config", "Utc::now"]),
        ("src/subscriptions", &["sqlx", "axum", "crate::http", "crate::cli", "crate::app", "crate::config"]),
        ("src/reducers", &["sqlx", "axum", "crate::http", "crate::cli", "crate::app", "crate::config"]),
        ("src/http", &["sqlx", "crate::cli", "crate::devdb", "crate::config"]),
        ("src/jobs", &["sqlx", "axum", "crate::cli", "crate::http"]),
        ("src/cli", &["sqlx", "axum"]),
        ("src/config", &["sqlx", "axum"]),
        ("src/devdb", &["sqlx", "axum", "crate::http", "crate::cli"]),
        ("src/telemetry", &["sqlx", "axum", "crate::http", "crate::store"]),
    ] {
        for path in sources(folder) {
            let code = code(&path);
            for name in forbidden {
                assert!(!code.contains(name), "{} must not name {name}", path.display());
            }
        }
    }
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    for path in sources("src") {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        assert!(lines <= 520, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_statement_file_is_used_and_has_a_header() {
    let store: String = sources("src/store").iter().map(|path| code(path)).collect();
    for entry in std::fs::read_dir(Path::new(ROOT).join("src/store/sql")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(store.contains(&format!("sql/{name}")), "{name} is not used");
        assert!(std::fs::read_to_string(&path).expect("SQL").starts_with("-- "), "{name} has no header");
    }
}

/// Every variable that the command line reads, over all commands.
fn variables() -> BTreeSet<String> {
    fn collect(command: &clap::Command, found: &mut BTreeSet<String>) {
        for argument in command.get_arguments() {
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            if let Some(variable) = variable {
                let flag = argument.get_long().expect("every variable is a flag too").replace('-', "_").to_uppercase();
                assert_eq!(flag, variable, "flag and variable are one name");
                let shown = argument.get_value_names().map(|names| names[0].to_string());
                assert_eq!(shown.as_ref(), Some(&variable), "errors name the variable");
                found.insert(variable);
            }
        }
        command.get_subcommands().for_each(|command| collect(command, found));
    }
    let mut found = BTreeSet::new();
    collect(&annals::cli::Cli::command(), &mut found);
    found
}

#[test]
fn the_command_line_is_well_formed() {
    annals::cli::Cli::command().debug_assert();
}

#[test]
fn the_example_of_the_environment_is_complete() {
    let text = std::fs::read_to_string(Path::new(ROOT).join(".env.example")).expect(".env.example");
    let listed: BTreeSet<String> = text
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(listed, variables());
}

#[test]
fn the_readme_lists_every_variable() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md");
    for variable in variables() {
        assert!(text.contains(&format!("`{variable}`")), "README.md does not mention {variable}");
    }
}

#[test]
fn the_architecture_names_only_files_that_exist() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let mut named = 0;
    for word in text.split(['`', ' ', '(', ')', ',', '\n']) {
        let file = ["src/", "migrations/", "tests/it/", "scripts/"].iter().any(|folder| word.starts_with(folder));
        if file && [".rs", ".sql"].iter().any(|extension| word.ends_with(extension)) && !word.contains(['*', '<', '{'])
        {
            named += 1;
            assert!(Path::new(ROOT).join(word).exists(), "docs/ARCHITECTURE.md names {word}, which does not exist");
        }
    }
    assert!(named > 10, "{named} files are named");
}

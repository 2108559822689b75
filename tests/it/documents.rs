//! No promise: the documents agree with the repository. Links resolve, named files and functions exist, and every
//! metric and every source file is described.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use clap::CommandFactory;

use crate::support::markdown::{anchors, code_spans, links};
use crate::support::sources::{exists, files, names, read};

const CODE_MAP: &str = "docs/development/code-map.md";
const ARCHITECTURE: &str = "docs/explanation/architecture.md";

/// Resolves a relative path against the folder of a document.
fn resolve(document: &str, target: &str) -> Option<String> {
    let mut path = PathBuf::from(document).parent()?.to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    path.to_str().map(str::to_owned)
}

/// Returns the reason why a link of a document does not resolve; `None` if it resolves or points to another site.
fn broken(document: &str, link: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = if target.is_empty() { Some(document.to_owned()) } else { resolve(document, target) };
    let Some(file) = file.filter(|file| exists(file)) else {
        return Some(format!("{link} does not exist"));
    };
    let has_anchor = || anchors(&read(&file)).iter().any(|found| found == anchor);
    let resolves = anchor.is_empty() || file.ends_with(".md") && has_anchor();
    (!resolves).then(|| format!("{link}: {file} has no such heading"))
}

#[test]
fn every_relative_link_resolves() {
    let mut faults = Vec::new();
    let mut relative = 0;
    for document in files("", ".md") {
        for (line, link) in links(&read(&document)) {
            relative += usize::from(!link.contains("://"));
            faults.extend(broken(&document, &link).map(|fault| format!("{document}:{line}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "broken links:\n{}", faults.join("\n"));
    assert!(relative > 100, "the documents have only {relative} relative links");
}

#[test]
fn a_broken_link_and_a_broken_anchor_are_found() {
    let document = "docs/reference/errors.md";
    for (link, is_broken) in [
        ("errors/internal.md", false),
        ("errors/internal.md#what-to-do", false),
        ("errors/internal.md#what-to-do-1", true),
        ("errors/missing.md", true),
        ("/docs/README.md", true),
        ("../../../outside.md", true),
        ("#retries", false),
        ("#nowhere", true),
        ("https://example.org/missing", false),
    ] {
        assert_eq!(broken(document, link).is_some(), is_broken, "{link}");
    }
    let text = "# A `code` & more\n\n## Twice\n## Twice\n```\n# not a heading [x](y)\n```\n[a](b.md \"t\") `[c](d)`\n";
    assert_eq!(anchors(text), ["a-code--more", "twice", "twice-1"]);
    assert_eq!(links(text), [(8, "b.md".to_owned())]);
    assert_eq!(code_spans(text), [(1, "code".to_owned()), (8, "[c](d)".to_owned())]);
}

/// Returns the files and folders that a document names in code spans. The code map may omit `src/`.
fn named_files(document: &str) -> Vec<(usize, String)> {
    const SUFFIXES: [&str; 12] =
        [".rs", ".sql", ".toml", ".md", ".yml", ".yaml", ".json", ".ndjson", ".py", ".sh", ".js", "/"];
    let is_file = |span: &str| {
        let is_plain =
            !span.starts_with('/') && !span.contains(|c: char| c.is_whitespace() || "*<>{}…:=?$".contains(c));
        is_plain && SUFFIXES.iter().any(|suffix| span.ends_with(suffix) && span.len() > suffix.len())
    };
    code_spans(&read(document)).into_iter().filter(|(_, span)| is_file(span)).collect()
}

/// Returns the path of a named file or folder in the repository; `None` if it does not exist.
fn find(name: &str) -> Option<String> {
    [name.to_owned(), format!("src/{name}")].into_iter().find(|path| exists(path))
}

#[test]
fn the_code_map_and_the_architecture_name_only_files_that_exist() {
    for document in [CODE_MAP, ARCHITECTURE] {
        let missing: Vec<_> = named_files(document).into_iter().filter(|(_, name)| find(name).is_none()).collect();
        assert!(missing.is_empty(), "{document} names files that do not exist, with their lines: {missing:?}");
    }
    assert!(named_files(CODE_MAP).len() > 10, "{CODE_MAP} names too few files");
}

#[test]
fn the_code_map_covers_every_file_of_the_sources() {
    let named: BTreeSet<String> = named_files(CODE_MAP).iter().filter_map(|(_, name)| find(name)).collect();
    let is_covered = |file: &str| {
        // The folder `src/` does not count, because it would cover every file.
        let folder_of = |folder: &str| folder.ends_with('/') && folder != "src/" && file.starts_with(folder);
        named.iter().any(|name| name == file || folder_of(name))
    };
    let missing: Vec<_> = files("src", "").into_iter().filter(|file| !is_covered(file)).collect();
    assert!(missing.is_empty(), "{CODE_MAP} does not cover {missing:#?}");
}

/// Whether a name follows one of the keywords in a text.
fn is_defined(text: &str, keywords: &[&str], name: &str) -> bool {
    keywords.iter().any(|keyword| names(text, &format!("{keyword} {name}")))
}

/// Whether the sources have `name` in the type, the module or the enumeration `owner`.
fn has_definition(sources: &[(String, String)], owner: &str, name: &str) -> bool {
    const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];
    let in_path = |file: &str| file.trim_end_matches(".rs").split('/').any(|part| part == owner);
    sources.iter().any(|(file, text)| {
        let has_owner = in_path(file) || is_defined(text, &["struct", "enum", "trait", "type", "impl", "for"], owner);
        let is_variant = is_defined(text, &["enum"], owner) && names(text, name);
        has_owner && (is_defined(text, &ITEMS, name) || is_variant)
    })
}

#[test]
fn definitions_are_found_by_module_and_by_type() {
    let text = "pub struct Writer;\nimpl Writer {\n    async fn collect(&self) {}\n}\npub fn submit() {}\nenum State { Queued }";
    let sources = [("src/store/append/writer.rs".to_owned(), text.to_owned())];
    for (owner, name, is_found) in [
        ("writer", "submit", true),
        ("Writer", "collect", true),
        ("append", "Writer", true),
        ("State", "Queued", true),
        ("writer", "collected", false),
        ("Writer", "Queued", false),
        ("reader", "submit", false),
    ] {
        assert_eq!(has_definition(&sources, owner, name), is_found, "{owner}::{name}");
    }
}

#[test]
fn every_function_that_the_documents_name_exists() {
    const OTHER_CRATES: [&str; 6] = ["std", "tokio", "sqlx", "axum", "serde_json", "parquet"];
    let sources: Vec<(String, String)> = ["src", "bench/src"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|file| (file.clone(), read(&file)))
        .collect();
    let sql_functions: BTreeSet<String> = files("migrations/functions", ".sql")
        .iter()
        .map(|file| file.trim_start_matches("migrations/functions/").trim_end_matches(".sql").to_owned())
        .collect();
    let mut missing = Vec::new();
    for document in [CODE_MAP, ARCHITECTURE] {
        for (line, span) in code_spans(&read(document)) {
            let span = span.trim_end_matches("()").trim_start_matches("crate::").to_owned()
                + if span.ends_with("()") { "()" } else { "" };
            let path: Vec<&str> = span.trim_end_matches("()").split("::").collect();
            let is_path =
                path.iter().all(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
            let exists = match path.as_slice() {
                _ if !is_path => true,
                [first, ..] if path.len() > 1 && OTHER_CRATES.contains(first) => true,
                [.., owner, name] => has_definition(&sources, owner, name),
                // A function without its module is a function of SQL, of PostgreSQL, or of the program.
                [name] if span.ends_with("()") => {
                    sql_functions.contains(*name)
                        || name.starts_with("pg_")
                        || sources.iter().any(|(_, text)| is_defined(text, &["fn"], name))
                }
                _ => true,
            };
            if !exists {
                missing.push(format!("{document}:{line}: {span}"));
            }
        }
    }
    assert!(missing.is_empty(), "functions that do not exist:\n{}", missing.join("\n"));
}

/// Returns the text below each heading of the reference that names a command, by the name of the command.
fn commands_of_the_reference(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut command = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            let words = heading.strip_prefix("`annals ").map(|words| words.trim_end_matches('`'));
            command = words.and_then(|words| words.split(' ').next()).map(str::to_owned);
        }
        if let Some(command) = &command {
            sections.entry(command.clone()).or_default().push_str(&format!("{line}\n"));
        }
    }
    sections
}

#[test]
fn the_reference_describes_every_command_and_every_flag() {
    let sections = commands_of_the_reference(&read("docs/reference/command-line.md"));
    let program = annals::cli::command::Cli::command();
    let visible = |command: &&clap::Command| !command.is_hide_set();
    let commands: BTreeSet<&str> = program.get_subcommands().filter(visible).map(clap::Command::get_name).collect();
    let described: BTreeSet<&str> = sections.keys().map(String::as_str).collect();
    assert_eq!(described, commands, "docs/reference/command-line.md has a heading for each command and no other");
    let mut missing = Vec::new();
    for command in program.get_subcommands().filter(visible) {
        let section = &sections[command.get_name()];
        for command in std::iter::once(command).chain(command.get_subcommands()) {
            // The reference of the configuration lists the flags that are also variables.
            let flags = command.get_arguments().filter(|argument| argument.get_env().is_none());
            let flags = flags.filter_map(|argument| Some(format!("`--{}", argument.get_long()?)));
            missing.extend(flags.filter(|flag| !section.contains(flag)).map(|flag| (command.get_name(), flag)));
        }
    }
    assert!(missing.is_empty(), "docs/reference/command-line.md does not describe {missing:?}");
}

#[test]
fn a_command_without_a_heading_is_found() {
    let text = "# Title\n## `annals keys`\nflags\n### `annals show <TARGET>`\n`--json`\n## Other\nno command\n";
    let sections = commands_of_the_reference(text);
    assert_eq!(sections.keys().collect::<Vec<_>>(), ["keys", "show"]);
    assert!(sections["show"].contains("`--json`") && !sections["show"].contains("no command"));
}

/// Returns the names of metrics in a text, without the suffixes of their series.
fn metrics(text: &str) -> BTreeSet<String> {
    const NOT_METRICS: [&str; 6] =
        ["annals_app", "annals_reader", "annals_migrations", "annals_functions", "annals_bench", "annals_torture"];
    // A word with `^` is a pattern of grep, and a word with `:` is a recording rule.
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:^".contains(c)))
        .filter(|word| word.starts_with("annals_") && !word.contains(':') && !NOT_METRICS.contains(word))
        .map(|word| {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn documents_and_monitoring_name_the_metrics_that_exist() {
    let known = metrics(&read("src/metrics.rs"));
    let documented = metrics(&read("docs/reference/metrics.md"));
    assert_eq!(documented, known, "docs/reference/metrics.md lists every metric of src/metrics.rs and no other");
    let mut unknown = Vec::new();
    let monitoring = ["deploy/prometheus", "deploy/grafana", "deploy/kubernetes/monitoring"];
    let monitoring = monitoring.iter().flat_map(|folder| files(folder, ""));
    for file in monitoring.chain(["docs/how-to/respond-to-alerts.md".to_owned()]) {
        let named = metrics(&read(&file));
        unknown.extend(named.difference(&known).map(|metric| format!("{file}: {metric}")));
    }
    assert!(unknown.is_empty(), "metrics that do not exist:\n{}", unknown.join("\n"));
}

//! No promise: the files of the repository, for the tests of its architecture and of its documents.

use std::path::{Path, PathBuf};

/// Folders with generated files.
const GENERATED: [&str; 5] = ["target", ".git", "node_modules", "artifacts", "corpus"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a file. The path is relative to the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// Returns the files in a folder and its subfolders whose names end with a suffix. The paths are relative to the
/// repository, and sorted.
pub fn files(folder: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path: PathBuf = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if path.is_dir() {
                if !GENERATED.contains(&name) {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                let relative = path.strip_prefix(root()).expect("a path in the repository");
                found.push(relative.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Returns Rust code without comments, without the text of literals, and without items for tests.
pub fn code(text: &str) -> String {
    without_test_items(&without_comments_and_literals(text))
}

/// Whether code contains a name, or a path like `tokio::fs`. A part of a longer name does not count.
pub fn names(code: &str, name: &str) -> bool {
    let is_part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(name)
        .any(|(at, _)| !code[..at].ends_with(is_part_of_name) && !code[at + name.len()..].starts_with(is_part_of_name))
}

fn without_comments_and_literals(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut code = String::new();
    let mut index = 0;
    while index < characters.len() {
        let follows_name = code.ends_with(|character: char| character.is_alphanumeric() || character == '_');
        let raw_quotes = (!follows_name || code.ends_with('b')).then(|| raw_string(&characters, index)).flatten();
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => index = end_of_block_comment(&characters, index),
            'r' if raw_quotes.is_some() => {
                let hashes = raw_quotes.unwrap_or(0);
                index += hashes + 2;
                let is_end = |index: usize| at(index) == '"' && (1..=hashes).all(|offset| at(index + offset) == '#');
                while index < characters.len() && !is_end(index) {
                    index += 1;
                }
                index += hashes + 1;
                code.push_str("\"\"");
            }
            '"' => {
                index += 1;
                while index < characters.len() && at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
                code.push_str("\"\"");
            }
            // A character literal, and not a lifetime.
            '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => {
                index += if at(index + 1) == '\\' { 3 } else { 2 };
                while index < characters.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
                code.push_str("' '");
            }
            other => {
                code.push(other);
                index += 1;
            }
        }
    }
    code
}

/// Returns the number of `#` of the raw string that begins at an index; `None` if no raw string begins there.
fn raw_string(characters: &[char], index: usize) -> Option<usize> {
    let hashes = characters.get(index + 1..)?.iter().take_while(|character| **character == '#').count();
    let is_raw = characters[index] == 'r' && characters.get(index + 1 + hashes) == Some(&'"');
    is_raw.then_some(hashes)
}

fn end_of_block_comment(characters: &[char], start: usize) -> usize {
    let (mut index, mut depth) = (start, 0);
    while index < characters.len() {
        let pair = (characters[index], characters.get(index + 1).copied().unwrap_or('\0'));
        match pair {
            ('/', '*') => (index, depth) = (index + 2, depth + 1),
            ('*', '/') => (index, depth) = (index + 2, depth - 1),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn without_test_items(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut remaining = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        remaining.push_str(before);
        rest = &after[end_of_item(after)..];
    }
    remaining + rest
}

/// Returns the end of the first item of the code, which is its `;` or the end of its block.
fn end_of_item(code: &str) -> usize {
    let (mut parentheses, mut braces) = (0, 0);
    for (index, character) in code.char_indices() {
        match character {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        let is_end = character == ';' && parentheses == 0 && braces == 0 || character == '}' && braces == 0;
        if is_end {
            return index + 1;
        }
    }
    code.len()
}

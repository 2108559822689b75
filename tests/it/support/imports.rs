//! No promise: the graph of imports between the source files of the program.
//!
//! A file imports another file if its code contains a path into that file, in a `use`, in an expression or in a type.
//! Paths begin with `crate`, `super`, `self`, a child module, or a name that a `use` of the file has imported.
//! Comments, literals, items for tests, and declarations of modules do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::sources;

/// The files of a crate and their imports. Files are named by their module paths, like `store::log::read`.
pub struct ImportGraph {
    /// The source file of each module.
    files: BTreeMap<String, String>,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl ImportGraph {
    /// Builds the graph of files in `src/`, from their paths and texts. The roots of the crate are not part of the
    /// graph.
    pub fn from_sources<'s>(sources: impl IntoIterator<Item = (&'s str, &'s str)>) -> Self {
        let sources: Vec<_> =
            sources.into_iter().filter_map(|(file, text)| Some((module_of(file)?, file, text))).collect();
        let files: BTreeMap<_, _> =
            sources.iter().map(|(module, file, _)| (module.clone(), (*file).to_owned())).collect();
        let imports = sources
            .iter()
            .map(|(module, _, text)| {
                let paths = paths(module, &tokens(&sources::code(text)));
                let imported = paths.iter().filter_map(|path| longest_module(&files, path));
                (module.clone(), imported.filter(|imported| imported != module).collect())
            })
            .collect();
        Self { files, imports }
    }

    /// Returns the imports from layers that are not below the importing module. `layers` lists the top-level modules,
    /// the lowest layer first.
    pub fn imports_against_order(&self, layers: &[&[&str]]) -> Vec<String> {
        let layer = |module: &str| layers.iter().position(|layer| layer.contains(&top(module)));
        let mut violations = Vec::new();
        for (module, imported) in self.edges() {
            match (layer(module), layer(imported)) {
                _ if top(module) == top(imported) => {}
                (Some(importing), Some(below)) if below < importing => {}
                (None, _) => violations.push(format!("{} is in no layer", top(module))),
                (_, None) => violations.push(format!("{} is in no layer", top(imported))),
                _ => violations.push(format!("{} imports {}", self.files[module], self.files[imported])),
            }
        }
        violations.sort();
        violations.dedup();
        violations
    }

    /// Returns the shortest cycle of top-level modules, with one import between files for each step.
    pub fn cycle_of_modules(&self) -> Option<String> {
        let mut examples: BTreeMap<(&str, &str), String> = BTreeMap::new();
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, imported) in self.edges().filter(|(module, imported)| top(module) != top(imported)) {
            edges.entry(top(module)).or_default().insert(top(imported));
            let example = format!("{} imports {}", self.files[module], self.files[imported]);
            examples.entry((top(module), top(imported))).or_insert(example);
        }
        let cycle = shortest_cycle(&edges)?;
        let steps: Vec<_> = cycle.windows(2).map(|step| examples[&(step[0], step[1])].as_str()).collect();
        Some(format!("{} ({})", cycle.join(" → "), steps.join(", ")))
    }

    /// Returns the shortest cycle of files.
    pub fn cycle_of_files(&self) -> Option<String> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, imported) in self.edges() {
            edges.entry(module).or_default().insert(imported);
        }
        let cycle = shortest_cycle(&edges)?;
        Some(cycle.iter().map(|module| self.files[*module].as_str()).collect::<Vec<_>>().join(" → "))
    }

    fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imports
            .iter()
            .flat_map(|(module, imported)| imported.iter().map(|imported| (module.as_str(), imported.as_str())))
    }
}

/// Returns the module path of a source file; `None` for a root of the crate.
fn module_of(file: &str) -> Option<String> {
    let path = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path != "lib" && path != "main").then(|| path.replace('/', "::"))
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Returns the longest module path with which `path` begins.
fn longest_module(files: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
    (1..=path.len()).rev().map(|length| path[..length].join("::")).find(|module| files.contains_key(module))
}

/// Returns the nodes of the shortest cycle. The first node is also the last one.
fn shortest_cycle<'n>(edges: &BTreeMap<&'n str, BTreeSet<&'n str>>) -> Option<Vec<&'n str>> {
    let cycles = edges.keys().filter_map(|start| {
        let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([*start]);
        while let Some(node) = queue.pop_front() {
            for next in edges.get(node).into_iter().flatten() {
                if next == start {
                    let mut cycle = vec![*start];
                    let mut step = node;
                    while step != *start {
                        cycle.push(step);
                        step = reached_from[step];
                    }
                    cycle.push(*start);
                    cycle.reverse();
                    return Some(cycle);
                }
                if !reached_from.contains_key(next) {
                    reached_from.insert(next, node);
                    queue.push_back(next);
                }
            }
        }
        None
    });
    cycles.min_by_key(Vec::len)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `::`
    Separator,
    Other(char),
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = code.chars().peekable();
    while let Some(character) = characters.next() {
        if character.is_alphanumeric() || character == '_' {
            let mut name = String::from(character);
            while let Some(next) = characters.next_if(|next| next.is_alphanumeric() || *next == '_') {
                name.push(next);
            }
            tokens.push(Token::Name(name));
        } else if character == ':' && characters.next_if_eq(&':').is_some() {
            tokens.push(Token::Separator);
        } else if !character.is_whitespace() {
            tokens.push(Token::Other(character));
        }
    }
    tokens
}

/// An import of a file: a path, and the name that it has in the file.
struct Import {
    path: Vec<String>,
    name: String,
}

/// Returns the absolute paths in the code of a module.
fn paths(module: &str, tokens: &[Token]) -> Vec<Vec<String>> {
    let mut scope = Scope { module: module.split("::").map(str::to_owned).collect(), names: BTreeMap::new() };
    let (declared, uses, rest) = split(tokens);
    for child in declared {
        let path = [scope.module.clone(), vec![child.clone()]].concat();
        scope.names.insert(child, path);
    }
    let mut found = Vec::new();
    for tree in uses {
        let mut imports = Vec::new();
        use_tree(&mut tree.iter().peekable(), &[], &mut imports);
        for Import { path, name } in imports {
            if let Some(path) = scope.absolute(&path) {
                scope.names.entry(name).or_insert_with(|| path.clone());
                found.push(path);
            }
        }
    }
    let mut index = 0;
    while index < rest.len() {
        let is_member = index > 0 && matches!(rest[index - 1], Token::Separator | Token::Other('.'));
        let path = path_at(&rest, index);
        if let (false, Some(path)) = (is_member || path.len() < 2, scope.absolute(&path)) {
            found.push(path);
        }
        index += 1;
    }
    found
}

/// The names that a module can use as the beginning of a path.
struct Scope {
    module: Vec<String>,
    /// Child modules and imports, with their absolute paths.
    names: BTreeMap<String, Vec<String>>,
}

impl Scope {
    /// Returns the absolute path, without `crate`; `None` for a path into another crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            name => self.names.get(name)?.clone(),
        };
        if path[0] == "super" {
            base.pop();
        }
        for name in &path[1..] {
            match name.as_str() {
                "super" => drop(base.pop()),
                "self" => {}
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }
}

/// Splits code into the names of declared modules, the trees of `use` items, and all other tokens.
fn split(tokens: &[Token]) -> (Vec<String>, Vec<Vec<Token>>, Vec<Token>) {
    let (mut declared, mut uses, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let is = |index: usize, name: &str| matches!(tokens.get(index), Some(Token::Name(found)) if found == name);
    let mut index = 0;
    while index < tokens.len() {
        match &tokens[index..] {
            [Token::Name(keyword), Token::Name(name), Token::Other(';'), ..] if keyword == "mod" => {
                declared.push(name.clone());
                index += 3;
            }
            // `pub(in path)` limits a visibility, and imports nothing.
            [Token::Name(keyword), Token::Other('('), ..] if keyword == "pub" && is(index + 2, "in") => {
                while tokens.get(index).is_some_and(|token| *token != Token::Other(')')) {
                    index += 1;
                }
            }
            [Token::Name(keyword), Token::Name(_) | Token::Separator | Token::Other('{'), ..] if keyword == "use" => {
                let end = tokens[index..].iter().position(|token| *token == Token::Other(';'));
                let end = index + end.unwrap_or(tokens.len() - index);
                uses.push(tokens[index + 1..end].to_vec());
                index = end;
            }
            [token, ..] => {
                rest.push(token.clone());
                index += 1;
            }
            [] => {}
        }
    }
    (declared, uses, rest)
}

/// Returns the path that begins at an index, which consists of names with separators between them.
fn path_at(tokens: &[Token], index: usize) -> Vec<String> {
    let mut path = Vec::new();
    let mut index = index;
    while let Some(Token::Name(name)) = tokens.get(index) {
        path.push(name.clone());
        if tokens.get(index + 1) != Some(&Token::Separator) {
            break;
        }
        index += 2;
    }
    path
}

/// Collects the paths of a tree like `a::{b, c::d as e, f::*}`.
fn use_tree<'t>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'t Token>>,
    prefix: &[String],
    imports: &mut Vec<Import>,
) {
    let mut path = prefix.to_vec();
    let mut name = None;
    while let Some(token) = tokens.next_if(|token| !matches!(token, Token::Other(',' | '}'))) {
        match token {
            Token::Name(keyword) if keyword == "as" => match tokens.next() {
                Some(Token::Name(alias)) => name = Some(alias.clone()),
                _ => panic!("`as` without a name"),
            },
            Token::Name(segment) => path.push(segment.clone()),
            Token::Other('{') => loop {
                use_tree(tokens, &path, imports);
                if tokens.next() != Some(&Token::Other(',')) {
                    return;
                }
            },
            Token::Separator | Token::Other(_) => {}
        }
    }
    if path.len() > prefix.len() {
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        imports.push(Import { path, name });
    }
}

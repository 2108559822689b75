//! No promise: the notices of third parties, which archives and images contain. They name every package of the program,
//! with the text of its licence. These tests run `python3`, `cargo` and `rustc`.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::sources::read;

fn printed(command: &mut Command) -> String {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the names of the direct dependencies in Cargo.toml.
fn direct_dependencies() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let (_, section) = manifest.split_once("\n[dependencies]\n").expect("a section");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_notices_have_a_licence_text_for_every_package_of_the_program() {
    let target = printed(Command::new("rustc").args(["--print", "host-tuple"]));
    let notices = printed(Command::new("python3").args(["scripts/third-party-notices", target.trim()]));
    let (list, texts) = notices.split_once("\n====").expect("a list and texts");
    let lock = read("Cargo.lock");

    let mut named = BTreeSet::new();
    let packages = list.lines().filter_map(|line| Some((line, line.split_once(": ")?.0.split_once(' ')?)));
    for (line, (name, version)) in packages.filter(|(line, _)| line.contains("; ")) {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "not in Cargo.lock: {line}");
        let (_, points) = line.split_once("; text ").unwrap_or_else(|| panic!("no text: {line}"));
        let points = points.split_once(';').map_or(points, |(points, _)| points);
        for number in points.split(", ") {
            assert!(texts.contains(&format!("\nText {number} (")), "text {number} is missing: {line}");
        }
        named.insert(name.to_owned());
    }
    assert!(list.contains(&format!("the following {} packages", list.matches("; text ").count())), "{list}");
    let missing: Vec<_> = direct_dependencies().difference(&named).cloned().collect();
    assert!(missing.is_empty(), "the notices do not name {missing:?}");
}

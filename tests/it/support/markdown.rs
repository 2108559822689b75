//! No promise: the headings, links and code spans of Markdown documents, for the tests of the documents.

/// Returns the lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence = None;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => {
                fence = None;
                return false;
            }
            _ => {}
        }
        // Four spaces begin a code block. Items of lists have a smaller indentation.
        fence.is_none() && !line.starts_with("    ")
    })
}

/// Returns the anchors of a document: those that GitHub creates from headings, and explicit ones.
pub fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let slug = slug(heading.trim());
            let same = anchors.iter().filter(|anchor| **anchor == slug).count();
            let repeated = (1..).map(|n| format!("{slug}-{n}")).find(|anchor| !anchors.contains(anchor));
            anchors.push(if same == 0 { slug } else { repeated.unwrap_or_default() });
        }
        for attribute in ["id=\"", "name=\""] {
            anchors.extend(line.split(attribute).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    anchors
}

/// Returns the anchor of a heading, which has its letters and digits in lower case, and hyphens for spaces.
fn slug(heading: &str) -> String {
    // The anchor contains the text of a link, and not its target.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

/// Returns the targets of links and images, with their lines.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code_spans(line);
        for rest in line.split("](").skip(1) {
            let target = rest.split_once(')').map_or(rest, |(target, _)| target);
            // A title may follow the target.
            let target = target.split_whitespace().next().unwrap_or_default();
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            links.push((number, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    links
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("")
}

/// Returns the code spans outside code blocks, with their lines.
pub fn code_spans(text: &str) -> Vec<(usize, String)> {
    prose(text)
        .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |span| (number, span.to_owned())))
        .collect()
}

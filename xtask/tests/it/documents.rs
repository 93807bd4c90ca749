//! Every Markdown document: its links lead somewhere, the tests that it names exist, and the README is short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// What a reader of the front page has patience for.
const README_WORDS: usize = 1_000;

/// Words that a reader who learnt English at school stumbles over, and what says the same.
const HARD_WORDS: [(&str, &str); 9] = [
    ("anew", "again"),
    ("whoever", "everyone who"),
    ("nobody's", "of no one"),
    ("mended", "repaired, edited"),
    ("given up", "dead-lettered"),
    ("so many", "that many"),
    ("is told", "gets, is shown"),
    ("what stands on", "what is on"),
    ("for ever", "forever, without an end"),
];

#[test]
fn every_test_named_in_the_failure_modes_exists() {
    let functions: BTreeSet<String> =
        tracked("*.rs").iter().flat_map(|file| functions_in(&read(file))).collect();
    let document = read(Path::new("docs/failure-modes.md"));
    let rows: Vec<_> = document.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 40, "{} rows: the table was not found", rows.len());
    let mut missing = Vec::new();
    let mut last = 0;
    for row in rows {
        let number: u32 =
            row.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number in each row");
        assert!(number > last, "row {number} comes after row {last}: each failure once, in order");
        last = number;
        let tests = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        let names = in_backticks(tests);
        assert!(
            !names.is_empty() || tests.contains("as row") || tests.contains("none:"),
            "no test in: {row}"
        );
        missing.extend(names.into_iter().filter(|name| !functions.contains(*name)));
    }
    assert!(missing.is_empty(), "docs/failure-modes.md names tests that do not exist: {missing:#?}");
}

#[test]
fn every_link_in_a_document_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { beside(&document, path) };
            let leads_there = root().join(&target).exists()
                && (anchor.is_empty()
                    || headings(&read(&target)).iter().any(|heading| slug(heading) == anchor));
            if !leads_there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(seen > 50, "{seen} links: they were not found");
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let words = read(Path::new("README.md")).split_whitespace().count();
    assert!(words <= README_WORDS, "README.md has {words} words of {README_WORDS}: move something to docs/");
}

#[test]
fn every_metric_and_variable_named_in_the_documents_exists() {
    let sources: Vec<_> = tracked("*.rs").iter().map(|file| read(file)).collect();
    let document = read(Path::new("docs/operations.md"));
    let name = |code: &&str| code.len() > 3 && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let code = in_backticks(&document);
    let code: Vec<_> = code.iter().filter_map(|code| code.split('{').next()).filter(name).collect();
    let metrics = code.iter().filter(|name| name.starts_with("jetkit_"));
    // Streams and variables look alike, and both are written out in a source.
    let variables = code.iter().filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let missing: BTreeSet<_> = metrics
        .chain(variables)
        .filter(|name| !sources.iter().any(|source| source.contains(**name)))
        .collect();
    assert!(code.len() > 60, "{} names: they were not found", code.len());
    assert!(missing.is_empty(), "docs/operations.md names what no source has: {missing:#?}");
}

#[test]
fn every_file_and_item_named_in_the_architecture_exists() {
    let document = read(Path::new("ARCHITECTURE.md"));
    let files = tracked("*");
    let sources = tracked("*.rs").iter().map(|file| read(file)).collect::<String>();
    let identifiers: BTreeSet<_> = sources.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let text: String = prose(&document).flat_map(|line| [line, "\n"]).collect();
    let (mut seen, mut missing) = (0, BTreeSet::new());
    for code in in_backticks(&text) {
        let is_file = Path::new(code).extension().is_some() && !code.contains(['*', '<', ' ', ':']);
        let is_path = code
            .split("::")
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_'));
        let exists = if is_file && code.contains(".rs") {
            files.iter().any(|file| file.ends_with(code))
        } else if is_path && code.contains("::") {
            code.split("::").all(|part| identifiers.contains(part))
        } else {
            continue;
        };
        seen += 1;
        if !exists {
            missing.insert(code);
        }
    }
    assert!(seen > 100, "{seen} names: they were not found");
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:#?}");
}

#[test]
fn no_table_has_a_row_twice() {
    let mut twice = Vec::new();
    for document in documents() {
        let text = read(&document);
        let mut rows = BTreeSet::new();
        for line in text.lines() {
            if !line.starts_with('|') {
                rows.clear();
            } else if !rows.insert(line.split('|').nth(1)) && line != "| | |" {
                twice.push(format!("{}: {line}", document.display()));
            }
        }
    }
    assert!(twice.is_empty(), "rows that begin alike: {twice:#?}");
}

#[test]
fn no_document_has_a_word_that_readers_stumble_over() {
    let mut found = Vec::new();
    for document in documents() {
        // A phrase may be broken over two lines. Code between backticks is no prose.
        let text = read(&document).to_lowercase();
        let between = |c: char| !c.is_alphanumeric() && c != '\'';
        let words: Vec<_> = text.split('`').step_by(2).flat_map(|prose| prose.split(between)).collect();
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let text = format!(" {} ", words.join(" "));
        let hard = HARD_WORDS.iter().filter(|(word, _)| text.contains(&format!(" {word} ")));
        found.extend(hard.map(|(word, instead)| format!("{}: {word} (write {instead})", document.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_link_and_its_heading_are_read_as_a_forge_reads_them() {
    let text = "# A `b`\n\n[one](x.md#y) ![two](z.png)\n\n    [no](link)\n\n```\n# no heading\n[no](link)\n```\n`[no](link)`\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["x.md#y", "z.png"]);
    assert_eq!(headings(text), ["A `b`"]);
    assert_eq!(slug("What \"exactly once\" means, here: `a_b`"), "what-exactly-once-means-here-a_b");
}

/// Returns every document that is ours, relative to the root.
fn documents() -> Vec<PathBuf> {
    let ours = |file: &PathBuf| !file.starts_with("vendor/async-nats");
    tracked("*.md").into_iter().filter(ours).collect()
}

/// Returns the files that Git tracks, or would after `git add`, by a pattern.
fn tracked(pattern: &str) -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern];
    let listed =
        Command::new("git").args(arguments).current_dir(root()).output().expect("git lists the files");
    assert!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("file names in UTF-8");
    names.lines().map(PathBuf::from).filter(|file| root().join(file).exists()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace around xtask")
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the name of each function that a file of Rust declares.
fn functions_in(source: &str) -> Vec<String> {
    let name =
        |declaration: &str| declaration.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
    source.split("fn ").skip(1).map(name).collect()
}

/// Returns the lines of a document that are prose: no code block, by fence or by indent.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    })
}

/// Returns where each link and image of a document leads.
fn links(text: &str) -> impl Iterator<Item = &str> {
    // Every second piece of a line is between backticks: code, and no link.
    let pieces = prose(text).flat_map(|line| line.split('`').enumerate().filter(|(at, _)| at % 2 == 0));
    // A link whose text is code has its text in one piece and its address in the next.
    pieces
        .flat_map(|(_, piece)| piece.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
}

fn headings(text: &str) -> Vec<&str> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect()
}

/// Returns the anchor that forges give a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn in_backticks(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Resolves a link of a document, without `..` in the result.
fn beside(document: &Path, link: &str) -> PathBuf {
    let mut resolved = document.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    resolved
}

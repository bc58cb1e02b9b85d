//! The page `docs/coming-from-node.md`: made of the rows, and compared with what is there.

#[path = "rows/mod.rs"]
mod rows;

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use rows::{Row, Status};

/// Writes the page anew in place of comparing it.
const REWRITE: &str = "WRITE_PAGES";

const TABLES: [(&str, &[Row]); 4] = [
    ("Life cycle and events", rows::life::ROWS),
    ("Listening and distribution", rows::listening::ROWS),
    ("Handles and messages", rows::channel::ROWS),
    ("What Node's suite does not test", rows::missing::ROWS),
];

const HEAD: &str = "# Coming from Node: its own tests, here

Node's tests of `cluster` (and those of `child_process` that its channel rests on), what each pins down, and the test of ours that
pins down the same. Names without a prefix are `test/parallel/test-cluster-NAME.js`. *Met*: as there. *Adapted*: the same guarantee,
told in the words of this crate. *Not applicable*: it has no meaning here, for the reason given.

This page is made by `tests/node/page.rs` from the rows beside it; a test compares it and looks for every test that it names.
To write it anew: `WRITE_PAGES=1 cargo test -p rclust-tests --test node page`.
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file and the function of a test of ours.
fn place(ours: &str) -> (String, &str) {
    let (file, function) = ours.rsplit_once("::").unwrap_or_else(|| panic!("`{ours}` names no file and function"));
    let file = if file.ends_with(".rs") { file.to_owned() } else { format!("tests/node/{file}.rs") };
    (file, function)
}

fn all() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().flat_map(|(_, rows)| rows.iter())
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut count = String::new();
    for status in Status::ALL {
        let rows = all().filter(|row| row.status == status).count();
        write!(count, "{}{rows} {}", if count.is_empty() { "" } else { ", " }, status.word()).unwrap();
    }
    writeln!(page, "\n{} rows: {count}.", all().count()).unwrap();
    for (title, rows) in TABLES {
        writeln!(page, "\n## {title}\n\n| Node's test | what it pins down | here | our test; how it differs |")
            .unwrap();
        page.push_str("|---|---|---|---|\n");
        for row in rows {
            let ours: Vec<String> = row
                .ours
                .iter()
                .map(|ours| {
                    let (file, function) = place(ours);
                    format!("[`{function}`](../{file})")
                })
                .collect();
            let mut last = ours.join(", ");
            if !row.note.is_empty() {
                write!(last, "{}{}", if last.is_empty() { "" } else { ": " }, row.note).unwrap();
            }
            writeln!(page, "| {} | {} | {} | {last} |", row.theirs, row.what, row.status.word()).unwrap();
        }
    }
    page
}

#[test]
fn the_page_says_what_the_rows_say() {
    let path = root().join("docs/coming-from-node.md");
    let page = page();
    if std::env::var_os(REWRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let differs = there.lines().zip(page.lines()).find(|(there, made)| there != made);
    assert!(there == page, "the page is not what the rows say; set {REWRITE}=1 once. First difference: {differs:?}");
}

#[test]
fn every_test_that_the_page_names_exists_and_none_is_forgotten() {
    let mut named = HashSet::new();
    for ours in all().flat_map(|row| row.ours) {
        let (file, function) = place(ours);
        let text = fs::read_to_string(root().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let beginning = format!("fn {function}(");
        let tests = text.split("#[test]").skip(1).filter(|test| test.trim_start().starts_with(&beginning)).count();
        assert_eq!(tests, 1, "tests named {function} in {file}");
        named.insert((file, function.to_owned()));
    }
    for file in ["life", "ends", "listening", "datagrams", "messages", "passing", "settings"] {
        let file = format!("tests/node/{file}.rs");
        let text = fs::read_to_string(root().join(&file)).unwrap();
        for test in text.split("#[test]\nfn ").skip(1) {
            let function = test.split('(').next().unwrap_or_default().to_owned();
            assert!(named.contains(&(file.clone(), function.clone())), "{file}: no row names {function}");
        }
    }
}

#[test]
fn rows_are_named_once_and_say_why_where_nothing_is_tested() {
    let mut names = HashSet::new();
    for row in all() {
        assert!(names.insert(row.theirs), "{} is there twice", row.theirs);
        let tested = matches!(row.status, Status::Met | Status::Adapted);
        assert_eq!(
            tested,
            !row.ours.is_empty(),
            "{}: what is {} has tests, and nothing else",
            row.theirs,
            row.status.word()
        );
        assert!(row.status == Status::Met || !row.note.is_empty(), "{}: a word why", row.theirs);
        assert!(!format!("{}{}{}", row.theirs, row.what, row.note).contains('|'), "{}: a table's sign", row.theirs);
    }
}

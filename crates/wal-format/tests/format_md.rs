//! Keeps `docs/format.md` from going stale: its example log, its worked checksum and its limits are
//! made anew and compared, and its field tables must leave no gap.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the lints do not know as such"
)]

mod tiny_log;

use std::fmt::Write;
use std::path::Path;

use tiny_log::{MARK, SALT};
use wal_format::{
    BLOCK_BYTES, MANIFEST_SLOT_BYTES, MARK_FIRST_WORD, MAX_RECORD_BYTES_DEFAULT,
    MAX_RECORD_BYTES_MIN, PAYLOAD_BYTES_CEILING, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
    SEGMENT_RESERVE_BYTES, crc32c_append,
};

#[test]
fn the_segment_shown_is_the_one_written() {
    check_block("segment", &hexdump(&tiny_log::segment()));
}

#[test]
fn the_manifest_shown_is_the_one_written() {
    check_block("manifest", &hexdump(&tiny_log::manifest().encode().unwrap()));
}

#[test]
fn the_worked_checksum_comes_out() {
    let position = 88;
    let mark = MARK.encode(SALT, position);
    let (header, payload) = mark.split_first_chunk::<8>().unwrap();
    let stored = u32::from_le_bytes(*header.last_chunk().unwrap());

    let product = (SALT ^ position).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place_seed = u32::try_from(product >> 32).unwrap();
    let start = place_seed ^ MARK_FIRST_WORD;
    assert_eq!(crc32c_append(start, payload), stored);

    let durable = hex(&payload[..8], "");
    let epoch = hex(&payload[8..], "");
    let lines = [
        ("salt".into(), format!("{SALT:#018x}")),
        ("salt ^ position".into(), format!("{:#018x}", SALT ^ position)),
        ("times 0x9e3779b97f4a7c15, modulo 2^64".into(), format!("{product:#018x}")),
        ("place_seed, the high 32 bits".into(), format!("{place_seed:#010x}")),
        ("first word: kind 3, length 16".into(), format!("{MARK_FIRST_WORD:#010x}")),
        ("place_seed ^ first word".into(), format!("{start:#010x}")),
        ("payload".into(), format!("{durable} {epoch}")),
        (format!("crc32c({start:#010x}, payload)"), format!("{stored:#010x}")),
    ];
    let lines = lines.map(|(what, value)| format!("{what:<41}{value}\n"));
    check_block("checksum", &lines.concat());
}

#[test]
fn the_limits_are_those_of_the_code() {
    let limits: Vec<u64> = table_behind("<!-- checked: limits -->")
        .iter()
        .map(|row| row.last().unwrap().parse().unwrap())
        .collect();
    let expected = [
        BLOCK_BYTES as u64,
        SEGMENT_BYTES_MIN,
        SEGMENT_HEADER_BYTES,
        SEGMENT_RESERVE_BYTES,
        PAYLOAD_BYTES_CEILING.into(),
        MAX_RECORD_BYTES_DEFAULT.into(),
        MAX_RECORD_BYTES_MIN.into(),
        MANIFEST_SLOT_BYTES,
    ];
    assert_eq!(limits, expected);
}

/// What the fields *are* is frozen by the golden bytes; here only that a table adds up.
#[test]
fn field_tables_leave_no_gap() {
    let page = page();
    let headings: Vec<&str> = page.lines().filter(|line| is_field_table(line)).collect();
    assert_eq!(headings.len(), 8, "identity, start, vouch, mark, seal, root, source, manifest");
    let mut rest = page.as_str();
    let mut ends = Vec::new();
    for heading in headings {
        let at = rest.find(heading).unwrap();
        let mut end = 0;
        for row in table_at(&rest[at..]) {
            let [byte, size] = [0, 1].map(|column: usize| row[column].parse::<usize>().unwrap());
            assert_eq!(byte, end, "the field table's row {row:?}");
            assert!(byte.is_multiple_of(size.min(8)) || size > 2 && !size.is_power_of_two());
            end = byte + size;
        }
        ends.push(end);
        rest = &rest[at + heading.len()..];
    }
    assert_eq!(ends, [4096, 4096, 2048, 24, 16, 64, 16, 72]);
}

fn is_field_table(line: &str) -> bool {
    line.starts_with("| byte | size |")
}

/// Compares the fenced block behind `<!-- checked: name -->` with what it should be.
fn check_block(name: &str, expected: &str) {
    let page = page();
    let marker = format!("<!-- checked: {name} -->\n```\n");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("no block {name:?}"));
    let (found, _) = rest.split_once("```\n").unwrap();
    assert!(found == expected, "docs/format.md should show for {name:?}:\n{expected}");
}

/// The cells of the table behind a line, without its two head lines.
fn table_behind(marker: &str) -> Vec<Vec<String>> {
    let page = page();
    let (_, rest) = page.split_once(&format!("{marker}\n")).unwrap();
    table_at(rest)
}

fn table_at(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect())
        .collect()
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `hexdump -C` prints: repeated lines are shown once, and a star for the rest of them.
fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut previous = None;
    let mut starred = false;
    for (index, line) in bytes.chunks(16).enumerate() {
        if previous == Some(line) {
            if !starred {
                text.push_str("*\n");
            }
            starred = true;
            continue;
        }
        starred = false;
        previous = Some(line);
        let (front, back) = line.split_at(line.len().min(8));
        let columns = format!("{}  {}", hex(front, " "), hex(back, " "));
        let letters: String = line.iter().map(|&byte| printable(byte)).collect();
        writeln!(text, "{:08x}  {columns:<48}  |{letters}|", index * 16).unwrap();
    }
    writeln!(text, "{:08x}", bytes.len()).unwrap();
    text
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' }
}

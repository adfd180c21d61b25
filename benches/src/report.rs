//! Tables in Markdown, and the sections of a document that they replace.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::measure::{Rounds, Spread, median, quantile};

/// What the names of our own entrants begin with.
const OURS: &str = "laminar-wal";

/// A part of a document between `<!-- begin: NAME -->` and `<!-- end: NAME -->`.
#[derive(Debug)]
pub struct Section {
    /// What its markers call it.
    pub name: &'static str,
    /// What stands between them.
    pub body: String,
}

/// What is measured in one column, in the order of a sample.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The head of its column.
    pub title: &'static str,
    /// Which of two is the better one.
    pub better: Better,
}

/// Whether a figure should be small or large.
#[derive(Debug, Clone, Copy)]
pub enum Better {
    /// As a time.
    Less,
    /// As a rate.
    More,
}

/// A table in Markdown.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each column.
    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|{}", " --- |".repeat(self.head.len()))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// What races gave: each figure of each entrant, and how they compare.
#[derive(Debug)]
pub struct Comparison<'a> {
    figures: &'a [Figure],
    has_axis: bool,
    absolute: Table,
    ratios: Table,
}

impl<'a> Comparison<'a> {
    /// `axis` heads the column that tells races apart; none if there is one race only.
    #[must_use]
    pub fn new(axis: Option<&str>, figures: &'a [Figure]) -> Self {
        let titles = figures.iter().map(|figure| figure.title);
        let head = |what| axis.into_iter().chain([what]).chain(titles.clone()).collect::<Vec<_>>();
        Self {
            figures,
            has_axis: axis.is_some(),
            absolute: Table::new(&head("log")),
            ratios: Table::new(&head("how many times better is")),
        }
    }

    /// Entrants whose names begin with ours are ours; each of the others is compared to each.
    pub fn add(&mut self, axis: &str, rounds: &Rounds) {
        let (ours, others): (Vec<usize>, Vec<usize>) =
            (0..rounds.names.len()).partition(|&entrant| rounds.names[entrant].starts_with(OURS));
        for (entrant, name) in rounds.names.iter().enumerate() {
            let figures = self.figures.iter().enumerate();
            let cells = figures.map(|(i, f)| absolute(&rounds.figure(entrant, i), f.better));
            let row = self.row(axis, (*name).to_string(), cells.collect());
            self.absolute.add(row);
        }
        for &ours in &ours {
            for &other in &others {
                let what = format!("{} than {}", rounds.names[ours], rounds.names[other]);
                let figures = self.figures.iter().enumerate();
                let cells = figures.map(|(i, f)| advantage(rounds, i, ours, other, f.better));
                let row = self.row(axis, what, cells.collect());
                self.ratios.add(row);
            }
        }
    }

    /// Each figure of each entrant, without how they compare.
    #[must_use]
    pub const fn absolute(&self) -> &Table {
        &self.absolute
    }

    fn row(&self, axis: &str, what: String, cells: Vec<String>) -> Vec<String> {
        let axis = self.has_axis.then(|| axis.to_string());
        axis.into_iter().chain([what]).chain(cells).collect()
    }
}

impl Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.absolute, self.ratios)
    }
}

/// How many rounds a race had, and how quiet the disk was.
#[must_use]
pub fn rounds_line(axis: &str, rounds: &Rounds) -> String {
    let label = if axis.is_empty() { String::new() } else { format!("{axis}: ") };
    let kept = rounds.kept();
    match rounds.fdatasync_us() {
        None => format!("- {label}rounds: {kept}.\n"),
        Some(fdatasync) => format!(
            "- {label}rounds: {kept} kept, {} dropped, {} of the kept ones unquiet; bare `fdatasync` \
             {} µs.\n",
            rounds.dropped,
            rounds.unquiet,
            spread(&fdatasync)
        ),
    }
}

/// The median, and the least and the greatest.
#[must_use]
pub fn spread(spread: &Spread) -> String {
    let Spread { median, min, max } = *spread;
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// Three digits, or all of the whole part with its thousands apart.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_string()
    } else if size < 9.995 {
        format!("{value:.2}")
    } else if size < 99.95 {
        format!("{value:.1}")
    } else {
        with_thousands_apart(&format!("{value:.0}"))
    }
}

/// A whole number with its thousands apart.
#[must_use]
pub fn count(value: u64) -> String {
    with_thousands_apart(&value.to_string())
}

/// Replaces the sections of `file` that have these names.
///
/// # Errors
///
/// If the file cannot be read or written, or lacks a marker: then it stays as it was.
pub fn write(file: &Path, sections: &[Section]) -> Result<(), Failure> {
    let mut text = fs::read_to_string(file)?;
    for section in sections {
        text = with_section(&text, section)?;
    }
    Ok(fs::write(file, text)?)
}

fn with_section(text: &str, section: &Section) -> Result<String, Failure> {
    let begin = format!("<!-- begin: {} -->", section.name);
    let end = format!("<!-- end: {} -->", section.name);
    let (before, rest) = text.split_once(&begin).ok_or_else(|| format!("no line '{begin}'"))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("no line '{end}' behind it"))?;
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", section.body.trim()))
}

/// The median, and what the best tenth of the rounds reached.
fn absolute(values: &[f64], better: Better) -> String {
    let best = match better {
        Better::Less => quantile(values, 0.1),
        Better::More => quantile(values, 0.9),
    };
    if best.is_nan() {
        return "–".to_string();
    }
    format!("{} ({})", number(median(values)), number(best))
}

/// How many times better one entrant is than another, round by round.
#[must_use]
pub fn advantage(rounds: &Rounds, figure: usize, of: usize, over: usize, better: Better) -> String {
    let ratio = match better {
        Better::Less => rounds.ratio(figure, over, of),
        Better::More => rounds.ratio(figure, of, over),
    };
    ratio.filter(|r| r.median.is_finite()).map_or_else(|| "–".to_string(), |r| spread(&r))
}

fn with_thousands_apart(digits: &str) -> String {
    let mut apart = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && digit.is_ascii_digit() {
            apart.push(' ');
        }
        apart.push(digit);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &'static str, body: &str) -> Section {
        Section { name, body: body.to_string() }
    }

    #[test]
    fn only_what_lies_between_the_markers_is_rewritten() {
        let text = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n\
                    <!-- begin: y -->\nkept\n<!-- end: y -->\n";
        let rewritten = with_section(text, &section("x", "new\n")).unwrap();
        assert_eq!(
            rewritten,
            "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n\
             <!-- begin: y -->\nkept\n<!-- end: y -->\n"
        );
        assert_eq!(with_section(&rewritten, &section("x", "new")).unwrap(), rewritten);
    }

    #[test]
    fn a_missing_marker_is_named() {
        let error = with_section("nothing", &section("x", "new")).unwrap_err();
        assert!(error.to_string().contains("<!-- begin: x -->"));
        let error = with_section("<!-- begin: x -->", &section("x", "new")).unwrap_err();
        assert!(error.to_string().contains("<!-- end: x -->"));
    }

    #[test]
    fn numbers_have_three_digits_or_all_of_the_whole_part() {
        let numbers = [1.234, 12.34, 99.96, 123.4, 1_234_567.8, -1234.0, f64::NAN].map(number);
        assert_eq!(numbers, ["1.23", "12.3", "100", "123", "1 234 568", "-1 234", "–"]);
    }

    #[test]
    fn ours_is_compared_to_each_of_the_others() {
        let figures = [
            Figure { title: "cost", better: Better::Less },
            Figure { title: "rate", better: Better::More },
        ];
        let rounds = Rounds::of_one(&[
            (OURS, vec![10.0, 200.0]),
            ("laminar-wal, warm", vec![5.0, 400.0]),
            ("theirs", vec![30.0, 100.0]),
        ]);
        let mut comparison = Comparison::new(None, &figures);
        comparison.add("", &rounds);
        let lines = comparison.ratios.to_string();
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| laminar-wal than theirs | 3.00 (3.00–3.00) | 2.00 (2.00–2.00) |",
                "| laminar-wal, warm than theirs | 6.00 (6.00–6.00) | 4.00 (4.00–4.00) |",
            ]
        );
    }

    #[test]
    fn counts_are_whole() {
        assert_eq!([0, 7, 1000, 100_000_000].map(count), ["0", "7", "1 000", "100 000 000"]);
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["a", "b"]);
        table.add(vec!["1".to_string(), "2".to_string()]);
        assert_eq!(table.to_string(), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}

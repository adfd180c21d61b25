//! The text: where it comes from, its words, and the straight count that never touches the log.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Long enough for several lives of the child.
const TEXT_BYTES_MIN: usize = 4 * 1024 * 1024;

/// The file's text, or that of this repository's own documents, in lower case and repeated until
/// it is long enough.
pub(crate) fn several_megabytes(file: Option<&Path>) -> Result<String> {
    let files = match file {
        Some(file) => vec![file.to_path_buf()],
        None => documents_of_this_repository()?,
    };
    let mut text = String::new();
    for file in files {
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        text.push_str(&String::from_utf8_lossy(&bytes).to_lowercase());
        text.push('\n');
    }
    if words(&text, 0).next().is_none() {
        return Err("there is no word to count in this text".into());
    }
    let repetitions = TEXT_BYTES_MIN.div_ceil(text.len());
    Ok(text.repeat(repetitions))
}

fn documents_of_this_repository() -> Result<Vec<PathBuf>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = package.join("../..");
    let mut documents = Vec::new();
    for directory in [repository.join("docs"), repository.join("docs/decisions"), repository] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries {
            documents.push(entry?.path());
        }
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    // A directory lists its files in any order; the same text makes the same kills.
    documents.sort();
    if documents.is_empty() {
        return Err("there are no documents here to count; name a file".into());
    }
    Ok(documents)
}

/// The words of `text` from an offset on, each with the offset of its end. Going on from there
/// gives the words that follow, and no word twice.
pub(crate) fn words(text: &str, from_offset: usize) -> impl Iterator<Item = (&str, usize)> {
    let mut offset = from_offset;
    std::iter::from_fn(move || {
        let rest = text.get(offset..)?;
        let rest = &rest[rest.find(char::is_alphanumeric)?..];
        let word_bytes = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(word_bytes);
        offset = text.len() - behind.len();
        Some((word, offset))
    })
}

/// The straight count.
pub(crate) fn count<'a>(words: impl Iterator<Item = &'a str>) -> HashMap<&'a str, u64> {
    let mut counts = HashMap::new();
    for word in words {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

/// A number with its thousands apart: `1 234 567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

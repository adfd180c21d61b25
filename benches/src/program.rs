//! A program that measures several things, prints what it saw, and writes it into a document.

use std::path::Path;

use crate::Failure;
use crate::fdatasync::Probe;
use crate::report::Section;
use crate::workdir::Workdir;
use crate::{machine, report};

/// What such a program is, and what it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// How it is run, up to its arguments.
    pub command: &'a str,
    /// What the section about the machine is called.
    pub machine: &'static str,
    /// The packages that figures depend on.
    pub packages: &'a [&'a str],
    /// Where their versions stand.
    pub lock_file: &'a str,
    /// Where logs lie; everything made there is removed.
    pub directory: &'a Path,
    /// The document whose sections are rewritten, if any.
    pub document: Option<&'a Path>,
}

impl Program<'_> {
    /// Has `measure` measure each of `parts`, which are told by name, and reports what it says, in
    /// Markdown. If one fails, the others are measured, and written, all the same.
    ///
    /// # Errors
    ///
    /// What failed, by name; and whatever the file system says.
    pub fn run<P>(
        &self,
        parts: impl IntoIterator<Item = (&'static str, P)>,
        measure: impl Fn(P, &Workdir, &mut Probe) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let workdir = Workdir::make(self.directory)?;
        let body = machine::describe(&workdir, self.packages, self.lock_file);
        println!("{body}");
        let mut sections = vec![Section { name: self.machine, body }];
        let mut failed = Vec::new();
        for (name, part) in parts {
            eprintln!("== {name}");
            let measured = Probe::make(workdir.path())
                .and_then(|mut probe| measure(part, &workdir, &mut probe));
            match measured {
                Ok(figures) => {
                    let body = format!("{figures}\n{}", machine::provenance(self.command));
                    println!("## {name}\n\n{body}");
                    sections.push(Section { name, body });
                }
                Err(error) => failed.push(format!("{name}: {error}")),
            }
        }
        if let Some(document) = self.document {
            report::write(document, &sections)?;
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
    }
}

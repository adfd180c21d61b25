//! On what machine, with what, when and how something was measured.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::report::Table;
use crate::workdir::Workdir;

/// A table of everything that figures depend on; of `packages`, the versions in `lock_file`.
#[must_use]
pub fn describe(workdir: &Workdir, packages: &[&str], lock_file: &str) -> String {
    let mut table = Table::new(&["what", "which"]);
    let mut add = |what: &str, which: String| table.add(vec![what.to_string(), which]);
    let unknown = || "unknown".to_string();
    let cores = available_parallelism().map_or_else(|_| unknown(), |cores| cores.to_string());
    add("processor", field_of("/proc/cpuinfo", "model name").unwrap_or_else(unknown));
    add("cores", cores);
    add("memory", memory_of_machine().unwrap_or_else(unknown));
    add("kernel", kernel_version().unwrap_or_else(unknown));
    add("file system", file_system_of(workdir.path()).unwrap_or_else(unknown));
    add("compiler", compiler().unwrap_or_else(unknown));
    for name in packages {
        add(name, locked_version(lock_file, name).unwrap_or_else(unknown));
    }
    table.to_string()
}

/// Without what a distribution appends to it.
fn kernel_version() -> Option<String> {
    let release = line_of("/proc/sys/kernel/osrelease")?;
    release.split('-').next().map(str::to_owned)
}

/// When this was measured, and by what `command` with the arguments of this process; directories of
/// the machine are left out.
#[must_use]
pub fn provenance(command: &str) -> String {
    let mut args = std::env::args().skip(1);
    let mut kept = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--dir" || arg == "--write" {
            let _ = args.next();
        } else if arg == "--bench" {
            // Cargo adds it.
        } else if !arg.starts_with("--dir=") && !arg.starts_with("--write=") {
            kept.push(arg);
        }
    }
    let command = format!("{command} {}", kept.join(" "));
    format!("Measured on {} with `{}`.\n", today(), command.trim())
}

/// CPU time of this process until now, all threads of it, those that ended too.
///
/// # Errors
///
/// If the kernel does not say.
pub fn cpu_time() -> Result<Duration, Failure> {
    Ok(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime))?)
}

/// Bytes that this process has caused to be written to the disk until now.
///
/// # Errors
///
/// If the kernel does not say.
pub fn written_bytes() -> Result<u64, Failure> {
    Ok(field_of("/proc/self/io", "write_bytes").ok_or("no count of written bytes")?.parse()?)
}

/// Bytes that this process, and those that it waited for, have read from the disk until now.
///
/// # Errors
///
/// If the kernel does not say.
pub fn read_bytes() -> Result<u64, Failure> {
    Ok(field_of("/proc/self/io", "read_bytes").ok_or("no count of read bytes")?.parse()?)
}

/// Counts how often the device below a directory has flushed its cache: for any program, as the
/// kernel tells. Flushes that were asked for at the same time are one.
#[derive(Debug)]
pub struct DeviceFlushes {
    /// None where there is no single block device, or the kernel does not say.
    statistics: Option<PathBuf>,
}

/// The place of that number in a line of statistics.
const FLUSHES_FIELD: usize = 15;

impl DeviceFlushes {
    /// Counts those of the device that `directory` lies on.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        Self { statistics: statistics_below(directory) }
    }

    /// How many until now; none if the kernel does not say.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let statistics = line_of(self.statistics.as_ref()?)?;
        statistics.split_whitespace().nth(FLUSHES_FIELD)?.parse().ok()
    }
}

fn statistics_below(directory: &Path) -> Option<PathBuf> {
    let device = fs::metadata(directory).ok()?.dev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let block = Path::new("/sys/dev/block").join(numbers).canonicalize().ok()?;
    // What a partition flushes is counted for the disk that it is a part of.
    let disk = if block.join("partition").exists() { block.parent()? } else { &block };
    Some(disk.join("stat"))
}

/// The largest amount of memory that this process has had, in KiB.
///
/// # Errors
///
/// If the kernel does not say.
pub fn peak_memory_kib() -> Result<u64, Failure> {
    status_kib("VmHWM")
}

/// Has [`peak_memory_kib`] begin anew with what the process has now.
///
/// # Errors
///
/// If the kernel does not let it.
pub fn reset_peak_memory() -> Result<(), Failure> {
    const PEAK: &str = "5";
    Ok(fs::write("/proc/self/clear_refs", PEAK)?)
}

/// The memory that this process has, in KiB.
///
/// # Errors
///
/// If the kernel does not say.
pub fn memory_kib() -> Result<u64, Failure> {
    status_kib("VmRSS")
}

fn status_kib(field: &str) -> Result<u64, Failure> {
    let value = field_of("/proc/self/status", field).ok_or("no such field in the status")?;
    Ok(value.trim_end_matches(" kB").parse()?)
}

/// The first line that says `name: value`.
fn field_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.trim() == name).map(|(_, value)| value.trim().to_string())
}

fn line_of(file: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_string())
}

/// The type of the file system of the longest mount point above `path`.
fn file_system_of(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    mounts
        .filter(|(mount_point, _)| path.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.len())
        .map(|(_, file_system)| match file_system {
            "tmpfs" | "ramfs" => format!("{file_system}: memory, so syncs cost nothing here"),
            disk => disk.to_string(),
        })
}

fn memory_of_machine() -> Option<String> {
    let total = field_of("/proc/meminfo", "MemTotal")?;
    let kib: u32 = total.trim_end_matches(" kB").parse().ok()?;
    Some(format!("{:.1} GiB", f64::from(kib) / f64::from(1 << 20)))
}

fn compiler() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

fn locked_version(lock_file: &str, name: &str) -> Option<String> {
    let (_, package) = lock_file.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    package.split_once('"').map(|(version, _)| version.to_string())
}

fn today() -> String {
    let days = clock_gettime(ClockId::Realtime).tv_sec.div_euclid(86_400);
    let (year, month, day) = civil_date(days);
    format!("{year}-{month:02}-{day:02}")
}

/// The Gregorian date so many days after 1970-01-01, counted in years that begin in March.
const fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(11_017), (2000, 3, 1));
        assert_eq!(civil_date(20_819), (2027, 1, 1));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock_file = "[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n\n\
                         [[package]]\nname = \"a\"\nversion = \"0.18.12\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock_file, "a").unwrap(), "0.18.12");
        assert_eq!(locked_version(lock_file, "b"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_kib().unwrap() <= peak_memory_kib().unwrap());
    }

    #[test]
    fn a_peak_of_memory_can_be_left_behind() {
        let large = vec![7_u8; 64 << 20];
        assert!(large.iter().all(|&byte| byte == 7));
        drop(large);
        let peak_kib = peak_memory_kib().unwrap();
        reset_peak_memory().unwrap();
        assert!(peak_memory_kib().unwrap() + (32 << 10) < peak_kib);
    }
}

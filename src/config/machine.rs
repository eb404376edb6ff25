//! What the machine gives: its name, its cores, its memory, a random number.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Node, names};

/// Memory taken for granted where the system does not say.
const UNKNOWN_MEMORY: u64 = 1 << 30;

/// This process, as far as nobody says otherwise.
pub(super) fn node() -> Node {
    let name = name();
    Node {
        cdn_id: name.clone(),
        name,
        pop: "local".to_owned(),
        locality: "local".to_owned(),
        workers: workers(),
        seed: random(),
    }
}

/// The host's name, as far as it fits a name.
fn name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = host
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(64)
        .collect();
    names::parse_name(&name).unwrap_or_else(|_empty| "atoll".to_owned())
}

/// The cores that this process may use.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A random number, from the system.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness TLS would not work either; jitter is no secret and can do with 0.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Memory that this process may use: of the machine, or of its control group where that is less.
pub(super) fn memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_limits(&groups).into_iter().filter_map(|file| limit(&file)).min();
    let machine = machine.unwrap_or(UNKNOWN_MEMORY);
    group.map_or(machine, |group| group.min(machine))
}

/// `MemTotal` of `/proc/meminfo` in bytes.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files that may bound this process: its group and all above it, in both versions.
fn group_limits(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            files.push(Path::new(root).join(group).join(file));
        }
    }
    files
}

/// The number in such a file; `max` is none.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name_memory_and_cores() {
        let node = node();
        assert!(names::parse_name(&node.name).is_ok());
        assert!(node.workers >= 1);
        assert!(memory() > 1 << 20);
    }

    #[test]
    fn memory_is_read_from_what_the_kernel_writes() {
        assert_eq!(total("MemTotal:       16316588 kB\nMemFree: 1 kB\n"), Some(16_316_588 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let files = group_limits("12:cpu:/a\n3:memory:/a\n0::/b/c\n");
        let expected = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/b/c/memory.max",
            "/sys/fs/cgroup/b/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(files, expected);
    }
}

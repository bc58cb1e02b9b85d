//! What /proc says of a process.

use std::fs;

/// Its children, by age (`/proc/PID/task/*/children` needs no scan of all processes).
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found.sort_unstable();
    found
}

/// Its name, as `ps -o comm` shows it.
pub fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// What its open descriptors are.
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_string_lossy().into_owned();
            Some(format!("{number} {}", fs::read_link(entry.path()).ok()?.display()))
        })
        .collect();
    found.sort();
    found
}

/// A field of /proc/PID/status.
pub fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(|value| value.trim().to_owned()))
}

/// The group of a process, from /proc/PID/stat.
pub fn group(pid: u32) -> Option<u32> {
    stat(pid, 5)?.try_into().ok()
}

/// A number of /proc/PID/stat, counted as proc(5) does.
pub fn stat(pid: u32, field: usize) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second is a name in parentheses, which may have any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3)?.parse().ok()
}

/// Kilobytes of the mappings whose name has this text that are resident, counted by the pages of one process.
pub fn resident_kb(pid: u32, name: &str) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut sum, mut inside) = (0, false);
    for line in maps.lines() {
        if line.contains('-') && line.split_whitespace().next().is_some_and(|range| range.contains('-')) {
            inside = line.contains(name);
        } else if inside {
            if let Some(kb) = line.strip_prefix("Rss:") {
                sum += kb.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0);
            }
        }
    }
    sum
}

/// How often its threads gave up the processor, in sum: a process that sleeps does not.
pub fn switches(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of = |status: String| -> u64 {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).map(of).sum()
}

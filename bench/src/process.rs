//! What a process costs and what the machine is, from /proc.

use std::fs;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU time (user and system) of a process since its start, in milliseconds. It moves in ticks of
/// usually 10 ms.
///
/// # Errors
/// The process is gone.
pub fn cpu_ms(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&stat).with_context(|| format!("{path} is not as expected"))?;
    #[allow(clippy::cast_precision_loss, reason = "ticks of a benchmark")]
    Ok(ticks as f64 * 1e3 / rustix::param::clock_ticks_per_second() as f64)
}

fn ticks(stat: &str) -> Option<u64> {
    // The command name may hold spaces; fields are counted after its closing parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// CPU time of a process and of all that it started, in nanoseconds, since their starts. What ended
/// is not counted.
///
/// # Errors
/// The process is gone.
pub fn run_ns(pid: u32) -> anyhow::Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut total = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?.flatten() {
        // A thread that has just ended has no files.
        let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let own = read("schedstat");
        total += own.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
        for child in read("children").split_whitespace().filter_map(|child| child.parse().ok()) {
            total += run_ns(child).unwrap_or_default();
        }
    }
    Ok(total)
}

/// Resident memory of a process and of all that it started, in MiB.
///
/// # Errors
/// The process is gone.
pub fn resident_mib_of_all(pid: u32) -> anyhow::Result<f64> {
    let mut total = resident_mib(pid)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")?.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            total += resident_mib_of_all(child).unwrap_or_default();
        }
    }
    Ok(total)
}

/// Lets the calling thread, and what it starts from now on, run on these cores only.
///
/// # Errors
/// There is no such core.
pub fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on cores {cores:?}"))
}

/// Resident memory of a process in MiB.
///
/// # Errors
/// The process is gone.
pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/statm");
    let statm = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).context("no field 2")?;
    #[allow(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
    Ok((pages * rustix::param::page_size() as u64) as f64 / f64::from(1 << 20))
}

/// `2 cores, Some CPU, Linux 6.1.0`
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = read("/proc/cpuinfo");
    // Not what this thread may use: it may be pinned.
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        assert_eq!(ticks("7 (a b) c) S 1 7 7 0 -1 4194560 9 0 0 0 30 12 0 0 20 0 9 0"), Some(42));
        assert_eq!(ticks("nothing"), None);
        let own = std::process::id();
        assert!(resident_mib(own).unwrap() > 0.0 && cpu_ms(own).unwrap() >= 0.0);
        assert!(cpu_ms(u32::MAX).is_err());
        let before = run_ns(own).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(20) {}
        assert!(run_ns(own).unwrap() > before && run_ns(u32::MAX).is_err());
        assert!(resident_mib_of_all(own).unwrap() > 0.0);
    }
}

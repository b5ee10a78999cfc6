//! How much memory the process has, where the system says so.

/// Bytes of memory that are the process's now; nothing off Linux.
pub fn resident() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_found_among_the_rest() {
        assert_eq!(parse("Name:\tforebay\nVmHWM:\t   90 kB\nVmRSS:\t   72 kB\nThreads:\t3\n"), Some(73_728));
        assert_eq!(parse("Name:\tforebay\n"), None);
        assert!(resident().is_none_or(|bytes| bytes > 1 << 20));
    }
}

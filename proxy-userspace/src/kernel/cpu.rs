//! The CPUs of the node, whatever part of them this process may use.

use std::fs;

const PATH: &str = "/sys/devices/system/cpu/online";

/// Returns how many CPUs are online; 1 when that cannot be read, since no limit follows from less.
pub fn online() -> u32 {
    fs::read_to_string(PATH).ok().and_then(|text| count(text.trim())).unwrap_or(1).max(1)
}

/// Counts the CPUs of a list such as `0-3,8,10-11`.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_cpus_are_counted() {
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-3,8,10-11"), Some(7));
        for list in ["", "x", "3-1", "0-", "0-4294967295"] {
            assert_eq!(count(list), None, "{list:?}");
        }
    }

    #[test]
    fn this_node_has_at_least_the_cpus_of_this_process() {
        let own = std::thread::available_parallelism().unwrap().get();
        assert!(online() as usize >= own, "{} < {own}", online());
    }
}

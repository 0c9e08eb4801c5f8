//! Resource limits and capabilities of this process, as `/proc/self` shows them.
use crate::tree::{HostError, Tree, unexpected};

const PATH: &str = "proc/self/limits";

/// The soft limit of this name; none: unlimited.
pub(crate) fn soft(tree: &Tree, name: &str) -> Result<Option<u64>, HostError> {
    value(tree, name, 0)
}

/// The hard limit: how far the process may raise it by itself.
pub(crate) fn hard(tree: &Tree, name: &str) -> Result<Option<u64>, HostError> {
    value(tree, name, 1)
}

/// `Max open files            20000                20000                files`
fn value(tree: &Tree, name: &str, at: usize) -> Result<Option<u64>, HostError> {
    let limits = tree.text(PATH)?.ok_or_else(|| unexpected(PATH))?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    match line.and_then(|line| line.split_whitespace().nth(at)) {
        Some("unlimited") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| unexpected(PATH)),
        None => Err(unexpected(PATH)),
    }
}

/// Whether this process has a capability, by its number (capabilities(7)).
pub(crate) fn capable(tree: &Tree, number: u32) -> Result<bool, HostError> {
    let Some(status) = tree.text("proc/self/status")? else { return Ok(false) };
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> number & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_capabilities_are_read_by_name() {
        let text = "== proc/self/limits\nMax open files            1024   524288   files\n\
                    Max locked memory         8388608   unlimited   bytes\n\
                    == proc/self/status\nCapEff:\t0000000000004000\n";
        let tree = Tree::recorded(text).unwrap();
        assert_eq!(soft(&tree, "Max open files").unwrap(), Some(1024));
        assert_eq!(hard(&tree, "Max open files").unwrap(), Some(524_288));
        assert_eq!(hard(&tree, "Max locked memory").unwrap(), None);
        assert!(hard(&tree, "Max processes").is_err());
        assert!(capable(&tree, 14).unwrap() && !capable(&tree, 21).unwrap());
    }
}

//! The field that a misspelt one may mean.

use super::fields;

/// Returns the path of a field that is close to an unknown one.
pub(super) fn suggest(path: &str) -> Option<String> {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let paths = || fields::all().map(|field| field.path).filter(|path| !path.is_empty());
    // The right name in the wrong section goes first, then a misspelling within the section, then
    // one anywhere.
    let elsewhere = paths().find(|path| name(path).eq_ignore_ascii_case(key));
    let beside = || {
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        let keys = paths().filter_map(move |path| {
            let rest = path.strip_prefix(&prefix)?;
            Some(&path[..path.len() - rest.len() + rest.find('.').unwrap_or(rest.len())])
        });
        closest(keys, key)
    };
    elsewhere.or_else(beside).or_else(|| closest(paths(), key)).map(str::to_owned)
}

fn name(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, name)| name)
}

/// Returns the path whose last name is nearest, when it is near enough to be a slip.
fn closest<'a>(paths: impl Iterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    let key = key.to_lowercase();
    let most = (key.chars().count() / 3).clamp(1, 4);
    paths
        .map(|path| (strsim::damerau_levenshtein(&name(path).to_lowercase(), &key), path))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let cases = [
            ("ipvs.schedular", "ipvs.scheduler"),
            ("ipvs.strictArp", "ipvs.strictARP"),
            ("strictARP", "ipvs.strictARP"),
            ("ipvs.masqueradeAll", "iptables.masqueradeAll"),
            ("clusterCidr", "clusterCIDR"),
            ("ipv", "ipvs"),
            ("conntrak", "conntrack"),
            ("nodePortAddress", "nodePortAddresses"),
            ("passlane.fastpath", "passlane.fastPath"),
            ("fastPath", "passlane.fastPath"),
            ("passlane.externalIps", "passlane.externalIPs"),
            ("conntrack.tcpEstablishdTimeout", "conntrack.tcpEstablishedTimeout"),
        ];
        for (path, expected) in cases {
            assert_eq!(suggest(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(suggest("spec"), None);
        assert_eq!(suggest("ipvs.replicas"), None);
    }
}

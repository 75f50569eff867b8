//! The fast path of a Service, as flags of its frontends.

use proxy_common::abi::FrontendFlags;

use crate::model::FastPath;

const OBSERVED: u32 = FrontendFlags::LEARN | FrontendFlags::OBSERVE;
const FORCED: u32 = FrontendFlags::LEARN | FrontendFlags::FORCE;

/// Returns the flags of `proxy_common::abi::FrontendFlags` that stand for it.
pub fn flags(fast_path: FastPath) -> u32 {
    match fast_path {
        FastPath::Off => 0,
        FastPath::Auto => FrontendFlags::LEARN,
        FastPath::Observe => OBSERVED,
        FastPath::Force => FORCED,
    }
}

/// Returns what flags stand for, also those that the agent does not write.
pub fn mode(flags: u32) -> FastPath {
    match FrontendFlags::in_force(flags) {
        0 => FastPath::Off,
        OBSERVED => FastPath::Observe,
        FORCED => FastPath::Force,
        _ => FastPath::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_for_what_they_were_made_of() {
        for each in [FastPath::Off, FastPath::Auto, FastPath::Observe, FastPath::Force] {
            assert_eq!(mode(flags(each)), each);
            assert_eq!(FrontendFlags::in_force(flags(each)), flags(each));
        }
        assert_eq!(mode(FrontendFlags::OBSERVE | FrontendFlags::FORCE), FastPath::Off);
        assert_eq!(mode(OBSERVED | FORCED), FastPath::Observe);
    }
}

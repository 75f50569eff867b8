//! What scheduler `sh` chooses: `net/netfilter/ipvs/ip_vs_sh.c`, from the kernel's list of
//! destinations.

use std::net::{IpAddr, SocketAddr};

use super::dump::Target;
use crate::model::SchedulerFlags;

const BUCKETS: u32 = 256;
const GOLDEN_RATIO: u32 = 0x61c8_8647;
const FALLBACK: u32 = 0x08;
const PORT: u32 = 0x10;

/// Returns the destination of a client; `None` when the one that its hash names takes nothing.
pub(super) fn choose(
    targets: &[Target],
    flags: SchedulerFlags,
    client: SocketAddr,
) -> Option<&Target> {
    let port = if flags.0 & PORT == 0 { 0 } else { client.port() };
    let available = |target: &&Target| target.destination.weight > 0;
    let at = |bucket| owner(targets, bucket);
    let first = bucket(client.ip(), port, 0);
    if flags.0 & FALLBACK == 0 {
        return at(first).filter(available);
    }
    let tries = (0..BUCKETS).map(|offset| match at(first).filter(available) {
        Some(target) => Some(target),
        None => at(bucket(client.ip(), port, (offset + first) % BUCKETS)).filter(available),
    });
    tries.flatten().next()
}

/// The bucket of a client.
pub(super) fn bucket(addr: IpAddr, port: u16, offset: u32) -> u32 {
    let folded = match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            (0..4).fold(0, |sum, word| sum ^ (bits >> (32 * word)) as u32)
        }
    };
    let hash = folded.wrapping_add(u32::from(port)).wrapping_mul(GOLDEN_RATIO) >> 24;
    offset.wrapping_add(hash) % BUCKETS
}

/// Each destination in turn takes as many buckets as its weight, but one at least.
fn owner(targets: &[Target], bucket: u32) -> Option<&Target> {
    let size = |target: &Target| u64::from(target.destination.weight.max(1));
    let round: u64 = targets.iter().map(size).sum();
    let mut left = u64::from(bucket).checked_rem(round)?;
    targets.iter().find(|target| {
        let here = left < size(target);
        left = left.saturating_sub(size(target));
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen on real kernels with `sh-port`.
    #[test]
    fn buckets_are_those_of_the_kernel() {
        for (client, expected) in [
            ("100.71.1.74:19864", 101),
            ("100.67.211.151:40991", 255),
            ("100.107.248.112:15324", 36),
        ] {
            let client: SocketAddr = client.parse().unwrap();
            assert_eq!(bucket(client.ip(), client.port(), 0), expected, "{client}");
        }
    }
}

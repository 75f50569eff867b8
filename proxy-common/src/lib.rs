//! What both sides of the kernel boundary share.
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `flows4`, `flows6` | LRU hash | [`abi::FlowKey`] | [`abi::Flow`] | `tc_out` (learn), `tc_in` (close) | `tc_in`, `xdp_up`, agent |
//! | `pending4`, `pending6` | array | token | [`abi::Pending`] | `tc_in` | `tc_out` |
//! | `sequence` | per-CPU array | 0 | `u32` | `tc_in` | `tc_in` |
//! | `warmup` | array | hash of the flow key | `u32` tag and count | `tc_in`, `tc_out` | `tc_out` |
//! | `frontends4`, `frontends6` | hash | [`abi::ServiceKey`] | [`abi::Frontend`] | agent | `tc_in`, `tc_out` |
//! | `backends4`, `backends6` | hash | [`abi::ServiceKey`] | [`abi::Backend`] | agent | `tc_in`, `tc_out` |
//! | `generations` | array | 0 epoch, 1 edits, else backend id | `u32` | agent | `tc_in`, `tc_out`, `xdp_up` |
//! | `interfaces` | hash | interface index | [`abi::Interface`] | agent | `tc_out` |
//! | `uplinks` | array | interface index modulo its size | [`abi::Uplink`] | agent | `xdp_up` |
//! | `observed` | LRU per-CPU hash | [`abi::ObservedKey`] | [`abi::Counter`] | `tc_in` | agent |
//! | `stats` | per-CPU array | [`reason::Reason`] | [`abi::Counter`] | `tc_in`, `tc_out`, `xdp_up` | agent |
//! | `recent` | per-CPU array | slot of the pair | [`abi::Recent`] | `tc_in`, `xdp_up` | `tc_in`, `xdp_up`, agent |
//! | `served` | hash | [`abi::Pair`] | [`abi::Served`] | `tc_in`, `xdp_up`, agent | `tc_in`, `xdp_up`, agent |
//!
//! The hash plane has maps of its own, made only where it is asked for:
//!
//! | map | kind | key | value | written by | read by |
//! |---|---|---|---|---|---|
//! | `hash_flows4`, `hash_flows6` | array | set, see [`flow_place`] | [`abi::HashFlowSet`] | `xdp_lb`, `adopt4`, `adopt6` | `xdp_lb`, agent |
//! | `hash_tags4`, `hash_tags6` | array | two sets, the index of the first halved | [`abi::HashTags`] | `xdp_lb`, `adopt4`, `adopt6` | `xdp_lb`, `adopt4`, `adopt6` |
//! | `hash_seed` | array | 0 | `u64` of [`flow_place::Place::of`] | agent | `xdp_lb`, agent |
//! | `hash_frontends4`, `hash_frontends6` | hash | [`abi::ServiceKey`] | [`abi::HashFrontend`] | agent | `xdp_lb` |
//! | `hash_tables` | array of maps | index | array of [`abi::HashSlot`], one a slot | agent | `xdp_lb` |
//! | `hash_backends` | array | index, from 1 | [`abi::HashBackend`] | agent | `xdp_lb` |
//! | `hash_counts` | per-CPU array | index of the backend | [`abi::HashCount`] | `xdp_lb` | agent |
//! | `hash_stats` | per-CPU array | [`hash_reason::HashReason`] | [`abi::Counter`] | `xdp_lb` | agent |
//! | `hash_uplinks` | array | interface index modulo its size | [`abi::Uplink`] | agent | `xdp_lb` |
//! | `hash_vlans` | hash | [`abi::HashVlan`] | `u32` 1 | agent | `xdp_lb` |
//!
//! `tc_lb` has the same in place of `xdp_lb`, where that is what runs.
//!
//! `abi` is the layout of those maps: integers and byte arrays only, no hidden padding. `packet`
//! is arithmetic on header fields, `hash` what the kernel's hashing schedulers choose, `fingerprint` a
//! number for each entry, so that what a map holds can be compared by a sum. Nothing here does I/O, and only the tables of `hash`, which user space builds, allocate.

#![cfg_attr(not(feature = "user"), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod abi;
pub mod fingerprint;
pub mod flow_place;
pub mod flow_tags;
pub mod hash;
pub mod hash_reason;
pub mod packet;
pub mod reason;

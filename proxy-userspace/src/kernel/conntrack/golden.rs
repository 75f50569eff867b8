//! Entries of a real kernel, read and named. The bytes are little-endian.
#![cfg(target_endian = "little")]

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_netfilter::NetfilterMessage;
use proptest::prelude::*;

use super::{
    entry::Entry,
    message::{self, Filter, Scope},
};
use crate::model::Protocol;

const KERNEL: &str = include_str!("golden/linux-6.18.hex");
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = 1 << 8;

fn from_hex(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Returns the messages of one section.
fn section(name: &str) -> Vec<Vec<u8>> {
    let start = format!("[{name}]");
    let lines = KERNEL.lines().skip_while(|line| *line != start).skip(1);
    lines.take_while(|line| !line.is_empty()).map(from_hex).collect()
}

fn read(bytes: &[u8]) -> Option<Entry> {
    let mut header = NetlinkHeader::default();
    header.message_type = NEW;
    NetfilterMessage::deserialize(&header, bytes).ok().and_then(|message| Entry::read(&message))
}

fn emit(message: &NetfilterMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn entries_of_a_real_kernel_are_read() {
    let entries: Vec<_> = section("entries_v4").iter().map(|bytes| read(bytes)).collect();
    let [Some(plain), Some(translated), Some(zone), None, Some(one_way)] = entries.as_slice()
    else {
        panic!("{entries:?}")
    };
    assert_eq!(plain.frontend.to_string(), "10.1.0.5:9/UDP");
    assert_eq!(plain.destination.to_string(), "10.1.0.5:9", "nothing translated");
    assert_eq!(translated.client.to_string(), "192.0.2.9:40001");
    assert_eq!(translated.frontend.to_string(), "10.96.0.10:53/UDP");
    assert_eq!(translated.destination.to_string(), "10.1.0.5:5353");
    assert_eq!((translated.zone, translated.original_zone), (None, None));
    assert_eq!(translated.id, Some([0x12, 0x62, 0x81, 0x1e]));
    assert_eq!((zone.zone, zone.original_zone), (Some([0, 9]), None));
    assert_eq!((one_way.zone, one_way.original_zone), (None, Some([0, 7])));
    let six = read(&section("entries_v6")[0]).unwrap();
    assert_eq!(six.client.to_string(), "[2001:db8::9]:40001");
    assert_eq!(six.frontend.to_string(), "[fd00:96::10]:53/UDP");
    assert_eq!(six.destination.to_string(), "[fd00:1::5]:5353");
}

#[test]
fn a_deletion_names_the_entry_as_the_kernel_does() {
    for bytes in section("entries_v4").iter().chain(&section("entries_v6")) {
        let Some(entry) = read(bytes) else { continue };
        let len = usize::from(u16::from_ne_bytes([bytes[4], bytes[5]]));
        let deletion = emit(&message::delete(&entry));
        assert_eq!(deletion[..4 + len], bytes[..4 + len], "header and original tuple");
        let id = [8, 0, 12, 0].into_iter().chain(entry.id.unwrap()).collect::<Vec<_>>();
        assert_eq!(deletion[4 + len..][..8], id);
        let zone = &deletion[4 + len + 8..];
        match entry.zone {
            Some(number) => assert_eq!(zone, [6, 0, 18, 0, number[0], number[1], 0, 0]),
            None => assert!(zone.is_empty()),
        }
    }
}

#[test]
fn a_dump_asks_the_kernel_to_filter() {
    let scope = Scope { ipv6: true, protocol: Protocol::Udp, port: Some(53) };
    // Family IPv6; protocol 17 and port 53 in the original tuple; both flags in the filter.
    let filtered = "0a000000\
                    180001801400028005000100110000000600030000350000\
                    0c0019800800010028000000";
    assert_eq!(emit(&message::list(&scope, Filter::Kernel)), from_hex(filtered));
    assert_eq!(emit(&message::list(&scope, Filter::Family)), from_hex("0a000000"));
}

proptest! {
    #[test]
    fn a_damaged_entry_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut bytes = section("entries_v4")[1].clone();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = read(&bytes);
    }
}

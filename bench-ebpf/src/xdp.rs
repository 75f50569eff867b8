//! Programs that run before the tested one at XDP, see `restore.rs`. There a program may have put an
//! outer header in front of the packet, which is taken away first.

use aya_ebpf::{macros::xdp, programs::XdpContext};

use crate::{
    frame::{self, Frame},
    maps::{XDP_TEMPLATE, XDP_TESTED},
    restore::{IP, Shape, TCP4, TCP6, check},
    template::{PAYLOAD, Template},
};

const ABORTED: u32 = 0;
const PASS: u32 = 2;
/// Bytes of an outer header of IPv4, and of IPv6.
const OUTER4: i32 = 20;
const OUTER6: i32 = 40;

macro_rules! restoring {
    ($($name:ident = $shape:ident, $outer:ident;)+) => {$(
        #[xdp]
        pub fn $name(ctx: XdpContext) -> u32 {
            const SHAPE: Shape = $shape;
            const BYTES: usize = IP + 4 * SHAPE.words;
            /// The word of the ports: that with the checksum is the fifth of TCP.
            const PORTS: usize = SHAPE.l4_check - 4;
            let Some(template) = XDP_TEMPLATE.get_ptr_mut(0) else { return ABORTED };
            // SAFETY: the element of an array map; nobody else writes it during a run.
            let template: &mut Template = unsafe { &mut *template };
            // The difference of the ends would be simpler, but the compiler takes it of 32 bits.
            let is_grown = Frame::<{ BYTES + PAYLOAD + 1 }>::of(&ctx).is_some();
            if is_grown && !frame::grow(&ctx, -$outer) {
                return ABORTED;
            }
            let Some(frame) = Frame::<BYTES>::of(&ctx) else { return ABORTED };
            let cursor = match template.mask {
                0 => 0,
                _ => frame::next(&mut template.cursor),
            };
            let flow = cursor.wrapping_mul(template.step) & template.mask;
            let (low, high) = (u32::from((flow as u16).to_be()), flow >> 16);
            // Two bytes of the address are not enough for all: the rest is in the port.
            let ports = template.headers[PORTS];
            let source = ports ^ u32::from((high as u16).to_be());
            let moved = (source & 0xffff) + (!ports & 0xffff);
            let moved = (moved & 0xffff) + (moved >> 16);
            frame.store(0, template.ethernet[0]);
            frame.store(4, template.ethernet[1]);
            frame.store(8, template.ethernet[2]);
            frame.store(12, template.ether_type as u16);
            let mut at = 0;
            while at < SHAPE.words {
                let mut word = template.headers[at];
                if at == SHAPE.source {
                    word |= low << 16;
                }
                if at == SHAPE.ip_check {
                    word = check(word, low, true);
                }
                if at == PORTS {
                    word = source;
                }
                if at == SHAPE.l4_check {
                    word = check(check(word, low, SHAPE.last), moved, SHAPE.last);
                }
                frame.store(IP + 4 * at, word);
                at += 1;
            }
            // SAFETY: a tail call leaves nothing behind that would have to be dropped.
            unsafe { XDP_TESTED.tail_call(&ctx, 0) };
            ABORTED
        }
    )+};
}

restoring! {
    xdp_restore4 = TCP4, OUTER4;
    xdp_restore6 = TCP6, OUTER6;
}

macro_rules! growing {
    ($($(#[$doc:meta])* $name:ident = $bytes:ident;)+) => {$(
        $(#[$doc])*
        #[xdp]
        pub fn $name(ctx: XdpContext) -> u32 {
            if frame::grow(&ctx, $bytes) { PASS } else { ABORTED }
        }
    )+};
}

growing! {
    /// Does nothing but make room, which then has to be taken away again: twice what the latter costs.
    xdp_grow4 = OUTER4;
    xdp_grow6 = OUTER6;
}

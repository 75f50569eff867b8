//! Programs that run before the tested one: the kernel copies the packet in once a call, so that each
//! run would see it as the one before has left it.
//!
//! Stores are as wide as the fields that programs load, or wider: a load of what two stores wrote
//! waits for both to leave the store buffer.
//!
//! With many flows, a processor would begin with the next packets while one waits for memory, as long
//! as the programs are short. On a node there are thousands of instructions from packet to packet, so
//! here an atomic instruction keeps them apart.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::{
    frame::{self, Frame},
    maps::{PENDING4, PENDING6, TEMPLATE, TESTED},
    template::Template,
};

pub const IP: usize = 14;
const NONE: usize = usize::MAX;
const UNUSABLE: i32 = 2;

/// Where in the words of the headers things are.
pub struct Shape {
    pub words: usize,
    /// The last word of the source address.
    pub source: usize,
    /// The word with the IP checksum in its last two bytes.
    pub ip_check: usize,
    /// The word with the L4 checksum.
    pub l4_check: usize,
    /// That one is in the last two bytes.
    pub last: bool,
}

pub const TCP4: Shape = Shape { words: 10, source: 3, ip_check: 2, l4_check: 9, last: false };
const UDP4: Shape = Shape { words: 7, source: 3, ip_check: 2, l4_check: 6, last: true };
pub const TCP6: Shape = Shape { words: 15, source: 5, ip_check: NONE, l4_check: 14, last: false };
const UDP6: Shape = Shape { words: 12, source: 5, ip_check: NONE, l4_check: 11, last: true };

/// Corrects a checksum in one half of a word for a source address with `flow` in it.
#[inline(always)]
pub fn check(word: u32, flow: u32, last: bool) -> u32 {
    let (check, rest) =
        if last { (word >> 16, word & 0xffff) } else { (word & 0xffff, word >> 16) };
    let sum = (check ^ 0xffff) + flow;
    let check = ((sum & 0xffff) + (sum >> 16)) ^ 0xffff;
    if last { check << 16 | rest } else { rest << 16 | check }
}

macro_rules! restoring {
    ($($(#[$doc:meta])* $name:ident = $shape:ident, $before:expr;)+) => {$(
        $(#[$doc])*
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            const SHAPE: Shape = $shape;
            const BYTES: usize = IP + 4 * SHAPE.words;
            let Some(template) = TEMPLATE.get_ptr_mut(0) else { return UNUSABLE };
            let Some(frame) = Frame::<BYTES>::of(&ctx) else { return UNUSABLE };
            // SAFETY: the element of an array map; nobody else writes it during a run.
            let template: &mut Template = unsafe { &mut *template };
            let cursor = match template.mask {
                0 => 0,
                _ => frame::next(&mut template.cursor),
            };
            let flow = cursor.wrapping_mul(template.step) & template.mask;
            let flow = u32::from((flow as u16).to_be());
            frame.store(0, template.ethernet[0]);
            frame.store(4, template.ethernet[1]);
            frame.store(8, template.ethernet[2]);
            frame.store(12, template.ether_type as u16);
            let mut at = 0;
            while at < SHAPE.words {
                let mut word = template.headers[at];
                if at == SHAPE.source {
                    word |= flow << 16;
                }
                if at == SHAPE.ip_check {
                    word = check(word, flow, true);
                }
                if at == SHAPE.l4_check {
                    word = check(word, flow, SHAPE.last);
                }
                frame.store(IP + 4 * at, word);
                at += 1;
            }
            let before: fn(u32) = $before;
            before(template.token);
            frame::reset(&ctx, template.token);
            // SAFETY: a tail call leaves nothing behind that would have to be dropped.
            unsafe { TESTED.tail_call(&ctx, 0) };
            UNUSABLE
        }
    )+};
}

restoring! {
    restore_tcp4 = TCP4, |_| {};
    restore_udp4 = UDP4, |_| {};
    restore_tcp6 = TCP6, |_| {};
    restore_udp6 = UDP6, |_| {};
    /// At egress, of a packet that was stamped just now.
    restore_learn4 = TCP4, stamp4;
    restore_learn6 = TCP6, stamp6;
}

macro_rules! stamping {
    ($($name:ident = $pending:ident;)+) => {$(
        #[inline(always)]
        fn $name(token: u32) {
            if let Some(slot) = $pending.get_ptr_mut(token) {
                // SAFETY: the element of an array map; the datapath under test takes it on this CPU.
                unsafe {
                    (*slot).cpu = frame::cpu();
                    (*slot).stamped_at = frame::jiffies();
                }
            }
        }
    )+};
}

stamping! {
    stamp4 = PENDING4;
    stamp6 = PENDING6;
}

//! Constants that the agent sets when it loads the program; `proxy_common::abi::HashSetting` has their
//! meaning.

use aya_ebpf::Global;

#[unsafe(no_mangle)]
pub static SLOTS: Global<u32> = Global::new(4093);

#[unsafe(no_mangle)]
pub static TCP_TIMEOUT: Global<u32> = Global::new(225_000);

#[unsafe(no_mangle)]
pub static CLOSING_TIMEOUT: Global<u32> = Global::new(30_000);

#[unsafe(no_mangle)]
pub static UDP_TIMEOUT: Global<u32> = Global::new(75_000);

#[unsafe(no_mangle)]
pub static SECOND: Global<u32> = Global::new(250);

#[unsafe(no_mangle)]
pub static MASK4: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
pub static MASK6: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
pub static NEW_FLOWS: Global<u32> = Global::new(u32::MAX);

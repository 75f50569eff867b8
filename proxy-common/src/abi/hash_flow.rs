//! The flows that the hash plane remembers. `crate::flow_place` says where each is, and why nobody has
//! to lock it.

use super::{
    Addr,
    hash_capacity::TAGGED,
    layout::{Plain, abi_struct, sealed},
};
use crate::flow_place::WAYS;

abi_struct! {
    /// Flows whose places are the same.
    pub struct HashFlowSet<A> (128, 224) {
        /// A `HashFlowEntry` each.
        pub entries: [HashFlowEntry<A>; WAYS],
    }

    /// A flow that is remembered: its key, then where it goes.
    pub struct HashFlowEntry<A> (32, 56) {
        /// Client address, network order.
        pub source: A,
        /// Address of the frontend, network order.
        pub destination: A,
        /// Client port, host order.
        pub source_port: u16,
        /// Port of the frontend, host order.
        pub destination_port: u16,
        /// IP protocol number; 0 where there is no flow.
        pub protocol: u8,
        /// Little-endian. Another one than that of the key, the backend and the generation: the entry
        /// is being written, and says nothing.
        pub proof: [u8; 3],
        /// As in `HashFlow`.
        pub backend: u32,
        /// As in `HashFlow`.
        pub generation: u32,
        /// As in `HashFlow`.
        pub seen: u32,
        /// As in `HashFlow`.
        pub state: u32,
    }

    /// What is known of the entries of two sets without a look at them.
    pub struct HashTags (8) {
        /// Of the first set, then of the second: a byte for each entry, from its flow's hash; 0 where
        /// there was never a flow.
        pub tags: [u8; TAGGED as usize * WAYS],
    }

    /// A flow towards a frontend, as its packets lie on the wire.
    pub struct HashFlowKey<A> (16, 40) {
        /// Client address, network order.
        pub source: A,
        /// Address of the frontend, network order.
        pub destination: A,
        /// Client port, host order.
        pub source_port: u16,
        /// Port of the frontend, host order.
        pub destination_port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub _pad: [u8; 3],
    }

    /// Where a flow goes while it lives.
    pub struct HashFlow (16) {
        /// Index in `hash_backends`.
        pub backend: u32,
        /// Generation of that backend when the flow was given to it. Another one there now: the
        /// backend is gone, and the flow is chosen for anew.
        pub generation: u32,
        /// Jiffies of the last packet.
        pub seen: u32,
        /// A `HashFlowState`.
        pub state: u32,
    }
}

impl<A: Addr> sealed::Plain for [HashFlowEntry<A>; WAYS] {}
impl<A: Addr> Plain for [HashFlowEntry<A>; WAYS] {}

#[cfg(feature = "user")]
impl<A: Addr + super::Show> super::Show for [HashFlowEntry<A>; WAYS] {
    fn show(&self) -> super::Shown {
        let names = ["0", "1", "2", "3"].into_iter();
        super::Shown::Fields(names.zip(self.iter().map(super::Show::show)).collect())
    }
}

impl<A: Addr> HashFlowEntry<A> {
    /// Returns the entry of a flow.
    pub fn new(key: HashFlowKey<A>, flow: HashFlow, proof: u32) -> Self {
        let [low, middle, high, _] = proof.to_le_bytes();
        Self {
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.protocol,
            proof: [low, middle, high],
            backend: flow.backend,
            generation: flow.generation,
            seen: flow.seen,
            state: flow.state,
        }
    }

    /// Returns the key of the flow.
    pub fn key(&self) -> HashFlowKey<A> {
        HashFlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            _pad: [0; 3],
        }
    }

    /// Returns where it goes.
    pub fn flow(&self) -> HashFlow {
        let Self { backend, generation, seen, state, .. } = *self;
        HashFlow { backend, generation, seen, state }
    }
}

/// Values of `HashFlow::state`.
pub struct HashFlowState;

impl HashFlowState {
    /// Nothing has ended it.
    pub const OPEN: u32 = 0;
    /// A FIN or RST of the client was seen: its packets go on, a SYN is another flow.
    pub const CLOSING: u32 = 1;
}

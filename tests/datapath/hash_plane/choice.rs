//! Who is chosen for a flow without an entry: whom the kernel's table names.

use anyhow::{Context, ensure};
use proxy_common::{
    abi::{HashBackend, HashBackendFlags, HashFrontendFlags},
    hash::{
        Family, UNSCHEDULED_PORT,
        mh::{Destination, Size, Table},
        word,
    },
};
use proxy_userspace::model::HashMode;

use super::{
    Cases,
    frames::{ACK, L4, Packet, SYN},
    stage::{PASS, REDIRECT, Side, Stage, TABLE, backend},
};

/// Weights of the destinations, in the kernel's order; a place counts from 1 in `hash_backends`.
const WEIGHTS: [u32; 7] = [1, 3, 2, 200, 1, 7, 1];

/// Returns the cases of choices.
pub(super) fn cases<A: Side>(cases: &mut Cases, mode: HashMode) {
    let mut add = |name: &str, case: fn(HashMode) -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(move || case(mode))));
    };
    add("clients_go_where_the_kernels_table_sends_them", |mode| {
        plain::<A>(mode, Size::DEFAULT, 3000)
    });
    add("the_ports_of_clients_count_with_mh_port", ports::<A>);
    add("drained_backends_refuse_whom_the_kernel_refuses", drained::<A>);
    add("the_fallback_is_the_kernels", fallback::<A>);
    add("tables_of_all_sizes_choose_as_the_kernels", sizes::<A>);
}

/// What a client finds.
struct Scene<A> {
    stage: Stage,
    table: Table,
    flags: u32,
    /// Places that take nothing.
    drained: &'static [u32],
    random: Random,
    family: std::marker::PhantomData<A>,
}

impl<A: Side> Scene<A> {
    fn new(
        mode: HashMode,
        size: Size,
        flags: u32,
        drained: &'static [u32],
    ) -> anyhow::Result<Self> {
        // No flow is remembered, so each packet is chosen for.
        let mut stage = Stage::with::<A>(mode, |options| {
            options.new_flows = 0;
            options.size = size;
        })?;
        let family = if A::SUFFIX.is_empty() { Family::Ipv4 } else { Family::Ipv6 };
        let destination = |(place, weight): (u16, u32)| {
            Destination::new(A::client(place).into(), 80, family, weight)
        };
        let destinations: Vec<_> = (0..).zip(WEIGHTS).map(destination).collect();
        let table = Table::build(size, &destinations)?;
        let slots: Vec<u32> = table.owners().iter().map(|place| place + 1).collect();
        stage.plane.maps.put_table(TABLE, &slots)?;
        stage.put_frontend::<A>(flags)?;
        for place in 0..WEIGHTS.len() as u32 {
            let mut to: HashBackend = backend::<A>();
            to.ethernet[0] = place as u8;
            if drained.contains(&place) {
                to.flags &= !HashBackendFlags::TAKES_NEW;
            }
            stage.plane.maps.put_backend(place + 1, to)?;
        }
        let random = Random(0x9e37_79b9_7f4a_7c15);
        Ok(Self { stage, table, flags, drained, random, family: std::marker::PhantomData })
    }

    /// Sends a packet of a random client; returns who got it, and who should.
    fn client(&mut self) -> anyhow::Result<(Option<u32>, Option<u32>)> {
        let bytes: Vec<u8> = (0..size_of::<A>()).map(|_| self.random.next() as u8).collect();
        let client = A::read(&bytes).context("bytes of an address")?;
        let port = (self.random.next() as u16).max(UNSCHEDULED_PORT + 1);
        let unreachable = if A::SUFFIX.is_empty() { 3 } else { 1 };
        let kinds = [SYN, ACK, L4::Udp, L4::Icmp { kind: unreachable, udp: true }];
        let l4 = kinds[self.random.next() as usize % kinds.len()];
        let packet = Packet::<A> { source: (client, port), ..Packet::new(l4) };
        let output = self.stage.run(&packet.frame())?;
        let got = match output.action {
            REDIRECT => Some(u32::from(output.packet[0])),
            PASS => None,
            action => anyhow::bail!("action {action}"),
        };
        let family = if A::SUFFIX.is_empty() { Family::Ipv4 } else { Family::Ipv6 };
        let port = if self.flags & HashFrontendFlags::PORT == 0 { 0 } else { port };
        let place = word(client.into(), family).wrapping_add(port.into());
        let falls_back = self.flags & HashFrontendFlags::FALLBACK != 0;
        let takes = |place: u32| !self.drained.contains(&place);
        Ok((got, self.table.choose(place, falls_back, takes)))
    }

    /// Sends packets of so many clients, which must all go where the table says.
    fn agrees(&mut self, clients: u32) -> anyhow::Result<()> {
        for number in 0..clients {
            let (got, wanted) = self.client()?;
            ensure!(got == wanted, "client {number} got {got:?}, wanted {wanted:?}");
        }
        Ok(())
    }
}

fn plain<A: Side>(mode: HashMode, size: Size, clients: u32) -> anyhow::Result<()> {
    Scene::<A>::new(mode, size, 0, &[])?.agrees(clients)
}

fn ports<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    Scene::<A>::new(mode, Size::DEFAULT, HashFrontendFlags::PORT, &[])?.agrees(2000)
}

fn drained<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    let mut scene = Scene::<A>::new(mode, Size::DEFAULT, 0, &[1, 5])?;
    scene.agrees(1000)?;
    let refused = scene.stage.reasons();
    ensure!(refused.iter().any(|(name, _)| *name == "no_backend"), "{refused:?}");
    Ok(())
}

/// The kernel looks at all slots, the program at a few: whom it finds nobody for, it leaves to the
/// kernel.
fn fallback<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    const CLIENTS: u32 = 3000;
    let flags = HashFrontendFlags::FALLBACK | HashFrontendFlags::PORT;
    // The busiest takes nothing: who falls back tries several slots.
    let mut scene = Scene::<A>::new(mode, Size::DEFAULT, flags, &[3, 1])?;
    let mut left = 0;
    for number in 0..CLIENTS {
        let (got, wanted) = scene.client()?;
        left += u32::from(got.is_none());
        let agrees = got.is_none() || got == wanted;
        ensure!(agrees, "client {number} got {got:?}, wanted {wanted:?}");
    }
    let reasons = scene.stage.reasons();
    ensure!(left < CLIENTS, "{reasons:?}");
    // All others drained: nearly everybody's first slot is one that takes nothing.
    Scene::<A>::new(mode, Size::DEFAULT, flags, &[0, 2])?.agrees(500)
}

fn sizes<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    Size::all().try_for_each(|size| plain::<A>(mode, size, 200))
}

/// Numbers that are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }
}

//! What it takes to build the table of a virtual server with scheduler `mh`, and to look a client up.
//!
//! `cargo xtask bench hash` runs it. The kernel has one size of table, 4,093 slots unless it was built
//! with another.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use proxy_common::hash::mh::{Destination, Size, Table};

const ROUNDS: usize = 25;
const LOOKUPS: u32 = 1_000_000;
/// Backends, and milliseconds that a table of them may take.
const GOALS: [(u32, f64); 2] = [(100, 5.0), (4000, 100.0)];

fn main() {
    println!(
        "{:>8}  {:>8}  {:>9}  {:>9}  {:>9}  {:>7}  {:>9}",
        "backends", "slots", "min ms", "median ms", "max ms", "goal ms", "lookup ns"
    );
    for index in [Size::DEFAULT.index(), 16, Size::MOST_INDEX] {
        for (backends, goal) in GOALS {
            if let Some(size) = Size::of_index(index) {
                measure(size, backends, goal);
            }
        }
    }
}

fn measure(size: Size, backends: u32, goal: f64) {
    let destinations: Vec<Destination> = (0..backends)
        .map(|number| {
            // 10.1.0.0 and on, port 8080; weights of 1 to 100.
            let place = 0x0a01_0000 + number + 8080;
            Destination { place, last_weight: number * 7 % 100 + 1 }
        })
        .collect();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let table = Table::build(size, black_box(&destinations));
            let took = start.elapsed();
            let _ = black_box(table);
            took
        })
        .collect();
    times.sort();
    let Ok(table) = Table::build(size, &destinations) else { return };
    let start = Instant::now();
    for client in 0..LOOKUPS {
        black_box(table.choose(black_box(client), false, |_| true));
    }
    let lookup = start.elapsed().as_nanos() / u128::from(LOOKUPS);
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "{backends:>8}  {:>8}  {:>9.3}  {:>9.3}  {:>9.3}  {goal:>7}  {lookup:>9}",
        size.slots(),
        ms(times.first()),
        ms(times.get(ROUNDS / 2)),
        ms(times.last())
    );
}

//! Tables: what it costs to fill one as the kernel does, and to put it in the place of another one.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use proxy_common::hash::mh::{Destination, Size, Table};

use super::{
    super::{clock, times::Cost},
    scene::Scene,
};

/// No frontend has it.
const INDEX: u32 = 4000;
const BUILDS: [(u32, Size); 4] =
    [(100, Size::DEFAULT), (4_000, Size::DEFAULT), (100, LARGEST), (4_000, LARGEST)];
const PUTS: [Size; 2] = [Size::DEFAULT, LARGEST];
const LARGEST: Size = match Size::of_index(Size::MOST_INDEX) {
    Some(size) => size,
    None => Size::DEFAULT,
};

/// What was measured so far: CPU time and elapsed time of each.
pub(super) struct Tables {
    scene: Scene,
    builds: [Times; BUILDS.len()],
    puts: [Times; PUTS.len()],
}

#[derive(Default)]
struct Times {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

impl Times {
    /// Takes one more time, in milliseconds.
    fn take<T>(&mut self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let (cpu, wall) = (clock::cpu(), clock::wall());
        let done = run()?;
        self.cpu.push((clock::cpu() - cpu) / 1e6);
        self.wall.push((clock::wall() - wall) / 1e6);
        Ok(done)
    }
}

impl Tables {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { scene: Scene::new(0)?, builds: Default::default(), puts: Default::default() })
    }

    /// Measures everything once more.
    pub(super) fn measure(&mut self) -> Result<()> {
        for ((count, size), times) in BUILDS.into_iter().zip(&mut self.builds) {
            let destinations: Vec<_> = (1..=count)
                .map(|number| Destination {
                    place: 0x0a02_0000 + number,
                    last_weight: number % 100 + 1,
                })
                .collect();
            let table = times.take(|| Ok(Table::build(size, &destinations)?))?;
            // So that it has to be built.
            table.owners().first().context("an empty table")?;
        }
        for (size, times) in PUTS.into_iter().zip(&mut self.puts) {
            let slots: Vec<u32> = (0..size.slots()).map(|slot| 1 + slot % 100).collect();
            let maps = &mut self.scene.plane.maps;
            times.take(|| Ok(maps.put_table(INDEX, &slots)?))?;
        }
        Ok(())
    }

    /// Returns a line for each, and the least CPU time of each build and the median of time that
    /// passed for each swap, in milliseconds.
    pub(super) fn lines(self) -> (String, Vec<f64>, Vec<f64>) {
        let mut text = format!(
            "{:38} {:>8} {:>8} {:>8} {:>8}\n",
            "ms a table", "CPU min", "CPU med", "time min", "time med"
        );
        let mut line = |name: &str, times: Times| {
            let (cpu, wall) = (Cost::of(times.cpu), Cost::of(times.wall));
            let _ = writeln!(
                text,
                "{name:38} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
                cpu.min, cpu.median, wall.min, wall.median
            );
            (cpu, wall)
        };
        let builds = BUILDS.into_iter().zip(self.builds).map(|((count, size), times)| {
            line(&format!("build, {count} backends, {} slots", size.slots()), times).0.min
        });
        let builds = builds.collect();
        let puts = PUTS.into_iter().zip(self.puts).map(|(size, times)| {
            line(&format!("put in place, {} slots", size.slots()), times).1.median
        });
        let puts = puts.collect();
        (text, builds, puts)
    }
}

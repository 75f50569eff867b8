//! `passlane top`: rates, the fast path's share, drops and drift, live. Needs no agent.

mod frame;
mod rates;
mod sample;
mod terminal;

use std::{
    env,
    io::{self, IsTerminal},
};

use clap::Args;

use super::{
    Failure, FormatFlag,
    output::{Style, View},
    repeat::interval,
};
use crate::config::{Paths, duration::GoDuration};
use rates::{Order, Rates};

/// The flags of `passlane top`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// Print the rates of one interval as text, or as -o says, and end
    #[arg(long)]
    once: bool,
    /// Between two looks; IPVS's counters move every 2 seconds
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: GoDuration,
    /// Which Services come first
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "packets")]
    sort: Order,
    /// No colours, as with NO_COLOR set
    #[arg(long)]
    no_color: bool,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
}

/// As wide as a frame is where no terminal says otherwise.
const WIDTH: u16 = 120;

/// Shows the rates.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Flags { once, interval, sort, no_color, paths, format } = flags;
    if *once {
        let rates = super::block_on(async {
            let before = sample::take(paths).await?;
            tokio::time::sleep(interval.0).await;
            Ok(rates::between(&before, &sample::take(paths).await?, *sort))
        })?;
        return Ok(format.show(&Once { rates, order: *sort })?);
    }
    if !io::stdout().is_terminal() {
        let cure = "top needs a terminal (kubectl exec -it, ssh -t); --once prints one frame";
        return Err(Failure::Usage(cure.to_owned()));
    }
    let colours = !no_color && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    super::block_on(terminal::show(paths, interval.0, *sort, colours))
}

/// One frame.
#[derive(serde::Serialize)]
struct Once {
    #[serde(flatten)]
    rates: Rates,
    #[serde(skip)]
    order: Order,
}

impl View for Once {
    const KIND: &'static str = "Rates";

    fn text(&self, _: Style) -> String {
        frame::text(&self.rates, self.order, WIDTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_printed_as_it_always_was() {
        let order = Order::Packets;
        crate::cli::snapshot::check("top", &Once { rates: rates::tests::rates(order), order });
    }
}

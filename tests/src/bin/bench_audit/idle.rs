//! What the agent takes of a processor while nobody changes anything.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use proxy_userspace::admin::{Verb, client};
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

/// Shares of one processor, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    agent: f64,
    audit: f64,
    looks: u64,
    look_ms: f64,
    period: Duration,
}

impl Idle {
    pub(crate) fn json(&self) -> Value {
        json!({
            "agent_percent": self.agent,
            "looks_percent": self.audit,
            "looks": self.looks,
            "look_ms": self.look_ms,
            "between_looks_s": self.period.as_secs_f64(),
        })
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, audit, looks, look_ms, period } = self;
        write!(
            f,
            "idle: agent {agent:.2} % of a processor, looks {audit:.2} %; {looks} looks of \
             {look_ms:.1} ms, one in {:.1} s",
            period.as_secs_f64()
        )
    }
}

/// What the agent says of its audit.
pub(crate) fn audit(stage: &Stage) -> Result<Value> {
    let status: Value = client::ask(&stage.topology.state_dir(), Verb::Status, false)?;
    Ok(status["audit"].clone())
}

/// Measures for so long.
pub(crate) fn measure(stage: &Stage, time: Duration) -> Result<Idle> {
    let begun = Instant::now();
    let (before, agent_before) = (audit(stage)?, processor_time(stage)?);
    wait::pause(time);
    let (after, agent_after) = (audit(stage)?, processor_time(stage)?);
    let time = begun.elapsed();
    let since = |name: &str| {
        let count = |from: &Value| from[name].as_u64().with_context(|| format!("{name}: {from}"));
        Ok::<u64, anyhow::Error>(count(&after)? - count(&before)?)
    };
    let (looks, cost) = (since("looks")?, Duration::from_micros(since("cost_us")?));
    ensure!(since("drifts")? == 0, "something drifted by itself: {after}");
    ensure!(looks > 0, "nothing was looked at: {after}");
    let share = |part: Duration| 100.0 * part.as_secs_f64() / time.as_secs_f64();
    Ok(Idle {
        agent: share(agent_after - agent_before),
        audit: share(cost),
        looks,
        look_ms: 1000.0 * cost.as_secs_f64() / looks as f64,
        period: time.div_f64(looks as f64),
    })
}

/// Of the agent's process so far, in user and kernel mode (`proc_pid_stat(5)`, fields 14 and 15).
fn processor_time(stage: &Stage) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/stat", stage.agent.pid()?))?;
    let (_, after_name) = text.rsplit_once(')').context("no name in stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

//! `cargo xtask demo` runs this as root, where the kernel has IPVS: see `proxy_tests::demo`.

use std::process::ExitCode;

use proxy_tests::demo;

fn main() -> ExitCode {
    match demo::Options::parse(std::env::args().skip(1)) {
        Ok(options) => report(demo::run(&options)),
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}

fn report(outcome: anyhow::Result<demo::Summary>) -> ExitCode {
    match outcome {
        Ok(summary) if summary.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:?}");
            ExitCode::FAILURE
        }
    }
}

//! `passlane`: exit codes and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxy_userspace::cli::main()
}

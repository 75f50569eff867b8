use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Output};

use super::{command::fits, *};

fn of(language: &str, text: &str) -> Result<Vec<Command>> {
    let block = Block {
        file: "a.md".to_owned(),
        line: 1,
        language: language.to_owned(),
        text: text.to_owned(),
    };
    block.commands()
}

fn ended(code: i32, stdout: &str) -> Output {
    let status = ExitStatus::from_raw(code << 8);
    Output { status, stdout: stdout.into(), stderr: Vec::new() }
}

#[test]
fn a_command_may_have_a_comment_an_exit_code_and_several_lines() {
    let found = of("sh", "# first\npasslane run  # exit 3, or so\nhelm x \\\n  --set a='b # c'\n");
    let found = found.unwrap();
    let texts: Vec<_> = found.iter().map(|each| (&*each.text, each.exit)).collect();
    assert_eq!(texts, [("passlane run", 3), ("helm x --set a='b # c'", 0)]);
}

#[test]
fn a_console_shows_what_commands_print() {
    let found = of("console", "$ passlane status\nReady:   yes\n… on …\n").unwrap();
    let [command] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(command.shown, ["Ready:   yes", "… on …"]);
    assert!(command.judge(&ended(0, "Agent: x\nReady: yes\nFast path: on\n")).is_ok());
    assert!(command.judge(&ended(1, "Ready: yes\nFast path: on\n")).is_err(), "exit code");
    assert!(command.judge(&ended(0, "Fast path: on\nReady: yes\n")).is_err(), "order");
    assert!(command.judge(&ended(0, "Ready: yes, or no\nFast path: on\n")).is_err(), "whole lines");
}

#[test]
fn three_dots_stand_for_anything_and_blanks_for_each_other() {
    for (shown, line, fitting) in [
        ("eth0 … fast", "eth0   2   fast", true),
        ("eth0 … fast", "eth0   2   off   foreign", false),
        ("… fast", "fast", true),
        ("eth0 …", "eth1 2", false),
        ("a … c … e", "a b c d e", true),
        ("a … c … e", "a b c", false),
    ] {
        assert_eq!(fits(shown, line), fitting, "{shown} {line}");
    }
}

#[test]
fn a_command_belongs_where_all_its_programs_are() {
    let place = |text: &str| of("sh", text).unwrap()[0].place();
    assert_eq!(place("passlane dump > node.json && ipvsadm -Ln | grep TCP").unwrap(), Place::Node);
    assert_eq!(place("kubectl get cm -o yaml | grep 'a | b'").unwrap(), Place::Cluster);
    assert_eq!(place("cargo xtask image").unwrap(), Place::Build);
    assert!(place("aws eks list-addons").is_err(), "no test has it");
    assert!(place("passlane status | less").is_err(), "nor that");
}

#[test]
fn a_block_without_a_known_mark_is_an_error() {
    assert!(of("", "passlane status\n").is_err());
    assert!(of("bash", "passlane status\n").is_err());
    assert!(of("text", "k3s server\n").unwrap().is_empty());
    assert!(blocks_of("a.md", "```sh\npasslane\n").is_err(), "never closed");
}

#[test]
fn commands_within_sentences_are_found_also_over_the_end_of_a_line() {
    let text = "Ask `passlane status`.\n```sh\npasslane `top`\n```\nOr `passlane services\n-o json`, `ip`.";
    let expected: [&[&str]; 2] = [&["status"], &["services", "-o", "json"]];
    assert_eq!(in_sentences(text, "passlane"), expected);
}

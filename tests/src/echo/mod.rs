//! A server that says who it is and whom it sees, over TCP, UDP and SCTP, and its client.
//!
//! The client sends a number; the server answers `<number> <its name> <the client's address>`.

mod client;
mod outcome;
mod server;

use std::net::IpAddr;

use anyhow::{Context as _, Result};

pub use client::{Caller, Dial};
pub use outcome::Outcome;
pub use server::EchoServer;

/// Who answered, and whom he answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The name of the server.
    pub by: String,
    /// The client's address, as the server sees it.
    pub source: IpAddr,
}

fn write_answer(number: &str, name: &str, source: IpAddr) -> String {
    format!("{number} {name} {}\n", source.to_canonical())
}

/// Reads an answer. `None`: it is one to another question.
fn read_answer(text: &str, number: u32) -> Result<Option<Answer>> {
    let mut words = text.split_whitespace();
    let mut next = || words.next().with_context(|| format!("short answer {text:?}"));
    if next()?.parse::<u32>()? != number {
        return Ok(None);
    }
    Ok(Some(Answer { by: next()?.to_owned(), source: next()?.parse()? }))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_answer_names_server_and_client() {
        let mapped = Ipv4Addr::new(10, 1, 1, 31).to_ipv6_mapped();
        let text = write_answer("7", "a", mapped.into());
        let expected = Answer { by: "a".to_owned(), source: "10.1.1.31".parse().unwrap() };
        assert_eq!(read_answer(&text, 7).unwrap(), Some(expected));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let text = write_answer("7", "a", Ipv4Addr::LOCALHOST.into());
        assert_eq!(read_answer(&text, 8).unwrap(), None);
        assert!(read_answer("7 a", 7).is_err());
    }
}

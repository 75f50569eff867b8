//! Asking the kernel over netlink, many requests at a time. Framing, sequence numbers and dumps are
//! netlink-proto's; this adds an answer for every request, in order, and a deadline.

use std::{fmt::Debug, io, time::Duration};

use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_proto::{
    ConnectionHandle,
    sys::{AsyncSocket, SocketAddr},
};
use rustix::io::Errno;

/// Requests in one send(). Their answers wait together in the socket's receive buffer of 208 KiB,
/// where each takes less than 1 KiB.
pub(super) const REQUESTS_PER_SEND: usize = 96;
/// The kernel answers at once, unless it waits for a lock that others hold.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// `IPSET_ERR_BUSY`: rules use the set.
const IPSET_BUSY: i32 = 4100;

/// Why requests were not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The connection's task ended: the runtime shut down, or the socket broke.
    #[error("netlink connection lost")]
    ConnectionLost,
    /// Answers were lost because the socket's buffer overran, or the kernel hangs.
    #[error("no reply from the kernel within {} s", REPLY_TIMEOUT.as_secs())]
    NoReply,
}

/// Answers to requests sent together.
pub(super) struct Replies<T> {
    /// One for each request, in the same order.
    pub(super) answers: Vec<Result<(), Errno>>,
    /// The messages that came with them.
    pub(super) messages: Vec<T>,
}

/// Opens a socket in the network namespace of the calling thread, and spawns its task.
pub(super) fn open<T>(protocol: isize) -> io::Result<ConnectionHandle<T>>
where
    T: Debug + NetlinkSerializable + NetlinkDeserializable + Unpin + Send + 'static,
{
    let (mut connection, handle, _) = netlink_proto::new_connection::<T>(protocol)?;
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    // Error answers need not quote the request.
    connection.socket_mut().socket_mut().set_cap_ack(true)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Makes a message that is acknowledged. `flags` are added.
pub(super) fn write<T>(payload: T, flags: u16) -> NetlinkMessage<T>
where
    T: Debug + NetlinkSerializable,
{
    with_flags(payload, NLM_F_REQUEST | NLM_F_ACK | flags)
}

/// Makes a message that is answered by one message.
pub(super) fn read<T>(payload: T) -> NetlinkMessage<T>
where
    T: Debug + NetlinkSerializable,
{
    with_flags(payload, NLM_F_REQUEST)
}

/// Makes a message that is answered by any number of messages.
pub(super) fn dump<T>(payload: T) -> NetlinkMessage<T>
where
    T: Debug + NetlinkSerializable,
{
    with_flags(payload, NLM_F_REQUEST | NLM_F_DUMP)
}

fn with_flags<T>(payload: T, flags: u16) -> NetlinkMessage<T>
where
    T: Debug + NetlinkSerializable,
{
    let mut message =
        NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(payload));
    message.header.flags = flags;
    message
}

/// Sends the requests, at most [`REQUESTS_PER_SEND`], in one send() and waits for all answers.
pub(super) async fn exchange<T: Debug>(
    handle: &ConnectionHandle<T>,
    requests: Vec<NetlinkMessage<T>>,
) -> Result<Replies<T>, Failure> {
    let count = requests.len();
    let stream = handle
        .request_batch(requests, SocketAddr::new(0, 0))
        .map_err(|_| Failure::ConnectionLost)?;
    let replies: Vec<_> = tokio::time::timeout(REPLY_TIMEOUT, stream.collect())
        .await
        .map_err(|_| Failure::NoReply)?;
    let (mut answers, mut messages) = (Vec::with_capacity(count), Vec::new());
    for reply in replies {
        let answer = match reply.payload {
            NetlinkPayload::InnerMessage(message) => {
                messages.push(message);
                // The only message of a request that is not acknowledged is its answer.
                match reply.header.flags & NLM_F_MULTIPART {
                    0 => Ok(()),
                    _ => continue,
                }
            }
            NetlinkPayload::Error(error) if error.raw_code() != 0 => Err(errno(error.raw_code())),
            // A dump that fails midway says so in its last message.
            NetlinkPayload::Done(done) if done.code < 0 => Err(errno(done.code)),
            _ => Ok(()),
        };
        answers.push((reply.header.sequence_number, answer));
    }
    if answers.len() != count {
        return Err(Failure::ConnectionLost);
    }
    answers.sort_by_key(|(sequence, _)| *sequence);
    Ok(Replies { answers: answers.into_iter().map(|(_, answer)| answer).collect(), messages })
}

/// Sends one request and returns the messages of its answer.
pub(super) async fn ask<T: Debug>(
    handle: &ConnectionHandle<T>,
    request: NetlinkMessage<T>,
) -> Result<Result<Vec<T>, Errno>, Failure> {
    let Replies { answers, messages } = exchange(handle, vec![request]).await?;
    Ok(answers.into_iter().collect::<Result<(), Errno>>().map(|()| messages))
}

/// Sends a request that the kernel may leave without an answer when it does what was asked, and in the
/// same send() one that it answers by one message. Answers come in order: that one tells that both are
/// done.
pub(super) async fn ask_before<T: Debug>(
    handle: &ConnectionHandle<T>,
    request: NetlinkMessage<T>,
    next: NetlinkMessage<T>,
) -> Result<Result<(), Errno>, Failure> {
    let mut replies = handle
        .request_batch(vec![request, next], SocketAddr::new(0, 0))
        .map_err(|_| Failure::ConnectionLost)?;
    let done = async {
        while let Some(reply) = replies.next().await {
            match reply.payload {
                NetlinkPayload::InnerMessage(_) => return Ok(Ok(())),
                NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                    return Ok(Err(errno(error.raw_code())));
                }
                _ => {}
            }
        }
        Err(Failure::ConnectionLost)
    };
    tokio::time::timeout(REPLY_TIMEOUT, done).await.map_err(|_| Failure::NoReply)?
}

/// Sends one request and hands the messages of its answer over as they come: a large dump is never
/// in memory as a whole.
pub(super) async fn scan<T: Debug>(
    handle: &ConnectionHandle<T>,
    request: NetlinkMessage<T>,
    mut visit: impl FnMut(T),
) -> Result<Result<(), Errno>, Failure> {
    let mut replies =
        handle.request(request, SocketAddr::new(0, 0)).map_err(|_| Failure::ConnectionLost)?;
    loop {
        let reply = tokio::time::timeout(REPLY_TIMEOUT, replies.next())
            .await
            .map_err(|_| Failure::NoReply)?
            .ok_or(Failure::ConnectionLost)?;
        match reply.payload {
            NetlinkPayload::InnerMessage(message) => visit(message),
            NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                return Ok(Err(errno(error.raw_code())));
            }
            NetlinkPayload::Done(done) if done.code < 0 => return Ok(Err(errno(done.code))),
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(Ok(())),
            _ => {}
        }
    }
}

/// Turns a netlink error code, which is a negative error number, into the error number. Numbers from
/// 4096 on are those of ip sets, which no `Errno` can hold.
fn errno(code: i32) -> Errno {
    match code.wrapping_neg() {
        IPSET_BUSY => Errno::BUSY,
        number @ 1..4096 => Errno::from_raw_os_error(number),
        _ => Errno::PROTO,
    }
}

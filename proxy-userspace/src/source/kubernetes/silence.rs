//! Answers that begin and then go silent: a peer whose process hangs keeps its connections open, and
//! its kernel acknowledges what comes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tower::BoxError;

/// How long the API server may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first packet to a connection that requests can be sent on, with TLS.
    pub connect: Duration,
    /// From a request to the head of its answer. An API server ends its own work on a request after a
    /// minute, and a watch answers at once.
    pub answer: Duration,
    /// Between two parts of a list.
    pub list: Duration,
    /// Between two parts of a watch. An API server may have nothing to say, not even by a bookmark,
    /// until it ends the watch after the 290 s that kube asks for.
    pub watch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(75),
            list: Duration::from_secs(30),
            // Before kube takes the silence for an end in order, after 295 s.
            watch: Duration::from_secs(293),
        }
    }
}

/// Nothing came for too long.
#[derive(Debug, thiserror::Error)]
#[error("the answer went silent for {} seconds in its middle", .0.as_secs_f32())]
struct WentSilent(Duration);

/// A body that ends with an error when nothing of it comes for too long.
pub(super) struct Heard<B> {
    body: B,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    /// What is done about it.
    given_up: Option<Box<dyn FnOnce() + Send>>,
}

impl<B> Heard<B> {
    pub(super) fn new(body: B, limit: Duration, given_up: impl FnOnce() + Send + 'static) -> Self {
        let deadline = Box::pin(sleep(limit));
        Self { body, limit, deadline, given_up: Some(Box::new(given_up)) }
    }
}

impl<B> Body for Heard<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.deadline.as_mut().reset(Instant::now() + this.limit);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match this.deadline.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                if let Some(given_up) = this.given_up.take() {
                    given_up();
                }
                Poll::Ready(Some(Err(WentSilent(this.limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

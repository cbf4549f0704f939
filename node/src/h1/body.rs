//! Bodies at the client's end of a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::BodyError;

/// What an answer's body is to whoever writes it.
pub trait AnswerBody: http_body::Body<Data = Bytes, Error = BodyError> + Unpin {
    /// Goes on with sending the request, where the answer came before its end. Called where the
    /// client takes no more of the answer for now, and the body is not asked for more.
    fn poll_upload(&mut self, cx: &mut Context<'_>);
}

/// A connection that a request's body is read from.
pub(super) trait Source: Send + Sync {
    /// The next piece of the request number `turn`.
    fn poll_frame(&self, turn: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;

    /// What is known of what is still to come.
    fn size_hint(&self, turn: u64) -> SizeHint;

    /// Nobody will read any more of it.
    fn abandon(&self, turn: u64);

    /// Nothing more comes.
    fn is_end(&self, turn: u64) -> bool;
}

/// The body of a client's request. Reads from the client's connection when it is asked, and not
/// before; a client that waits for `100 Continue` gets it then.
pub struct Body(Option<(Arc<dyn Source>, u64)>);

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Body(None)
    }

    pub(super) fn of(source: Arc<dyn Source>, turn: u64) -> Self {
        Body(Some((source, turn)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some((source, turn)) = &self.0 {
            source.abandon(*turn);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &self.0 {
            Some((source, turn)) => source.poll_frame(*turn, cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(source, turn)| source.is_end(*turn))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |(source, turn)| source.size_hint(*turn))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("empty", &self.0.is_none()).finish_non_exhaustive()
    }
}

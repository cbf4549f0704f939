//! The hosting side: takes streams of peers, and reaches pods of this node through [`Host`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::frame::{
    FrameReader, FrameWriter, GIVEN_UP, Incoming, Kind, MALFORMED, StreamError, TOO_LATE, UNSENT, UPSTREAM_FAILED,
};
use super::metrics::{TunnelMetrics, refusal_reason};
use super::{Body, Host, Hosted, Refusal, StreamHeader, Unsent, client, codec, raw};
use crate::drain::{Drain, Phase};
use crate::identity::NodeName;
use crate::relay::{Interim, Upgraded};

/// Streams that are served at once, over all connections of the process.
pub(super) const MAX_HOSTED: usize = 4096;
/// How long a stream's opening may take.
const OPENING_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection to a pod may take, the wait for a newer head included; below the time
/// that senders wait.
const CONNECT_LIMIT: Duration = Duration::from_millis(4500);

/// What serving a stream takes.
#[derive(Clone)]
pub(super) struct Hosting {
    pub host: Arc<dyn Host>,
    pub drain: Drain,
    pub metrics: TunnelMetrics,
    room: Arc<Semaphore>,
}

impl Hosting {
    pub(super) fn new(host: Arc<dyn Host>, drain: Drain, metrics: TunnelMetrics, room: Arc<Semaphore>) -> Self {
        Hosting { host, drain, metrics, room }
    }

    /// Serves one stream to its end.
    pub(super) async fn serve(self, peer: NodeName, send: SendStream, receive: RecvStream) {
        let mut writer = FrameWriter::new(send, GIVEN_UP);
        let reader = FrameReader::new(receive);
        let stopped = writer.stopped();
        let gone = async {
            // Everything arrived, which is the end of this way only.
            if let Ok(None) = stopped.await {
                std::future::pending::<()>().await;
            }
        };
        let mut gone = pin!(gone);
        let result = tokio::select! {
            biased;
            result = self.exchange(&peer, &mut writer, reader) => result,
            // The sender wants no answer: everything goes, the upstream with it.
            () = &mut gone => return self.metrics.hosted("client_gone"),
        };
        match result {
            Ok(word) => self.metrics.hosted(word),
            Err(StreamError::Malformed(error)) => {
                tracing::debug!(%peer, %error, "stream refused");
                writer.reset(MALFORMED);
                self.metrics.hosted("malformed");
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "stream broke");
                self.metrics.hosted("broken");
            }
        }
    }

    async fn exchange(
        &self,
        peer: &NodeName,
        writer: &mut FrameWriter,
        mut reader: FrameReader,
    ) -> Result<&'static str, StreamError> {
        let Ok(opening) = timeout(OPENING_LIMIT, opening(&mut reader)).await else {
            writer.reset(TOO_LATE);
            return Ok("too_late");
        };
        let (header, request, end) = opening?;
        let Ok(_room) = self.room.clone().try_acquire_owned() else {
            return refuse(writer, Refusal::Overloaded).await;
        };
        let hosted = match self.connect(peer, header).await {
            Ok(hosted) => hosted,
            Err(refusal) => return refuse(writer, refusal).await,
        };
        writer.set_drop_code(UPSTREAM_FAILED);
        writer.queue(Kind::Accepted, |_| {});
        writer.flush().await?;
        let (body, reader) = if end {
            (super::empty(), Some(reader))
        } else {
            // The reader goes with the body, to wherever the upstream reads it.
            (client::body(reader, ()), None)
        };
        let interim = request.extensions().get::<Interim>().cloned();
        let sent = hosted.send(request.map(|()| body));
        let mut response = match answered(sent, writer, interim.as_ref()).await? {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%peer, %error, "upstream failed");
                let content = if error.is::<Unsent>() { UNSENT } else { &[] };
                return failed(writer, content).await;
            }
        };
        if let (Some(upgraded), Some(reader)) = (response.extensions_mut().remove::<Upgraded>(), reader) {
            writer.queue(Kind::Head, |buffer| codec::encode_response(&response, false, buffer));
            writer.flush().await?;
            raw::copy(writer, reader, &upgraded).await;
            return Ok("upgraded");
        }
        let end = response.is_end_stream();
        writer.queue(Kind::Head, |buffer| codec::encode_response(&response, end, buffer));
        respond(writer, response.into_body()).await
    }

    async fn connect(&self, peer: &NodeName, header: StreamHeader) -> Result<Box<dyn Hosted>, Refusal> {
        if self.drain.phase() >= Phase::Draining {
            return Err(Refusal::Draining);
        }
        match timeout(CONNECT_LIMIT, self.host.connect(peer, header)).await {
            Ok(result) => result,
            Err(_) => Err(Refusal::NotHere),
        }
    }
}

async fn opening(reader: &mut FrameReader) -> Result<(StreamHeader, Request<()>, bool), StreamError> {
    let Incoming::Frame(Kind::Open, content) = reader.next().await? else {
        return Err(codec::Malformed("a stream must open with a header").into());
    };
    let header = codec::decode_header(content)?;
    let Incoming::Frame(Kind::Head, content) = reader.next().await? else {
        return Err(codec::Malformed("a request head must follow").into());
    };
    let (request, end) = codec::decode_request(content)?;
    Ok((header, request, end))
}

/// Waits for the answer; what comes before it is written as it comes.
async fn answered<T>(
    mut sent: BoxFuture<'_, T>,
    writer: &mut FrameWriter,
    interim: Option<&Interim>,
) -> Result<T, StreamError> {
    let Some(interim) = interim else { return Ok(sent.await) };
    loop {
        let mut came = false;
        let answer = poll_fn(|cx| {
            let answer = sent.as_mut().poll(cx);
            while let Some((status, headers)) = interim.take() {
                let mut response = Response::new(());
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                writer.queue(Kind::Interim, |buffer| codec::encode_response(&response, false, buffer));
                came = true;
            }
            match answer {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if came => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        writer.flush().await?;
    }
}

async fn refuse(writer: &mut FrameWriter, refusal: Refusal) -> Result<&'static str, StreamError> {
    let content = codec::encode_refusal(refusal);
    writer.queue(Kind::Refused, |buffer| buffer.extend_from_slice(&content));
    writer.finish().await?;
    Ok(refusal_reason(refusal))
}

/// A frame, not a reset: a reset would overtake and discard what was sent before it.
async fn failed(writer: &mut FrameWriter, content: &[u8]) -> Result<&'static str, StreamError> {
    writer.queue(Kind::Failed, |buffer| buffer.extend_from_slice(content));
    writer.finish().await?;
    Ok("upstream_failed")
}

async fn respond(writer: &mut FrameWriter, mut body: Body) -> Result<&'static str, StreamError> {
    if !body.is_end_stream() {
        writer.flush().await?;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => writer.queue_body(frame),
                Err(error) => {
                    tracing::debug!(%error, "upstream's body broke");
                    return failed(writer, &[]).await;
                }
            }
            writer.flush().await?;
        }
    }
    writer.queue_end();
    writer.finish().await?;
    Ok("ok")
}

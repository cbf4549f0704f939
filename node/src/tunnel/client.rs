//! The sender's side: one stream a request, kept until it is accepted.
//!
//! A stream's reads and writes run on the caller's runtime: quinn's streams need none of their
//! own. The connection behind them is driven by the runner's.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode, header, request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{CLIENT_GONE, FrameReader, FrameWriter, GIVEN_UP, Incoming, Kind, StreamError, TOO_LATE};
use super::peers::{Peer, Slot};
use super::raw::Raw;
use super::runner::Dial;
use super::{Attempt, Body, BodyError, Refusal, StreamHeader, Tunnel, TunnelFailure, TunnelFailureKind, codec};
use crate::identity::NodeName;
use crate::relay::{Interim, MAX_INTERIM, Upgraded};

/// How long a request waits for a connection to be dialled.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// How long a request waits for a place on full connections.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
/// How long a request waits for the host's answer.
const ACCEPT_LIMIT: Duration = Duration::from_secs(5);
/// Attempts to open a stream, each on another connection.
const OPEN_ATTEMPTS: usize = 3;

impl Tunnel {
    /// Sends a request to the endpoint on `node`.
    ///
    /// The head and what `body` can keep go at once; the rest once the host has accepted. On a
    /// failure before that, another attempt may be made. Dropping the future or the response's
    /// body resets the stream, and the host drops its upstream.
    pub async fn http(
        &self,
        node: &NodeName,
        header: StreamHeader,
        head: &request::Parts,
        body: Attempt,
    ) -> Result<Response<Body>, TunnelFailure> {
        let result = self.exchange(node, header, head, body).await;
        if let Err(failure) = &result {
            self.shared.metrics.failed(&failure.kind);
        }
        result
    }

    async fn exchange(
        &self,
        node: &NodeName,
        header: StreamHeader,
        head: &request::Parts,
        mut body: Attempt,
    ) -> Result<Response<Body>, TunnelFailure> {
        let (slot, send, receive) = self.open(node).await.map_err(|kind| TunnelFailure { kind, accepted: false })?;
        let mut writer = FrameWriter::new(send, CLIENT_GONE);
        let mut reader = FrameReader::new(receive);
        let ended = body.is_end_stream();
        let interim = body.take_interim();
        // What is upgraded may go on behind the head, so that the stream stays open.
        let upgrades = ended && head.headers.contains_key(header::UPGRADE);
        let opening = codec::encode_header(&header);
        writer.queue(Kind::Open, |buffer| buffer.extend_from_slice(&opening));
        writer.queue(Kind::Head, |buffer| codec::encode_request(head, ended, interim.is_some(), buffer));
        let mut upload = Upload { writer, ended, upgrades };
        if ended && !upgrades {
            upload.writer.queue_end();
        }
        accepted(&slot, &mut upload, &mut reader, &mut body).await?;
        let responded = if upgrades {
            switched(reader, slot, upload.writer, interim.as_ref()).await
        } else {
            let upload = upload.spawn(body.commit());
            respond(reader, slot, upload, interim.as_ref()).await
        };
        responded.map_err(|error| match error {
            // It takes back what it had accepted.
            StreamError::UpstreamUnsent => {
                TunnelFailure { kind: TunnelFailureKind::Refused(Refusal::NotHere), accepted: false }
            }
            error => TunnelFailure { kind: TunnelFailureKind::Broken(error.to_string()), accepted: true },
        })
    }

    /// A stream on a connection that is heard from.
    async fn open(&self, node: &NodeName) -> Result<(Slot, SendStream, RecvStream), TunnelFailureKind> {
        let unreachable = |reason: &str| TunnelFailureKind::Unreachable(reason.to_owned());
        let started = Instant::now();
        let peer = self.peer(node).await.ok_or_else(|| unreachable("not a known peer"))?;
        for _ in 0..OPEN_ATTEMPTS {
            let slot = match peer.slot() {
                Some(slot) => slot,
                None => {
                    self.connected(&peer).await?;
                    continue;
                }
            };
            if peer.wants_more() {
                let _ = self.shared.dial.try_send(Dial(peer.clone()));
            }
            match timeout(OPEN_LIMIT, slot.link().connection.open_bi()).await {
                Ok(Ok((send, receive))) => {
                    self.shared.metrics.streams_opened.inc();
                    self.shared.metrics.stream_open_wait.observe(started.elapsed().as_secs_f64());
                    return Ok((slot, send, receive));
                }
                Ok(Err(_)) => slot.link().close(),
                Err(_) => return Err(TunnelFailureKind::Refused(Refusal::Overloaded)),
            }
        }
        Err(unreachable("its connections close as soon as they open"))
    }

    /// The peer; waits for the runner if the directory has only just named it.
    async fn peer(&self, node: &NodeName) -> Option<Arc<Peer>> {
        let mut replaced = self.shared.peers.replaced();
        if let Some(peer) = self.shared.peers.get(node) {
            return Some(peer);
        }
        if !self.shared.directory.borrow().contains_key(node) {
            return None;
        }
        let _ = timeout(CONNECT_LIMIT, replaced.changed()).await;
        self.shared.peers.get(node)
    }

    /// Waits until the runner has dialled.
    async fn connected(&self, peer: &Arc<Peer>) -> Result<(), TunnelFailureKind> {
        if let Some(error) = peer.backing_off() {
            return Err(TunnelFailureKind::Unreachable(error));
        }
        let mut dialled = peer.dialled.subscribe();
        if peer.alive() {
            return Ok(());
        }
        // A full queue means that the runner is about to look at all peers anyway.
        if let Err(TrySendError::Closed(_)) = self.shared.dial.try_send(Dial(peer.clone())) {
            return Err(TunnelFailureKind::Unreachable("the tunnel is closed".into()));
        }
        match timeout(CONNECT_LIMIT, dialled.changed()).await {
            Ok(_) if peer.alive() => Ok(()),
            Ok(_) => Err(TunnelFailureKind::Unreachable(peer.backing_off().unwrap_or_default())),
            Err(_) => Err(TunnelFailureKind::Unreachable(format!("no connection within {CONNECT_LIMIT:?}"))),
        }
    }
}

/// The request on its way.
struct Upload {
    writer: FrameWriter,
    ended: bool,
    /// The stream stays open behind the head.
    upgrades: bool,
}

enum PumpError {
    Stream(StreamError),
    Client(BodyError),
}

impl Upload {
    /// Sends what is queued and what `body` can keep; returns when there is no more of either.
    /// May be cancelled: what was taken from the body is queued before anything is awaited.
    async fn pump(&mut self, body: &mut Attempt) -> Result<(), PumpError> {
        loop {
            if self.upgrades {
                return self.writer.flush().await.map_err(PumpError::Stream);
            }
            if self.ended {
                return self.writer.finish().await.map_err(PumpError::Stream);
            }
            self.writer.flush().await.map_err(PumpError::Stream)?;
            if !body.has_room() {
                return Ok(());
            }
            self.take(body.frame().await).map_err(PumpError::Client)?;
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BodyError>>) -> Result<(), BodyError> {
        match frame {
            Some(Ok(frame)) => self.writer.queue_body(frame),
            Some(Err(error)) => return Err(error),
            None => {
                self.ended = true;
                self.writer.queue_end();
            }
        }
        Ok(())
    }

    /// Sends the rest beside the response. The task ends with the request, or by its handle.
    fn spawn<B>(mut self, mut rest: B) -> Option<AbortOnDrop>
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    {
        if self.writer.is_done() {
            return None;
        }
        let task = async move {
            while !self.ended {
                if self.writer.flush().await.is_err() || self.take(rest.frame().await).is_err() {
                    // The host wants no more, or the client is gone: the drop resets the stream.
                    return;
                }
            }
            let _ = self.writer.finish().await;
        };
        Some(AbortOnDrop(tokio::spawn(task).abort_handle()))
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends until the host answers; an error unless it accepts.
async fn accepted(
    slot: &Slot,
    upload: &mut Upload,
    reader: &mut FrameReader,
    body: &mut Attempt,
) -> Result<(), TunnelFailure> {
    let fail = |kind| TunnelFailure { kind, accepted: false };
    let mut pump = pin!(upload.pump(body));
    let mut answer = pin!(reader.next());
    let mut silence = pin!(slot.link().silence());
    let mut limit = pin!(tokio::time::sleep(ACCEPT_LIMIT));
    let mut pumping = true;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.map_err(unanswered)?,
            pumped = &mut pump, if pumping => match pumped {
                Ok(()) => pumping = false,
                Err(PumpError::Client(error)) => return Err(fail(TunnelFailureKind::Client(error.to_string()))),
                // Who refuses or fails reads no more; the answer says which.
                Err(PumpError::Stream(StreamError::Reset(_))) => pumping = false,
                Err(PumpError::Stream(error)) => return Err(unanswered(error)),
            },
            () = &mut silence => return Err(fail(TunnelFailureKind::Broken("the peer is silent".into()))),
            () = &mut limit => return Err(fail(TunnelFailureKind::Broken("no answer in time".into()))),
        }
    };
    match answer {
        Incoming::Frame(Kind::Accepted, _) => Ok(()),
        Incoming::Frame(Kind::Refused, content) => match codec::decode_refusal(content) {
            Ok(refusal) => Err(fail(TunnelFailureKind::Refused(refusal))),
            Err(error) => Err(fail(TunnelFailureKind::Broken(error.to_string()))),
        },
        _ => Err(fail(TunnelFailureKind::Broken("neither accepted nor refused".into()))),
    }
}

/// A reset overtakes what was written before it, so its code says whether the host had accepted.
fn unanswered(error: StreamError) -> TunnelFailure {
    let accepted = matches!(error, StreamError::UpstreamFailed);
    let kind = match error {
        StreamError::Reset(GIVEN_UP | TOO_LATE) => TunnelFailureKind::Refused(Refusal::Overloaded),
        error => TunnelFailureKind::Broken(error.to_string()),
    };
    TunnelFailure { kind, accepted }
}

/// Waits for the response's head; the body goes on reading.
async fn respond(
    mut reader: FrameReader,
    slot: Slot,
    upload: Option<AbortOnDrop>,
    interim: Option<&Interim>,
) -> Result<Response<Body>, StreamError> {
    let (response, end) = head(&mut reader, interim).await?;
    rest(reader, response, end, (slot, upload)).await
}

/// Waits for the head of the response to a request for an upgrade. After a 101 the stream carries
/// bytes without frames.
async fn switched(
    mut reader: FrameReader,
    slot: Slot,
    mut writer: FrameWriter,
    interim: Option<&Interim>,
) -> Result<Response<Body>, StreamError> {
    let (mut response, end) = head(&mut reader, interim).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !end {
        response.extensions_mut().insert(Upgraded::new(Raw::new(writer, reader, slot)));
        return Ok(response.map(|()| super::empty()));
    }
    writer.queue_end();
    // Whoever reads no more has answered nevertheless.
    let _ = writer.finish().await;
    rest(reader, response, end, slot).await
}

/// The response's head; what comes before it goes to `interim`.
async fn head(reader: &mut FrameReader, interim: Option<&Interim>) -> Result<(Response<()>, bool), StreamError> {
    for _ in 0..=MAX_INTERIM {
        match reader.next().await? {
            Incoming::Frame(Kind::Head, content) => return Ok(codec::decode_response(content)?),
            Incoming::Frame(Kind::Interim, content) => {
                let (parts, ()) = codec::decode_response(content)?.0.into_parts();
                if let Some(interim) = interim {
                    interim.put(parts.status, parts.headers);
                }
            }
            _ => return Err(codec::Malformed("no response head").into()),
        }
    }
    Err(codec::Malformed("too many interim responses").into())
}

async fn rest<T: Send + 'static>(
    mut reader: FrameReader,
    response: Response<()>,
    end: bool,
    held: T,
) -> Result<Response<Body>, StreamError> {
    if end {
        // The end follows at once; reading it lets the stream go without a reset.
        reader.next_body().await?;
        drop(held);
        return Ok(response.map(|()| super::empty()));
    }
    Ok(response.map(|()| body(reader, held)))
}

/// The rest of a stream as a body; `held` goes when it ends or is dropped.
pub(super) fn body<T: Send + 'static>(reader: FrameReader, held: T) -> Body {
    let parts = stream::unfold(Some((reader, held)), |state| async move {
        let (mut reader, held) = state?;
        match reader.next_body().await {
            Ok(Some(frame)) => Some((Ok(frame), Some((reader, held)))),
            Ok(None) => None,
            Err(error) => Some((Err(BodyError::from(error)), None)),
        }
    });
    StreamBody::new(parts).boxed_unsync()
}

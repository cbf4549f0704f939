//! A connection to a pod, for one request after the other. Whoever waits for the answer drives
//! it: there is no task of its own. Dropped before the answer's end, it is closed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, request, response};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::decode::{Decoded, Decoder};
use super::encode::{self, Encoder};
use super::framing::{self, Framing};
use super::head::{self, Scan};
use super::input::poll_fill;
use super::out::Out;
use super::prefixed::Prefixed;
use super::spare;
use super::{BodyError, Interim, MAX_HEAD, Upgraded};

/// Bytes of a read: the head and the body of most answers.
const READ: usize = 16 * 1024;

/// Bytes of a read once an answer has proved to be long.
const READ_LONG: usize = 64 * 1024;

/// Interim responses before an answer; a pod that sends more is broken.
const MAX_SKIPPED: usize = 64;

/// A connection that no request uses.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendFailure {
    /// Bytes of it were written.
    pub written: bool,
    /// Bytes of an answer came.
    pub heard: bool,
    /// What happened.
    pub error: BodyError,
}

/// A request on its way.
struct Exchange<'a, S, B> {
    stream: S,
    upload: Upload<B>,
    head: &'a request::Parts,
    input: BytesMut,
    scan: Scan,
    heard: bool,
    skipped: usize,
    /// Why the request could not be written; the pod may have answered nevertheless.
    broken: Option<io::Error>,
}

/// A request's body on its way.
struct Upload<B> {
    body: B,
    encoder: Encoder,
    out: Out,
    ended: bool,
}

/// An answer's body; holds its connection.
pub struct Incoming<S, B> {
    connection: Option<(S, BytesMut)>,
    /// The rest of the request, where the answer came before it was sent.
    upload: Option<Box<Upload<B>>>,
    decoder: Decoder,
    /// The connection may be used again.
    keep: bool,
    read: usize,
}

impl Connection<TcpStream> {
    /// Whether it is still open, and silent as it should be. Asks the kernel only where something
    /// has happened on the socket.
    pub fn is_idle(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// A connection over a stream.
    pub fn new(stream: S) -> Self {
        Connection { stream }
    }

    /// Sends a request in origin form; returns the answer's head and body, or a 101 with
    /// [`Upgraded`] in its extensions. Interim responses go to `interim`.
    ///
    /// # Errors
    /// There was no answer, or none that is valid. The connection is closed.
    pub async fn send<B>(
        self,
        head: &request::Parts,
        body: B,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming<S, B>>, SendFailure>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let mut exchange = Exchange::new(self.stream, head, body);
        match poll_fn(|cx| exchange.poll_answer(interim, cx)).await {
            Ok(answer) => Ok(exchange.answered(answer)),
            Err(error) => Err(SendFailure { written: exchange.upload.out.total > 0, heard: exchange.heard, error }),
        }
    }
}

impl<'a, S, B> Exchange<'a, S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    fn new(stream: S, head: &'a request::Parts, body: B) -> Self {
        let mut out = Out::default();
        let encoder = encode::request(head, body.is_end_stream(), body.size_hint().exact(), &mut out);
        let upload = Upload { ended: false, body, encoder, out };
        let (input, scan) = (BytesMut::new(), Scan::default());
        Exchange { stream, upload, head, input, scan, heard: false, skipped: 0, broken: None }
    }

    fn poll_answer(
        &mut self,
        interim: Option<&Interim>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, BodyError>> {
        if self.broken.is_none()
            && let Poll::Ready(Err(failed)) = self.upload.poll(&mut self.stream, cx)
        {
            match failed {
                UploadFailed::Write(error) => self.broken = Some(error),
                UploadFailed::Body(error) => return Poll::Ready(Err(error)),
            }
        }
        loop {
            while let Some(parts) = self.take_head()? {
                if !parts.status.is_informational() || parts.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(parts));
                }
                self.skipped += 1;
                if self.skipped > MAX_SKIPPED {
                    return Poll::Ready(Err("too many interim responses".into()));
                }
                if let Some(interim) = interim {
                    let mut headers = parts.headers;
                    meshgate_core::sanitize::interim(&mut headers);
                    interim.put(parts.status, headers);
                }
            }
            match poll_fill(&mut self.stream, &mut self.input, READ, cx) {
                Poll::Ready(Ok(0)) => {
                    let error = self.broken.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Ready(Ok(_)) => self.heard = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    if self.input.is_empty() {
                        // Not kept while the pod thinks: one buffer serves many connections.
                        spare::give(&mut self.input);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take_head(&mut self) -> Result<Option<response::Parts>, BodyError> {
        let end = self.scan.end(&self.input).map_err(|_| "the answer's head has a line that ends with LF alone")?;
        if end.unwrap_or(self.input.len()) > MAX_HEAD {
            return Err("the answer's head is too large".into());
        }
        let Some(end) = end else { return Ok(None) };
        self.scan = Scan::default();
        let parts = head::response(self.input.split_to(end).freeze()).ok_or("the answer's head is not valid")?;
        Ok(Some(parts))
    }

    fn answered(self, mut parts: response::Parts) -> Response<Incoming<S, B>> {
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            parts.extensions.insert(Upgraded::new(Prefixed { prefix: self.input, inner: self.stream }));
            let none = Decoder::new(Framing::None);
            let body = Incoming { connection: None, upload: None, decoder: none, keep: false, read: 0 };
            return Response::from_parts(parts, body);
        }
        let framing = framing::of_response(&self.head.method, parts.status, parts.version, &parts.headers);
        let known = !matches!(framing, Framing::Unknown | Framing::UntilClose);
        let body = Incoming {
            keep: known && self.broken.is_none() && framing::keeps_alive(parts.version, &parts.headers),
            connection: Some((self.stream, self.input)),
            upload: (self.broken.is_none() && !self.upload.is_done()).then(|| Box::new(self.upload)),
            decoder: Decoder::new(framing),
            read: READ,
        };
        Response::from_parts(parts, body)
    }
}

/// Why a request could not be sent.
enum UploadFailed {
    /// The pod takes no more.
    Write(io::Error),
    /// The client gives no more.
    Body(BodyError),
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Upload<B> {
    fn is_done(&self) -> bool {
        self.ended && self.out.is_empty()
    }

    /// Sends what is there.
    fn poll<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), UploadFailed>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            let waits = self.collect(cx).map_err(UploadFailed::Body)?;
            if !self.out.is_empty() {
                ready!(self.out.poll_write(stream, cx)).map_err(UploadFailed::Write)?;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Queues what the body gives. Returns whether it must be waited for.
    fn collect(&mut self, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        while !self.ended && self.out.has_room() {
            if self.encoder.is_full() {
                self.ended = true;
                break;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => self.ended = self.encoder.frame(frame?, &mut self.out)?,
                Poll::Ready(None) => {
                    self.encoder.end(&mut self.out)?;
                    self.ended = true;
                }
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }
}

impl<S, B> Incoming<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// The connection, once the answer was read to its end, if another request may be sent on it.
    pub fn into_idle(&mut self) -> Option<Connection<S>> {
        if !self.decoder.is_done() {
            return None;
        }
        let sent = self.upload.take().is_none();
        let (stream, mut input) = self.connection.take()?;
        let idle = self.keep && sent && input.is_empty();
        spare::give(&mut input);
        idle.then_some(Connection { stream })
    }

    /// Goes on with sending the request, where the answer came before its end.
    ///
    /// # Errors
    /// The request's body broke off.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let (Some(upload), Some((stream, _))) = (&mut self.upload, &mut self.connection) else { return Ok(()) };
        match upload.poll(stream, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
            // The pod has what it wants; its answer counts.
            Poll::Ready(Err(UploadFailed::Write(_))) => self.keep = false,
            Poll::Ready(Err(UploadFailed::Body(error))) => return Err(error),
        }
        self.upload = None;
        Ok(())
    }
}

impl<S, B> Body for Incoming<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.upload.is_some() {
            this.poll_upload(cx)?;
        }
        loop {
            let Some((stream, input)) = &mut this.connection else { return Poll::Ready(None) };
            match this.decoder.decode(input)? {
                Decoded::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Decoded::End => return Poll::Ready(None),
                Decoded::More => {}
            }
            match ready!(poll_fill(stream, input, this.read, cx))? {
                0 => this.decoder.end_of_input()?,
                read if read >= this.read => this.read = READ_LONG,
                _ => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}

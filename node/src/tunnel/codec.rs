//! Heads and headers to bytes and back. The messages are those of `tunnel.proto`; heads are
//! written field by field, so that a request costs no allocation per header.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request};
use meshgate_core::snapshot::HeadId;
use meshgate_proto::tunnel as wire;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{Refusal, StreamHeader};
use crate::relay::Interim;

/// A message that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub &'static str);

pub(super) fn encode_header(header: &StreamHeader) -> Vec<u8> {
    wire::StreamHeader {
        endpoint_ip: ip_bytes(header.endpoint.ip()),
        endpoint_port: u32::from(header.endpoint.port()),
        client_ip: ip_bytes(header.client.ip()),
        client_port: u32::from(header.client.port()),
        epoch: header.chosen_by.epoch,
        rev: header.chosen_by.rev,
    }
    .encode_to_vec()
}

pub(super) fn decode_header(bytes: Bytes) -> Result<StreamHeader, Malformed> {
    let header = wire::StreamHeader::decode(bytes).map_err(|_| Malformed("unreadable stream header"))?;
    Ok(StreamHeader {
        endpoint: address(&header.endpoint_ip, header.endpoint_port)?,
        client: address(&header.client_ip, header.client_port)?,
        chosen_by: HeadId { epoch: header.epoch, rev: header.rev },
    })
}

fn ip_bytes(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn address(ip: &[u8], port: u32) -> Result<SocketAddr, Malformed> {
    let malformed = Malformed("unreadable address");
    let port = u16::try_from(port).map_err(|_| Malformed("unreadable port"))?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| malformed)?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| malformed)?),
        _ => return Err(malformed),
    };
    Ok(SocketAddr::new(ip, port))
}

pub(super) fn encode_request(head: &request::Parts, end: bool, interim: bool, buffer: &mut BytesMut) {
    put_bytes(1, head.method.as_str().as_bytes(), buffer);
    put_bytes(2, head.uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes(), buffer);
    put_bytes(3, head.uri.authority().map_or("", Authority::as_str).as_bytes(), buffer);
    put_bytes(4, head.uri.scheme_str().unwrap_or_default().as_bytes(), buffer);
    put_fields(5, &head.headers, buffer);
    put_flag(6, end, buffer);
    put_flag(7, interim, buffer);
}

/// The request, and whether nothing follows its head. Where interim responses are wanted, the place for
/// them is in its extensions.
pub(super) fn decode_request(bytes: Bytes) -> Result<(Request<()>, bool), Malformed> {
    let head = wire::RequestHead::decode(bytes).map_err(|_| Malformed("unreadable request head"))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(&head.method).map_err(|_| Malformed("not a method"))?;
    *request.uri_mut() = uri(head.path, head.authority, &head.scheme)?;
    *request.headers_mut() = fields(head.headers)?;
    if head.interim {
        request.extensions_mut().insert(Interim::default());
    }
    Ok((request, head.end))
}

fn uri(path: Bytes, authority: Bytes, scheme: &[u8]) -> Result<Uri, Malformed> {
    let malformed = |_| Malformed("not a URI");
    let mut parts = http::uri::Parts::default();
    if !path.is_empty() {
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(malformed)?);
    }
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).map_err(malformed)?);
    }
    if !scheme.is_empty() {
        parts.scheme = Some(Scheme::try_from(scheme).map_err(malformed)?);
    }
    Uri::from_parts(parts).map_err(|_| Malformed("not a URI"))
}

pub(super) fn encode_response<B>(response: &Response<B>, end: bool, buffer: &mut BytesMut) {
    encode_key(1, WireType::Varint, buffer);
    encode_varint(u64::from(response.status().as_u16()), buffer);
    put_fields(2, response.headers(), buffer);
    put_flag(3, end, buffer);
}

/// The response, and whether nothing follows its head.
pub(super) fn decode_response(bytes: Bytes) -> Result<(Response<()>, bool), Malformed> {
    let head = wire::ResponseHead::decode(bytes).map_err(|_| Malformed("unreadable response head"))?;
    let status = u16::try_from(head.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = Response::new(());
    *response.status_mut() = status.ok_or(Malformed("not a status"))?;
    *response.headers_mut() = fields(head.headers)?;
    Ok((response, head.end))
}

pub(super) fn encode_trailers(trailers: &HeaderMap, buffer: &mut BytesMut) {
    put_fields(1, trailers, buffer);
}

pub(super) fn decode_trailers(bytes: Bytes) -> Result<HeaderMap, Malformed> {
    fields(wire::Trailers::decode(bytes).map_err(|_| Malformed("unreadable trailers"))?.fields)
}

pub(super) fn encode_refusal(refusal: Refusal) -> Vec<u8> {
    use wire::refused::Reason;
    let reason = match refusal {
        Refusal::NotHere => Reason::NotHere,
        Refusal::Terminating => Reason::Terminating,
        Refusal::Denied => Reason::Denied,
        Refusal::Overloaded => Reason::Overloaded,
        Refusal::Draining => Reason::Draining,
    };
    wire::Refused { reason: reason.into() }.encode_to_vec()
}

/// A reason that a newer version knows still means: not here.
pub(super) fn decode_refusal(bytes: Bytes) -> Result<Refusal, Malformed> {
    use wire::refused::Reason;
    let refused = wire::Refused::decode(bytes).map_err(|_| Malformed("unreadable refusal"))?;
    Ok(match refused.reason() {
        Reason::Terminating => Refusal::Terminating,
        Reason::Denied => Refusal::Denied,
        Reason::Overloaded => Refusal::Overloaded,
        Reason::Draining => Refusal::Draining,
        Reason::NotHere | Reason::Unspecified => Refusal::NotHere,
    })
}

fn put_bytes(tag: u32, value: &[u8], buffer: &mut BytesMut) {
    if !value.is_empty() {
        put_always(tag, value, buffer);
    }
}

fn put_always(tag: u32, value: &[u8], buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(value.len() as u64, buffer);
    buffer.put_slice(value);
}

fn put_flag(tag: u32, value: bool, buffer: &mut BytesMut) {
    if value {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(1, buffer);
    }
}

fn put_fields(tag: u32, headers: &HeaderMap, buffer: &mut BytesMut) {
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let length = |bytes: &[u8]| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
        encode_key(tag, WireType::LengthDelimited, buffer);
        encode_varint((length(name) + length(value)) as u64, buffer);
        put_always(1, name, buffer);
        put_always(2, value, buffer);
    }
}

fn fields(fields: Vec<wire::Field>) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len().min(MAX_FIELDS));
    for field in fields {
        if headers.len() >= MAX_FIELDS {
            return Err(Malformed("too many headers"));
        }
        let name = HeaderName::from_bytes(&field.name).map_err(|_| Malformed("not a header name"))?;
        let value = HeaderValue::from_maybe_shared(field.value).map_err(|_| Malformed("not a header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Most headers or trailers of one message.
const MAX_FIELDS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_way_through_bytes() {
        let request = Request::builder()
            .method("PATCH")
            .uri("http://shop.example:8080/a%2fb?x=1")
            .header("b", "1")
            .header("a", "")
            .header("b", HeaderValue::from_bytes(b"\xff2").unwrap())
            .body(())
            .unwrap();
        let (parts, ()) = request.into_parts();
        let mut buffer = BytesMut::new();
        encode_request(&parts, true, false, &mut buffer);
        let (read, end) = decode_request(buffer.freeze()).unwrap();
        assert!(end);
        assert_eq!((read.method(), read.uri(), read.headers()), (&parts.method, &parts.uri, &parts.headers));

        let response = Response::builder().status(599).header("x", "y").body(()).unwrap();
        let mut buffer = BytesMut::new();
        encode_response(&response, false, &mut buffer);
        let (read, end) = decode_response(buffer.freeze()).unwrap();
        assert!(!end);
        assert_eq!((read.status(), read.headers()), (response.status(), response.headers()));
    }

    #[test]
    fn stream_headers_survive_the_way_through_bytes() {
        for (endpoint, client) in [("10.0.0.1:80", "[fe80::1]:65535"), ("[::1]:1", "1.2.3.4:0")] {
            let header = StreamHeader {
                endpoint: endpoint.parse().unwrap(),
                client: client.parse().unwrap(),
                chosen_by: HeadId { epoch: 3, rev: u64::MAX },
            };
            assert_eq!(decode_header(encode_header(&header).into()).unwrap(), header);
        }
    }

    #[test]
    fn a_head_with_a_bad_part_is_refused() {
        for (name, value) in [("a b", "x"), ("a", "x\ny"), ("", "x")] {
            let field = wire::Field { name: name.into(), value: value.into() };
            let head = wire::RequestHead {
                method: "GET".into(),
                path: "/".into(),
                headers: vec![field],
                ..Default::default()
            };
            assert!(decode_request(head.encode_to_vec().into()).is_err(), "{name:?}");
        }
    }
}

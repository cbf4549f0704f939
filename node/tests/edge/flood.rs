//! HTTP/2 clients that attack with frames, each written by hand.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{Client, PATIENCE, until};
use crate::mesh::{Options, impatient};
use crate::ways::Way;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0x42;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A GET for a path of the host `s`, from the static table and literals without Huffman's code.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 1, b's', 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    frame(HEADERS, 0x5, stream, &block)
}

/// The preface, and settings.
fn hello(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()
}

/// Writes, and reads what comes, until the connection is closed or all is written. Returns whether
/// it is open.
async fn storm(address: SocketAddr, settings: &[u8], bytes: Vec<u8>) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello(settings)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut sink = vec![0; 64 * 1024];
    let writing = async { write.write_all(&bytes).await };
    let reading = async { while !matches!(read.read(&mut sink).await, Ok(0) | Err(_)) {} };
    let both = async {
        tokio::select! {
            written = writing => written.is_ok(),
            () = reading => false,
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it hangs").then_some(stream)
}

#[tokio::test]
async fn floods_of_control_frames_end_the_connection() {
    let a = Backend::start("a").await;
    let way = Way::direct(a.address, AppProtocol::Http1).await;
    let frames = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]),
        frame(UNKNOWN, 0, 0, &[]),
    ];
    for (index, flood) in frames.iter().enumerate() {
        let still = storm(way.address, &[], flood.repeat(20_000)).await;
        let floods = || way.mesh.stats.floods.load(Ordering::Relaxed);
        until("it is counted", || floods() == index as u64 + 1).await;
        until("it is closed", || way.mesh.stats.active.load(Ordering::Relaxed) == 0).await;
        drop(still);
        // As much as an honest client may send.
        let mut stream =
            storm(way.address, &[], [flood.repeat(500), get(3, "/x")].concat()).await.expect("it is closed");
        let (_, stream_of) = next(&mut stream, DATA).await;
        assert_eq!(stream_of, 3);
        drop(stream);
        until("it is gone", || way.mesh.stats.active.load(Ordering::Relaxed) == 0).await;
    }
    way.end().await;
}

/// Reads frames up to one of a kind; its payload and stream.
async fn next(stream: &mut TcpStream, kind: u8) -> (Vec<u8>, u32) {
    let reading = async {
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if header[3] == kind {
                return (payload, u32::from_be_bytes([header[5], header[6], header[7], header[8]]));
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("no such frame in time")
}

#[tokio::test]
async fn who_makes_us_reset_streams_starts_little_work() {
    let a = Backend::start("a").await;
    let way = Way::direct(a.address, AppProtocol::Http1).await;
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    type Attack = fn(u32, &[u8]) -> Vec<u8>;
    let attacks: [Attack; 3] = [
        |stream, _| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        |stream, overflow| frame(WINDOW_UPDATE, 0, stream, overflow),
        |stream, _| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[9]].concat()),
    ];
    for (index, attack) in attacks.iter().enumerate() {
        let before = a.requests();
        let storms = (0..900_u32).map(|n| [get(2 * n + 1, "/hang"), attack(2 * n + 1, &overflow)].concat());
        let still = storm(way.address, &[], storms.collect::<Vec<_>>().concat()).await;
        until("it is closed", || way.mesh.stats.active.load(Ordering::Relaxed) == 0).await;
        drop(still);
        let started = a.requests() - before;
        assert!(started <= 356, "attack {index} started {started} requests");
    }
    assert_eq!(Client::h1(way.address).await.get("http://s/x").await.status, 200);
    way.end().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_loses_the_stream() {
    let a = Backend::start("a").await;
    let options = Options { config: impatient(), ..Options::default() };
    let way = Way::with(options, "direct", a.address, AppProtocol::Http1).await;
    // A window of nothing.
    let settings = [0, 4, 0, 0, 0, 0];
    let mut stream = storm(way.address, &settings, get(1, "/big?1000000")).await.expect("it is closed");
    let (reason, of) = next(&mut stream, RST_STREAM).await;
    assert_eq!((reason, of), (8_u32.to_be_bytes().to_vec(), 1), "CANCEL");
    // The connection is as good as before for one that takes its answer.
    stream.write_all(&[frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), get(3, "/x")].concat()).await.unwrap();
    assert_eq!(next(&mut stream, DATA).await.1, 3);
    until("the other is counted", || way.mesh.context.metrics.totals().requests == 2).await;
    drop(stream);
    way.end().await;
}

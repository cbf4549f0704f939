//! Heads, commits and streams; and the golden files that pin the bytes of every format.
//! `UPDATE=1 cargo test -p meshgate-wire` rewrites the files: a change of them is a change of the
//! wire format, which older peers must understand.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use meshgate_core::snapshot::{Head, HeadId, Key, Kind};
use prost::Message;

use crate::*;

/// Believes one certificate.
struct Believes {
    certificate: &'static [u8],
    epoch: u64,
    public_key: Vec<u8>,
}

impl LeaderVerifier for Believes {
    fn leader_key(&self, certificate_der: &[u8], mesh_id: &str) -> Result<LeaderKey, String> {
        if certificate_der != self.certificate || mesh_id != "mesh-1" {
            return Err("unknown".to_owned());
        }
        Ok(LeaderKey { epoch: self.epoch, public_key: self.public_key.clone(), node: "node-a".to_owned() })
    }
}

/// RFC 8410's wrapping of the ed25519 seed 1, 2, ..., 32.
fn signer() -> (Ed25519Signer, Believes) {
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend(1..=32);
    let signer = Ed25519Signer::from_pkcs8(&pkcs8, Bytes::from_static(b"certificate")).unwrap();
    let public_key = signer.public_key().to_vec();
    (signer, Believes { certificate: b"certificate", epoch: 4, public_key })
}

fn changes() -> Vec<LeafChange> {
    examples::resources()
        .into_iter()
        .map(|(key, resource)| LeafChange { key, value: Some(encode(&resource)) })
        .collect()
}

fn head(snapshot: &Snapshot) -> Head {
    let (routes_root, endpoints_root) = snapshot.roots();
    Head { mesh_id: "mesh-1".to_owned(), id: HeadId { epoch: 4, rev: 1234 }, routes_root, endpoints_root }
}

#[test]
fn a_signed_head_verifies_and_travels() {
    let (signer, believes) = signer();
    let signed = sign(&head(&Snapshot::default()), &signer).unwrap();
    assert_eq!(verify(&signed, &believes).unwrap().node, "node-a");
    let received = SignedHead::from_proto(signed.to_proto()).unwrap();
    assert_eq!(received, signed);
    assert_eq!(decode_head(&encode_head(signed.head())).unwrap(), *signed.head());
}

#[test]
fn every_flipped_bit_is_refused() {
    let (signer, believes) = signer();
    let signed = sign(&head(&Snapshot::default()), &signer).unwrap();
    let parts = [signed.head_bytes(), signed.signature(), signed.leader_certificate()];
    for (part, bytes) in parts.into_iter().enumerate() {
        for bit in 0..bytes.len() * 8 {
            let mut damaged = parts.map(|part| part.to_vec());
            damaged[part][bit / 8] ^= 1 << (bit % 8);
            let [head, signature, certificate] = damaged.map(Bytes::from);
            let Ok(received) = SignedHead::from_parts(head, signature, certificate) else { continue };
            assert!(verify(&received, &believes).is_err(), "part {part} bit {bit}");
        }
    }
}

#[test]
fn refusals_say_whose_fault_it_is() {
    let (signer, mut believes) = signer();
    let signed = sign(&head(&Snapshot::default()), &signer).unwrap();
    believes.epoch = 5;
    assert_eq!(verify(&signed, &believes), Err(VerifyError::Epoch { certificate: 5, head: 4 }));
    believes.epoch = 4;
    believes.public_key[0] ^= 1;
    assert_eq!(verify(&signed, &believes), Err(VerifyError::Signature));
    believes.certificate = b"other";
    assert!(matches!(verify(&signed, &believes), Err(VerifyError::Certificate(_))));
    let newer = meshgate_proto::snapshot::Head { needs: vec![5], ..Default::default() }.encode_to_vec();
    assert_eq!(decode_head(&newer), Err(VerifyError::Features(vec![5])));
    assert!(matches!(decode_head(&[]), Err(VerifyError::Malformed(_))));
}

#[test]
fn commits_travel_and_merge() {
    let (signer, _) = signer();
    let gone = LeafChange { key: changes()[0].key.clone(), value: None };
    let snapshots =
        [Snapshot::from_changes(&changes()), Snapshot::from_changes(&changes()).apply(std::slice::from_ref(&gone))];
    let [first, mut second] = snapshots.clone().map(|snapshot| head(&snapshot));
    second.id.rev += 1;
    let first = Commit { head: sign(&first, &signer).unwrap(), base: HeadId::default(), changes: changes() };
    let second = Commit { head: sign(&second, &signer).unwrap(), base: first.head.id(), changes: vec![gone] };
    assert_eq!(Commit::from_proto(first.to_proto()).unwrap(), first);
    assert_eq!(Commit::from_proto(second.to_proto()).unwrap(), second);
    let merged = first.merge(second.clone());
    assert_eq!((merged.base, merged.head.id()), (HeadId::default(), second.head.id()));
    assert_eq!(Snapshot::from_changes(&merged.changes).roots(), snapshots[1].roots());
}

#[test]
fn leaves_stream_and_damage_is_seen() {
    let snapshot = Snapshot::from_changes(&changes());
    let mut stream = Vec::new();
    write_leaves(&snapshot, &mut stream).unwrap();
    let read = read_leaves(&mut &stream[..]).unwrap();
    assert_eq!(Snapshot::from_changes(&read).roots(), snapshot.roots());
    assert!(matches!(read_leaves(&mut &stream[..stream.len() - 1]), Err(StreamError::Io(_))));
    assert!(matches!(read_leaves(&mut &[0xff, 0xff, 0xff, 0xff][..]), Err(StreamError::Limit(_))));
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 32 == 0 {
            text.push('\n');
        }
        write!(text, "{byte:02x}").unwrap();
    }
    text.push('\n');
    text
}

fn check_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("testdata")
        .join(format!("{name}.hex"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(golden, hex(bytes), "{name}: the wire format changed; UPDATE=1 rewrites the file if that is meant");
}

#[test]
fn golden_files() {
    for (key, resource) in examples::resources() {
        let name = format!("{}-{}", key.kind.name().to_lowercase(), key.name).replace('/', "-");
        check_golden(&name, &encode(&resource));
    }
    let (signer, _) = signer();
    let snapshot = Snapshot::from_changes(&changes());
    let head = head(&snapshot);
    check_golden("roots", &[snapshot.roots().0.0, snapshot.roots().1.0].concat());
    check_golden("leaf-hash", &leaf_hash(&Key::new(Kind::Service, "shop", "cart"), b"value").0);
    check_golden("head", &encode_head(&head));
    let signed = sign(&head, &signer).unwrap();
    check_golden("signed-head", &signed.to_proto().encode_to_vec());
    let gone = LeafChange { key: Key::new(Kind::Service, "shop", "gone"), value: None };
    let commit = Commit { head: signed, base: HeadId { epoch: 4, rev: 1233 }, changes: vec![gone] };
    check_golden("delta", &commit.to_proto().encode_to_vec());
}

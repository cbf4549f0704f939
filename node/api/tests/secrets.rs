//! TLS Secrets: certificates, their keys, and keys that must not be seen.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use meshgate_api::{Directory, Translated, translate};
use meshgate_core::intent::{Certificate, ObjectKind, Severity, Spec};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};

fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, KeyPair) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key)
}

fn secret(certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "s", "namespace": "n"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

fn certificate(translated: &Translated) -> &Certificate {
    let Some(Spec::Certificate(certificate)) = translated.object.as_ref().map(|object| &object.spec) else {
        panic!("{:?}", translated.findings)
    };
    certificate
}

#[test]
fn every_kind_of_key_fits_its_certificate() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
        let (chain, key) = pair(algorithm);
        let translated = translate(secret(&chain, &key.serialize_pem()), "");
        assert_eq!(translated.findings, []);
        let public = certificate(&translated);
        assert_eq!(public.dns_names, ["shop.example"]);
        assert_eq!(public.chain.len(), 1);
        let private = translated.key.as_ref().unwrap();
        assert_eq!(private.key_hash, public.key_hash);
        assert_eq!(private.der.secret_der(), key.serialized_der());
    }
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_refused() {
    let (chain, _) = pair(&PKCS_ECDSA_P256_SHA256);
    for other in [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256] {
        let (_, key) = pair(other);
        let translated = translate(secret(&chain, &key.serialize_pem()), "s.yaml:1");
        assert!(translated.object.is_none() && translated.key.is_none());
        let finding = &translated.findings[0];
        assert_eq!((finding.code, finding.severity), ("MG0021", Severity::Error));
        assert_eq!((finding.field.as_str(), finding.origin.as_str()), ("data[\"tls.key\"]", "s.yaml:1"));
    }
}

#[test]
fn what_is_no_certificate_or_key_is_refused_by_field() {
    let (chain, key) = pair(&PKCS_ECDSA_P256_SHA256);
    let key = key.serialize_pem();
    let fields = |certificate: &str, key: &str| {
        let translated = translate(secret(certificate, key), "");
        assert!(translated.object.is_none());
        translated.findings.into_iter().map(|finding| finding.field).collect::<Vec<_>>()
    };
    assert_eq!(fields("", &key), ["data[\"tls.crt\"]"]);
    assert_eq!(fields("text", &key), ["data[\"tls.crt\"]"]);
    assert_eq!(fields(&chain.replace('M', "*"), &key), ["data[\"tls.crt\"]"]);
    assert_eq!(fields(&chain, ""), ["data[\"tls.key\"]"]);
    assert_eq!(fields(&chain, &chain), ["data[\"tls.key\"]"]);
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(fields(&chain, garbage), ["data[\"tls.key\"]"]);
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let translated = translate(secret(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()), "");
    assert_eq!(certificate(&translated).not_after, 1_009_843_200);
    assert_eq!((translated.findings[0].code, translated.findings[0].severity), ("MG0022", Severity::Warning));
}

#[test]
fn other_secrets_are_left_alone() {
    let mut other = secret("", "");
    other["type"] = json!("Opaque");
    other["stringData"] = json!({"password": "x"});
    let translated = translate(other.clone(), "");
    assert!(translated.name.is_none() && translated.findings.is_empty());
    other["stringData"] = json!({"tls.crt": "x"});
    assert_eq!(translate(other, "").findings[0].field, "type");
}

#[test]
fn keys_change_with_their_secret_and_are_never_shown() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("s.yaml");
    let write = |certificate: &str, key: &str| fs::write(&path, secret(certificate, key).to_string() + "\n").unwrap();
    let (chain, key) = pair(&PKCS_ECDSA_P256_SHA256);
    write(&chain, &key.serialize_pem());
    let mut directory = Directory::open(dir.path()).unwrap();
    let batch = directory.read().unwrap();
    assert_eq!(batch.keys.len(), 1);
    assert_eq!(batch.keys[0].object.kind, ObjectKind::Secret);
    let shown = format!("{batch:?}");
    let body = key.serialize_pem().lines().nth(1).unwrap().to_owned();
    let bytes = format!("{:?}", &key.serialized_der()[40..60]);
    assert!(shown.contains("redacted") && !shown.contains(&body) && !shown.contains(bytes.trim_matches(['[', ']'])));
    assert!(directory.read().unwrap().keys.is_empty());

    // A mismatch keeps the old pair, and says nothing of the key's text.
    let (_, other) = pair(&PKCS_ECDSA_P256_SHA256);
    write(&chain, &other.serialize_pem());
    let batch = directory.read().unwrap();
    assert!(batch.keys.is_empty() && batch.changes.is_empty());
    assert!(batch.findings[0].message.ends_with("the previous version stays in use"));

    let mut wrong = secret("", "");
    wrong["data"] = json!(key.serialize_pem());
    fs::write(&path, wrong.to_string() + "\n").unwrap();
    let batch = directory.read().unwrap();
    assert_eq!(batch.findings[0].field, "data");
    assert!(!format!("{batch:?}").contains(&body));

    fs::remove_file(&path).unwrap();
    let batch = directory.read().unwrap();
    assert_eq!((batch.keys.len(), &batch.keys[0].key), (1, &None));
}

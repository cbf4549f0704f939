//! The public key of a private key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _,
};
use aws_lc_rs::{digest, rsa};
use rustls_pki_types::PrivateKeyDer;

/// The public key as it stands in a SubjectPublicKeyInfo's bit string; `None` for keys that can't be
/// used.
pub(super) fn public_key(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let der = key.secret_der();
    match key {
        PrivateKeyDer::Pkcs1(_) => rsa::KeyPair::from_der(der).ok().map(|pair| pair.public_key().as_ref().to_vec()),
        PrivateKeyDer::Sec1(_) => elliptic(der),
        PrivateKeyDer::Pkcs8(_) => elliptic(der)
            .or_else(|| {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(|pair| pair.public_key().as_ref().to_vec())
            })
            .or_else(|| rsa::KeyPair::from_pkcs8(der).ok().map(|pair| pair.public_key().as_ref().to_vec())),
        _ => None,
    }
}

fn elliptic(der: &[u8]) -> Option<Vec<u8>> {
    let curves = [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
    let pair = curves.into_iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())?;
    Some(pair.public_key().as_ref().to_vec())
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

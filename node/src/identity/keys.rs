//! Private keys of listeners, by the hash of their public key: in memory, and on tmpfs so that a
//! restart of the process keeps them. Never in a snapshot.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;

use super::run_dir::write_private;
use super::{IdentityError, NodeName, RunDir, io_error};

/// SHA-256 of a public key's SubjectPublicKeyInfo in DER.
pub type KeyHash = [u8; 32];

/// Most keys that are kept; a listener certificate each.
const MAX_KEYS: usize = 10_000;
/// Largest key file that is read.
const MAX_KEY_BYTES: u64 = 64 * 1024;
const SUFFIX: &str = "key";

/// The keys that this peer serves. Share it by `Arc`.
pub struct KeyStore {
    folder: PathBuf,
    keys: RwLock<HashMap<KeyHash, Entry>>,
}

#[derive(Clone)]
struct Entry {
    signing: Arc<dyn SigningKey>,
    der: Arc<Secret>,
}

/// Bytes that are overwritten when they go (best effort: copies inside TLS are out of reach).
struct Secret(Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl KeyStore {
    /// A store in the node's part of the run folder, which it makes. Call [`KeyStore::load`] next.
    pub fn open(run: &RunDir, node: &NodeName) -> Result<Self, IdentityError> {
        Self::in_folder(run.keys_dir(node))
    }

    /// A store in a folder of its own.
    pub fn in_folder(folder: PathBuf) -> Result<Self, IdentityError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error(&folder))?;
        Ok(KeyStore { folder, keys: RwLock::default() })
    }

    /// Reads what an earlier process left; returns how many keys there are. A file that is not
    /// what its name says is removed and counts for nothing.
    pub fn load(&self) -> Result<usize, IdentityError> {
        for file in fs::read_dir(&self.folder).map_err(io_error(&self.folder))? {
            let path = file.map_err(io_error(&self.folder))?.path();
            let entry = hash_of(&path).and_then(|hash| Some((hash, read_key(&path, &hash)?)));
            match entry {
                Some((hash, entry)) => self.put(hash, entry)?,
                None => {
                    tracing::warn!(file = %path.display(), "not a usable key file; removed");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(self.len())
    }

    /// Keeps a key, if it belongs to the hash.
    pub fn insert(&self, hash: KeyHash, key: PrivateKeyDer<'_>) -> Result<(), IdentityError> {
        let entry = Entry::new(&key, &hash)?;
        if self.get(&hash).is_some() {
            return Ok(());
        }
        let path = self.path(&hash);
        let temporary = path.with_extension(format!("tmp-{:016x}", rand::random::<u64>()));
        write_private(&temporary, &entry.der.0)
            .and_then(|()| fs::rename(&temporary, &path))
            .inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
            .map_err(io_error(&path))?;
        self.put(hash, entry)
    }

    /// The key, ready to sign.
    pub fn get(&self, hash: &KeyHash) -> Option<Arc<dyn SigningKey>> {
        self.read(|keys| keys.get(hash).map(|entry| entry.signing.clone()))
    }

    /// The key in DER, for an authenticated peer that needs it.
    pub fn der(&self, hash: &KeyHash) -> Option<PrivateKeyDer<'static>> {
        let der = self.read(|keys| keys.get(hash).map(|entry| entry.der.clone()))?;
        PrivateKeyDer::try_from(der.0.as_slice()).ok().map(|key| key.clone_key())
    }

    /// Removes these, from memory and from disk. Others that come meanwhile stay.
    pub fn forget(&self, unwanted: &BTreeSet<KeyHash>) {
        let gone: Vec<KeyHash> = {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.extract_if(|hash, _| unwanted.contains(hash)).map(|(hash, _)| hash).collect()
        };
        for hash in gone {
            let path = self.path(&hash);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "a key that is no longer needed stays on disk");
            }
        }
    }

    /// The hashes of all keys.
    pub fn hashes(&self) -> Vec<KeyHash> {
        self.read(|keys| keys.keys().copied().collect())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.read(HashMap::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&self, hash: KeyHash, entry: Entry) -> Result<(), IdentityError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS && !keys.contains_key(&hash) {
            return Err(IdentityError::Key(format!("more than {MAX_KEYS} keys")));
        }
        keys.insert(hash, entry);
        Ok(())
    }

    fn read<T>(&self, look: impl FnOnce(&HashMap<KeyHash, Entry>) -> T) -> T {
        look(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn path(&self, hash: &KeyHash) -> PathBuf {
        self.folder.join(hex(hash)).with_extension(SUFFIX)
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("keys", &self.len()).finish_non_exhaustive()
    }
}

impl Entry {
    fn new(key: &PrivateKeyDer<'_>, hash: &KeyHash) -> Result<Self, IdentityError> {
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        let public = signing.public_key().ok_or_else(|| IdentityError::Key("its public key is not known".into()))?;
        if digest(&SHA256, &public).as_ref() != hash {
            return Err(IdentityError::Key(format!("does not belong to {}", hex(hash))));
        }
        Ok(Entry { signing, der: Arc::new(Secret(key.secret_der().to_vec())) })
    }
}

fn read_key(path: &Path, hash: &KeyHash) -> Option<Entry> {
    if fs::metadata(path).ok()?.len() > MAX_KEY_BYTES {
        return None;
    }
    let secret = Secret(fs::read(path).ok()?);
    let key = PrivateKeyDer::try_from(secret.0.as_slice()).ok()?;
    Entry::new(&key, hash).ok()
}

fn hash_of(path: &Path) -> Option<KeyHash> {
    if path.extension()?.to_str()? != SUFFIX {
        return None;
    }
    let name = path.file_stem()?.to_str()?;
    let mut hash = [0; 32];
    if name.len() != 64 || !name.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(name.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// In hexadecimal digits.
pub(super) fn hex(hash: &KeyHash) -> String {
    use fmt::Write as _;
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! Directory mode's run folder: what all processes of one machine share.
//!
//! Each file is made by link-if-absent (write a temporary file, hard-link it to its name), so of
//! several processes that start at once one wins, file by file, and the others read what it wrote:
//! the mesh's name, then the CA's key, then the certificate for that key, then the trust bundle.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::authority::{self, Authority};
use super::{IdentityError, NodeName, Trust, io_error};

/// A run folder that is open.
#[derive(Clone)]
pub struct RunDir {
    path: PathBuf,
    mesh_id: Arc<str>,
    authority: Arc<Authority>,
    trust: Trust,
}

#[derive(Serialize, Deserialize)]
struct MeshFile {
    mesh_id: String,
}

impl RunDir {
    /// Opens the folder, and makes it and what it lacks. Refuses one that others can read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        check_folder(path)?;
        let mesh_id = mesh_id(path)?;
        let key_file = path.join("ca.key");
        let key = match read_if_present(&key_file)? {
            Some(text) => text,
            None => link_if_absent(&key_file, &authority::generate_key()?.serialize_pem())?,
        };
        let key = KeyPair::from_pem(&key).map_err(|error| folder(path, format!("ca.key: {error}")))?;
        let certificate_file = path.join("ca.crt");
        let certificate = match read_if_present(&certificate_file)? {
            Some(text) => text,
            None => link_if_absent(&certificate_file, &pem(&authority::self_signed(&mesh_id, &key)?))?,
        };
        let trust_file = path.join("trust.pem");
        let roots = match read_if_present(&trust_file)? {
            Some(text) => text,
            None => link_if_absent(&trust_file, &certificate)?,
        };
        let certificate = certificates(path, "ca.crt", &certificate)?.swap_remove(0);
        let trust = Trust::new(&mesh_id, &certificates(path, "trust.pem", &roots)?)?;
        Ok(RunDir { path: path.to_owned(), mesh_id, authority: Arc::new(Authority::new(certificate, key)?), trust })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mesh's name: 16 hexadecimal digits.
    pub fn mesh_id(&self) -> &str {
        &self.mesh_id
    }

    /// Whom the mesh believes.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The CA's certificate.
    pub fn ca_certificate(&self) -> &CertificateDer<'static> {
        self.authority.certificate()
    }

    /// Where a node's listener keys are kept.
    pub fn keys_dir(&self, node: &NodeName) -> PathBuf {
        self.path.join("keys").join(&*node.0)
    }

    /// A secret of the node that outlives its process: keys QUIC's stateless resets, with which a
    /// restarted process ends the connections of the one before it at once.
    pub fn reset_secret(&self, node: &NodeName) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("meshgate 2026-11 quic stateless reset");
        hasher.update(self.authority.secret());
        hasher.update(node.0.as_bytes());
        *hasher.finalize().as_bytes()
    }

    pub(super) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }
}

impl std::fmt::Debug for RunDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunDir").field("path", &self.path).field("mesh_id", &self.mesh_id).finish_non_exhaustive()
    }
}

fn mesh_id(path: &Path) -> Result<Arc<str>, IdentityError> {
    let file = path.join("mesh.json");
    let text = match read_if_present(&file)? {
        Some(text) => text,
        None => {
            let mesh = MeshFile { mesh_id: format!("{:016x}", rand::random::<u64>()) };
            let text = serde_json::to_string(&mesh).map_err(|error| folder(path, error.to_string()))?;
            link_if_absent(&file, &text)?
        }
    };
    let mesh: MeshFile = serde_json::from_str(&text).map_err(|error| folder(path, format!("mesh.json: {error}")))?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if mesh.mesh_id.len() != 16 || !mesh.mesh_id.bytes().all(hex) {
        return Err(folder(path, "mesh.json: mesh_id is not 16 hexadecimal digits".into()));
    }
    Ok(mesh.mesh_id.into())
}

fn check_folder(path: &Path) -> Result<(), IdentityError> {
    let metadata = fs::metadata(path).map_err(io_error(path))?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me {
        let reason = format!("belongs to user {}, this process runs as user {me}; name another folder", metadata.uid());
        return Err(folder(path, reason));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason =
            format!("has mode {mode:03o}, so others can reach the keys in it; run: chmod 700 {}", path.display());
        return Err(folder(path, reason));
    }
    Ok(())
}

fn folder(path: &Path, reason: String) -> IdentityError {
    IdentityError::Folder { path: path.to_owned(), reason }
}

fn read_if_present(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Makes a file with this content unless it exists, and returns the content that it has.
fn link_if_absent(path: &Path, content: &str) -> Result<String, IdentityError> {
    let temporary = path.with_extension(format!("tmp-{:016x}", rand::random::<u64>()));
    write_private(&temporary, content.as_bytes()).map_err(io_error(&temporary))?;
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(content.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path).map_err(io_error(path)),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Writes a new file that only its owner can read.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn certificates(path: &Path, file: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(folder(path, format!("{file} holds no certificate"))),
        Err(error) => Err(folder(path, format!("{file}: {error}"))),
    }
}

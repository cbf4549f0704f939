//! The demo's folder: on tmpfs where there is one, gone at the end.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::config::{Config, Ports, Role};

use super::fleet::{NODES, Node};

/// What the folder's name starts with.
const PREFIX: &str = "meshgate-demo-";
/// Held for as long as the demo lives; its absence of an owner marks a folder as left over.
const LOCK: &str = "lock";
/// A younger folder may belong to a demo that has not locked it yet.
const LEFT_OVER_AGE: Duration = Duration::from_secs(60);
/// Edge threads a peer: three peers share the machine.
const THREADS: usize = 2;
/// Listener ports below 1024 are bound this much higher without the capability.
pub const LOW_PORT_OFFSET: u16 = 10_000;
/// Seconds that running requests may take when a peer is told to end.
const DRAIN_SECONDS: u32 = 5;

/// The folder and what is where in it.
#[derive(Debug)]
pub struct Layout {
    root: TempDir,
    source: PathBuf,
    own_source: bool,
    _lock: File,
}

impl Layout {
    /// Makes the folder. With `source` that directory is served as it is, and never written to.
    ///
    /// # Errors
    /// The folder can't be made, or `source` is not a directory.
    pub fn create(source: Option<&Path>) -> anyhow::Result<Self> {
        let base = base();
        sweep(&base, LEFT_OVER_AGE);
        let root = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&base)
            .with_context(|| format!("cannot make a folder in {}", base.display()))?;
        let lock = File::create(root.path().join(LOCK)).context("cannot make the demo's lock file")?;
        lock.try_lock().context("cannot lock the demo's folder")?;
        for name in ["source", "run", "state", "logs"] {
            let path = root.path().join(name);
            fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        let own_source = source.is_none();
        let source = match source {
            None => root.path().join("source"),
            Some(given) => {
                let path = fs::canonicalize(given).with_context(|| format!("no directory {}", given.display()))?;
                ensure!(path.is_dir(), "{} is not a directory", given.display());
                path
            }
        };
        Ok(Layout { root, source, own_source, _lock: lock })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The manifests that are served.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Is the source the demo's own copy?
    pub fn own_source(&self) -> bool {
        self.own_source
    }

    /// The certificate that curl's `--cacert` takes.
    pub fn certificate(&self) -> PathBuf {
        self.root.path().join("shop.pem")
    }

    /// A peer's log.
    pub fn log(&self, node: Node) -> PathBuf {
        self.root.path().join("logs").join(format!("{}.log", node.name))
    }

    /// A peer's configuration file.
    pub fn config_path(&self, node: Node) -> PathBuf {
        self.root.path().join(format!("{}.yaml", node.name))
    }

    /// A peer's configuration.
    pub fn config(&self, node: Node) -> Config {
        Config {
            node: node.name.to_owned(),
            roles: vec![Role::Gateway, Role::Reconciler],
            number: node.number,
            zone: None,
            source: self.source.clone(),
            run: self.root.path().join("run"),
            state: self.root.path().join("state"),
            seeds: NODES.iter().map(|other| other.number).filter(|number| *number != node.number).collect(),
            ports: Ports::default(),
            threads: THREADS,
            trusted_proxies: Vec::new(),
            low_port_offset: LOW_PORT_OFFSET,
            access_log: "off".to_owned(),
            max_requests_per_endpoint: 1_024,
            debug_headers: true,
            drain_lead_seconds: 0,
            drain_seconds: DRAIN_SECONDS,
        }
    }

    /// Writes the configuration of every peer.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write_configs(&self) -> anyhow::Result<()> {
        for node in NODES {
            let text = serde_saphyr::to_string(&self.config(node)).context("cannot write a configuration")?;
            let path = self.config_path(node);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Puts a file into the copied source, whole or not at all, as editors do.
    ///
    /// # Errors
    /// The source is the user's own, or the file can't be written.
    pub fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        ensure!(self.own_source, "the demo does not write to a directory that is not its own");
        let (aside, path) = (self.root.path().join(format!("{name}.new")), self.source.join(name));
        fs::write(&aside, text).and_then(|()| fs::rename(&aside, &path)).with_context(|| format!("cannot write {name}"))
    }

    /// Takes a file out of the copied source.
    ///
    /// # Errors
    /// The source is the user's own, or there is no such file.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.own_source, "the demo does not write to a directory that is not its own");
        fs::remove_file(self.source.join(name)).with_context(|| format!("cannot remove {name}"))
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// Something in it can't be removed.
    pub fn close(self) -> anyhow::Result<()> {
        let path = self.root.path().to_owned();
        self.root.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// tmpfs where there is one: private keys lie in `run`.
fn base() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let writable = tempfile::tempfile_in(&shared).is_ok();
    if writable { shared } else { std::env::temp_dir() }
}

/// Removes what a demo left that was killed: own folders of some age whose lock nobody holds.
fn sweep(base: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not followed: a link is not a folder of ours.
        let ours = entry.metadata().is_ok_and(|meta| {
            let old = meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed >= age));
            meta.is_dir() && meta.uid() == own && old
        });
        if !named || !ours {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            // Whatever can't be removed stays as it was.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_is_one_that_peers_accept() {
        let layout = Layout::create(None).unwrap();
        layout.write_configs().unwrap();
        for node in NODES {
            let config = Config::load(&layout.config_path(node)).unwrap();
            assert_eq!(config, layout.config(node));
            assert_eq!(config.seeds.len(), NODES.len() - 1);
        }
    }

    #[test]
    fn files_are_put_and_removed_whole() {
        let layout = Layout::create(None).unwrap();
        layout.put("a.yaml", "kind: Service\n").unwrap();
        assert_eq!(fs::read_to_string(layout.source().join("a.yaml")).unwrap(), "kind: Service\n");
        assert_eq!(fs::read_dir(layout.source()).unwrap().count(), 1, "nothing else appears in the source");
        layout.remove("a.yaml").unwrap();
        assert!(layout.remove("a.yaml").is_err());
    }

    #[test]
    fn a_directory_of_the_user_is_never_written_to() {
        let theirs = tempfile::tempdir().unwrap();
        let layout = Layout::create(Some(theirs.path())).unwrap();
        assert!(!layout.own_source());
        assert!(layout.put("a.yaml", "").is_err() && layout.remove("a.yaml").is_err());
        assert!(Layout::create(Some(&theirs.path().join("absent"))).is_err());
    }

    #[test]
    fn nothing_is_left_and_the_left_over_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let (dead, live) = (base.path().join("meshgate-demo-dead"), base.path().join("meshgate-demo-live"));
        for folder in [&dead, &live] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
        }
        let held = File::open(live.join(LOCK)).unwrap();
        held.try_lock().unwrap();
        sweep(base.path(), Duration::ZERO);
        assert!(!dead.exists() && live.exists());

        let layout = Layout::create(None).unwrap();
        let root = layout.root().to_owned();
        layout.close().unwrap();
        assert!(!root.exists());
    }
}

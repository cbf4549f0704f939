//! Who is compared: how each is found, set up with the same features, and started.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use meshgate_bench::child::Running;
use meshgate_bench::folder::Folder;
use serde_json::json;

use crate::certificate::Certificate;
use crate::load::host_name;
use crate::manifests;
use crate::options::Options;
use crate::scenario::Shape;

/// Port of meshgate's Gateway.
const PORT: u16 = 18080;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Ours; always measured.
    Meshgate,
    /// nginx.
    Nginx,
    /// haproxy.
    Haproxy,
    /// The bare proxy of `src/bin/control`.
    Control,
}

impl Kind {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Meshgate => "meshgate",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Control => "control",
        }
    }

    /// It can tell hosts apart.
    pub fn has_routes(self) -> bool {
        self != Kind::Control
    }

    /// How to get it where it is missing.
    fn how(self) -> &'static str {
        match self {
            Kind::Meshgate => "cargo build --release -p meshgate-node",
            Kind::Nginx => "apt-get install nginx (as root; its service may stay off)",
            Kind::Haproxy => "apt-get install haproxy (as root; its service may stay off)",
            Kind::Control => "cargo build --release -p meshgate-bench",
        }
    }
}

/// A peer that is there.
#[derive(Clone, Debug)]
pub struct Present {
    /// Who.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
}

/// Who is there, and who was asked for and is not, with how to get it.
///
/// # Errors
/// meshgate itself is missing.
pub fn find(options: &Options) -> anyhow::Result<(Vec<Present>, Vec<String>)> {
    let beside = |name| std::env::current_exe().map(|own| own.with_file_name(name));
    let meshgate = match &options.meshgate {
        Some(path) => std::path::absolute(path)?,
        None => beside("meshgate")?,
    };
    ensure!(meshgate.is_file(), "no {}: {}", meshgate.display(), Kind::Meshgate.how());
    let mut present = vec![Present { kind: Kind::Meshgate, program: meshgate }];
    let mut absent = Vec::new();
    for kind in options.peers.iter().copied().filter(|kind| *kind != Kind::Meshgate) {
        let program = match kind {
            Kind::Control => Some(beside("control")?).filter(|path| path.is_file()),
            _ => in_path(kind.as_str()),
        };
        match program {
            Some(program) => present.push(Present { kind, program }),
            None => absent.push(format!("{} is not here and skipped: {}", kind.as_str(), kind.how())),
        }
    }
    Ok((present, absent))
}

/// A program in `PATH`, or where the system keeps its servers.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What each says about its version.
pub fn versions(present: &[Present]) -> Vec<String> {
    let version = |peer: &Present| {
        let flag = match peer.kind {
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Meshgate => "--version",
            Kind::Control => return "control (hyper)".to_owned(),
        };
        let output = Command::new(&peer.program).arg(flag).stdin(Stdio::null()).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().find(|line| line.contains(char::is_numeric)).unwrap_or(peer.kind.as_str()).trim().to_owned()
    };
    present.iter().map(version).collect()
}

/// What a peer is set up with.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Its files.
    pub folder: &'a Folder,
    /// Where it sends requests.
    pub backend: SocketAddr,
    /// What it shows.
    pub certificate: &'a Certificate,
    /// What for.
    pub shape: &'a Shape,
    /// Number of meshgate's node.
    pub number: u8,
}

impl Setup<'_> {
    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a peer on the cores of the calling thread. Returns where it will listen.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, peer: &Present) -> anyhow::Result<(Running, SocketAddr)> {
        let address = match peer.kind {
            Kind::Meshgate => SocketAddr::from((Ipv4Addr::new(127, self.number, 1, 1), PORT)),
            _ => free_port()?,
        };
        let mut command = dying_with_us(&peer.program);
        match peer.kind {
            Kind::Meshgate => command.args(["run", "--with-parent", "--config"]).arg(self.meshgate()?),
            Kind::Nginx => {
                let (config, folder) = (self.nginx(address)?, self.folder.path(""));
                command.arg("-p").arg(folder).arg("-e").arg(self.folder.path("logs/errors")).arg("-c").arg(config)
            }
            Kind::Haproxy => command.args(["-db", "-f"]).arg(self.haproxy(address)?),
            Kind::Control => {
                command.args([format!("--listen={address}"), format!("--backend={}", self.backend)]);
                if self.shape.tls {
                    command.arg("--tls").arg(self.pem()?);
                }
                &mut command
            }
        };
        let log = self.folder.path("logs").join(peer.kind.as_str());
        Ok((Running::start(peer.kind.as_str(), &mut command, log)?, address))
    }

    fn pem(&self) -> anyhow::Result<PathBuf> {
        self.write("certificate.pem", &format!("{}{}", self.certificate.chain, self.certificate.key))
    }

    fn meshgate(&self) -> anyhow::Result<PathBuf> {
        let node = format!("bench-{}", self.number);
        self.folder.put("all.yaml", &manifests::all(self.shape, &node, PORT, self.backend, self.certificate))?;
        let config = json!({
            "node": node, "number": self.number, "threads": self.shape.threads, "drainSeconds": 1,
            "source": self.folder.path("source"), "run": self.folder.path("run"), "state": self.folder.path("state"),
        });
        self.write("meshgate.yaml", &config.to_string())
    }

    fn nginx(&self, listen: SocketAddr) -> anyhow::Result<PathBuf> {
        // As root it would else give its worker another user, who may not enter the folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let folder = self.folder.path("");
        let folder = folder.display();
        let mut text = format!(
            "{user} worker_processes {}; daemon off; pid {folder}/nginx.pid;\nevents {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
             uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             server_names_hash_max_size 262144; server_names_hash_bucket_size 128;\n\
             upstream u {{ server {}; keepalive 256; keepalive_requests 1000000000; }}\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n",
            self.shape.threads, self.backend
        );
        let mut listen = listen.to_string();
        if self.shape.tls {
            let pem = self.pem()?;
            let pem = pem.display();
            listen.push_str(" ssl http2");
            let _ = write!(
                text,
                "ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;\n\
                 ssl_session_tickets off; ssl_session_cache off;\n"
            );
        }
        let pass = |prefix: &str| format!("location {prefix} {{ proxy_pass http://u; }}");
        // Writing to a string never fails.
        match self.shape.hosts {
            0 => drop(writeln!(text, "server {{ listen {listen}; {} }}", pass("/"))),
            hosts => (0..hosts).for_each(|host| {
                let (name, a, b) = (host_name(host), pass("/a/"), pass("/b/"));
                let _ = writeln!(text, "server {{ listen {listen}; server_name {name}; {a} {b} }}");
            }),
        }
        text.push_str("}\n");
        self.write("nginx.conf", &text)
    }

    fn haproxy(&self, listen: SocketAddr) -> anyhow::Result<PathBuf> {
        let mut bind = listen.to_string();
        if self.shape.tls {
            let options = "alpn h2,http/1.1 ssl-min-ver TLSv1.3 curves X25519 no-tls-tickets";
            let _ = write!(bind, " ssl crt {} {options}", self.pem()?.display());
        }
        let choose = match self.shape.hosts {
            0 => "default_backend b".to_owned(),
            hosts => {
                let prefixes = (0..hosts).map(|host| format!("{0}/a/ b\n{0}/b/ b\n", host_name(host)));
                let map = self.write("hosts.map", &prefixes.collect::<String>())?;
                format!("use_backend %[base,map_beg({})]", map.display())
            }
        };
        let text = format!(
            "global\n nbthread {}\n maxconn 8192\n tune.ssl.cachesize 0\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always\n\
             frontend f\n bind {bind}\n option forwardfor\n {choose}\n\
             backend b\n server s {}\n",
            self.shape.threads, self.backend
        );
        self.write("haproxy.cfg", &text)
    }
}

/// A port of 127.0.0.1 that nobody else is given before long.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    listener.local_addr().context("no free port")
}

/// A program that the kernel ends when this process dies, where `setpriv` of util-linux is there.
fn dying_with_us(program: &Path) -> Command {
    match in_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

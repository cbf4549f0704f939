//! A program that is measured: started in a process group of its own, and ended whatever happens.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long it may take to end before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How much of a log's end is shown.
const TAIL_LINES: usize = 12;

/// A running program. Dropping it ends it: SIGTERM, then SIGKILL to all of its group.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it; its output goes to the file `log`. Its standard input ends when this process does.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A terminal's Ctrl-C is for the measurement, which then ends its children.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Running { name: name.to_owned(), child, log })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended, and well.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<bool>> {
        let status = self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))?;
        Ok(status.map(|status| status.success()))
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// As said.
    pub fn is_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))? else {
            return Ok(());
        };
        let log = self.output();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        bail!("{} ended ({status}); the end of its log:\n{tail}", self.name)
    }

    /// Asks it to end, and does not wait.
    pub fn terminate(&mut self) {
        // Not reaped yet, so the id can't belong to another process; an error means that it has just ended.
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), self.group()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        drop(self.child.stdin.take());
    }

    fn group(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + STOP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        // Its own children too, which a kill of it alone would leave.
        if let (Ok(None), Some(group)) = (self.child.try_wait(), self.group()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Fails only for what has ended.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_when_dropped_and_says_why_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start("sleep", Command::new("sleep").arg("60"), folder.path().join("log")).unwrap();
        running.is_alive().unwrap();
        let proc = PathBuf::from(format!("/proc/{}", running.pid()));
        assert!(proc.exists());
        drop(running);
        assert!(!proc.exists());
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo because; exit 3"]);
        let mut running = Running::start("sh", &mut failing, folder.path().join("log")).unwrap();
        let deadline = Instant::now() + STOP;
        while running.ended().unwrap().is_none() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(LOOK);
        }
        let error = running.is_alive().unwrap_err().to_string();
        assert!(error.contains("because"), "{error}");
    }
}

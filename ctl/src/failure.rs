//! How a run ends: the exit codes, and errors that say whose fault it is, whether a retry is safe
//! and what to check.

use std::fmt;
use std::process::ExitCode;

/// A verb that ran to its end and printed its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to complain about: exit 0.
    Fine,
    /// The mesh or an object has a problem, which was printed: exit 1.
    Finding,
    /// What was waited for didn't happen in time: exit 4.
    TimedOut,
}

impl Outcome {
    /// `Finding` if there is a problem.
    pub fn finding_if(problem: bool) -> Self {
        if problem { Outcome::Finding } else { Outcome::Fine }
    }

    /// The exit code.
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Outcome::Fine => 0,
            Outcome::Finding => 1,
            Outcome::TimedOut => 4,
        })
    }
}

/// One peer that was asked in vain.
#[derive(Debug)]
pub struct Attempt {
    /// Its address, as given.
    pub server: String,
    /// Why it didn't answer.
    pub problem: String,
    /// It accepted the connection and then stayed silent.
    pub silent: bool,
}

/// A verb that could not run.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong: exit 2.
    Usage(String),
    /// No peer answered: exit 3, or 4 if one took the question and stayed silent.
    Unreachable(Vec<Attempt>),
    /// A peer answered that it can't tell: exit 3.
    Refused {
        /// The peer's address, as given.
        server: String,
        /// What it said.
        problem: String,
    },
    /// Nobody leads, so nobody can answer: exit 3.
    NoLeader,
    /// Something failed on this machine: exit 3.
    Local(std::io::Error),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Unreachable(attempts) if attempts.iter().any(|attempt| attempt.silent) => 4,
            Failure::Unreachable(_) | Failure::Refused { .. } | Failure::NoLeader | Failure::Local(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(problem) => write!(f, "error: {problem}\nFor more, try 'meshctl --help'."),
            Failure::Unreachable(attempts) => {
                writeln!(f, "error: no peer answered")?;
                for attempt in attempts {
                    writeln!(f, "  {}: {}", attempt.server, attempt.problem)?;
                }
                let whose = if attempts.iter().any(|attempt| attempt.silent) {
                    "a peer took the question and stayed silent: stopped, overloaded, or no meshgate"
                } else {
                    "the way to the admin API, which is not the way of the traffic: routes may well be served"
                };
                writeln!(f, "fault: {whose}")?;
                writeln!(f, "retry: safe, meshctl only reads")?;
                write!(
                    f,
                    "check: is the peer running? demo: `meshgate demo` in another terminal; \
                     elsewhere: --server host:port or unix:PATH, or MESHCTL_SERVER"
                )
            }
            Failure::Refused { server, problem } => write!(
                f,
                "error: {server} can't answer: {problem}\n\
                 fault: that peer, or a version of it that differs from this meshctl\n\
                 retry: safe, meshctl only reads\n\
                 check: `meshctl version`, the peer's log, or another peer by --server"
            ),
            Failure::NoLeader => write!(
                f,
                "error: nobody leads\n\
                 fault: the mesh: no reconciler is elected; peers go on serving what they have\n\
                 retry: safe, and worth it: an election takes seconds\n\
                 check: `meshctl leader`, `meshctl peers -o wide` for a peer with role reconciler, and its log"
            ),
            Failure::Local(problem) => {
                write!(f, "error: {problem}\nfault: this machine\nretry: safe, meshctl only reads")
            }
        }
    }
}

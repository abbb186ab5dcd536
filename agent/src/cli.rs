//! What `tocsin-agent` understands on its command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tocsin_proto::connect::Endpoint;

use crate::config::{Config, ConfigError};
use crate::identity::read_pin;
use crate::jobs::exec::ExecArgs;

/// Tells a Tocsin collector how this host and its scheduled jobs are doing
#[derive(Debug, Parser)]
#[command(name = "tocsin-agent", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this host known to a collector, once, with a join token
    ///
    /// Get a token with `tocsin token create` where the collector runs. The key that is made here never leaves the
    /// host. If no answer came, run the same command again: it brings the same certificate.
    Enroll(EnrollArgs),
    /// Come back to a collector that has another certificate authority than this host knows
    ///
    /// For a host that was away while the authority was changed: it does not know whom to trust any more, and its agent
    /// says so. Take the pin from `tocsin authority show` where the collector runs; compare it, it is what makes sure
    /// that this is the right collector. The host proves who it is by its key; identity and spool stay. The agent may
    /// run meanwhile; run this as the agent's user.
    Recover(RecoverArgs),
    /// Collect, keep and stream until stopped
    ///
    /// While the collector cannot be reached, everything is kept in the spool and sent when it is back.
    Run(RunArgs),
    /// Run a scheduled job and report how it ended
    ///
    /// The command runs as if this program were not there: same input and output, same signals, same exit status.
    Exec(ExecArgs),
}

#[derive(Args, Debug)]
pub struct EnrollArgs {
    /// The collector's front listener
    #[arg(long, value_name = "HOST:PORT")]
    pub collector: Endpoint,

    /// The join token, or @FILE to read it from a file: other users of the host see command lines
    #[arg(long, value_name = "TOKEN")]
    pub token: String,

    /// The name of this host instead of the system's
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// This host is a copy of another one: give it an identity of its own; the spool that came with it becomes its own
    ///
    /// Stop the agent first. The identity that came with the copy is kept beside, and used no more.
    #[arg(long)]
    pub split: bool,

    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// SHA-256 of the certificate authority of the collector's front listener: 64 hex digits
    #[arg(long, value_name = "SHA256", value_parser = |text: &str| read_pin(text))]
    pub pin: [u8; 32],

    /// The collector's front listener [default: the one that this host enrolled with]
    #[arg(long, value_name = "HOST:PORT")]
    pub collector: Option<Endpoint>,

    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Where configuration and data are.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// The configuration; without it the defaults
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub config: Option<PathBuf>,

    /// Keep identity, spool and job socket in this directory, with the defaults for the rest
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
}

impl PlaceArgs {
    /// The configuration they name.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match (&self.config, &self.data) {
            (Some(file), _) => Config::load(file),
            (None, Some(data)) => Ok(Config::in_dir(data.clone())),
            (None, None) => Ok(Config::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for (line, ok) in [
            ("enroll --collector c:9444 --token t", true),
            ("enroll --split --collector c:9444 --token t", true),
            ("enroll --collector c --token t", false),
            ("enroll --token t", false),
            ("recover --pin 00ffa5e1c2d3b4968778695a4b3c2d1e0f00ffa5e1c2d3b4968778695a4b3c2d", true),
            ("recover --collector c:7640 --pin 00ff", false),
            ("recover", false),
            ("run", true),
            ("run --data /srv/agent", true),
            ("run --data /srv/agent --config /etc/tocsin/agent.toml", false),
            ("exec --job backup -- /bin/true", true),
            ("exec -- /bin/true", false),
            ("", false),
        ] {
            let words = std::iter::once("tocsin-agent").chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), ok, "{line}");
        }
    }

    #[test]
    fn a_data_directory_brings_its_own_socket() {
        let place = PlaceArgs { config: None, data: Some("/srv/agent".into()) };
        let config = place.load().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/srv/agent"));
        assert_eq!(config.jobs.socket, PathBuf::from("/srv/agent/jobs.sock"));
        let missing = PlaceArgs { config: Some("/nowhere/agent.toml".into()), data: None };
        assert!(missing.load().unwrap_err().to_string().contains("cannot read /nowhere/agent.toml"));
    }
}

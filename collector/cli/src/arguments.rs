//! The command line: what can be asked, and what each request needs. `--help` is written here.

mod queries;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tocsin_proto::connect::Endpoint;

pub use queries::{PromqlTest, Query, Top};
pub use values::{EnvName, ResolutionCode, RoleName, time};

use crate::screen::Format;
use values::{incident_number, label, positive_duration};

const EXAMPLES: &str = "\
Examples:
  tocsin                        start a collector and an agent for this host, here and now
  tocsin status                 is everything well? one screen
  tocsin incidents              what is open, worst first
  tocsin incident ack 12 -m \"looking at it\"
  tocsin query 'node_load1 > 4'

Exit codes: 0 done, 1 failed or refused, 2 wrong command line, 3 no collector answered.
Times are UTC. Colours are left out when the output is no terminal or NO_COLOR is set.";

/// Monitoring, alerts and incidents from one command line. Without a command: `tocsin up`.
#[derive(Debug, Parser)]
#[command(name = "tocsin", version, after_help = EXAMPLES, arg_required_else_help = false, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The collector to ask, instead of the one that the credential file names
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Connection")]
    pub endpoint: Option<Endpoint>,
    /// The credential file to use [default: found in the data directories, see `tocsin status --help`]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub credential: Option<PathBuf>,
    /// The data directory of `tocsin up` [default: $XDG_STATE_HOME/tocsin or ~/.local/state/tocsin]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Connection")]
    pub data: Option<PathBuf>,
    /// Tables for people or JSON for programs; `query` has csv and plain, too
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = "Output"
    )]
    pub output: Format,
}

/// Everything `tocsin` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a collector and an agent for this host in one process
    #[command(after_help = "\
Examples:
  tocsin up
  tocsin up --data /srv/tocsin --listen 0.0.0.0      other hosts can enrol
  tocsin up --rules /etc/tocsin/rules --env test

Ctrl-C stops the agent, then the collector, both cleanly; a second Ctrl-C does not wait.")]
    Up(Up),
    /// Show the collector, agents, incidents, lag, store and rules on one screen
    #[command(after_help = "\
The credential is searched in this order, the first that exists is used:
  --credential FILE
  DIR/collector/credential.toml               with --data DIR, and then nowhere else
  $XDG_STATE_HOME/tocsin/collector/credential.toml   (~/.local/state/tocsin/… if it is not set)
  /var/lib/tocsin/collector/credential.toml

Examples:
  tocsin status
  tocsin status -o json | jq '.problems'")]
    Status,
    /// List the hosts and whether they are heard
    #[command(
        after_help = "Examples:\n  tocsin hosts\n  tocsin hosts --all -o json | jq -r '.hosts[].instance'"
    )]
    Hosts {
        /// Also those that are retired
        #[arg(long)]
        all: bool,
    },
    /// Show one host, set its labels, or take it out of service
    #[command(subcommand)]
    Host(HostCommand),
    /// Evaluate a PromQL expression, now, at a time or over a range
    #[command(after_help = "\
Examples:
  tocsin query 'node_load1'
  tocsin query 'rate(node_cpu_seconds_total{mode=\"iowait\"}[5m])' --at 2026-11-23T03:10:00Z
  tocsin query 'node_memory_MemAvailable_bytes' --start 1h
  tocsin query 'topk(6, node_load1)' --start 6h --plot
  tocsin query 'node_load1' --start 6h --end 2h -o csv       every point, for a spreadsheet

-o csv    a header, then a line a point: a column for each label (__name__ is the metric), then time and value
-o plain  a line a point in Prometheus' text format: series, value, milliseconds
-o json   the series with their points; warnings and infos of the engine
Warnings go to stderr.")]
    Query(Query),
    /// Watch all hosts on one live screen, problems first
    #[command(after_help = "\
Examples:
  tocsin top
  tocsin top --env prod --sort cpu
  tocsin top --once --filter db-       one screen as text, for scripts
  tocsin top -o json                   the same as JSON

Keys: arrows, PgUp, PgDn, Home and End move; Enter shows the details of a host; / filters by text, e by environment;
p n l c m f d w a sort by problems, name, load, cpu, memory, filesystem, disk busy, network, alerts; r reverses; q quits.")]
    Top(Top),
    /// List the alerts that are firing
    #[command(
        after_help = "Examples:\n  tocsin alerts\n  tocsin alerts --pending\n  tocsin alerts --resolved -o json"
    )]
    Alerts {
        /// Also those whose `for` is still running
        #[arg(long)]
        pending: bool,
        /// Also those that are over, as far as they are kept
        #[arg(long)]
        resolved: bool,
        /// Show at most this many
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
        limit: u32,
    },
    /// List the open incidents, worst first
    #[command(after_help = "Examples:\n  tocsin incidents\n  tocsin incidents --all --limit 500")]
    Incidents {
        /// Also resolved ones
        #[arg(long)]
        all: bool,
        /// Show at most this many [default: 100]
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
        limit: u32,
    },
    /// Show an incident, take it, write to it, or close it
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// List the jobs and how they have been going
    #[command(after_help = "Examples:\n  tocsin jobs\n  tocsin job runs nightly-backup")]
    Jobs,
    /// Show the runs of a job, or one run with the end of its output
    #[command(subcommand)]
    Job(JobCommand),
    /// Follow the feed of alerts, incidents, jobs and hosts
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Make join tokens, with which hosts enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make and revoke the credentials of people and tools
    #[command(subcommand)]
    Principal(PrincipalCommand),
    /// Show the certificate authorities, or change the one that signs
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Check rule files, list the rules in force, or read them again
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Run files of Prometheus' test language (load, eval, …) over this query engine
    #[command(
        name = "promqltest",
        after_help = "\
Examples:
  tocsin promqltest tests/*.test
  tocsin promqltest --experimental functions.test

Cases that need native histograms, and experimental functions and syntax, are skipped and counted by kind. The exit
code is 1 when a case fails or a line cannot be read."
    )]
    PromqlTest(PromqlTest),
    /// Decide about events of the collector's journal that are lost
    #[command(subcommand)]
    Journal(JournalCommand),
}

/// `tocsin journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Go on without lost events, and let incidents be changed again
    #[command(
        name = "accept-loss",
        after_help = "\
Example:
  tocsin journal accept-loss --from 1204 --to 1391

When a part of the collector's journal cannot be read and no checkpoint covers it, incidents are read only: what was
said about them in between is not known. `tocsin status` names the events. First try to put the file back from a
backup: stop the collector, copy the file, start it. If there is none, this goes on without them: alerts that fire get
their incidents, numbers of incidents skip those that may have been used, and the history shows who decided.
Look at what was revoked in that time: hosts and credentials may be let in again. The damaged file stays."
    )]
    AcceptLoss {
        /// The first lost event
        #[arg(long, value_name = "EVENT")]
        from: u64,
        /// The last one
        #[arg(long, value_name = "EVENT")]
        to: u64,
    },
}

/// `tocsin up`.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// The address to listen on; 0.0.0.0 lets other hosts in
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub listen: IpAddr,
    /// The environment that this host serves; only prod pages
    #[arg(long, default_value = "prod")]
    pub env: EnvName,
    /// How often the agent measures
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = positive_duration)]
    pub interval: Duration,
    /// Directories or files with Prometheus rules
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub rules: Vec<PathBuf>,
}

impl Default for Up {
    fn default() -> Self {
        let listen = IpAddr::from([127, 0, 0, 1]);
        Self { listen, env: EnvName::Prod, interval: Duration::from_secs(5), rules: Vec::new() }
    }
}

/// `tocsin host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Show what is known of a host
    #[command(after_help = "Example:\n  tocsin host show web-1")]
    Show {
        /// Its name or its agent's id
        name: String,
    },
    /// Set labels of a host; `team=` removes one
    #[command(after_help = "Example:\n  tocsin host label web-1 team=payments rack=")]
    Label {
        /// Its name or its agent's id
        name: String,
        /// NAME=VALUE; an empty value removes the label
        #[arg(required = true, value_name = "LABEL=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Take a host out of service: its alerts end, its certificates are revoked
    #[command(
        after_help = "Example:\n  tocsin host retire web-1\n\nIts history stays. To come back it enrols anew."
    )]
    Retire {
        /// Its name or its agent's id
        name: String,
    },
    /// Let a host come back by its key, and end the quarantine of a cloned identity
    #[command(
        name = "allow-recovery",
        after_help = "\
Example:
  tocsin host allow-recovery web-1

For a host whose certificate ran out a second time within 30 days, that was set back to a snapshot, or whose identity
was cloned: first give the copy an identity of its own, on it, with `tocsin-agent enroll --split`. Good for a day and
for one recovery."
    )]
    AllowRecovery {
        /// Its name or its agent's id
        name: String,
    },
    /// Revoke a host's certificates; its stream ends within 5 s
    #[command(
        after_help = "Example:\n  tocsin host revoke web-1\n\nFor a host that may be in foreign hands. It can send nothing until it enrols anew."
    )]
    Revoke {
        /// Its name or its agent's id
        name: String,
    },
}

/// `tocsin incident`.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// Show an incident: its alerts, who is on it, what happened when
    #[command(after_help = "Example:\n  tocsin incident show INC-12")]
    Show {
        /// 12 or INC-12
        #[arg(value_parser = incident_number)]
        id: u64,
    },
    /// Take an incident: it stops paging until the acknowledgement runs out
    #[command(after_help = "Example:\n  tocsin incident ack 12 -m \"disk is being extended\"")]
    Ack {
        /// 12 or INC-12
        #[arg(value_parser = incident_number)]
        id: u64,
        /// What you are going to do
        #[arg(short, long, value_name = "NOTE", default_value = "", hide_default_value = true)]
        message: String,
        /// Refuse if the incident has changed since this revision (`incident show -o json` has it)
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        rev: u64,
    },
    /// Write a note into an incident's timeline
    #[command(
        after_help = "Examples:\n  tocsin incident note 12 \"DBA called, on her way\"\n  tocsin incident note 12 -m \"failover done\""
    )]
    Note {
        /// 12 or INC-12
        #[arg(value_parser = incident_number)]
        id: u64,
        /// The note
        #[arg(short, long, value_name = "TEXT", required_unless_present = "text", conflicts_with = "text")]
        message: Option<String>,
        /// The note
        text: Option<String>,
    },
    /// Close an incident, saying how it ended
    #[command(
        after_help = "Example:\n  tocsin incident resolve 12 --code fixed -m \"volume extended to 2 TB\""
    )]
    Resolve {
        /// 12 or INC-12
        #[arg(value_parser = incident_number)]
        id: u64,
        /// How it ended
        #[arg(long)]
        code: ResolutionCode,
        /// What was done
        #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        message: String,
        /// Refuse if the incident has changed since this revision (`incident show -o json` has it)
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        rev: u64,
    },
}

/// `tocsin job`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List the runs of a job, newest first
    #[command(after_help = "Example:\n  tocsin job runs nightly-backup --limit 20")]
    Runs {
        /// The job's name
        name: String,
        /// Show at most this many [default: 100]
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
        limit: u32,
    },
    /// Show one run with the end of its output
    #[command(after_help = "Example:\n  tocsin job show 7f9c2e1a-3c55-4b12-9d0e-2f3b8a1c4d5e")]
    Show {
        /// The run's id, from `tocsin job runs NAME`
        run_id: String,
    },
}

/// `tocsin feed`.
#[derive(Debug, Subcommand)]
pub enum FeedCommand {
    /// Print events as they happen, until Ctrl-C; reconnects and goes on where it was
    #[command(after_help = "\
Examples:
  tocsin feed tail
  tocsin feed tail --from snapshot              first what is open now, then what happens
  tocsin feed tail --kind incident. -o json     JSON lines of incidents only
  tocsin feed tail --consumer pager             goes on after what `pager` has acknowledged, and
                                                acknowledges what it printed")]
    Tail(Tail),
}

/// `tocsin feed tail`.
#[derive(Clone, Debug, Args)]
pub struct Tail {
    /// Where to begin: now, earliest, snapshot, or the cursor of an earlier item
    /// [default: now; with --consumer where it has acknowledged to]
    #[arg(long, value_name = "PLACE")]
    pub from: Option<String>,
    /// Follow as this consumer and acknowledge what is printed
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// Only events of this kind; `incident.` takes all that begin so; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// Go on where it was although the kinds are others than before: what only they select and is older does not come
    #[arg(long)]
    pub accept_filter_change: bool,
}

/// `tocsin token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a join token for one host; it is shown once
    #[command(after_help = "\
Examples:
  tocsin token create --env prod
  tocsin token create --env uat --label team=payments --host 'web-*' --ttl 15m")]
    Create {
        /// The environment that the host will serve; only prod pages
        #[arg(long)]
        env: EnvName,
        /// A label that the host gets; may be repeated
        #[arg(long = "label", value_name = "LABEL=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Which host names may use it, with `*` for anything
        #[arg(long, value_name = "PATTERN", default_value = "*")]
        host: String,
        /// How long it is good for, at most 24h
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = positive_duration)]
        ttl: Duration,
    },
    /// List the join tokens and who used them
    List,
}

/// `tocsin principal`.
#[derive(Debug, Subcommand)]
pub enum PrincipalCommand {
    /// Make a credential for a person or tool; it is shown once
    #[command(after_help = "\
Examples:
  tocsin principal create anna --role responder
  tocsin principal create pager --role consumer --ttl 90d
  tocsin principal create prometheus --role writer

Roles: viewer reads; responder also acknowledges, notes, resolves and reads job output; operator also labels and
retires hosts and reloads rules; admin does everything; consumer follows the feed as itself and nothing else;
writer pushes samples, by Prometheus remote write or OTLP, and nothing else.")]
    Create {
        /// Its name, as it stands in the history of all it does
        name: String,
        /// What it may do
        #[arg(long)]
        role: RoleName,
        /// How long the credential is good for [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        ttl: Option<Duration>,
    },
    /// List the principals, their roles and whether they are valid
    List,
    /// Revoke a principal's credential at once
    #[command(after_help = "Example:\n  tocsin principal revoke anna")]
    Revoke {
        /// Its name
        name: String,
    },
}

/// `tocsin authority`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Show the authorities, who follows a change of them, and the pin of the front listener
    #[command(after_help = "\
Examples:
  tocsin authority show
  tocsin authority show -o json | jq -r .bundle_pem      for the `ca` of credential files on other hosts

States: incoming is trusted and signs nothing yet; issuing signs; outgoing signed before and is trusted still;
retired is trusted by nobody, and its key is gone.")]
    Show,
    /// Put a new authority in the place of the issuing one, step by step
    #[command(subcommand, after_help = ROTATION)]
    Rotate(RotateCommand),
}

const ROTATION: &str = "\
A rotation:
  tocsin authority rotate begin       the new authority is trusted beside the old one; agents are told over their
                                      streams, keep it on disk and report it
  tocsin authority show               who has not reported yet; `begin` again changes nothing
  tocsin authority rotate switch      the new authority signs: every host has reported, and two lives of agents'
                                      certificates have passed since `begin`. Agents renew within a tenth of a life
  tocsin authority rotate finish      every host has a certificate of the new authority: the old one is retired

Credential files on other hosts need the new `ca` before `finish`: `tocsin authority show -o json | jq -r .bundle_pem`.
Join tokens that were made before `finish` are good for nothing after it.

A host that was left behind keeps its identity and its spool. Until `finish` it comes back by itself. After that:
  tocsin-agent recover --pin PIN      on that host, as the agent's user, with the front pin of `tocsin authority show`
and, if it had recovered within the last 30 days, before that `tocsin host allow-recovery HOST`.";

/// `tocsin authority rotate`.
#[derive(Debug, Subcommand)]
pub enum RotateCommand {
    /// Trust a new authority beside the issuing one
    #[command(after_help = "\
Example:
  tocsin authority rotate begin

The new authority is made on the collector's host. To bring your own, put `ca.key` (PKCS #8, mode 600) and `ca.pem`
into `authority/incoming` of the collector's data directory, readable for the collector alone, and begin then. Its
certificate is that of an authority and names tocsin://CLUSTER as its one subject alternative name (a URI); CLUSTER
stands in `tocsin authority show -o json`.")]
    Begin,
    /// Let the new authority sign, and show it to agents
    #[command(after_help = "\
Examples:
  tocsin authority rotate switch
  tocsin authority rotate switch --strand 2      leaves behind the two hosts that have not reported
  tocsin authority rotate switch --strand 0      everybody has reported: do not wait for the overlap")]
    Switch {
        /// Leave hosts behind that do not trust the new authority: exactly this many
        #[arg(long, value_name = "N")]
        strand: Option<u32>,
    },
    /// Trust the old authority no more, and remove its key
    #[command(after_help = "\
Examples:
  tocsin authority rotate finish
  tocsin authority rotate finish --strand 1      leaves behind the host that has not renewed")]
    Finish {
        /// Leave hosts behind whose certificate is one of the old authority: exactly this many
        #[arg(long, value_name = "N")]
        strand: Option<u32>,
    },
    /// Take the new authority back while it signs nothing, and remove its key
    Cancel,
}

/// `tocsin rules`.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Check rule files without a collector; exits with 1 when there are mistakes
    #[command(
        after_help = "Examples:\n  tocsin rules check rules/*.yml\n  tocsin rules check rules/*.yml || exit 1     in a pipeline"
    )]
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the rules in force and what is wrong with them
    List,
    /// Have the collector read its rule files again, all or none
    Reload,
}

#[cfg(test)]
mod tests;

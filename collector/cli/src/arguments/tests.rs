//! Command lines that people type, and those that are refused.

use super::*;
use clap::CommandFactory as _;
use tocsin_shared::time::Timestamp;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(["tocsin"].into_iter().chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_says_what_it_does_in_a_sentence() {
    fn visit(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.len() > 15 && !about.ends_with('.') && !about.contains('\n'), "{path}: {about:?}");
            for argument in sub.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
            visit(sub, &path);
        }
    }
    visit(&Arguments::command(), "tocsin");
}

#[test]
fn lines_that_are_understood() {
    for line in [
        "",
        "up --listen 0.0.0.0 --env test --interval 10s --rules a b --data /srv/tocsin",
        "status -o json",
        "-o json status",
        "hosts --all --endpoint collector:7640",
        "host label web-1 team=payments rack=",
        "host retire web-1",
        "query node_load1 --at 2026-11-23T10:00:00Z",
        "query up --start 1h --end now --step 1m --credential /tmp/c.toml",
        "query up --plot",
        "query up --plot --step 1m --end 5m",
        "query up --start 1h --plot --limit 3",
        "query up -o csv",
        "query up -o plain --limit 0",
        "top",
        "top --once --env prod --filter db- --sort cpu",
        "alerts --pending --resolved",
        "incidents --all --limit 5",
        "incident show INC-12",
        "incident ack 12 -m looking",
        "incident note inc-12 called",
        "incident note 12 -m called",
        "incident resolve #12 --code false_positive -m nothing",
        "job runs nightly --limit 3",
        "job show 7f9c",
        "feed tail --from earliest --consumer pager --kind incident. --kind job.failed",
        "token create --env prod --label a=b --label c=d --host web-* --ttl 15m",
        "principal create anna --role responder --ttl 90d",
        "principal revoke anna",
        "authority show -o json",
        "authority rotate begin",
        "authority rotate switch --strand 0",
        "authority rotate finish --strand 3",
        "authority rotate cancel",
        "rules check a.yml b.yml",
        "rules reload",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
    assert!(parse("").unwrap().command.is_none());
}

#[test]
fn lines_that_are_refused_say_why() {
    for (line, says) in [
        ("frobnicate", "unrecognized subcommand"),
        ("status --endpoint collector", "names no port"),
        ("status --endpoint http://collector:7640", "plain HTTP"),
        ("incident ack twelve", "like 12 or INC-12"),
        ("incident ack 0", "like 12 or INC-12"),
        ("incident note 12", "required"),
        ("incident note 12 -m a b", "cannot be used with"),
        ("incident resolve 12", "--code"),
        ("incident resolve 12 --code auto", "possible values: fixed"),
        ("host label web-1", "LABEL=VALUE"),
        ("host label web-1 team", "write LABEL=VALUE"),
        ("host label web-1 1team=x", "not a label name"),
        ("query up --at now --start 1h", "cannot be used with"),
        ("query up --step 1m", "--start"),
        ("query up --end 1m", "--start"),
        ("query up --at now --plot", "cannot be used with"),
        ("query up --limit many", "invalid digit"),
        ("token create", "--env"),
        ("token create --env prod --ttl 0", "longer than nothing"),
        ("token create --env prod --ttl soon", "like 30s"),
        ("principal create anna --role king", "viewer"),
        ("authority rotate switch --strand all", "invalid digit"),
        ("authority rotate begin --strand 1", "unexpected argument"),
        ("rules check", "FILE"),
        ("status -o yaml", "table"),
    ] {
        match parse(line) {
            Ok(read) => panic!("{line}: {read:?}"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{line}");
                assert!(error.to_string().contains(says), "{line}: {error}");
            }
        }
    }
}

#[test]
fn the_defaults_of_up_are_those_of_no_command() {
    let Ok(Arguments { command: Some(Command::Up(up)), .. }) = parse("up") else { panic!("not up") };
    let default = Up::default();
    assert_eq!(
        (up.listen, up.env, up.interval, up.rules),
        (default.listen, default.env, default.interval, default.rules)
    );
}

#[test]
fn times_are_given_in_four_ways() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    for (text, read) in [
        ("now", Some("2026-11-23T10:00:00.000Z")),
        ("10m", Some("2026-11-23T09:50:00.000Z")),
        ("1h30m", Some("2026-11-23T08:30:00.000Z")),
        ("2026-11-22T00:00:00Z", Some("2026-11-22T00:00:00.000Z")),
        ("1795428770", Some("2026-11-23T10:12:50.000Z")),
        ("yesterday", None),
        ("", None),
    ] {
        assert_eq!(time(text, now).ok().map(|at| at.to_string()).as_deref(), read, "{text}");
    }
}

//! The certificate authorities, and how far a change of them has come.

use serde::Serialize;
use tocsin_proto::pb;

use super::{Moment, maybe, moment, time_cells, word};
use crate::figures;
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// Hosts that a screen names; all of them are in the JSON output.
const NAMED_MAX: usize = 20;

/// `tocsin authority show`, and every step of `tocsin authority rotate`.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorityView {
    /// The trusted ones, and the last of those that were; oldest first.
    pub authorities: Vec<AuthorityRow>,
    pub cluster_id: String,
    /// What a host that missed a change is told with `tocsin-agent recover --pin`.
    pub front_pin: String,
    /// All trusted authorities, for the `ca` of credential files on other hosts.
    pub bundle_pem: String,
    /// What agents report when they trust them.
    pub bundle_sha256: String,
    /// Hosts in service whose certificates are not revoked.
    pub hosts: u32,
    /// Those whose agents have not reported that they trust all of them.
    pub unreported: Vec<String>,
    /// Those whose certificate is not of the issuing authority yet.
    pub to_renew: Vec<String>,
    /// From when on the incoming authority may sign without `--strand`.
    pub switch_from: Option<Moment>,
}

/// One authority.
#[derive(Clone, Debug, Serialize)]
pub struct AuthorityRow {
    pub number: u32,
    /// `incoming`, `issuing`, `outgoing`, `retired`.
    pub state: String,
    pub state_since: Moment,
    /// SHA-256 of its certificate.
    pub sha256: String,
    pub not_before: Moment,
    pub not_after: Moment,
}

fn hex(bytes: &[u8]) -> String {
    tocsin_shared::secret::hex(bytes)
}

impl From<pb::CertificateAuthority> for AuthorityRow {
    fn from(authority: pb::CertificateAuthority) -> Self {
        Self {
            number: authority.number,
            state: word(authority.state().as_str_name(), "AUTHORITY_STATE_"),
            state_since: moment(authority.state_since_ms),
            sha256: hex(&authority.sha256),
            not_before: moment(authority.not_before_ms),
            not_after: moment(authority.not_after_ms),
        }
    }
}

impl From<pb::AuthorityStatus> for AuthorityView {
    fn from(status: pb::AuthorityStatus) -> Self {
        let pb::AuthorityStatus {
            authorities,
            cluster_id,
            bundle_pem,
            bundle_sha256,
            front_sha256,
            hosts,
            unreported,
            to_renew,
            switch_from_ms,
        } = status;
        Self {
            authorities: authorities.into_iter().map(Into::into).collect(),
            cluster_id,
            front_pin: hex(&front_sha256),
            bundle_pem,
            bundle_sha256: hex(&bundle_sha256),
            hosts,
            unreported,
            to_renew,
            switch_from: maybe(switch_from_ms),
        }
    }
}

impl AuthorityView {
    fn has(&self, state: &str) -> bool {
        self.authorities.iter().any(|authority| authority.state == state)
    }
}

fn state_paint(state: &str) -> Option<Paint> {
    match state {
        "issuing" => Some(Paint::Good),
        "incoming" | "outgoing" => Some(Paint::Warn),
        _ => Some(Paint::Faint),
    }
}

/// The authorities, who does not follow yet, and what to do next.
pub fn draw_authority(view: &AuthorityView, style: &Style) -> String {
    let mut table = Table::new(&[">NO", "STATE", ">FOR", "ENDS", "", "SHA-256"]);
    for authority in &view.authorities {
        let [ends, left] = time_cells(Some(authority.not_after), style);
        table.row([
            authority.number.to_string().into(),
            Cell::painted(&authority.state, state_paint(&authority.state)),
            figures::age(style.now, authority.state_since.0).into(),
            ends,
            left,
            authority.sha256.as_str().into(),
        ]);
    }
    let mut text = table.draw(style);
    text.push_str(&format!("front pin  {}\n", clean(&view.front_pin)));
    text.push_str(&followers(view, style));
    text.push_str(&next(view, style));
    text
}

fn followers(view: &AuthorityView, style: &Style) -> String {
    let line = |hosts: &[String], what: &str| match hosts.len() {
        0 => String::new(),
        number => {
            let counted = format!("{number} of {}", figures::counted(view.hosts.into(), "host"));
            format!("{} {what}: {}\n", style.paint(Some(Paint::Warn), &counted), named(hosts))
        }
    };
    line(&view.unreported, "not known to trust all of these")
        + &line(&view.to_renew, "with a certificate of another authority than the issuing one")
}

fn named(hosts: &[String]) -> String {
    let first: Vec<String> = hosts.iter().take(NAMED_MAX).map(|host| clean(host)).collect();
    match hosts.len().saturating_sub(NAMED_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// What an operator does next, or waits for.
fn next(view: &AuthorityView, style: &Style) -> String {
    let early = view.switch_from.filter(|from| from.0 > style.now);
    match () {
        () if view.has("incoming") && !view.unreported.is_empty() => {
            "next: wait until every host has reported, then `tocsin authority rotate switch`\n".into()
        }
        () if view.has("incoming") => match early {
            Some(Moment(from)) => {
                format!("next: `tocsin authority rotate switch`, from {}\n", figures::when(style.now, from))
            }
            None => "next: `tocsin authority rotate switch`\n".into(),
        },
        () if view.has("outgoing") && !view.to_renew.is_empty() => {
            "next: wait until every host has renewed, then `tocsin authority rotate finish`\n".into()
        }
        () if view.has("outgoing") => "next: `tocsin authority rotate finish`\n".into(),
        () => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tocsin_shared::time::Timestamp;

    const NOW: i64 = 1_795_428_770_000; // 2026-11-23T10:12:50Z
    const HOUR: i64 = 3_600_000;

    fn authority(number: u32, state: pb::AuthorityState) -> pb::CertificateAuthority {
        pb::CertificateAuthority {
            number,
            state: state.into(),
            state_since_ms: NOW - 2 * HOUR,
            sha256: vec![0xa0 + number as u8; 32],
            not_before_ms: NOW - 24 * HOUR,
            not_after_ms: NOW + 240 * HOUR,
            ..Default::default()
        }
    }

    fn status(states: &[pb::AuthorityState], unreported: &[&str], to_renew: &[&str]) -> pb::AuthorityStatus {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        pb::AuthorityStatus {
            authorities: (1..).zip(states).map(|(number, state)| authority(number, *state)).collect(),
            front_sha256: vec![0xa1; 32],
            hosts: 3,
            unreported: names(unreported),
            to_renew: names(to_renew),
            ..Default::default()
        }
    }

    #[test]
    fn a_screen_says_who_is_missing_and_what_is_next() {
        use pb::AuthorityState::{Incoming, Issuing, Outgoing, Retired};
        let style = Style::plain(Timestamp::from_millis(NOW));
        let whole = draw_authority(&status(&[Issuing, Incoming], &["web-3\u{1b}[31m"], &[]).into(), &style);
        let pin = "a1".repeat(32);
        let want = format!(
            "NO  STATE     FOR  ENDS                          SHA-256\n \
             1  issuing    2h  2026-12-03T10:12:50Z  in 10d  {pin}\n \
             2  incoming   2h  2026-12-03T10:12:50Z  in 10d  {}\n\
             front pin  {pin}\n\
             1 of 3 hosts not known to trust all of these: web-3\\u{{1b}}[31m\n\
             next: wait until every host has reported, then `tocsin authority rotate switch`\n",
            "a2".repeat(32)
        );
        assert_eq!(whole, want);
        let early =
            pb::AuthorityStatus { switch_from_ms: NOW + HOUR, ..status(&[Issuing, Incoming], &[], &[]) };
        for (status, says) in [
            (status(&[Issuing], &["web-1"], &[]), "1 of 3 hosts not known to trust"),
            (early, "`tocsin authority rotate switch`, from 2026-11-23T11:12:50Z"),
            (status(&[Issuing, Incoming], &[], &[]), "next: `tocsin authority rotate switch`\n"),
            (status(&[Outgoing, Issuing], &[], &["web-1", "web-2"]), "until every host has renewed"),
            (status(&[Outgoing, Issuing], &[], &["web-1", "web-2"]), "the issuing one: web-1, web-2\n"),
            (status(&[Outgoing, Issuing], &[], &[]), "next: `tocsin authority rotate finish`\n"),
            (status(&[Retired, Issuing], &[], &[]), "retired"),
        ] {
            let screen = draw_authority(&status.into(), &style);
            assert!(screen.contains(says), "{says}: {screen}");
        }
    }
}

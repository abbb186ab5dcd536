//! The identity's files, with an authority of the tests' own.

use super::*;
use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType,
    SerialNumber,
};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;
use tocsin_shared::certificate::cluster_uri;
use uuid::Uuid;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        Self::of(place(1).cluster)
    }

    fn of(cluster: Uuid) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.subject_alt_names = vec![SanType::URI(cluster_uri(cluster).try_into().unwrap())];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, csr: &[u8], place: &Place, serial: u64) -> String {
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(place.name().to_string().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        params.signed_by(&request.public_key, &self.issuer).unwrap().pem()
    }
}

fn place(agent: u128) -> Place {
    Place {
        agent: AgentId(Uuid::from_u128(agent)),
        cluster: Uuid::from_u128(99),
        collector: "collector:9443".parse().unwrap(),
        front: None,
    }
}

struct Host {
    data: tempfile::TempDir,
    dir: IdentityDir,
    authority: Authority,
}

impl Host {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let dir = IdentityDir::open(data.path()).unwrap();
        Self { data, dir, authority: Authority::new() }
    }

    fn enrolled() -> (Self, Identity) {
        let host = Self::new();
        let key = host.dir.pending_key().unwrap();
        let pem = host.authority.issue(&key.csr_der().unwrap(), &place(1), 1);
        let identity = host.dir.enrolled(key, &pem, &host.authority.pem, place(1)).unwrap();
        (host, identity)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join("identity").join(name)
    }

    /// What a crash finds: the names and contents of all files.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }
}

#[test]
fn an_enrolment_survives_a_restart() {
    let (host, made) = Host::enrolled();
    let loaded = IdentityDir::open(host.data.path()).unwrap().load().unwrap().unwrap();
    assert_eq!((&loaded.place, &loaded.serial), (&made.place, &made.serial));
    assert_eq!(loaded.serial, format!("{:032x}", 1));
    assert!(loaded.tls().is_ok());
    assert_eq!(fs::metadata(host.path("")).unwrap().mode() & 0o777, 0o700);
    let names: Vec<_> = host.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, ["agent.pem", "ca.pem", "identity.toml"].map(|name| host.path(name)));
    for path in names {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert!(!format!("{loaded:?}").contains("PRIVATE KEY"));
}

#[test]
fn a_host_that_has_not_enrolled_has_no_identity() {
    let host = Host::new();
    assert!(host.dir.load().unwrap().is_none());
    host.dir.pending_key().unwrap();
    assert!(host.dir.load().unwrap().is_none(), "a key alone is no identity");
}

// Cases: I5
#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let host = Host::new();
    let first = host.dir.pending_key().unwrap().sha256();
    assert_eq!(IdentityDir::open(host.data.path()).unwrap().pending_key().unwrap().sha256(), first);
    // A key that was cut short in writing never left the host, so it may be replaced.
    fs::write(host.path("pending.key"), "-----BEGIN PRI").unwrap();
    assert_ne!(host.dir.pending_key().unwrap().sha256(), first);
}

// Cases: I7
#[test]
fn a_renewal_takes_a_new_key_and_all_or_nothing() {
    let (host, old) = Host::enrolled();
    let key = host.dir.pending_key().unwrap();
    let pem = host.authority.issue(&key.csr_der().unwrap(), &place(1), 2);
    // Were the agent to stop here, before the answer, the old identity would be whole.
    assert_eq!(host.dir.load().unwrap().unwrap().serial, old.serial);
    let before = fs::read(host.path("agent.pem")).unwrap();
    let pending = fs::read(host.path("pending.key")).unwrap();
    let new = host.dir.renewed(key, &pem, &host.authority.pem, &old).unwrap();
    assert_eq!(new.place, old.place);
    assert_eq!(host.dir.load().unwrap().unwrap().serial, format!("{:032x}", 2));
    assert_ne!(fs::read(host.path("agent.pem")).unwrap(), before);
    assert!(!host.path("pending.key").exists());
    // Were it to stop between the exchange and dropping the pending key, the next renewal takes a new one all the same.
    private_file::create(&host.path("pending.key"), std::str::from_utf8(&pending).unwrap()).unwrap();
    let used = KeyPair::from_pem(std::str::from_utf8(&pending).unwrap()).unwrap();
    assert_ne!(host.dir.pending_key().unwrap().sha256(), sha256(&used.subject_public_key_info()));
    assert_eq!(host.dir.load().unwrap().unwrap().serial, new.serial);
}

// Cases: I7
#[test]
fn a_crash_at_any_file_leaves_the_old_or_the_new_identity() {
    // The steps of a renewal in order, each file whole in its old or new state, with what a torn write leaves beside.
    let (host, old) = Host::enrolled();
    let key = host.dir.pending_key().unwrap();
    let before = host.files();
    let pem = host.authority.issue(&key.csr_der().unwrap(), &place(1), 2);
    host.dir.renewed(key, &pem, &host.authority.pem, &old).unwrap();
    let after = host.files();
    let content = |files: &[(PathBuf, Vec<u8>)], name: &str| {
        files.iter().find(|(path, _)| *path == host.path(name)).map(|(_, content)| content.clone())
    };
    let steps = ["ca.pem", "agent.pem", "pending.key"];
    for done in 0..=steps.len() {
        for (at, name) in steps.iter().enumerate() {
            match content(if at < done { &after } else { &before }, name) {
                Some(content) => {
                    private_file::replace(&host.path(name), std::str::from_utf8(&content).unwrap()).unwrap()
                }
                None => private_file::remove(&host.path(name)).unwrap(),
            }
        }
        fs::write(host.path("agent.pem.new"), "-----BEGIN PRIVATE KEY-----\nhalf").unwrap();
        let serial = host.dir.load().unwrap().unwrap().serial;
        let expected = if done < 2 { 1 } else { 2 };
        assert_eq!(serial, format!("{expected:032x}"), "after {done} steps");
        let next = host.dir.pending_key().unwrap();
        let pem = host.authority.issue(&next.csr_der().unwrap(), &place(1), 3);
        let present = host.dir.load().unwrap().unwrap();
        let renewed = host.dir.renewed(next, &pem, &host.authority.pem, &present).unwrap();
        assert_eq!(renewed.serial, format!("{:032x}", 3), "a renewal goes on after {done} steps");
    }
}

// Cases: I7
#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let (host, old) = Host::enrolled();
    let csr = host.dir.pending_key().unwrap().csr_der().unwrap();
    let other_key = PendingKey(KeyPair::generate().unwrap()).csr_der().unwrap();
    let good = host.authority.issue(&csr, &place(1), 2);
    let authority = host.authority.pem.clone();
    let elsewhere = Place { cluster: Uuid::from_u128(5), ..place(1) };
    let before = host.files();
    for (certificate, authority, says) in [
        (host.authority.issue(&other_key, &place(1), 2), &authority, "another key"),
        (host.authority.issue(&csr, &place(2), 2), &authority, "this is agent"),
        (host.authority.issue(&csr, &elsewhere, 2), &authority, "this is agent"),
        (String::new(), &authority, "no certificate"),
        ("hello".to_owned(), &authority, "no certificate"),
        (good[..good.len() / 2].to_owned(), &authority, "damaged"),
        (authority.clone(), &authority, "authority"),
        (good.clone(), &String::new(), "no certificate"),
    ] {
        let key = host.dir.pending_key().unwrap();
        let error = host.dir.renewed(key, &certificate, authority, &old).unwrap_err().to_string();
        assert!(error.contains("answer is not usable") && error.contains(says), "{says}: {error}");
        assert_eq!(host.files(), before, "{says}");
    }
    let key = host.dir.pending_key().unwrap();
    host.dir.renewed(key, &good, &authority, &old).unwrap();
}

#[test]
fn a_broken_identity_is_named_and_left_alone() {
    type Break = fn(&Host);
    let table: [(&str, Break); 7] = [
        ("ca.pem is missing", |host| fs::remove_file(host.path("ca.pem")).unwrap()),
        ("identity.toml is missing", |host| fs::remove_file(host.path("identity.toml")).unwrap()),
        ("agent.pem is damaged", |host| fs::write(host.path("agent.pem"), "").unwrap()),
        ("identity.toml is damaged", |host| fs::write(host.path("identity.toml"), "format = 1").unwrap()),
        ("mixes two identities", |host| fs::write(host.path("identity.toml"), place(2).print()).unwrap()),
        ("do not go together", |host| {
            let pair = fs::read_to_string(host.path("agent.pem")).unwrap();
            let other = KeyPair::generate().unwrap().serialize_pem();
            fs::write(host.path("agent.pem"), other + &without_key(&pair)).unwrap();
        }),
        ("chmod 600", |host| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(host.path("agent.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
    ];
    for (says, damage) in table {
        let (host, _) = Host::enrolled();
        damage(&host);
        let before = host.files();
        let error = host.dir.load().unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(host.files(), before, "{says}");
    }
}

#[test]
fn a_host_enrols_anew_only_after_its_identity_was_set_aside() {
    let (host, _) = Host::enrolled();
    let key = host.dir.pending_key().unwrap();
    let pem = host.authority.issue(&key.csr_der().unwrap(), &place(2), 2);
    let before = host.files();
    let error = host.dir.enrolled(key, &pem, &host.authority.pem, place(2)).unwrap_err().to_string();
    assert!(error.contains("already has an identity"), "{error}");
    assert_eq!(host.files(), before);

    let now = Timestamp::from_millis(1_795_428_770_000);
    let aside = host.dir.set_aside(now).unwrap();
    assert_eq!(aside, host.data.path().join("identity.replaced-1795428770000"));
    assert!(aside.join("agent.pem").exists());
    assert!(host.dir.load().unwrap().is_none());
    let key = host.dir.pending_key().unwrap();
    let pem = host.authority.issue(&key.csr_der().unwrap(), &place(2), 2);
    host.dir.enrolled(key, &pem, &host.authority.pem, place(2)).unwrap();
    assert!(host.dir.set_aside(now).is_err(), "what was set aside is not overwritten");
    assert_eq!(host.dir.load().unwrap().unwrap().place, place(2));
}

#[test]
fn the_collector_may_move() {
    let (host, identity) = Host::enrolled();
    host.dir.moved(&identity, "[::1]:1".parse().unwrap()).unwrap();
    assert_eq!(host.dir.load().unwrap().unwrap().place.collector.to_string(), "[::1]:1");
}

/// A certificate begins before it is issued: half of a short life must not be over before it began.
#[test]
fn a_short_life_counts_from_the_issue() {
    let (_host, mut identity) = Host::enrolled();
    let issued = Timestamp::from_millis(1_000_000_000);
    identity.not_before = issued.minus(Duration::from_secs(300));
    identity.not_after = issued.plus(Duration::from_secs(60));
    assert_eq!(identity.renew_at(0.5), issued.plus(Duration::from_secs(30)));
    assert_eq!(identity.renewals_apart(), Duration::from_secs(6));
    identity.not_after = issued.minus(Duration::from_secs(1));
    assert_eq!(identity.renew_at(0.5), identity.not_after);
    assert_eq!(identity.renewals_apart(), Duration::from_secs(5));
}

#[test]
fn renewal_is_at_half_of_the_life_give_or_take_a_tenth() {
    let start = Timestamp::from_millis(1_000_000);
    let after = |seconds| start.plus(Duration::from_secs(seconds));
    for (life, jitter, at) in [
        (1000, 0.0, 400),
        (1000, 0.5, 500),
        (1000, 1.0, 600),
        (1000, -3.0, 400),
        (1000, 7.0, 600),
        (1000, f64::NAN, 500),
        (0, 1.0, 0),
    ] {
        assert_eq!(renew_at(start, after(life), jitter), after(at), "{life} {jitter}");
    }
    assert_eq!(renew_at(start, Timestamp::MIN, 0.5), start, "a life that ends before it begins is over");
}

// Cases: I6
#[test]
fn other_authorities_are_kept_whole_or_not_at_all() {
    let (host, old) = Host::enrolled();
    let (next, stranger) = (Authority::new(), Authority::of(Uuid::from_u128(5)));
    let first = &host.authority.pem;
    let both = format!("{first}{}", next.pem);
    let before = host.files();
    let leaf = fs::read_to_string(host.path("agent.pem")).unwrap();
    for (bundle, says) in [
        (String::new(), "no certificate"),
        (both[..both.len() - 40].to_owned(), "damaged"),
        (format!("{first}{}", stranger.pem), "not of an authority of this agent's cluster"),
        (format!("{first}{}", without_key(&leaf)), "not of an authority of this agent's cluster"),
        (first.repeat(9), "it has 9 certificate authorities"),
    ] {
        let error = host.dir.trusts(&old, &bundle).unwrap_err().to_string();
        assert!(error.contains("answer is not usable") && error.contains(says), "{says}: {error}");
        assert_eq!(host.files(), before, "{says}");
    }
    // A kill in the middle leaves the old ones, and half of a file that nobody reads.
    fs::write(host.path("ca.pem.new"), &both[..100]).unwrap();
    assert_eq!(host.dir.load().unwrap().unwrap().bundle_sha256(), old.bundle_sha256());
    let kept = host.dir.trusts(&old, &both).unwrap();
    assert_ne!(kept.bundle_sha256(), old.bundle_sha256());
    let loaded = host.dir.load().unwrap().unwrap();
    assert_eq!(loaded.bundle_sha256(), kept.bundle_sha256(), "what is reported is what a start finds");
    assert_eq!((loaded.serial, loaded.place), (old.serial, old.place));
    // The certificate of the first one goes with the second alone, until it is renewed.
    host.dir.trusts(&kept, &next.pem).unwrap();
    assert!(host.dir.load().unwrap().unwrap().tls().is_ok());
}

// Cases: I6
#[test]
fn a_pin_that_a_person_brought_is_kept() {
    let (host, old) = Host::enrolled();
    let front = Front { endpoint: "collector:7640".parse().unwrap(), pin: [0xa5; 32] };
    host.dir.fronted(&old, front.clone()).unwrap();
    let loaded = host.dir.load().unwrap().unwrap();
    assert_eq!((loaded.place.front, loaded.serial), (Some(front), old.serial));
}

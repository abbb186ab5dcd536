//! The authorities' files against what the journal says, at every moment at which a collector may be killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex as StdMutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use tocsin_shared::certificate::{authority_cluster, cluster_uri};

use super::*;
use AuthorityState::{Incoming, Issuing, Outgoing, Retired};

const NOW: Timestamp = Timestamp::from_millis(1_795_428_770_123);

struct Site {
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    first: NewAuthority,
}

impl Site {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("authority");
        let first = Authorities::open(&dir, &[], NOW).unwrap().current().describe();
        Self { _temporary: temporary, dir, first }
    }

    fn open(&self, records: &[CertificateAuthority]) -> Result<Authorities, AuthorityError> {
        Authorities::open(&self.dir, records, NOW)
    }

    /// The first authority as it stands, and others after it.
    fn records(
        &self,
        first: AuthorityState,
        others: &[(&NewAuthority, AuthorityState)],
    ) -> Vec<CertificateAuthority> {
        let all = std::iter::once((&self.first, first)).chain(others.iter().copied());
        let record = |(number, (new, state)): (u32, (&NewAuthority, AuthorityState))| CertificateAuthority {
            number,
            certificate_pem: new.certificate_pem.clone(),
            sha256: new.sha256,
            not_before: new.not_before,
            not_after: new.not_after,
            state,
            state_since: NOW,
        };
        (1..).zip(all).map(record).collect()
    }

    /// Every file below the directory, by its path in it.
    fn files(&self) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![self.dir.clone()]);
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => found.push(path.strip_prefix(&self.dir).unwrap().display().to_string()),
                }
            }
        }
        found.sort();
        found
    }
}

fn name(new: &NewAuthority) -> String {
    hex(&new.sha256)[..NAME_DIGITS].to_owned()
}

/// An authority as somebody else makes it.
fn foreign(cluster: Uuid, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::URI(cluster_uri(cluster).try_into().unwrap())];
    change(&mut params);
    (key.serialize_pem(), params.self_signed(&key).unwrap().pem())
}

fn put(dir: &Path, key: &str, pem: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("ca.key"), key).unwrap();
    fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("ca.pem"), pem).unwrap();
}

// Cases: I6
#[test]
fn a_whole_rotation_over_its_files() {
    let site = Site::new();
    let authorities = site.open(&[]).unwrap();
    let next = authorities.incoming(NOW).unwrap();
    assert_eq!(site.files(), ["ca.key", "ca.pem", "incoming/ca.key", "incoming/ca.pem"]);
    let mode = |path: &str| fs::metadata(site.dir.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("incoming"), mode("incoming/ca.key")), (0o700, 0o600));
    let own = [name(&next) + "/ca.key", name(&next) + "/ca.pem"];
    let mut moved: Vec<&str> = vec!["ca.key", "ca.pem", &own[0], &own[1]];
    moved.sort_unstable();

    authorities.follow(&site.records(Issuing, &[(&next, Incoming)])).unwrap();
    let both = authorities.current();
    assert_eq!((both.number, both.issuing.pin(), both.outgoing.is_some()), (1, site.first.sha256, false));
    assert_eq!(both.bundle_pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(site.files(), moved);

    authorities.follow(&site.records(Outgoing, &[(&next, Issuing)])).unwrap();
    let switched = authorities.current();
    assert_eq!((switched.number, switched.issuing.pin()), (2, next.sha256));
    assert_eq!(switched.front().pin(), site.first.sha256, "the front waits for who was left behind");
    assert_eq!(switched.bundle_sha256, both.bundle_sha256, "the same are trusted");
    assert_eq!(site.files(), moved, "both keys are needed");

    authorities.follow(&site.records(Retired, &[(&next, Issuing)])).unwrap();
    let finished = authorities.current();
    assert_eq!((finished.number, finished.front().pin()), (2, next.sha256));
    assert_eq!(finished.bundle_pem, format!("{}\n", next.certificate_pem.trim()));
    moved.retain(|file| *file != "ca.key");
    assert_eq!(site.files(), moved, "a key that nobody trusts is gone");
    assert_eq!(finished.issuing.cluster(), both.issuing.cluster());

    // And once more, from where it lies now.
    let third = authorities.incoming(NOW).unwrap();
    let records = site.records(Retired, &[(&next, Outgoing), (&third, Issuing)]);
    authorities.follow(&records).unwrap();
    assert_eq!(site.open(&records).unwrap().current().number, 3);
}

// Cases: I6, I7
#[test]
fn a_kill_between_any_two_files_is_put_right_by_a_start_or_the_same_step() {
    // What a begin has left, in its order, and whether the authority that it made is taken up again.
    type Leave = fn(&Path, &NewAuthority);
    let staged = |dir: &Path| dir.join("incoming.new");
    let begun: [(&str, bool, Leave); 4] = [
        ("a key half written", false, |dir, _| {
            fs::rename(dir.join("incoming"), dir.join("incoming.new")).unwrap();
            fs::rename(dir.join("incoming.new/ca.key"), dir.join("incoming.new/ca.key.new")).unwrap();
            fs::remove_file(dir.join("incoming.new/ca.pem")).unwrap();
        }),
        ("a key without its certificate", false, |dir, _| {
            fs::rename(dir.join("incoming"), dir.join("incoming.new")).unwrap();
            fs::remove_file(dir.join("incoming.new/ca.pem")).unwrap();
        }),
        ("a pair that is not in its place", false, |dir, _| {
            fs::rename(dir.join("incoming"), dir.join("incoming.new")).unwrap();
        }),
        ("a pair in its place that no event names", true, |_, _| {}),
    ];
    for (why, taken_up, leave) in begun {
        let site = Site::new();
        let made = site.open(&[]).unwrap().incoming(NOW).unwrap();
        leave(&site.dir, &made);
        let records = site.records(Issuing, &[]);
        let authorities = site.open(&records).unwrap();
        assert_eq!(authorities.current().issuing.pin(), site.first.sha256, "{why}");
        let next = authorities.incoming(NOW).unwrap();
        assert_eq!(next.sha256 == made.sha256, taken_up, "{why}");
        assert_eq!(authorities.incoming(NOW).unwrap().sha256, next.sha256, "{why}: asked again");
        assert!(!staged(&site.dir).exists(), "{why}: nothing is left over");
    }
    // What later steps have left: the event is durable and its files are not yet where they belong.
    for (why, first, next_is, number, gone) in [
        ("begun", Issuing, Incoming, 1, None),
        ("switched", Outgoing, Issuing, 2, None),
        ("finished", Retired, Issuing, 2, Some("first")),
        ("cancelled", Issuing, Retired, 1, Some("next")),
    ] {
        let site = Site::new();
        let next = site.open(&[]).unwrap().incoming(NOW).unwrap();
        let records = site.records(first, &[(&next, next_is)]);
        for _ in 0..2 {
            let authorities = site.open(&records).unwrap();
            assert_eq!(authorities.current().number, number, "{why}");
            let (of_first, of_next) = ("ca.key".to_owned(), name(&next) + "/ca.key");
            let held = [("first", of_first), ("next", of_next)].map(|(which, file)| {
                assert_eq!(site.files().contains(&file), gone != Some(which), "{why}: {file}");
            });
            assert_eq!(held.len(), 2);
        }
    }
}

// Cases: I6
#[test]
fn an_authority_made_elsewhere_is_taken_if_it_is_one_of_this_cluster_and_of_use() {
    let site = Site::new();
    let cluster =
        authority_cluster(&tls::certificates(&site.first.certificate_pem, "test").unwrap()[0]).unwrap();
    let incoming = site.dir.join(INCOMING);
    let refused = |says: &str| {
        let error = site.open(&[]).unwrap().incoming(NOW).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    };
    let (key, pem) = foreign(Uuid::from_u128(5), |_| {});
    put(&incoming, &key, &pem);
    refused("names cluster 00000000-0000-0000-0000-000000000005, this is cluster");
    let (key, pem) = foreign(cluster, |params| params.is_ca = IsCa::ExplicitNoCa);
    put(&incoming, &key, &pem);
    refused("not the certificate of an authority");
    let (key, pem) = foreign(cluster, |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    put(&incoming, &key, &pem);
    refused("would not be taken");
    let (other, _) = foreign(cluster, |_| {});
    let (_, pem) = foreign(cluster, |_| {});
    put(&incoming, &other, &pem);
    refused("does not belong to ca.key");
    fs::remove_file(incoming.join("ca.key")).unwrap();
    refused("ca.key is not: put both there");

    let (key, pem) = foreign(cluster, |_| {});
    put(&incoming, &key, &pem);
    let authorities = site.open(&[]).unwrap();
    let next = authorities.incoming(NOW).unwrap();
    assert_eq!(next.certificate_pem, pem);
    authorities.follow(&site.records(Outgoing, &[(&next, Issuing)])).unwrap();
    assert_eq!(authorities.current().issuing.pem(), pem);
}

// Cases: I6
#[test]
fn what_is_missing_is_named_and_a_start_goes_on_without_what_it_does_not_need() {
    let site = Site::new();
    let next = site.open(&[]).unwrap().incoming(NOW).unwrap();
    let incoming = site.records(Issuing, &[(&next, Incoming)]);
    let outgoing = site.records(Outgoing, &[(&next, Issuing)]);
    site.open(&incoming).unwrap();
    let key = site.dir.join(name(&next)).join("ca.key");
    let kept = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let authorities = site.open(&incoming).unwrap();
    let error = authorities.holds(&incoming[1]).unwrap_err().to_string();
    assert!(error.contains("the key of certificate authority 2"), "{error}");
    let error = site.open(&outgoing).err().unwrap().to_string();
    assert!(
        error.contains("certificate authority 2") && error.contains("restore it from a backup"),
        "{error}"
    );
    fs::write(&key, kept).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(site.dir.join("ca.key")).unwrap();
    let current = site.open(&outgoing).unwrap().current();
    assert_eq!(
        (current.number, current.front().pin()),
        (2, next.sha256),
        "the old one is only for latecomers"
    );
    assert!(matches!(site.open(&site.records(Retired, &[])), Err(AuthorityError::NoneIssues)));
}

#[test]
fn nobody_is_told_of_a_change_that_is_not_in_force() {
    let site = Site::new();
    let authorities = site.open(&[]).unwrap();
    let next = authorities.incoming(NOW).unwrap();
    let answers = StdMutex::new(vec![Ok(()), Err("no room".to_owned())]);
    authorities.install(Box::new(move |_| answers.lock().unwrap().pop().unwrap()));
    let changes = authorities.changes();
    let records = site.records(Issuing, &[(&next, Incoming)]);
    let error = authorities.follow(&records).unwrap_err().to_string();
    assert!(error.contains("no room; repeat the step") && !changes.has_changed().unwrap(), "{error}");
    authorities.follow(&records).unwrap();
    assert!(changes.has_changed().unwrap());
}

//! The whole agent, without a collector.

use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, SerialNumber,
};
use tocsin_shared::identity::AgentId;
use tokio::net::UnixStream;
use uuid::Uuid;

use super::*;
use crate::identity::Place;
use crate::spool;

/// Gives a host an identity of an authority that nobody else knows. Its collector is a port that is never open.
fn enrol(data: &Path) {
    let place = Place {
        agent: AgentId(Uuid::from_u128(1)),
        cluster: Uuid::from_u128(2),
        collector: "127.0.0.1:1".parse().unwrap(),
        front: None,
    };
    let dir = IdentityDir::open(data).unwrap();
    let key = dir.pending_key().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let request =
        CertificateSigningRequestParams::from_der(&key.csr_der().unwrap().as_slice().into()).unwrap();
    let mut certificate = CertificateParams::default();
    certificate.subject_alt_names = vec![SanType::URI(place.name().to_string().try_into().unwrap())];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    certificate.serial_number = Some(SerialNumber::from(1));
    let certificate = certificate.signed_by(&request.public_key, &issuer).unwrap().pem();
    dir.enrolled(key, &certificate, &authority_pem, place).unwrap();
}

fn config(data: &Path) -> Config {
    let mut config = Config::for_up(data.to_owned(), Duration::from_secs(1));
    config.spool.free_floor_bytes = 0;
    config.spool.free_floor_percent = 0;
    config
}

/// Runs the agent until it serves wrappers, then stops it.
async fn run_once(config: &Config) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run(config.clone(), stop.clone()));
    while UnixStream::connect(&config.jobs.socket).await.is_err() && !agent.is_finished() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    stop.cancel();
    let ended = agent.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "it stops in time");
    ended
}

#[tokio::test]
async fn an_agent_starts_and_stops_without_a_collector_and_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let config = config(data.path());
    // The first time it tells of the boot, too.
    for (start, events) in [(1, 2), (2, 3)] {
        run_once(&config).await.unwrap();
        let spool =
            Spool::open(&data.path().join("spool"), config.spool).expect("the directory is free again");
        assert_eq!(spool.durable_seq(Lane::State), events, "start {start}");
    }
}

// Cases: S18
#[tokio::test]
async fn a_second_agent_is_told_what_is_in_its_way() {
    let data = tempfile::tempdir().unwrap();
    enrol(data.path());
    let config = config(data.path());
    let _first = Spool::open(&data.path().join("spool"), config.spool).unwrap();
    let error = run_once(&config).await.unwrap_err();
    assert!(error.to_string().contains("in use by another agent"), "{error}");
    let small = spool::Config { max_bytes: 1, ..config.spool };
    let other = tempfile::tempdir().unwrap();
    enrol(other.path());
    let error = run_once(&Config { spool: small, ..self::config(other.path()) }).await.unwrap_err();
    assert!(error.to_string().contains("too small"), "{error}");
}

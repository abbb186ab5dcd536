//! ⇄ A new certificate before the old one ends.
//!
//! At half of a certificate's life, give or take a tenth, a new key asks for the next one, over a connection of its
//! own that shows the present one. The stream goes on undisturbed: the new certificate is used from its next
//! connection on. When the old one has run out, or another authority signs than the one that is known here, `recover`
//! asks instead. Promises: a failure is retried with growing waits for as long as it takes; nothing is ever removed.
//! The certificate's dates are the collector's; this host's clock may be years off and may be set at any time. So it is
//! renewed when any of what can be known says that it is time: `Due`.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError, Endpoint};
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_client::EnrollmentServiceClient;
use tocsin_shared::certificate::BACKDATED;
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::TlsError;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::explain::one_line;
use crate::identity::{Identity, IdentityDir, IdentityError};
use crate::recover::{RecoverError, recover};
use crate::tick::Reading;
use crate::trust::Trust;

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For the answer, which the collector gives when it is durable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the time is looked at: a timer does not count suspend, and the wall clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether this host has been enrolled meanwhile.
const ENROLLED_LOOK: Duration = Duration::from_secs(2);
/// The ceilings of the waits between attempts. A certificate that lives a day leaves hours for them.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the collector does not renew the certificate: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host has no identity any more")]
    NotEnrolled,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// Keeps the certificate in `data_dir` fresh until told to stop. `collector` overrides the identity's endpoint.
/// Whoever waits for a new certificate is told by `renewed`.
pub(crate) async fn run(
    data_dir: PathBuf,
    collector: Option<Endpoint>,
    (renewed, trust): (Arc<Notify>, Arc<Trust>),
    stop: CancellationToken,
) {
    let kept = async {
        loop {
            if let Err(error) = until_due(&data_dir, &trust).await {
                if matches!(error, RenewError::NotEnrolled) {
                    sleep(ENROLLED_LOOK).await;
                    continue;
                }
                tracing::warn!(error = one_line(&error), "cannot tell when the certificate is to be renewed");
                sleep(RETRY.1).await;
                continue;
            }
            let mut failures = 0;
            while let Err(error) = renew_or_recover(&data_dir, collector.as_ref(), &trust).await {
                let wait = wait_after(failures, rand::random());
                failures += 1;
                let retry_in_s = wait.as_secs();
                tracing::warn!(error = one_line(&error), retry_in_s, "the certificate is not renewed yet");
                sleep(wait).await;
            }
            renewed.notify_one();
            sleep(load(&data_dir).map_or(RETRY.1, |identity| identity.renewals_apart())).await;
        }
    };
    // Never ends by itself.
    let _: Option<std::convert::Infallible> = stop.run_until_cancelled(kept).await;
}

/// The wait after some failures; `random` is from 0 to 1.
fn wait_after(failures: u32, random: f64) -> Duration {
    let ceiling = RETRY.0.saturating_mul(1 << failures.min(8)).min(RETRY.1);
    ceiling.mul_f64(if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 }).max(Duration::from_secs(1))
}

async fn until_due(data_dir: &Path, trust: &Trust) -> Result<(), RenewError> {
    let identity = load(data_dir)?;
    let at = identity.renew_at(rand::random());
    tracing::info!(serial = identity.serial, until = %identity.not_after, renewal = %at, "certificate");
    let due = Due {
        at,
        after: at.since(identity.issued_at()),
        begins: identity.not_before,
        received: IdentityDir::open(data_dir)?.received_at(),
        looked_at_boot_ms: Reading::now().boot_ms,
    };
    while let Some(wait) = due.wait(Reading::now()) {
        if trust.asked_within(wait).await {
            tracing::info!(
                "the certificate is renewed before its time: the collector's authority has changed, or may have"
            );
            break;
        }
    }
    Ok(())
}

/// When a certificate is to be renewed, by a clock that need not be right.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// By a clock that is.
    at: Timestamp,
    /// The same as a span from its issue.
    after: Duration,
    /// When it begins: a clock that is earlier is behind, nobody knows how far.
    begins: Timestamp,
    /// When it was written here, by this host's clock: what the clock is off by cancels out.
    received: Option<Timestamp>,
    /// CLOCK_BOOTTIME when it was first looked at: no setting of the clock changes what went by since.
    looked_at_boot_ms: u64,
}

impl Due {
    /// How long to wait before the next look; `None` when it is time.
    fn wait(&self, now: Reading) -> Option<Duration> {
        let looked_at = Duration::from_millis(now.boot_ms.saturating_sub(self.looked_at_boot_ms));
        let set_back = |received: Timestamp| now.wall < received.minus(BACKDATED);
        let held = self.received.map_or(Duration::ZERO, |received| now.wall.since(received));
        let is_due = now.wall >= self.at
            || now.wall < self.begins
            || self.received.is_some_and(set_back)
            || held.max(looked_at) >= self.after;
        let left = self.at.since(now.wall).min(self.after.saturating_sub(held.max(looked_at)));
        (!is_due).then(|| LOOK_EVERY.min(left).max(Duration::from_millis(10)))
    }
}

fn load(data_dir: &Path) -> Result<Identity, RenewError> {
    IdentityDir::open(data_dir)?.load()?.ok_or(RenewError::NotEnrolled)
}

/// Renews, or, when the certificate has run out, proves the key. Our clock may be wrong about that, so it is renewed if
/// the collector lets it. The same when one end does not know the other's authority any more.
async fn renew_or_recover(
    data_dir: &Path,
    collector: Option<&Endpoint>,
    trust: &Trust,
) -> Result<Timestamp, RenewError> {
    let present = load(data_dir)?;
    let (left, now) = (present.not_after, Reading::now().wall);
    if left > now {
        warn_of_end(&present, now);
    }
    let error = match renew(data_dir, collector).await {
        Ok(renewed) => {
            trust.read(&renewed);
            return Ok(renewed.not_after);
        }
        Err(error) if left > now && !error.is_strange() => return Err(error),
        Err(error) => error,
    };
    let why = one_line(&error);
    tracing::warn!(ends = %left, why, "the certificate is of no use: asking for another one by proof of its key");
    let recovered = recover(&IdentityDir::open(data_dir)?, &present).await?;
    trust.read(&recovered);
    tracing::info!(serial = recovered.serial, until = %recovered.not_after, "this host has recovered");
    Ok(recovered.not_after)
}

/// A renewal is due at half of a life; with a quarter left something keeps failing.
fn warn_of_end(present: &Identity, now: Timestamp) {
    let percent = present.percent_left(now);
    let until = present.not_after;
    if percent < 10 {
        tracing::error!(%until, percent, "the certificate is about to run out and could not be renewed yet");
    } else if percent < 25 {
        tracing::warn!(%until, percent, "the certificate could not be renewed yet");
    }
}

impl RenewError {
    /// Whether the collector may have another authority than this host knows, or not know that of its certificate: then
    /// the connection breaks off, or is not made at all.
    fn is_strange(&self) -> bool {
        use ConnectError::{CertificateRefused, UnknownAuthority};
        match self {
            Self::Connect(error) => matches!(error, UnknownAuthority { .. } | CertificateRefused { .. }),
            Self::Refused(status) => status.source().is_some(),
            _ => false,
        }
    }
}

/// Asks for the next certificate once.
async fn renew(data_dir: &Path, collector: Option<&Endpoint>) -> Result<Identity, RenewError> {
    let present = load(data_dir)?;
    let dir = IdentityDir::open(data_dir)?;
    let key = dir.pending_key()?;
    let request = pb::RenewRequest { csr: key.csr_der()? };
    let endpoint = collector.unwrap_or(&present.place.collector);
    let channel = connect::connect(endpoint, present.tls()?, CONNECT_TIMEOUT).await?;
    let mut client = EnrollmentServiceClient::new(channel);
    let answer = timeout(ANSWER_TIMEOUT, client.renew(request)).await.map_err(|_| RenewError::TimedOut)?;
    let pb::RenewResponse { certificate_pem, ca_pem } = answer.map_err(RenewError::Refused)?.into_inner();
    let identity = dir.renewed(key, &certificate_pem, &ca_pem, &present)?;
    tracing::info!(serial = identity.serial, until = %identity.not_after, "the certificate is renewed");
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_anything_up_to_a_growing_ceiling() {
        for (failures, random, seconds) in [
            (0, 1.0, 60),
            (1, 1.0, 120),
            (2, 0.5, 120),
            (9, 1.0, 600),
            (u32::MAX, 1.0, 600),
            (0, 0.0, 1),
            (3, f64::NAN, 480),
        ] {
            assert_eq!(
                wait_after(failures, random),
                Duration::from_secs(seconds),
                "{failures} failures, {random}"
            );
        }
    }

    // Cases: T4, T7, N17
    #[test]
    fn it_is_time_whatever_the_clock_says() {
        const HOUR: u64 = 3_600_000;
        let wall = |hours: f64| Timestamp::from_millis(1_800_000_000_000 + (hours * HOUR as f64) as i64);
        // Issued at 0 h for a day, to be renewed at 12 h; looked at first at boot 5 h.
        let due = |received| Due {
            at: wall(12.0),
            after: Duration::from_millis(12 * HOUR),
            begins: wall(-0.08),
            received,
            looked_at_boot_ms: 5 * HOUR,
        };
        let year = 24.0 * 365.0;
        for (received, now, boot_hours, is_due, why) in [
            (Some(0.0), 1.0, 6, false, "a right clock"),
            (Some(0.0), 12.0, 16, true, "a right clock, at half of its life"),
            (None, 1.0, 6, false, "no time of writing is known"),
            (Some(0.0), 12.0, 5, true, "suspended"),
            (Some(-year), -year + 1.0, 6, true, "a clock that is a year behind"),
            (Some(-3.0), -2.0, 6, true, "a clock that is hours behind"),
            (Some(0.0), 1.0, 17, true, "a clock that was set back while it waited"),
            (Some(6.0), 1.0, 5, true, "a clock that was set back before it was looked at"),
            (Some(-10.0), 2.5, 5, true, "a clock that was late and was set right since"),
            (Some(year), year + 1.0, 6, true, "a clock that is a year ahead"),
        ] {
            let now = Reading { wall: wall(now), boot_ms: boot_hours * HOUR };
            assert_eq!(due(received.map(wall)).wait(now).is_none(), is_due, "{why}");
        }
        let soon = Reading { wall: wall(11.999), boot_ms: 5 * HOUR };
        assert_eq!(due(None).wait(soon), Some(Duration::from_millis(3_600)));
    }

    #[tokio::test]
    async fn without_an_identity_nothing_is_asked() {
        let data = tempfile::tempdir().unwrap();
        assert!(matches!(renew(data.path(), None).await, Err(RenewError::NotEnrolled)));
        let trust = Trust::new(data.path().to_owned());
        assert!(matches!(until_due(data.path(), &trust).await, Err(RenewError::NotEnrolled)));
    }
}

//! Waiting for what a program will do: looked at again and again until it is so, never longer than a deadline.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks: short against what is measured, long against what a look costs.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something; `what` completes "never saw …" when there is not.
pub async fn wait_until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return Ok(seen);
        }
        if begun.elapsed() > within {
            bail!("never saw {what}, waited {} s", within.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_until_it_is_so_or_the_deadline() {
        let mut looks = 0;
        let seen = wait_until("three looks", Duration::from_secs(1), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(seen.await.unwrap(), 3);
        let never = wait_until("the end of time", Duration::ZERO, async || None::<()>).await;
        assert_eq!(never.unwrap_err().to_string(), "never saw the end of time, waited 0 s");
    }
}

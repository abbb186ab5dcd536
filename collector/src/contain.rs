//! A panic stays where it happened: the call that met it fails, and everything else goes on.
//!
//! Pure but for a counter. What panics is a fault of ours, so it is counted and the log has its place.
//! Not here: what a panic means to a part that there is one of (`Fatal`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics were contained since the start.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// What was run panicked. What it held is dropped; whoever shares something with it must bear a change half made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it panicked; the log has the place")]
pub struct Panicked;

/// A future whose panic is its result. It must not be polled after that.
pub struct Contained<F>(Pin<Box<F>>);

/// Contains the panics of a future.
pub fn contained<F: Future>(future: F) -> Contained<F> {
    Contained(Box::pin(future))
}

/// Contains the panics of a call.
pub fn called<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        Panicked
    })
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => {
                PANICS.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(Err(Panicked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C11
    #[tokio::test]
    async fn a_panic_is_a_result() {
        let before = panics();
        assert_eq!(contained(async { 7 }).await, Ok(7));
        let broken = async {
            tokio::task::yield_now().await;
            panic!("a test of what happens then");
        };
        assert_eq!(contained(broken).await, Err::<(), _>(Panicked));
        assert!(panics() > before);
    }
}

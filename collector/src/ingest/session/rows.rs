//! A session's rows on their way to the writer: new ones at once, those of a backlog when they have a place.

use std::iter::Peekable;
use std::time::{Duration, Instant};

use tocsin_proto::pb;
use tocsin_proto::wire::ROWS_MAX;
use tonic::Status;

use super::super::backlog::Kept;
use super::{Agents, Sender, Session, unavailable};
use crate::clock::now;
use crate::journal::rows::{Batch, Place};

/// Values that are handed to the rows' writer at once: with its queue this bounds what a slow disk piles up.
const BATCH_VALUES: usize = 64 * 1024;
/// How far ahead of the collector's clock a row may be: what the clock mapping leaves without a step.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(60);

impl Session {
    /// Hands over new rows, and lets those of a backlog wait for their place.
    pub(super) async fn take_rows(
        &mut self,
        agents: &Agents,
        down: &Sender,
        rows: Vec<pb::Row>,
    ) -> Result<(), Status> {
        if rows.len() > ROWS_MAX {
            return Err(Status::invalid_argument(format!(
                "{} rows in a message, at most {ROWS_MAX}",
                rows.len()
            )));
        }
        let received = Instant::now();
        if self.backlog.takes(&rows) {
            self.backlog.push(Kept { rows, received });
            return Ok(());
        }
        let (mut rows, mut refused) = (rows.into_iter().peekable(), false);
        while rows.peek().is_some() {
            // Decoded even when they are refused: later rows of their chains need it.
            let batch = self.decode(&mut rows, received)?;
            match agents.room.takes_rows() {
                true => agents.rows.take(batch).await.map_err(unavailable)?,
                false => refused = true,
            }
        }
        if refused { self.refuse(agents, down).await } else { Ok(()) }
    }

    /// Hands over what one place is for; the rest waits for another.
    pub(super) async fn hand_over_kept(
        &mut self,
        agents: &Agents,
        down: &Sender,
        Kept { rows, received }: Kept,
        place: Place,
    ) -> Result<(), Status> {
        let mut rows = rows.into_iter().peekable();
        let batch = self.decode(&mut rows, received)?;
        if rows.peek().is_some() {
            self.backlog.push_front(Kept { rows: rows.collect(), received });
        }
        if !agents.room.takes_backlog() {
            return self.refuse(agents, down).await;
        }
        agents.rows.take_kept(batch, place).await.map_err(unavailable)
    }

    /// The next rows as a batch, as far as it may be large.
    fn decode(
        &mut self,
        rows: &mut Peekable<std::vec::IntoIter<pb::Row>>,
        received: Instant,
    ) -> Result<Batch, Status> {
        let latest = now().plus(AHEAD_MAX);
        let (mut taken, mut values) = (Vec::new(), 0);
        while let Some(row) = rows.next_if(|_| values < BATCH_VALUES) {
            let row = self.rows.row(row, &self.mapping, latest).map_err(Status::invalid_argument)?;
            values += row.values.len();
            taken.push(row);
        }
        let (agent, epoch, acknowledge) = (self.agent, self.epoch, self.acknowledge.clone());
        Ok(Batch { agent, epoch, rows: taken, received, acknowledge })
    }
}

//! A session's records, of the lanes of outcomes and of state: what the ledger has of them is what is acknowledged.

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::wire::RECORDS_MAX;
use tocsin_shared::event::Actor;
use tocsin_shared::identity::Epoch;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tokio::sync::watch;
use tonic::Status;

use super::super::{limits, records};
use super::rows::AHEAD_MAX;
use super::{Agents, Sender, Session, lane_out, refused, unavailable};
use crate::clock::now;
use crate::jobs::Place;
use crate::state::{Command, Refusal};

impl Session {
    /// Hands over records; each is refused or durable before any of them is acknowledged.
    pub(super) async fn take_records(
        &mut self,
        agents: &Agents,
        down: &Sender,
        lane: i32,
        records: Vec<pb::Record>,
    ) -> Result<(), Status> {
        let lane = Lane::from_number(lane).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if lane == Lane::Samples || records.len() > RECORDS_MAX {
            return Err(Status::invalid_argument(
                "records are of the outcomes or the state lane, at most 256",
            ));
        }
        let gaps: Vec<(Epoch, (u64, u64))> =
            records.iter().filter_map(|record| records::samples_gap(self.epoch, record)).collect();
        let latest = now().plus(AHEAD_MAX);
        let commands = records.into_iter().map(|record| {
            let content = records::content(&record);
            let place = Place { epoch: self.epoch, lane, seq: record.seq, content };
            records::command(self.agent, place, record, &self.mapping, latest).unwrap_or_else(|why| {
                // It would come for ever if it were refused.
                let what = limits::note(format!("a record that cannot be read: {why}"));
                Command::HostEventNoted { agent: self.agent, what, at: now(), step_ms: 0, place }
            })
        });
        let decided = agents.ledger.submit_all(commands.collect(), Actor::Agent(self.agent)).await;
        for decided in decided.map_err(unavailable)? {
            if let Err(conflict @ Refusal::SeqConflict { .. }) = &decided {
                tracing::error!(agent = %self.agent, %conflict, "a record is not taken");
            }
            decided.map_err(refused)?;
        }
        for (epoch, gap) in gaps {
            let own = epoch == self.epoch;
            // What is taken of another epoch is not this session's to acknowledge.
            let acknowledge =
                if own { self.acknowledge.clone() } else { watch::Sender::new(Ranges::default()) };
            let rows = agents.rows.gap((self.agent, epoch), gap, acknowledge);
            rows.await.map_err(unavailable)?;
        }
        self.acknowledge_lanes(down, self.records_taken(agents).await?).await
    }

    /// What is durable of the lanes of records: the ledger alone knows, also of what an older session brought.
    pub(super) async fn records_taken(
        &self,
        agents: &Agents,
    ) -> Result<Vec<pb::LaneAcknowledgement>, Status> {
        let (agent, epoch) = (self.agent, self.epoch);
        let lanes = agents.ledger.read(move |state| {
            [Lane::Outcomes, Lane::State].map(|lane| (lane, state.lane(agent, epoch, lane).cloned()))
        });
        let lanes = lanes.await.map_err(unavailable)?;
        Ok(lanes.iter().map(|(lane, taken)| lane_out(*lane, &taken.clone().unwrap_or_default())).collect())
    }

    /// Says which record it has under the highest number of each lane, so that another one in the spool is noticed.
    pub(super) async fn name_tips(
        &self,
        agents: &Agents,
        lanes: &mut [pb::LaneAcknowledgement],
    ) -> Result<(), Status> {
        let (agent, epoch) = (self.agent, self.epoch);
        let tips = [Lane::Outcomes, Lane::State];
        let tips = agents.ledger.read(move |state| tips.map(|lane| state.lane_tip(agent, epoch, lane)));
        for (lane, tip) in lanes.iter_mut().zip(tips.await.map_err(unavailable)?) {
            (lane.tip, lane.tip_fingerprint) = tip.unwrap_or_default();
        }
        Ok(())
    }
}

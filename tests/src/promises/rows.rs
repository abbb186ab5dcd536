//! What one virtual host made, and how much of it was acknowledged.

use std::collections::BTreeMap;

use tocsin_proto::pb;

use crate::api::Api;

/// A row: its event time, what each slot's level was.
#[derive(Clone, Debug)]
pub struct Row {
    pub at_ms: i64,
    pub levels: Vec<bool>,
}

/// A run that ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub run_id: String,
    pub job_name: String,
    pub exit_code: i32,
    pub clock: pb::ClockReading,
}

/// A host's memory: row `n` of its lane is `rows[n - 1]`, outcome `n` likewise.
#[derive(Clone, Debug, Default)]
pub struct HostBook {
    pub hostname: String,
    pub rows: Vec<Row>,
    pub outcomes: Vec<Outcome>,
    pub rows_acknowledged: u64,
    pub outcomes_acknowledged: u64,
    /// Sent at some time, perhaps never received.
    pub rows_sent: u64,
    pub outcomes_sent: u64,
}

impl HostBook {
    /// What a Welcome or an acknowledgement says; an error if it takes something back or takes what was never sent.
    pub fn acknowledged(&mut self, rows: u64, outcomes: u64) -> Result<(), String> {
        let lanes = [
            ("rows", rows, &mut self.rows_acknowledged, self.rows_sent),
            ("outcomes", outcomes, &mut self.outcomes_acknowledged, self.outcomes_sent),
        ];
        for (what, taken, known, sent) in lanes {
            if taken < *known || taken > sent {
                let host = &self.hostname;
                return Err(format!(
                    "{host}: {what} up to {taken} are taken, {known} were, {sent} were sent"
                ));
            }
            *known = taken;
        }
        Ok(())
    }

    /// Whether everything that was made is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.rows_acknowledged == self.rows.len() as u64
            && self.outcomes_acknowledged == self.outcomes.len() as u64
    }
}

/// Each acknowledged outcome is one event.
pub(super) fn check_outcomes(book: &HostBook, events: &[&pb::Event]) -> Vec<String> {
    let mut ends: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for event in events {
        if let (Some(pb::event::Subject::Run(run)), "job.succeeded" | "job.failed") =
            (&event.subject, event.kind.as_str())
        {
            ends.entry(&run.run_id).or_default().push(exit_code(run));
        }
    }
    let wrong = book.outcomes.iter().filter_map(|outcome| {
        let found = ends.get(outcome.run_id.as_str()).cloned().unwrap_or_default();
        let host = &book.hostname;
        let Outcome { run_id, exit_code, .. } = outcome;
        (found != [*exit_code])
            .then(|| format!("{host}: run {run_id} ended with {exit_code}, told as {found:?}"))
    });
    wrong.collect()
}

fn exit_code(run: &pb::JobRun) -> i32 {
    match run.result.as_ref().and_then(|result| result.kind.as_ref()) {
        Some(pb::run_result::Kind::Succeeded(_)) => 0,
        Some(pb::run_result::Kind::Failed(failed)) => failed.exit_code,
        _ => -1,
    }
}

/// Every row can be asked for, at its time and with its values, and no other.
pub(super) async fn ask(api: &Api, book: &HostBook) -> anyhow::Result<Vec<String>> {
    let host = &book.hostname;
    let mut broken = Vec::new();
    let slots = book.rows.first().map_or(0, |row| row.levels.len());
    let number = |row: usize| (row + 1) as f64;
    let mut series = vec![(format!("promise_row{{instance={host:?}}}[2h]"), None)];
    for slot in [0, slots / 2, slots.saturating_sub(1)] {
        series.push((format!("promise_level{{instance={host:?},slot=\"{slot}\"}}[2h]"), Some(slot)));
    }
    for (selector, slot) in series {
        let stored = api.stored(&selector).await?;
        let stored: Vec<(i64, f64)> = stored.iter().map(|point| (point.at_ms, point.value)).collect();
        let value =
            |at: usize, row: &Row| slot.map_or(number(at), |slot| f64::from(u8::from(row.levels[slot])));
        let made: Vec<(i64, f64)> =
            book.rows.iter().enumerate().map(|(at, row)| (row.at_ms, value(at, row))).collect();
        if let Some(at) = (0..stored.len().max(made.len())).find(|at| stored.get(*at) != made.get(*at)) {
            let (is, was) = (stored.get(at), made.get(at));
            broken.push(format!("{selector}: point {at} is {is:?}, sent was {was:?}"));
        }
    }
    for outcome in &book.outcomes {
        let request = pb::GetRunRequest { run_id: outcome.run_id.clone() };
        let run = api.jobs().get_run(request).await?.into_inner().run;
        if run.as_ref().map(exit_code) != Some(outcome.exit_code) {
            broken.push(format!("{host}: run {} is stored as {run:?}", outcome.run_id));
        }
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_takes_nothing_back_and_nothing_that_was_not_sent() {
        let mut book = HostBook { rows_sent: 5, outcomes_sent: 1, ..HostBook::default() };
        book.acknowledged(3, 0).unwrap();
        book.acknowledged(3, 1).unwrap();
        assert!(book.acknowledged(2, 1).is_err(), "taken back");
        assert!(book.acknowledged(6, 1).is_err(), "never sent");
        assert!(book.acknowledged(5, 0).is_err(), "an outcome taken back");
    }
}

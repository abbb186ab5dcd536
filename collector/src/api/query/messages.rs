//! Answers in messages of bounded size: every client takes them, however much there is.
//!
//! Pure. A series is never divided: 11,000 points and 32 labels at their longest are far below a message's bound.

use prost::Message;
use tocsin_promql::{Element, SeriesPoints};
use tocsin_proto::convert::labels_out;
use tocsin_proto::pb;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::Sample;
use tocsin_shared::time::Timestamp;
use tonic::Status;

use super::delta::{Delta, Notes};

/// A message is closed once it has as much: with the largest series on top it is below 2 MiB.
const MESSAGE_BYTES: usize = 1 << 20;

/// The answer to a range query, made as it is sent: only one message of it is there twice.
pub(super) struct RangeMessages {
    series: std::vec::IntoIter<SeriesPoints>,
    /// What goes with the first message, which is sent even without series.
    notes: Option<Notes>,
}

impl RangeMessages {
    pub(super) fn new(series: Vec<SeriesPoints>, notes: Notes) -> Self {
        Self { series: series.into_iter(), notes: Some(notes) }
    }
}

impl Iterator for RangeMessages {
    type Item = Result<pb::RangeResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut series = Vec::new();
        let mut bytes = 0;
        while bytes < MESSAGE_BYTES
            && let Some(next) = self.series.next()
        {
            let next = series_out(&next);
            bytes += next.encoded_len();
            series.push(next);
        }
        let notes = self.notes.take();
        if series.is_empty() && notes.is_none() {
            return None;
        }
        let Notes { warnings, infos } = notes.unwrap_or_default();
        Some(Ok(pb::RangeResponse { series, warnings, infos }))
    }
}

/// A series as the wire has it.
pub(super) fn series_out(SeriesPoints { labels, points }: &SeriesPoints) -> pb::PointSeries {
    let point = |Sample { at, value }: &Sample| pb::Point { at_ms: at.as_millis(), value: *value };
    pb::PointSeries { labels: labels_out(labels), points: points.iter().map(point).collect() }
}

/// An element of an instant vector as the wire has it.
pub(super) fn element_out(Element { labels, value }: &Element, at: Timestamp) -> pb::PointSeries {
    let point = pb::Point { at_ms: at.as_millis(), value: *value };
    pb::PointSeries { labels: labels_out(labels), points: vec![point] }
}

/// What a subscriber is sent: all parts of one change, in order. Never none.
pub(super) fn parts(
    delta: Delta,
    (result_type, at): (&str, Timestamp),
    notes: &Notes,
) -> Vec<pb::SubscribeQueryResponse> {
    let (update, changed, gone) = match delta {
        Delta::Whole(all) => (pb::QueryUpdate::Whole, all, Vec::new()),
        Delta::Changes { changed, gone } => (pb::QueryUpdate::Changes, changed, gone),
        Delta::Unchanged => (pb::QueryUpdate::Unchanged, Vec::new(), Vec::new()),
    };
    let part = || pb::SubscribeQueryResponse {
        at_ms: at.as_millis(),
        result_type: result_type.to_owned(),
        update: update.into(),
        more: true,
        ..Default::default()
    };
    let mut parts = vec![part()];
    if update != pb::QueryUpdate::Unchanged {
        let Notes { warnings, infos } = notes.clone();
        parts[0] = pb::SubscribeQueryResponse { warnings, infos, ..part() };
    }
    let mut bytes = 0;
    let mut room = |parts: &mut Vec<pb::SubscribeQueryResponse>, more: usize| {
        if MESSAGE_BYTES <= bytes {
            bytes = 0;
            parts.push(part());
        }
        bytes += more;
        parts.len() - 1
    };
    for element in &changed {
        let series = element_out(element, at);
        let at = room(&mut parts, series.encoded_len());
        parts[at].series.push(series);
    }
    for labels in &gone {
        let labels = names_out(labels);
        let at = room(&mut parts, labels.encoded_len());
        parts[at].gone.push(labels);
    }
    if let Some(last) = parts.last_mut() {
        last.more = false;
    }
    parts
}

/// A series without points as the wire has it.
pub(super) fn names_out(labels: &Labels) -> pb::SeriesLabels {
    pb::SeriesLabels { labels: labels_out(labels) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(5);

    fn series(number: usize, points: i64) -> SeriesPoints {
        let sample = |at| Sample { at: Timestamp::from_millis(at), value: 1.5 };
        let labels = Labels::series("up", &[("instance", &format!("web-{number}"))]);
        SeriesPoints { labels, points: (0..points).map(sample).collect() }
    }

    fn notes() -> Notes {
        Notes { warnings: vec!["hm".into()], infos: vec!["oh".into()] }
    }

    #[test]
    fn a_range_comes_whole_in_messages_that_fit() {
        for (count, points) in [(0, 0), (1, 1), (500, 11_000), (40_000, 3)] {
            let all: Vec<SeriesPoints> = (0..count).map(|number| series(number, points)).collect();
            let messages: Vec<pb::RangeResponse> =
                RangeMessages::new(all.clone(), notes()).map(Result::unwrap).collect();
            let most = messages.iter().map(Message::encoded_len).max().unwrap();
            assert!(most < 2 << 20, "{count} series of {points}: {most}");
            assert_eq!(messages[0].warnings, ["hm"]);
            assert_eq!(messages[0].infos, ["oh"]);
            assert!(messages[1..].iter().all(|message| message.warnings.is_empty()));
            let sent: Vec<pb::PointSeries> =
                messages.into_iter().flat_map(|message| message.series).collect();
            assert_eq!(sent, all.iter().map(series_out).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_change_comes_in_parts_of_which_only_the_last_ends_it() {
        let element = |number| Element { labels: series(number, 0).labels, value: 1.0 };
        let labels = |number| series(number, 0).labels;
        for (changed, gone) in [(0, 0), (1, 0), (0, 1), (50_000, 50_000)] {
            let delta = Delta::Changes {
                changed: (0..changed).map(element).collect(),
                gone: (0..gone).map(labels).collect(),
            };
            let parts = parts(delta, ("vector", AT), &notes());
            assert!(parts.iter().all(|part| part.encoded_len() < 2 << 20));
            assert_eq!(parts.iter().map(|part| part.series.len()).sum::<usize>(), changed);
            assert_eq!(parts.iter().map(|part| part.gone.len()).sum::<usize>(), gone);
            let (last, before) = parts.split_last().unwrap();
            assert!(!last.more && before.iter().all(|part| part.more));
            assert!(parts.iter().all(|part| part.at_ms == 5 && part.update() == pb::QueryUpdate::Changes));
            assert_eq!(parts[0].warnings, ["hm"]);
            assert_eq!(changed < 2, parts.len() == 1, "{changed} {gone}");
        }
        let same = parts(Delta::Unchanged, ("vector", AT), &notes());
        assert!(same.len() == 1 && same[0].warnings.is_empty() && !same[0].more);
    }
}

//! The feed as a subscriber sees it.

use tocsin_proto::pb::subscribe_response::Kind;
use tokio_stream::StreamExt;
use tonic::Code;

use super::super::testing::{Collector, EPOCH, call, call_as};
use super::*;

struct Subscriber(Items);

impl Subscriber {
    async fn open(collector: &Collector, from: From) -> Self {
        Self::open_as(collector, "ann", Role::Admin, from, "", &[]).await.unwrap()
    }

    async fn open_as(
        collector: &Collector,
        who: &str,
        role: Role,
        from: From,
        consumer: &str,
        kinds: &[&str],
    ) -> Result<Self, Status> {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let request = pb::SubscribeRequest {
            from: Some(from),
            consumer: consumer.into(),
            kinds,
            accept_filter_change: false,
        };
        let stream = FeedService::subscribe(&collector.api, call_as(who, role, request)).await?;
        Ok(Self(stream.into_inner()))
    }

    async fn pager(collector: &Collector, from: From) -> Self {
        Self::open_as(collector, "pager", Role::Consumer, from, "pager", &["incident."]).await.unwrap()
    }

    async fn item(&mut self) -> Result<(String, Kind), Status> {
        let item = self.0.next().await.expect("the stream goes on")?;
        Ok((item.cursor, item.kind.expect("an item has a kind")))
    }

    /// The next item in short, and its cursor.
    async fn next(&mut self) -> (String, String) {
        let (cursor, kind) = self.item().await.unwrap();
        let short = match kind {
            Kind::Event(event) => event.kind,
            Kind::Heartbeat(_) => "heartbeat".into(),
            Kind::SnapshotBegin(_) => "begin".into(),
            Kind::SnapshotEnd(_) => "end".into(),
            Kind::Gap(gap) => format!("gap {}-{}", gap.first_missing_seq, gap.last_missing_seq),
        };
        (short, cursor)
    }

    async fn expect(&mut self, items: &[&str]) -> String {
        let mut last = String::new();
        for expected in items {
            let (short, cursor) = self.next().await;
            assert_eq!(short, *expected);
            last = cursor;
        }
        last
    }
}

async fn ack(collector: &Collector, who: &str, cursor: &str) -> Result<u64, Status> {
    let request = pb::AckRequest { consumer: "pager".into(), cursor: cursor.into() };
    let acked = collector.api.ack(call_as(who, Role::Consumer, request)).await?;
    Ok(acked.into_inner().consumer.unwrap().acked_seq)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_then_what_happens() {
    let collector = Collector::start().await;
    collector.fires("one", 0, &["sda"]).await;
    let mut feed = Subscriber::open(&collector, From::Snapshot(true)).await;
    let begin = feed.expect(&["begin"]).await;
    assert_eq!(begin, format!("{EPOCH}-snapshot.00000000"), "who leaves now begins the snapshot again");
    let end = feed.expect(&["alert.triggered", "incident.triggered", "end"]).await;
    collector.fires("two", 0, &["sdb"]).await;
    feed.expect(&["alert.triggered", "incident.triggered"]).await;
    let mut again = Subscriber::open(&collector, From::Cursor(end)).await;
    again.expect(&["alert.triggered", "incident.triggered"]).await;
    collector.stop().await;
}

// Cases: C-F1
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_gives_exactly_the_events_after_it() {
    let collector = Collector::start().await;
    for rule in ["one", "two", "three"] {
        collector.fires(rule, 0, &["sda"]).await;
    }
    let mut all = Subscriber::open(&collector, From::Earliest(true)).await;
    let mut seen = vec![all.next().await];
    assert_eq!(seen[0].0, "host.enrolled");
    for _ in 0..6 {
        seen.push(all.next().await);
    }
    for (at, (_, cursor)) in seen.iter().enumerate() {
        let mut resumed = Subscriber::open(&collector, From::Cursor(cursor.clone())).await;
        for expected in &seen[at + 1..] {
            assert_eq!(resumed.next().await, *expected);
        }
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn now_and_filters_leave_out_the_rest() {
    let collector = Collector::start().await;
    collector.fires("one", 0, &["sda"]).await;
    collector.principal("kim", Role::Viewer, 2).await;
    let (now, kinds) = (From::Now(true), ["incident."]);
    let mut feed = Subscriber::open_as(&collector, "kim", Role::Viewer, now, "", &kinds).await.unwrap();
    let note = |text: &str| Command::Note(crate::state::testing::on(1, text));
    collector.fires("one", 0, &["sda"]).await;
    collector.fires("two", 0, &["sdb"]).await;
    collector.submit(note("words")).await;
    feed.expect(&["incident.triggered", "incident.noted"]).await;
    collector.stop().await;
}

// Cases: F6, C16
#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_elsewhere_are_refused() {
    let collector = Collector::start().await;
    collector.principal("pager", Role::Consumer, 2).await;
    Subscriber::pager(&collector, From::Acked(true)).await;
    for (cursor, code) in [
        ("e2-1", Code::FailedPrecondition),
        ("e1-99999", Code::FailedPrecondition),
        ("e2-snapshot", Code::FailedPrecondition),
        ("nonsense", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let from = From::Cursor(cursor.into());
        let subscribed = Subscriber::open_as(&collector, "ann", Role::Admin, from, "", &[]).await;
        assert_eq!(subscribed.err().unwrap().code(), code, "{cursor}");
        assert_eq!(ack(&collector, "pager", cursor).await.unwrap_err().code(), code, "{cursor}");
    }
    for (from, kinds) in
        [(From::Earliest(false), &[][..]), (From::Acked(true), &[]), (From::Now(true), &["alert.pending"])]
    {
        let subscribed = Subscriber::open_as(&collector, "ann", Role::Admin, from, "", kinds).await;
        assert_eq!(subscribed.err().unwrap().code(), Code::InvalidArgument);
    }
    collector.stop().await;
}

// Cases: F5, C-F3
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_then_what_is_open_then_the_rest() {
    let collector = Collector::start().await;
    collector.fires("one", 0, &["sda"]).await;
    let note = |text: &str| Command::Note(crate::state::testing::on(1, text));
    let damaged = collector.submit(note("damaged words")).await[0].seq;
    collector.submit(note("later words")).await;
    let collector = collector.restart_with_damage("damaged words").await;
    let before = format!("{EPOCH}-{}", damaged - 1);
    let mut feed = Subscriber::open(&collector, From::Cursor(before.clone())).await;
    let gap = format!("gap {damaged}-{damaged}");
    let rest = ["begin", "alert.triggered", "incident.triggered"];
    let told = feed.expect(&[&gap]).await;
    assert!(told.starts_with(&format!("{before}.")), "who leaves now is told again: {told}");
    assert_eq!(feed.expect(&rest).await, told);
    let end = feed.expect(&["end"]).await;
    assert_eq!(end, format!("{EPOCH}-{damaged}.00000000"));
    feed.expect(&["incident.noted"]).await;
    Subscriber::open(&collector, From::Cursor(end)).await.expect(&["incident.noted"]).await;
    collector.stop().await;
}

// Cases: F1, F2, C-F2
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_survives_a_restart() {
    let collector = Collector::start().await;
    collector.principal("pager", Role::Consumer, 2).await;
    let mut feed = Subscriber::pager(&collector, From::Acked(true)).await;
    collector.fires("one", 0, &["sda"]).await;
    collector.fires("two", 0, &["sdb"]).await;
    let first = feed.expect(&["incident.triggered"]).await;
    let second = feed.expect(&["incident.triggered"]).await;
    let acked = ack(&collector, "pager", &first).await.unwrap();
    assert!(first.starts_with(&format!("{EPOCH}-{acked}.")), "{first}");
    assert_eq!(ack(&collector, "pager", &format!("{EPOCH}-1")).await.unwrap(), acked, "never backwards");
    assert_eq!(ack(&collector, "pager", &format!("{EPOCH}-snapshot")).await.unwrap(), acked);
    drop(feed);

    let collector = collector.restart().await;
    let mut feed = Subscriber::pager(&collector, From::Acked(true)).await;
    assert_eq!(feed.expect(&["incident.triggered"]).await, second, "not the first, which is done");
    let listed = collector.api.list_consumers(call(pb::ListConsumersRequest {})).await.unwrap().into_inner();
    let [pb::ConsumerStatus { consumer: Some(consumer), lag, connected: true, gapped: false }] =
        &listed.consumers[..]
    else {
        panic!("{listed:?}")
    };
    assert_eq!((consumer.acked_seq, consumer.owner.as_str()), (acked, "pager"));
    assert_eq!(acked + lag, *collector.api.ledger.head().borrow());
    collector.stop().await;
}

// Cases: C16
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_before_an_older_copy_was_put_back_never_skips() {
    let collector = Collector::start().await;
    collector.fires("one", 0, &["sda"]).await;
    let note = |text: &str| Command::Note(crate::state::testing::on(1, text));
    collector.submit(note("kept")).await;
    let (collector, copy) = collector.copied().await;
    let mut feed = Subscriber::open(&collector, From::Now(true)).await;
    collector.submit(note("void")).await;
    collector.submit(note("void, too")).await;
    let shared = feed.expect(&["incident.noted"]).await;
    let ahead = feed.expect(&["incident.noted"]).await;
    collector.stop().await;

    let collector = copy.restored().await;
    let refused = async |cursor: &str| {
        let from = From::Cursor(cursor.to_owned());
        Subscriber::open_as(&collector, "ann", Role::Admin, from, "", &[])
            .await
            .err()
            .map(|s| s.message().to_owned())
    };
    assert!(
        refused(&ahead).await.unwrap().contains("beyond the last event"),
        "nothing has these numbers yet"
    );
    for n in 0..5 {
        collector.submit(note(&format!("new {n}"))).await;
    }
    for cursor in [&shared, &ahead] {
        let why = refused(cursor).await.unwrap_or_else(|| panic!("{cursor} is taken, and skips"));
        assert!(why.contains("an older copy of the data was put back"), "{why}");
    }
    let bare = shared.split('.').next().unwrap();
    assert_eq!(refused(bare).await, None, "an old cursor says no more than its number");
    collector.stop().await;
}

// Cases: F7
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_and_a_consumer_go_on_with_the_filter_they_began_with() {
    let collector = Collector::start().await;
    collector.principal("pager", Role::Consumer, 2).await;
    let open = async |from: From, kinds: &[&str], accept| {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let (from, consumer) = (Some(from), "pager".to_owned());
        let request = pb::SubscribeRequest { from, consumer, kinds, accept_filter_change: accept };
        let opened = collector.api.subscribe(call_as("pager", Role::Consumer, request)).await;
        opened.map(|stream| Subscriber(stream.into_inner())).map_err(|status| status.code())
    };
    let (acked, other) = (|| From::Acked(true), Code::FailedPrecondition);
    let mut feed = open(acked(), &["incident."], false).await.unwrap();
    collector.fires("one", 0, &["sda"]).await;
    let cursor = feed.expect(&["incident.triggered"]).await;
    ack(&collector, "pager", &cursor).await.unwrap();
    let at = || From::Cursor(cursor.clone());
    for (from, kinds, accept, expected, why) in [
        (acked(), &["incident."][..], false, None, "the same"),
        (acked(), &["incident.", "incident."], false, None, "the same words"),
        (acked(), &["incident.", "alert."], false, Some(other), "more"),
        (acked(), &[], false, Some(other), "all"),
        (at(), &["alert."], false, Some(other), "a cursor, too"),
        (at(), &["incident."], false, None, "a cursor of the same"),
        (From::Snapshot(true), &["alert."], false, None, "anew"),
        (acked(), &["alert."], false, None, "and so it goes on"),
        (acked(), &["incident."], false, Some(other), "not with what was before"),
        (acked(), &["incident."], true, None, "accepted"),
        (acked(), &["incident."], false, None, "and kept"),
        (
            From::Cursor(cursor.split('.').next().unwrap().to_owned()),
            &["incident."],
            false,
            None,
            "an old cursor",
        ),
    ] {
        assert_eq!(open(from, kinds, accept).await.err(), expected, "{why}");
    }
    collector.stop().await;
}

// Cases: F4
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_has_one_owner_and_one_subscriber() {
    let collector = Collector::start().await;
    collector.principal("pager", Role::Consumer, 2).await;
    collector.principal("other", Role::Consumer, 3).await;
    let mut older = Subscriber::pager(&collector, From::Acked(true)).await;
    let mut newer = Subscriber::pager(&collector, From::Acked(true)).await;
    let ended = older.item().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Aborted, "another subscriber took over"));
    collector.fires("one", 0, &["sda"]).await;
    let cursor = newer.expect(&["incident.triggered"]).await;

    let subscribe = async |who: &str, role, consumer: &str| {
        let from = From::Acked(true);
        Subscriber::open_as(&collector, who, role, from, consumer, &["incident."])
            .await
            .map(drop)
            .map_err(|s| s.code())
    };
    let denied = Err(Code::PermissionDenied);
    assert_eq!(subscribe("other", Role::Consumer, "pager").await, denied);
    assert_eq!(subscribe("pager", Role::Viewer, "pager").await, denied);
    assert_eq!(subscribe("pager", Role::Consumer, "Not A Name").await, Err(Code::InvalidArgument));
    assert_eq!(subscribe("ann", Role::Admin, "pager").await, Ok(()));
    assert_eq!(ack(&collector, "other", &cursor).await.unwrap_err().code(), Code::PermissionDenied);
    collector.stop().await;
}

// Cases: R19 (partly), C-F5
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_feed_beats_and_ends_with_its_credential() {
    let collector = Collector::start().await.impatient();
    let mut feed = Subscriber::open(&collector, From::Now(true)).await;
    let (cursor, kind) = feed.item().await.unwrap();
    let head = *collector.api.ledger.head().borrow();
    assert!(matches!(kind, Kind::Heartbeat(beat) if beat.head_seq == head));
    assert!(cursor.starts_with(&format!("{EPOCH}-{head}.")), "{cursor}");
    collector.revoke("ann").await;
    let ended = loop {
        match feed.item().await {
            Ok((_, Kind::Heartbeat(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated);
    collector.stop().await;
}

// Cases: F3, C-F4
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_slows_only_itself() {
    let collector = Collector::start().await;
    collector.fires("one", 0, &["sda"]).await;
    let mut slow = Subscriber::open(&collector, From::Earliest(true)).await;
    let mut quick = Subscriber::open(&collector, From::Now(true)).await;
    for note in 0..200 {
        collector.submit(Command::Note(crate::state::testing::on(1, &format!("note {note}")))).await;
        quick.expect(&["incident.noted"]).await;
    }
    let mut notes = 0;
    while notes < 200 {
        notes += usize::from(slow.next().await.0 == "incident.noted");
    }
    collector.stop().await;
}

//! The samples journal over a disk in memory: crashes, segments, duplicates, gaps.

use std::sync::mpsc::{Receiver, sync_channel};

use tocsin_shared::chain::Chain;
use tocsin_shared::disk::{Crash, Fault, MemoryDisk};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::state::testing::{agent, at};

mod damage;
mod power_cuts;
mod received;

const EPOCH: Epoch = Epoch(Uuid::from_u128(9));

struct Bench {
    disk: MemoryDisk,
    sealed: Sealed,
    evaluated_through: u64,
    segment_bytes: u64,
    table: Arc<Table>,
    chains: HashMap<u64, (Chain, u32)>,
}

struct Started {
    rows: Rows,
    store: Arc<Store>,
    unevaluated: Vec<DurableRow>,
    evaluated_at: HashMap<AgentId, Timestamp>,
    problems: Vec<String>,
    durable: Receiver<DurableRow>,
    fatal: Fatal,
    _dir: tempfile::TempDir,
}

fn sealed(sealed_seq: u64, sealed_to: Timestamp) -> Sealed {
    Sealed {
        samples_from: 0,
        sealed_seq,
        sealed_to,
        evaluated_through: 0,
        lanes: Vec::new(),
        blocks: Vec::new(),
    }
}

fn table(id: u64, width: usize) -> Arc<Table> {
    let series = (0..width).map(|n| Labels::series("m", &[("n", &n.to_string())])).collect();
    Arc::new(Table { id, series })
}

impl Bench {
    fn new(segment_bytes: u64) -> Self {
        Self {
            disk: MemoryDisk::new(),
            sealed: sealed(0, Timestamp::MIN),
            evaluated_through: 0,
            segment_bytes,
            table: table(1, 9),
            chains: HashMap::new(),
        }
    }

    fn start(&self) -> Started {
        self.start_in(Room::boundless())
    }

    fn start_in(&self, room: Arc<Room>) -> Started {
        self.try_start(Arc::new(self.disk.clone()), room).unwrap()
    }

    /// Starts on another disk; none if that fails.
    fn try_start_on(&self, disk: Arc<dyn Disk>) -> Option<Started> {
        self.try_start(disk, Room::boundless())
    }

    fn try_start(&self, disk: Arc<dyn Disk>, room: Arc<Room>) -> Option<Started> {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap().0);
        let config = Config { segment_bytes: self.segment_bytes, scan_all: false };
        let found =
            Found { sealed: &self.sealed, lanes: Vec::new(), evaluated_through: self.evaluated_through };
        let mut opened = open_with(config, disk, Path::new("/j"), store.clone(), found).ok()?;
        let unevaluated = std::mem::take(&mut opened.unevaluated);
        let evaluated_at = std::mem::take(&mut opened.evaluated_at);
        let problems = std::mem::take(&mut opened.problems);
        let (out, durable) = sync_channel(10_000);
        let fatal = Fatal::new(CancellationToken::new());
        let rows = opened.in_room(room).start(out, fatal.clone());
        Some(Started { rows, store, unevaluated, evaluated_at, problems, durable, fatal, _dir: dir })
    }

    /// The next row of a chain, at `seconds` after the start; its values tell its seq.
    fn row(&mut self, seq: u64, chain: u64, seconds: i64) -> TakenRow {
        let table = self.table.clone();
        let width = table.series.len();
        let (state, index) = self.chains.entry(chain).or_insert_with(|| (Chain::new(width), 0));
        let values: Vec<f64> = (0..width).map(|n| if n == 0 { seq as f64 } else { 0.1 * n as f64 }).collect();
        let mut data = Vec::new();
        state.encode(at(seconds), seq, &values, &mut data);
        *index += 1;
        let (index, at) = (*index - 1, at(seconds));
        TakenRow { seq, table, chain, index, at, wall: at, boot_ms: seq, values, data }
    }
}

fn batch(rows: Vec<TakenRow>) -> (Batch, watch::Receiver<Ranges>) {
    let acknowledge = watch::Sender::new(Ranges::default());
    let taken = acknowledge.subscribe();
    (Batch { agent: agent(1), epoch: EPOCH, rows, received: Instant::now(), acknowledge }, taken)
}

/// Hands rows over and waits for what is acknowledged; `None` when the writer has ended.
async fn take(rows: &Rows, taken: Vec<TakenRow>) -> Option<Ranges> {
    let (batch, mut acknowledged) = batch(taken);
    rows.take(batch).await.ok()?;
    acknowledged.changed().await.ok()?;
    let ranges = acknowledged.borrow().clone();
    Some(ranges)
}

/// The bits of the samples of a series, by time.
fn samples(store: &Store, n: &str) -> Vec<(i64, u64)> {
    let expr = tocsin_promql::Expr::parse(&format!("m{{n=\"{n}\"}}[100d]")).unwrap();
    let found =
        tocsin_promql::instant(&expr, &store.view(), at(1_000_000), &tocsin_promql::Limits::default());
    let tocsin_promql::Value::Matrix(series) = found.unwrap() else { panic!("no matrix") };
    let points = series.iter().flat_map(|series| &series.points);
    points.map(|sample| (sample.at.as_millis(), sample.value.to_bits())).collect()
}

fn expected(rows: impl IntoIterator<Item = (u64, i64)>) -> Vec<(i64, u64)> {
    let mut rows: Vec<_> =
        rows.into_iter().map(|(seq, seconds)| (at(seconds).as_millis(), (seq as f64).to_bits())).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn segments_decode_alone_whatever_chains_cross_them() {
    let mut bench = Bench::new(2_000);
    let started = bench.start();
    // Six chains in turn, more than a stream follows, and finished ones among them.
    let mut want = Vec::new();
    for n in 0..180u64 {
        let chain = 1 + if n % 2 == 0 { 0 } else { n % 6 };
        let (seq, seconds) = (n + 1, n as i64);
        let row = bench.row(seq, chain + n / 120 * 10, seconds);
        want.push((seq, seconds));
        take(&started.rows, vec![row]).await.unwrap();
    }
    let standing = started.rows.standing().await.unwrap();
    assert!(standing.segments.len() > 5, "{:?}", standing.segments);
    started.rows.stop().await;
    let again = bench.start();
    assert_eq!(again.problems, Vec::<String>::new());
    assert_eq!(samples(&again.store, "0"), expected(want.clone()));
    let dropped = standing.segments[3].0;
    again.rows.drop_before(dropped).await.unwrap();
    again.rows.stop().await;
    let rest = bench.start();
    assert_eq!(rest.problems, Vec::<String>::new(), "no segment needs the ones before it");
    assert_eq!(samples(&rest.store, "0"), expected(want.into_iter().filter(|(seq, _)| *seq >= dropped)));
}

#[tokio::test]
async fn a_table_id_may_get_another_meaning() {
    let mut bench = Bench::new(1 << 20);
    let started = bench.start();
    let first = bench.row(1, 1, 1);
    take(&started.rows, vec![first]).await.unwrap();
    bench.table = table(1, 3);
    let second = bench.row(2, 2, 2);
    take(&started.rows, vec![second]).await.unwrap();
    started.rows.stop().await;
    let again = bench.start();
    assert_eq!(again.problems, Vec::<String>::new());
    assert_eq!(samples(&again.store, "0"), expected([(1, 1), (2, 2)]));
}

// Cases: S4
#[tokio::test]
async fn a_damaged_row_costs_its_chain_and_nothing_else() {
    let mut bench = Bench::new(1 << 20);
    let started = bench.start();
    for seq in 1..=6 {
        let row = bench.row(seq, if seq < 5 { 1 } else { 5 }, seq as i64);
        take(&started.rows, vec![row]).await.unwrap();
    }
    started.rows.stop().await;
    let path = bench.disk.paths().into_iter().find(|path| path.to_string_lossy().ends_with(".seg")).unwrap();
    let mut content = bench.disk.content(&path).unwrap();
    let salt = tocsin_shared::frame::salt(SAMPLES_FORMAT.name);
    let mut offset = tocsin_shared::frame::HEADER_BYTES + 2 + SAMPLES_FORMAT.name.len();
    while let tocsin_shared::frame::Decoded::Frame { header, payload } =
        tocsin_shared::frame::decode(salt, &content[offset..])
    {
        if header.seq == 2 && header.role == tocsin_shared::frame::Role::Numbered {
            content[offset + payload.end - 1] ^= 1;
            break;
        }
        offset += payload.end;
    }
    bench.disk.set_content(&path, content);
    let again = bench.start();
    assert_eq!(samples(&again.store, "0"), expected([(1, 1), (5, 5), (6, 6)]), "never a wrong value");
    assert!(!again.problems.is_empty());
}

// Cases: S23, N11
#[tokio::test]
async fn duplicates_are_acknowledged_and_not_written_twice() {
    let mut bench = Bench::new(1 << 20);
    let started = bench.start();
    let row = bench.row(1, 1, 1);
    let copy =
        TakenRow { table: row.table.clone(), values: row.values.clone(), data: row.data.clone(), ..row };
    take(&started.rows, vec![row]).await.unwrap();
    let before = started.rows.standing().await.unwrap();
    assert_eq!(take(&started.rows, vec![copy]).await, Some(Ranges::up_to(1)));
    let after = started.rows.standing().await.unwrap();
    assert_eq!((before.bytes, before.through), (after.bytes, after.through));
    assert_eq!(started.durable.try_iter().count(), 1, "it is evaluated once");
}

#[tokio::test]
async fn a_gap_lifts_the_floor_and_is_acknowledged() {
    let mut bench = Bench::new(1 << 20);
    let started = bench.start();
    let row = bench.row(5, 5, 5);
    take(&started.rows, vec![row]).await.unwrap();
    let acknowledge = watch::Sender::new(Ranges::default());
    let mut taken = acknowledge.subscribe();
    started.rows.gap((agent(1), EPOCH), (1, 4), acknowledge).await.unwrap();
    taken.changed().await.unwrap();
    assert_eq!(*taken.borrow(), Ranges::up_to(5));
}

#[tokio::test]
async fn a_start_skips_what_blocks_hold_and_evaluates_the_rest() {
    let mut bench = Bench::new(1 << 20);
    let started = bench.start();
    for seq in 1..=6 {
        let row = bench.row(seq, 1, seq as i64);
        take(&started.rows, vec![row]).await.unwrap();
    }
    started.rows.stop().await;
    (bench.sealed, bench.evaluated_through) = (sealed(4, at(3)), 5);
    let again = bench.start();
    assert_eq!(samples(&again.store, "0"), expected([(3, 3), (4, 4), (5, 5), (6, 6)]));
    let unevaluated: Vec<u64> = again.unevaluated.iter().map(|row| row.samples_seq).collect();
    assert_eq!(unevaluated, [5, 6], "the row that said something last comes again: it may have more to say");
    assert_eq!(again.evaluated_at, HashMap::from([(agent(1), at(4))]));
}

#[test]
fn the_journal_is_needed_from_the_first_segment_that_is_not_sealed() {
    let standing = Standing {
        through: 30,
        newest_row: 0,
        lanes: Vec::new(),
        segments: vec![(1, at(1)), (10, at(9)), (20, at(5))],
        bytes: 0,
    };
    for (sealed_to, want) in [(0, 1), (2, 10), (9, 10), (10, 31)] {
        assert_eq!(standing.needed_from(at(sealed_to)), want, "{sealed_to}");
    }
}

// Cases: C7
#[tokio::test]
async fn on_a_full_disk_rows_are_refused_whole_and_come_again() {
    for capacity in [0, 40, 200, 400, 600, 800] {
        let mut bench = Bench::new(2_000);
        let room_of = |disk: &MemoryDisk| {
            let config = crate::room::Config { reserve_bytes: 0, free_floor_bytes: 0 };
            let disk: Arc<dyn Disk> = Arc::new(disk.clone());
            crate::room::Room::open(disk, Path::new("/j"), config, at(0)).unwrap()
        };
        let room = room_of(&bench.disk);
        let started = bench.start_in(room.clone());
        assert_eq!(take(&started.rows, vec![bench.row(1, 1, 1)]).await, Some(Ranges::up_to(1)));
        bench.disk.set_capacity(bench.disk.used() + capacity);
        let rows: Vec<TakenRow> = (2..=20).map(|seq| bench.row(seq, 1, seq as i64)).collect();
        let (refused, taken) = batch(rows);
        started.rows.take(refused).await.unwrap();
        let progress = started.rows.progress(agent(1), EPOCH).await.unwrap();
        assert!(!room.takes_rows() && progress.floor() < 20, "{capacity}: {progress:?}");
        assert_eq!(*taken.borrow(), progress, "{capacity}: what is durable is acknowledged, no more");
        assert_eq!(started.fatal.reason(), None);
        let shown = samples(&started.store, "0");
        assert_eq!(shown.len() as u64, progress.floor(), "{capacity}: only what is durable is shown");

        bench.disk.set_capacity(u64::MAX);
        room.look(at(100));
        assert!(room.takes_rows());
        // As an agent sends what it has not heard of: in a chain of its own.
        let rows: Vec<TakenRow> = (2..=20).map(|seq| bench.row(seq, 2, seq as i64)).collect();
        assert_eq!(take(&started.rows, rows).await, Some(Ranges::up_to(20)), "{capacity}");
        started.rows.stop().await;
        let evaluated: Vec<i64> = started.durable.try_iter().map(|row| row.at.as_millis() / 1000).collect();
        assert_eq!(evaluated.len(), 20, "{capacity}: each once");
        bench.disk.crash(Crash::Dropped);
        let again = bench.start();
        assert_eq!(again.problems, [""; 0], "{capacity}: no partial frame stayed");
        assert_eq!(samples(&again.store, "0"), samples(&started.store, "0"), "{capacity}");
        assert_eq!(samples(&again.store, "0").len(), 20);
    }
}

//! A samples journal whose files someone or something has damaged: never a wrong value, and what is missing is said.

use super::*;

// Cases: S3, S4, S5, S6
#[tokio::test]
async fn any_flipped_bit_any_length_and_any_missing_file_costs_rows_and_never_makes_one_up() {
    let mut bench = Bench::new(500);
    let started = bench.start();
    for seq in 1..=9 {
        let row = bench.row(seq, 1, seq as i64);
        take(&started.rows, vec![row]).await.unwrap();
    }
    started.rows.stop().await;
    let clean: Vec<_> = bench
        .disk
        .paths()
        .into_iter()
        .map(|path| (path.clone(), bench.disk.content(&path).unwrap()))
        .collect();
    assert!(clean.len() > 2);
    for (at, (path, whole)) in clean.iter().enumerate() {
        let newest = at + 1 == clean.len();
        if at != 1 && !newest {
            continue; // They are all alike, and each start costs a thread.
        }
        let flipped = (0..whole.len()).map(|byte| {
            let mut content = whole.clone();
            content[byte] ^= 1 << (byte % 8);
            Some(content)
        });
        let cut = (0..whole.len()).step_by(5).map(|length| Some(whole[..length].to_vec()));
        for (n, content) in flipped.chain(cut).chain([None]).enumerate() {
            let what = format!("{} damage {n}", path.display());
            for (path, whole) in &clean {
                bench.disk.set_content(path, whole.clone());
            }
            match content {
                Some(content) => bench.disk.set_content(path, content),
                None => bench.disk.remove(path).unwrap(),
            }
            let again = bench.start();
            let found = samples(&again.store, "0");
            let seqs: Vec<u64> = found.iter().map(|(_, bits)| f64::from_bits(*bits) as u64).collect();
            assert_eq!(found, expected(seqs.iter().map(|seq| (*seq, *seq as i64))), "{what}");
            // Whoever sent what is missing sends them again, if it still has them.
            let taken = again.rows.progress(agent(1), EPOCH).await.unwrap();
            assert!(
                (1..=9).all(|seq| taken.contains(seq) == seqs.contains(&seq)),
                "{what}: {taken:?} {seqs:?}"
            );
            // The end may have been torn.
            let said = seqs.len() == 9 || newest || !again.problems.is_empty();
            assert!(said, "{what}: silently gone on with");
            again.rows.stop().await;
        }
    }
}

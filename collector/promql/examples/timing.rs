//! How long one evaluation takes: rules over one host's series, and a dashboard's range over many hosts.
//!
//! `cargo run --release -p tocsin-promql --example timing`; numbers depend on the machine, so compare, do not quote.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tocsin_promql::{Expr, Limits, MemorySource, instant, range};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

const MINUTES: i64 = 60;

/// One hour of samples every 10 s for some hosts with 8 CPUs each.
fn hosts(count: usize) -> MemorySource {
    let mut source = MemorySource::new();
    for host in 0..count {
        let instance = format!("host-{host}");
        let mut series = vec![
            Labels::series("available", &[("instance", &instance), ("job", "node")]),
            Labels::series("total", &[("instance", &instance), ("job", "node")]),
        ];
        for cpu in 0..8 {
            for mode in ["idle", "user", "system", "iowait"] {
                let cpu = cpu.to_string();
                let pairs = [("instance", instance.as_str()), ("job", "node"), ("cpu", &cpu), ("mode", mode)];
                series.push(Labels::series("cpu_total", &pairs));
            }
        }
        for labels in &series {
            for at in 0..MINUTES * 6 {
                source.push(labels, Timestamp::from_millis(at * 10_000), at as f64);
            }
        }
    }
    source
}

/// A dashboard's panel over a fleet: 16,000 counters, an hour at 10 s, their rates summed by one label.
fn fleet(at: Timestamp, limits: &Limits) {
    let source = hosts(500);
    let expr = Expr::parse("sum by (mode) (rate(cpu_total[5m]))").expect("the text is an expression");
    let measured = |what: &str, run: &dyn Fn()| {
        run();
        let start = Instant::now();
        (0..5).for_each(|_| run());
        println!("{:8.2} ms  {what}", start.elapsed().as_secs_f64() * 1e3 / 5.0);
    };
    measured("instant, 16,000 series, sum of rates", &|| {
        black_box(instant(&expr, &source, at, limits)).expect("the expression evaluates");
    });
    measured("241 steps, 16,000 series, sum of rates", &|| {
        let (start, step) = (Timestamp::from_millis(0), Duration::from_secs(15));
        black_box(range(&expr, &source, start, at, step, limits)).expect("the range evaluates");
    });
}

fn main() {
    let at = Timestamp::from_millis(MINUTES * 60_000 - 10_000);
    let limits = Limits::default();
    let one = hosts(1);
    for text in [
        "available / total < 0.1",
        "rate(cpu_total{mode=\"idle\"}[1m])",
        "1 - avg without (cpu) (sum without (mode) (rate(cpu_total{mode=~\"idle|iowait|steal\"}[5m]))) > 0.9",
        "predict_linear(available[1h], 86400) < 0 and on (instance) total > 0",
    ] {
        let expr = Expr::parse(text).expect("the text is an expression");
        let rounds = 10_000;
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(instant(&expr, &one, at, &limits)).expect("the expression evaluates");
        }
        println!(
            "{:8.2} µs  instant, 1 host    {text}",
            start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
        );
    }
    fleet(at, &limits);
    let many = hosts(100);
    for text in ["sum by (instance) (rate(cpu_total{mode!=\"idle\"}[5m]))", "available / total"] {
        let expr = Expr::parse(text).expect("the text is an expression");
        let start = Instant::now();
        let step = Duration::from_secs(15);
        black_box(range(&expr, &many, Timestamp::from_millis(0), at, step, &limits))
            .expect("the range evaluates");
        println!("{:8.2} ms  240 steps, 100 hosts {text}", start.elapsed().as_secs_f64() * 1e3);
    }
}

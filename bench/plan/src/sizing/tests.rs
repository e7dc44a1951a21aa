use super::*;
use crate::calibration::tests::example;
use proptest::prelude::*;

fn demand(rate: f64) -> Demand {
    Demand {
        records_per_second: rate,
        record_bytes: 1000,
        partitions: 12,
        producers: 4,
        consumers: 1,
        retention_s: 3600.0,
        replicas: 1,
        linger_us: 5000.0,
        batch_bytes: 16_384,
        goal: None,
        growth_per_year: 1.0,
        headroom: 0.7,
    }
}

fn hardware() -> Hardware {
    Hardware {
        cores: 1,
        memory_bytes: 16e9,
        disks: 1,
        disk_bytes: 1e12,
        disk_bytes_per_second: 2e9,
        network_bytes_per_second: 1.25e9,
    }
}

#[test]
fn a_small_load_needs_one_node_and_a_large_one_more() {
    let calibration = example();
    let small = plan(&calibration, &demand(1000.0), hardware());
    assert_eq!((small.nodes, small.enough), (1, true));
    assert!(small.resources.iter().all(|r| r.utilisation <= 0.7), "{:?}", small.resources);
    let large = plan(&calibration, &demand(2_000_000.0), hardware());
    assert!(large.nodes > 1 && large.enough, "{}", large.nodes);
    assert!(large.resources.iter().all(|r| r.utilisation <= 0.7));
    let one_less = Sized {
        calibration: &calibration,
        demand: &large.demand,
        hardware: hardware(),
        nodes: large.nodes - 1,
    };
    assert!(!one_less.fits(), "one node less would do");
}

#[test]
fn retention_fills_disks_and_that_is_said_with_its_year() {
    let mut wanted = demand(1000.0);
    // 1 MB/s for 10 days are 864 GB, above 70 % of a node's terabyte.
    wanted.retention_s = 864_000.0;
    wanted.growth_per_year = 2.0;
    let found = plan(&example(), &wanted, hardware());
    assert_eq!((found.nodes, found.first), (2, "disk space"));
    let space = found.resources.iter().find(|r| r.name == "disk space").expect("it is there");
    assert!((space.used - 432.5).abs() < 1.0, "{}", space.used);
    // From 0.4325 to 1 at a doubling each year.
    let years = space.full_in_years.expect("within a hundred years");
    assert!((years - (1.0 / space.utilisation).log2()).abs() < 1e-9);
    assert!((1.1..1.3).contains(&years), "{years}");
}

#[test]
fn replicas_multiply_and_are_marked() {
    let one = plan(&example(), &demand(10_000.0), hardware());
    let wanted = Demand { replicas: 3, ..demand(10_000.0) };
    let three = plan(&example(), &wanted, hardware());
    assert_eq!((one.nodes, three.nodes), (1, 3));
    assert!(three.modelled.iter().any(|text| text.contains("3 replicas")), "{:?}", three.modelled);
    let cpu = three.resources.iter().find(|r| r.name == "cpu").expect("it is there");
    assert!(cpu.modelled);
    assert!(three.p50_ms >= one.p50_ms * 0.9);
}

#[test]
fn an_impossible_goal_is_answered_with_the_nearest() {
    let goal = Some(Goal { part: 0.99, ms: 0.001 });
    let found = plan(&example(), &Demand { goal, ..demand(1000.0) }, hardware());
    let verdict = found.goal.expect("a goal was given");
    assert!(!verdict.met);
    let nearest = verdict.nearest.expect("there is a nearest");
    assert!(nearest.contains("p99=") && nearest.contains("--linger 0"), "{nearest}");
    let goal = Some(Goal { part: 0.99, ms: 60_000.0 });
    let found = plan(&example(), &Demand { goal, ..demand(1000.0) }, hardware());
    assert!(found.goal.is_some_and(|verdict| verdict.met && verdict.nearest.is_none()));
}

#[test]
fn more_of_what_is_full_first_moves_the_limit() {
    let mut narrow = hardware();
    narrow.network_bytes_per_second = 2e6;
    let found = plan(&example(), &demand(1000.0), narrow);
    assert!(found.first.starts_with("network"));
    let twice = found.more.iter().find(|more| more.what == "twice the network").expect("it is there");
    assert!((twice.to / twice.from - 2.0).abs() < 0.01, "{twice:?}");
    let disk = found.more.iter().find(|more| more.what.starts_with("one disk")).expect("it is there");
    assert!((disk.to / disk.from - 1.0).abs() < 1e-6, "{disk:?}");
}

#[test]
fn latency_and_use_rise_along_the_curve() {
    let found = plan(&example(), &demand(5000.0), hardware());
    assert_eq!(found.curve.len(), CURVE.len());
    for pair in found.curve.windows(2) {
        assert!(pair[0].records_per_second < pair[1].records_per_second);
        assert!(pair[0].utilisation.iter().zip(&pair[1].utilisation).all(|(a, b)| a <= b));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn a_plan_holds_together(
        rate in 10f64..3_000_000.0, record_bytes in 10u32..50_000, partitions in 1u32..5000,
        producers in 1u32..200, consumers in 0u32..5, replicas in 1u32..5,
    ) {
        let wanted = Demand { record_bytes, partitions, producers, consumers, replicas, ..demand(rate) };
        let found = plan(&example(), &wanted, hardware());
        prop_assert!(found.nodes >= replicas && found.nodes <= NODES_MAX);
        prop_assert!(found.p50_ms <= found.p99_ms && found.p50_ms >= 0.0);
        if found.enough {
            prop_assert!(found.resources.iter().all(|r| r.utilisation <= wanted.headroom + 1e-9));
            prop_assert!(found.saturation_records_per_second >= rate);
        }
    }
}

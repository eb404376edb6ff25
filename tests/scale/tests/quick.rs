//! What can be had in seconds: the small sizes add little to the way that a purge has to go, and nothing
//! takes more than its share.

use atoll_scale::figures::{Figures, Run, Size, run};
use atoll_scale::paths::Loss;
use atoll_scale::catch_up;

fn measured(pops: usize, nodes: usize, loss: Loss) -> Figures {
    let size = Size { pops, nodes };
    run(&Run { size, loss, purges: 60, idle: 20, seed: 5 })
}

/// How long a purge takes on a small mesh is mostly how far apart its few places are. So what is
/// wanted there is what the protocol adds to the way from the issuer, and no more messages than a large
/// one may say.
#[test]
fn small_meshes_add_little_to_the_way() {
    for (pops, nodes) in [(3, 3), (10, 10)] {
        for loss in [Loss::None, Loss::Stream(0.01)] {
            let figures = measured(pops, nodes, loss);
            assert_eq!((figures.missed, figures.resets), (0, 0), "{figures:?}");
            assert_eq!(figures.without_lease.0, 0, "{figures:?}");
            assert!(figures.beyond.p50 < 5.0, "{figures:?}");
            assert!(loss != Loss::None || figures.beyond.p99 < 20.0, "{figures:?}");
            assert!(figures.purge.messages <= 4.0, "{figures:?}");
            assert!(figures.receipts.max < 3_000.0, "every receipt is complete: {figures:?}");
        }
    }
}

#[test]
fn what_is_lost_for_good_is_repaired() {
    let figures = measured(10, 10, Loss::Datagram(0.01));
    assert_eq!(figures.missed, 0, "{figures:?}");
    assert!(figures.in_force.max < 3_000.0, "{figures:?}");
}

#[test]
fn an_idle_mesh_says_little() {
    let figures = measured(10, 10, Loss::None);
    assert!(figures.beats.messages < 6.0 && figures.beats.bytes < 500.0, "{figures:?}");
    assert!(figures.questions.bytes < 3_000.0, "{figures:?}");
}

#[test]
fn who_missed_many_purges_catches_up_in_few_batches() {
    let took = catch_up::run(50_000);
    assert!(took.questions <= 4, "{took:?}");
    assert_eq!(took.questions, took.epochs, "{took:?}");
    assert!(took.seconds < 5.0, "{took:?}");
}

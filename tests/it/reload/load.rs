//! Configurations that change places under load: no request notices.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, MissedTickBehavior};

use crate::support::certificate::{Certificate, Folder};
use crate::support::edge::{HOST, Plan};
use crate::support::program::Program;
use crate::support::traffic::{self, Traffic};
use crate::support::{Edge, Origin, Reply, until};

/// Time between two signals.
const BEAT: Duration = Duration::from_millis(100);

/// Puts a configuration in the place of another, as a whole.
fn write(file: &Path, plan: &Plan) {
    let new = file.with_extension("new");
    std::fs::write(&new, plan.toml()).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn reloads(program: &Program, outcome: &str) -> f64 {
    program.metric(&format!("atoll_reloads_total{{outcome=\"{outcome}\"}}")).await
}

/// Sends SIGHUP for so long under load, between configurations that differ in sites, origins and limits.
async fn reload_under_load(time: Duration, rate: u32) {
    let origin = traffic::origin();
    let other = Origin::serving(Reply::ok("other"));
    let folder = Folder::new();
    let certificate = Certificate::new(&folder, &[HOST]);
    let plan = |turn: u32| -> Plan {
        let own = "name = \"main\"\nhosts = [\"site.test\"]\norigin = \"main\"\n";
        let further = "name = \"other\"\nhosts = [\"other.test\"]\norigin = \"other\"\n";
        let plan = Edge::before(&origin).origin("other", &[other.address]);
        let plan = plan.tls(&[]).certificate(&certificate);
        let plan = match turn % 3 {
            0 => plan.first_site(own).another_site(further),
            1 => plan.first_site(further).another_site(own),
            _ => plan.first_site(own),
        };
        // One in four changes what all origins depend on.
        let keep_alive = if turn % 4 == 3 { "keep_alive = \"70s\"" } else { "" };
        plan.limits(keep_alive)
    };
    let file = folder.path().join("edge.toml");
    write(&file, &plan(0));
    let program = Program::of_file(&file, &[]);
    let traffic = Traffic::start(program.plain, program.tls, rate);
    traffic.flows().await;
    let asked = origin.count("/stored");
    let began = Instant::now();
    let mut signals = 0;
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < time {
        beat.tick().await;
        signals += 1;
        write(&file, &plan(signals));
        program.signal(Signal::HUP);
    }
    // Signals that come while one is being followed are one.
    until("a reload", || async { reloads(&program, "applied").await > 4.5 }).await;
    traffic.stop(&format!("SIGHUP, {signals} times")).await;
    let applied = reloads(&program, "applied").await;
    println!("{applied} reloads");
    assert!(reloads(&program, "refused").await < 0.5);
    assert_eq!(origin.count("/stored"), asked, "what was stored stayed");
}

#[tokio::test]
async fn no_request_fails_while_configurations_change_places() {
    reload_under_load(Duration::from_secs(3), 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute at a rate for release builds: run by .ci/long"]
async fn no_request_fails_by_sighup_at_two_thousand_a_second() {
    reload_under_load(Duration::from_secs(30), 2000).await;
}

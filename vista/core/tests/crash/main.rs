//! Every store and every barrier of every workload is a crash point, recovery included; and after
//! each the image is the last committed state, or the one being committed.

#[path = "faults.rs"]
mod faults;
#[path = "harness.rs"]
mod harness;
#[path = "workloads.rs"]
mod workloads;

use harness::{Depth, explore};
use workloads::{WORKLOADS, run};

#[test]
fn process_crash_at_every_step_and_in_every_recovery() {
    for workload in WORKLOADS {
        let story = run(workload);
        let found = explore(&story, &story.trace, Depth::Process, |_, _| false);
        println!("{}: {found}", workload.name);
        assert_eq!(found.violations(), 0, "{}: {found}", workload.name);
        assert!(
            found.steps > 50 && found.in_recovery > found.steps,
            "{found}"
        );
        assert!(
            found.undone > 0 && found.kept > 0,
            "nothing was at stake: {found}"
        );
    }
}

#[test]
fn power_failure_with_every_subset_of_unfenced_lines() {
    for workload in WORKLOADS {
        let story = run(workload);
        let found = explore(&story, &story.trace, Depth::Power, |_, _| false);
        println!("{}: {found}", workload.name);
        assert_eq!(found.violations(), 0, "{}: {found}", workload.name);
        assert!(
            found.cases > 2 * found.steps && found.subsets > 0,
            "{found}"
        );
    }
}

#[test]
fn each_planted_fault_is_caught_by_name() {
    for fault in faults::FAULTS {
        let story = run(fault.workload());
        let trace = fault.plant_in(&story.trace);
        let found = explore(&story, &trace, Depth::Power, |at, change| {
            fault.drops_in_recovery(at, change)
        });
        println!("{}: {found}", fault.name());
        let caught = found.caught.get(fault.shows_as()).copied().unwrap_or(0);
        assert!(
            caught > 0,
            "{} was not caught as {}: {found}",
            fault.name(),
            fault.shows_as()
        );
    }
}

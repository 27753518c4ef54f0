//! Clocks that jump, and time that the machine sleeps.

use std::ffi::OsStr;

use crate::prelude::*;

#[test]
fn a_clock_that_jumps_by_a_year_changes_no_delay_and_no_uptime() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let logs = LogDirectory::at(sandbox.path("logs"));
    let Some(clock) = Clock::new(&sandbox, "+0d") else {
        return;
    };
    let manager = managed(&sandbox, &handler)
        .clock(&clock)
        // The kernel sets CLOCK_REALTIME only.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .logdir(&logs, "1d")
        .command(probe(&sandbox).out("hello").exit(1).only_first(6))
        .spawn();
    for (offset, delay) in [
        ("-365d", "in 100ms"),
        ("+365d", "in 400ms"),
        ("+0d", "in 800ms"),
    ] {
        wait_for("a delay", || logs.vsrun().contains(delay));
        clock.set(offset);
    }
    let last = started(&sandbox, 7);
    assert_eq!(handler.runs().len(), 6);
    // In mid-life too, before a death and before a request.
    clock.set("+365d");
    sandbox.signal(last, SIGKILL);
    for (offset, count) in [("-365d", 8), ("+365d", 9)] {
        started(&sandbox, count);
        clock.set(offset);
        manager.signal(SIGHUP);
    }
    started(&sandbox, 10);
    for run in handler.runs() {
        let uptime = run
            .env("VSRUN_SERVER_UPTIME")
            .and_then(OsStr::to_str)
            .expect("an uptime");
        assert!(
            uptime.parse().is_ok_and(|seconds: u64| seconds < 60),
            "{uptime} s"
        );
    }
    assert_eq!(handler.runs().len(), 7);
    // The manager's clock did jump, both ways.
    let years = |log: String| -> Vec<i32> {
        let mut years: Vec<i32> = log
            .lines()
            .filter_map(|line| line.get(..4)?.parse().ok())
            .collect();
        years.sort();
        years.dedup();
        years
    };
    wait_for("lines of three years", || {
        let years = years(logs.vsrun());
        if years.len() >= 3 { Ok(()) } else { Err(years) }
    });
    stop(manager);
}

/// A library in which the machine has slept for an hour once there is the file $SLEPT.
const SLEEP: &str = "
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    const char *slept = getenv(\"SLEPT\");
    int done = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_BOOTTIME && slept && access(slept, F_OK) == 0)
        time->tv_sec += 3600;
    return done;
}
";

#[test]
fn time_asleep_counts_as_uptime_and_not_as_a_delay() {
    needs!("cc");
    let sandbox = sandbox();
    let (source, library) = (sandbox.file("sleep.c", SLEEP), sandbox.path("sleep.so"));
    let cc = sandbox
        .program("/usr/bin/cc")
        .args(["-shared", "-fPIC", "-o"]);
    cc.arg(&library).arg(source).run().expect_code(0);
    let handler = sandbox.handler("handler").create();
    let manager = managed(&sandbox, &handler)
        .env("LD_PRELOAD", library)
        .env("SLEPT", sandbox.path("slept"))
        .command(probe(&sandbox))
        .spawn();
    let first = started(&sandbox, 1);
    sandbox.file("slept", "");
    sandbox.signal(first, SIGKILL);
    let run = handler.wait_for_run(1);
    let uptime = run
        .env("VSRUN_SERVER_UPTIME")
        .and_then(OsStr::to_str)
        .expect("an uptime");
    let seconds: u64 = uptime.parse().expect("seconds");
    assert!((3600..3900).contains(&seconds), "{seconds} s");
    // A life of an hour: the next start follows at once, and the delays begin anew.
    sandbox.signal(started(&sandbox, 2), SIGKILL);
    sandbox.signal(started(&sandbox, 3), SIGKILL);
    started(&sandbox, 4);
    let delays = manager.stderr().matches("restarting the server in").count();
    assert!(delays <= 2, "{}", manager.stderr());
    stop(manager);
}

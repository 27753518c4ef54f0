//! Children that are not the server.

use std::time::Duration;

use super::*;
use crate::prelude::*;

#[test]
fn the_death_of_a_child_from_before_the_exec_is_not_the_servers() {
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").create();
    let child = sandbox.probe().until(sandbox.path("end")).exit(3);
    // A shell that leaves a child and becomes vsrun.
    let script = "\"$1\" \"$2\" \"$3\" & shift 3; exec \"$@\"";
    let manager = sandbox
        .program("/bin/sh")
        .args(["-c", script, "sh"])
        .args(child)
        .arg(VSRUN)
        .manager(sandbox.path("manager.pid"), &handler)
        .command(probe(&sandbox))
        .spawn();
    let server = started(&sandbox, 1);
    assert_eq!(manager.process().children().len(), 2);
    sandbox.file("end", "");
    wait_for("the child to be gone", || {
        manager.process().children() == [server] && zombies(manager.process()) == 0
    });
    holds_for("managed", Duration::from_millis(200), || server.exists());
    assert!(handler.runs().is_empty() && starts(&sandbox) == 1);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn fifty_children_that_die_with_the_server_are_all_reaped() {
    let sandbox = sandbox();
    let script = "for n in $(seq 50); do sleep 1000 & done; exec \"$@\"";
    let manager = sandbox
        .program("/bin/sh")
        .args(["-c", script, "sh", VSRUN])
        .manager(sandbox.path("manager.pid"), CONSENT)
        .command(probe(&sandbox))
        .spawn();
    started(&sandbox, 1);
    let children = manager.process().children();
    assert_eq!(children.len(), 51);
    manager.signal(SIGSTOP);
    children
        .iter()
        .for_each(|child| strike(child.pid(), SIGKILL));
    wait_for("51 deaths", || zombies(manager.process()) == 51);
    manager.signal(SIGCONT);
    let second = started(&sandbox, 2);
    wait_for("all to be reaped", || zombies(manager.process()) == 0);
    assert_eq!(manager.process().children(), [second]);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn as_process_1_a_manager_reaps_orphans_and_returns_the_status() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").exits(1).create();
    let script = "for n in $(seq 30); do (sleep 0.1 &); done; exec \"$@\"";
    let server = probe(&sandbox).until(sandbox.path("end")).exit(7);
    let manager = managed(&sandbox, &handler)
        .pid_namespace()
        .command(["/bin/sh", "-c", script, "sh"])
        .args(server)
        .spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    wait_for("the orphans to be reaped", || {
        manager.process().children().len() == 1 && zombies(manager.process()) == 0
    });
    sandbox.file("end", "");
    manager.wait().expect_code(7);
    assert_eq!(handler.runs().len(), 1);
    expect_no_files(&sandbox);
}

#[test]
fn as_process_1_a_manager_obeys_requests() {
    needs!(root);
    let sandbox = sandbox();
    let manager = managed(&sandbox, REFUSAL)
        .pid_namespace()
        .command(probe(&sandbox))
        .spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    manager.signal(SIGHUP);
    wait_for("the restart", || starts(&sandbox) == 2);
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn the_dead_servers_id_can_be_used_again() {
    needs!(root);
    let sandbox = sandbox();
    let handler = sandbox.handler("handler").line("sleep 1000").create();
    // The next process of the namespace gets the server's own id, as soon as that is free (see
    // proc_sys_kernel(5)).
    let script = "echo $(($$ - 1)) >/proc/sys/kernel/ns_last_pid; exec \"$@\"";
    let manager = managed(&sandbox, &handler)
        .pid_namespace()
        .command(["/bin/sh", "-c", script, "sh"])
        .args(probe(&sandbox))
        .spawn();
    wait_for("the start", || starts(&sandbox) == 1);
    manager.signal(SIGHUP);
    wait_for("the restart", || starts(&sandbox) == 2);
    let ids = sandbox.lines("starts");
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        sandbox.read_pidfile(sandbox.path("server.pid")),
        ids[1].parse().ok()
    );
    manager
        .process()
        .children()
        .iter()
        .for_each(|server| sandbox.signal(*server, SIGKILL));
    let run = handler.wait_for_run(1);
    assert_eq!(run.stat.pid.to_string(), ids[1]);
    assert!(!sandbox.path("server.pid").exists());
    manager.signal(SIGHUP);
    wait_for("the start after the handler", || starts(&sandbox) == 3);
    wait_for("the end of the handler's child", || {
        manager.process().children().len() == 1
    });
    stop(manager);
    expect_nothing_left(&sandbox);
}

#[test]
fn where_ids_are_used_again_no_signal_reaches_another_process() {
    needs!(root);
    let sandbox = sandbox();
    let (hits, starts_file) = (sandbox.path("hits"), sandbox.path("starts"));
    // Of thirty ids or so, as with a kernel.pid_max of 330, which not every kernel has for a
    // namespace alone. Each start leaves other processes, which take the ids of the dead.
    let script = "[ $$ -ge 300 -a $$ -lt 330 ] || echo 300 >/proc/sys/kernel/ns_last_pid
        (trap 'echo hit >>\"$0\"' TERM HUP USR1; sleep 0.03 || echo hit >>\"$0\") & exec \"$@\"";
    let manager = managed(&sandbox, CONSENT)
        .pid_namespace()
        .command(["/bin/sh", "-c", script])
        .arg(&hits)
        .args(probe(&sandbox))
        .spawn();
    for count in 1..=200 {
        wait_for("a start", || starts(&sandbox) >= count);
        // The first deaths of a crash loop are followed by delays, which a request resets.
        if count % 20 == 0 {
            let server = sandbox.wait_for_server(&manager);
            sandbox.signal(server, SIGKILL);
        } else {
            manager.signal(SIGHUP);
        }
    }
    let ids = sandbox.lines(&starts_file);
    let mut different = ids.clone();
    different.sort();
    different.dedup();
    assert!(
        different.len() < ids.len() / 2,
        "ids were hardly used again: {ids:?}"
    );
    wait_for("the end of the other processes", || {
        manager.process().descendants().len() == 1
    });
    assert_eq!(sandbox.lines(&hits), [] as [&str; 0]);
    stop(manager);
}

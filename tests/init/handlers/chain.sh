# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

link() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod 755 "$1"
}

all_links_run_in_order_and_nobody_refusing_restarts() { # test
    link one "echo one >>$T/ran"
    link two "echo two >>$T/ran"
    expect 0 handler chain "CHAIN_HANDLERS=$T/one $T/two $T/one"
    equal 'one two one' "$(tr '\n' ' ' <ran | sed 's/ $//')"
    says chain 'restart: none of 3 handlers refused'
}

one_refusal_refuses_and_the_rest_still_run_and_know_of_it() { # test
    link yes "exit 0"
    link no "exit 7"
    link also "exit 3"
    link report 'echo "${CHAIN_REFUSED_BY:-nobody}" >>'"$T/ran"
    expect 7 handler chain "CHAIN_HANDLERS=$T/report $T/yes $T/no $T/report $T/also $T/report"
    equal "nobody $T/no $T/no" "$(tr '\n' ' ' <ran | sed 's/ $//')"
    says chain "stay down: $T/no refused (status 7)"
}

a_refusal_that_the_caller_has_in_its_environment_is_forgotten() { # test
    link report 'echo "${CHAIN_REFUSED_BY:-nobody}" >>'"$T/ran"
    expect 0 handler chain CHAIN_REFUSED_BY=x "CHAIN_HANDLERS=$T/report"
    equal nobody "$(cat ran)"
}

shipped_handlers_go_by_their_names() { # test
    expect 1 handler chain 'CHAIN_HANDLERS=archive-core normal-signals' VSRUN_SERVER_TERMSIG=15
    shows err 'archive-core: no core was dumped'
    shows err 'normal-signals: stay down: '
    shows err 'chain: stay down: normal-signals refused'
}

what_cannot_be_executed_counts_as_a_refusal() { # test
    echo 'echo not executable' >plain
    for bad in nonexistent "$T/nonexistent" "$T/plain" "$T" prelude.sh ../handlers/chain ./chain; do
        expect 126 handler chain "CHAIN_HANDLERS=$bad"
        shows err 'chain: stay down: '
    done
    printf '#!/nonexistent/interpreter\n' >bad
    chmod 755 bad
    status_of handler chain "CHAIN_HANDLERS=$T/bad"
    [ "$status" -ne 0 ] || fail "it was restarted"
}

a_link_killed_by_a_signal_counts_as_a_refusal() { # test
    link dies 'kill -KILL $$'
    expect 137 handler chain "CHAIN_HANDLERS=$T/dies"
}

a_link_runs_where_the_chain_was_started() { # test
    link where "pwd >$T/where"
    mkdir log
    cd log
    expect 0 handler chain "CHAIN_HANDLERS=$T/where"
    equal "$T/log" "$(cat "$T/where")"
}

where_no_program_can_be_executed_no_link_has_refused() { # test
    need prlimit
    link no 'exit 1'
    # The largest environment in which the chain itself can be executed: it
    # exports a few bytes more.
    within='prlimit --stack=524288'
    for size in $(seq 131000 -50 120000); do
        status=0
        handler chain "CHAIN_HANDLERS=$T/no" "LONG=$(head -c "$size" /dev/zero | tr '\0' x)" 2>err || status=$?
        ! grep '^chain: ' err || break
    done
    equal 0 "$status"
    shows err "chain: no program can be executed, so '$T/no' has not decided"
}

a_chain_in_the_chain_is_refused_and_ends() { # test
    expect 126 handler chain CHAIN_HANDLERS=chain
    shows err 'a chain in CHAIN_HANDLERS would run for ever'
}

an_empty_chain_restarts_and_says_so() { # test
    expect 0 handler chain
    says chain 'restart: CHAIN_HANDLERS names no handler'
}

a_list_is_not_expanded_by_the_shell() { # test
    for list in '*' '$(touch${IFS}broken)' '`touch${IFS}broken`'; do
        expect 126 handler chain "CHAIN_HANDLERS=$list"
    done
    [ ! -e broken ] || fail "it was executed"
}

links_read_nothing_from_the_caller() { # test
    link reads "cat >$T/read"
    echo secret | expect 0 handler chain "CHAIN_HANDLERS=$T/reads"
    [ ! -s read ] || fail "it read"
}

the_variables_of_the_server_reach_the_links() { # test
    link show 'printf %s "$VSRUN_SERVER_COMMAND" >'"$T/command"
    expect 0 handler chain "CHAIN_HANDLERS=$T/show" "VSRUN_SERVER_COMMAND=$hostile"
    equal "$hostile" "$(cat command)"
}

# The handlers as vsrun itself runs them: as the server's user, in the
# environment that vsrun makes.
# shellcheck shell=sh

# manage OPTION...: a server as nobody under a manager with the chain, in the
# background; $T/log and $T/bin are nobody's.
manage() {
    chmod 755 "$T"
    mkdir -p log bin
    chown nobody log
    printf '#!/bin/sh\ncat >"%s/log/mail.new" && mv "%s/log/mail.new" "%s/log/mail"\n' "$T" "$T" "$T" >bin/sendmail
    chmod 755 bin/sendmail
    cp /bin/sleep crasher
    trap 'kill -KILL "$(cat manager.pid)" "$(cat server.pid)" 2>/dev/null || :' EXIT
    ulimit -c unlimited
    # Names that start with VSRUN_ do not get through.
    env -i "PATH=$T/bin:$PATH" "HANDLERS_CONF=$T/conf" VSRUN_SERVER_TERMSIG=15 VSRUN_SERVER_OOM=1 \
        "$AREA/vsrun" -b -u nobody -p "$T/server.pid" -m "$T/manager.pid" \
        "$AREA/init/handlers/chain" -d "$T/log" 1d "$@"
}

server_is_not() {
    read -r now 2>/dev/null <server.pid && [ "$now" != "$1" ]
}

a_crash_goes_through_the_whole_chain_and_the_server_is_restarted() { # test
    case $(cat /proc/sys/kernel/core_pattern) in
        core | core.%p) ;;
        *) skip "the kernel gives its cores away here" ;;
    esac
    echo 'CHAIN_HANDLERS="normal-signals uptime-threshold archive-core mail-admin"' >conf
    manage -- "$T/crasher" 1000
    server=$(cat server.pid)
    kill -s SEGV "$server"
    eventually server_is_not "$server"
    cat log/vsrun.log
    shows log/vsrun.log 'normal-signals: restart: dumped core with signal 11'
    shows log/vsrun.log 'uptime-threshold: restart: it lived for '
    shows log/vsrun.log "archive-core: kept the core as $T/log/cores/core.crasher."
    shows log/vsrun.log 'mail-admin: mail to root handed over'
    shows log/vsrun.log 'chain: restart: none of 4 handlers refused'
    shows log/mail 'Reason:    dumped core with signal 11'
    shows log/mail 'User:      nobody'
    shows log/mail "Directory: $T/log"
    equal nobody "$(stat -c %U log/cores/core.crasher.*)"
    [ ! -e log/core ] && [ ! -e "log/core.$server" ] || fail "the core is still there"
}

a_kill_by_hand_keeps_the_server_down_and_is_mailed() { # test
    echo 'CHAIN_HANDLERS="normal-signals mail-admin"' >conf
    manage -- "$T/crasher" 1000
    manager=$(cat manager.pid)
    kill -s TERM "$(cat server.pid)"
    eventually test ! -e "/proc/$manager"
    cat log/vsrun.log
    shows log/vsrun.log 'normal-signals: stay down: terminated by signal 15'
    shows log/mail 'Decision:  it stays down: normal-signals refused the restart'
    [ ! -e server.pid ] || fail "a server is there"
}

a_server_that_dies_at_once_is_given_up_after_the_burst() { # test
    printf 'CHAIN_HANDLERS="uptime-threshold mail-admin"\nUPTIME_THRESHOLD_BURST=2\n' >conf
    manage -- /bin/sh -c 'sleep 0.2; echo "the last words" >&2; exit 3'
    manager=$(cat manager.pid)
    eventually test ! -e "/proc/$manager"
    cat log/vsrun.log
    equal 2 "$(grep -c 'uptime-threshold: restart: ' log/vsrun.log)"
    equal 1 "$(grep -c 'uptime-threshold: stay down: .*short life 3 in' log/vsrun.log)"
    shows log/mail '  | the last words'
    shows log/mail 'sh DOWN on '
    shows log/mail 'exited with status 3, 2 deaths'
}

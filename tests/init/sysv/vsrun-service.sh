# The init script, action by action, with the LSB's exit statuses.
# shellcheck shell=sh

# configure NAME [LINE...]: a service of that name in $T/NAME.
configure() {
    service=$1
    shift
    cp "$AREA/init/sysv/vsrun-service" "$T/$service"
    printf '%s\n' "VSRUN_PROGRAM=$AREA/vsrun" "VSRUN_COMMAND='sleep 1000'" \
        "VSRUN_OPTIONS='-d $T/log 1d'" VSRUN_HANDLER=/bin/true "$@" >"/etc/default/$service"
    trap clean_up EXIT
    # For those that are not root.
    chmod 755 "$T"
}

clean_up() {
    for file in /run/*-manager.pid /run/*.pid; do
        [ -e "$file" ] || continue
        kill -KILL "$(cat "$file")" 2>/dev/null || :
    done
    rm -f /run/foo* /run/bar* /etc/default/foo /etc/default/bar /etc/sysconfig/foo
}

manager() {
    cat "/run/$1-manager.pid"
}

server() {
    cat "/run/$1.pid"
}

alive() {
    [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status"
}

gone() {
    ! alive "$1"
}

# The pidfile is gone for a moment when the server is.
server_is_not() {
    read -r now 2>/dev/null <"/run/$2.pid" && [ "$now" != "$1" ]
}

as_nobody() {
    /usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}

a_start_runs_the_server_under_a_manager() { # test
    configure foo
    expect 0 ./foo start
    alive "$(server foo)" || fail "no server"
    alive "$(manager foo)" || fail "no manager"
    equal sleep "$(cat "/proc/$(server foo)/comm")"
}

a_start_of_a_running_service_is_done_and_changes_nothing() { # test
    configure foo
    expect 0 ./foo start
    before="$(manager foo) $(server foo)"
    expect 0 ./foo start
    equal "$before" "$(manager foo) $(server foo)"
}

a_stop_ends_both_and_waits_for_them() { # test
    configure foo "VSRUN_COMMAND=$T/slow"
    printf '#!/bin/sh\ntrap "sleep 1; exit 0" TERM\n: >"%s"\nwhile :; do sleep 0.1; done\n' "$T/ready" >slow
    chmod 755 slow
    expect 0 ./foo start
    manager=$(manager foo)
    server=$(server foo)
    eventually test -e ready
    expect 0 ./foo stop
    gone "$manager" || fail "the manager lives"
    gone "$server" || fail "the server lives"
    equal '' "$(ls /run | grep -e '^foo' -e '^bar')"
}

a_stop_of_a_stopped_service_is_done() { # test
    configure foo
    expect 0 ./foo stop
    expect 0 ./foo start
    expect 0 ./foo stop
    expect 0 ./foo stop
}

a_stop_that_takes_too_long_fails_and_the_server_goes_on() { # test
    configure foo "VSRUN_COMMAND=$T/deaf" VSRUN_STOP_TIMEOUT=1
    printf '#!/bin/sh\ntrap "" TERM\n: >"%s"\nwhile :; do sleep 0.1; done\n' "$T/ready" >deaf
    chmod 755 deaf
    expect 0 ./foo start
    eventually test -e ready
    expect 1 ./foo stop
    shows err 'still runs after 1 s; kill -s KILL '
    alive "$(server foo)" || fail "the server is gone"
}

a_restart_has_a_new_manager_and_a_new_server() { # test
    configure foo
    expect 0 ./foo start
    manager=$(manager foo)
    server=$(server foo)
    expect 0 ./foo restart
    gone "$manager" || fail "the old manager lives"
    gone "$server" || fail "the old server lives"
    alive "$(server foo)" || fail "no server"
}

a_restart_of_a_stopped_service_starts_it() { # test
    configure foo
    expect 0 ./foo restart
    alive "$(server foo)" || fail "no server"
}

a_try_restart_touches_only_a_running_service() { # test
    configure foo
    for action in try-restart condrestart; do
        expect 0 ./foo "$action"
        [ ! -e /run/foo.pid ] || fail "it started"
    done
    expect 0 ./foo start
    manager=$(manager foo)
    expect 0 ./foo try-restart
    [ "$(manager foo)" != "$manager" ] || fail "the same manager"
}

a_reload_lets_the_manager_restart_the_server() { # test
    configure foo
    for action in reload force-reload; do
        expect 7 ./foo "$action"
    done
    expect 0 ./foo start
    manager=$(manager foo)
    for action in reload force-reload; do
        server=$(server foo)
        expect 0 ./foo "$action"
        eventually server_is_not "$server" foo
        equal "$manager" "$(manager foo)"
    done
}

a_crashed_server_is_restarted_and_the_service_goes_on_running() { # test
    configure foo
    expect 0 ./foo start
    server=$(server foo)
    kill -s SEGV "$server"
    eventually server_is_not "$server" foo
    expect 0 ./foo status
}

the_status_of_each_state_is_the_lsbs() { # test
    configure foo
    expect 3 ./foo status
    expect 0 ./foo start
    expect 0 ./foo status
    shows out "manager $(manager foo), server $(server foo)"
    expect 0 ./foo stop
    expect 3 ./foo status
    echo 4194300 >/run/foo-manager.pid
    expect 1 ./foo status
    rm /run/foo-manager.pid
    : >/run/foo-manager.pid.lock
    expect 2 ./foo status
    expect 0 ./foo stop
    expect 3 ./foo status
}

a_stale_pidfile_that_leads_to_a_stranger_harms_nobody() { # test
    configure foo
    sleep 1000 &
    stranger=$!
    # The second is a manager too, of another service.
    configure bar
    expect 0 ./bar start
    for number in "$stranger" "$(manager bar)" 1 -1 0 '' x '1 2' "-$stranger"; do
        echo "$number" >/run/foo-manager.pid
        expect 1 ./foo status
        expect 7 ./foo reload
        expect 0 ./foo stop
        alive "$stranger" || fail "'$number' killed the stranger"
        alive "$(manager bar)" || fail "'$number' killed the other manager"
    done
    # The number of a server whose id somebody else has got since.
    echo 4194300 >/run/foo-manager.pid
    echo "$stranger" >/run/foo.pid
    touch -d @$(($(date +%s) - 3600)) /run/foo.pid
    expect 0 ./foo stop
    alive "$stranger" || fail "a recycled id was killed"
    # A pidfile of some other package under the same name.
    echo "$stranger" >/run/foo.pid
    expect 0 ./foo stop
    alive "$stranger" || fail "another package's daemon was killed"
    kill "$stranger"
}

a_server_that_lost_its_manager_is_reported_and_stopped() { # test
    configure foo
    expect 0 ./foo start
    server=$(server foo)
    kill -s KILL "$(manager foo)"
    eventually gone "$(manager foo)"
    expect 1 ./foo status
    shows err "its server $server still runs"
    expect 1 ./foo start
    shows err "server $server still runs without its manager"
    expect 0 ./foo stop
    gone "$server" || fail "the orphan lives"
    expect 3 ./foo status
    expect 0 ./foo start
}

a_manager_whose_program_was_replaced_is_still_known() { # test
    configure foo
    cp "$AREA/vsrun" "$AREA/vsrun.new"
    expect 0 ./foo start
    manager=$(manager foo)
    mv "$AREA/vsrun.new" "$AREA/vsrun"
    expect 0 ./foo status
    expect 0 ./foo start
    equal "$manager" "$(manager foo)"
    expect 0 ./foo restart
    gone "$manager" || fail "the old manager lives"
}

wrong_arguments_are_status_2() { # test
    configure foo
    expect 2 ./foo
    expect 2 ./foo bogus
    expect 2 ./foo start now
    expect 2 ./foo ''
    shows err 'usage: '
}

only_root_changes_anything_and_anyone_may_ask() { # test
    configure foo
    for action in start stop restart try-restart reload force-reload; do
        expect 4 as_nobody ./foo "$action"
    done
    expect 3 as_nobody ./foo status
    expect 0 ./foo start
    expect 0 as_nobody ./foo status
    expect 4 as_nobody ./foo stop
    alive "$(server foo)" || fail "the server is gone"
}

where_processes_are_hidden_the_status_is_unknown() { # test
    configure foo
    expect 0 ./foo start
    mount -o remount,hidepid=2 /proc
    status_of as_nobody ./foo status
    mount -o remount,hidepid=0 /proc
    equal 4 "$status"
}

a_program_that_is_not_installed_is_status_5() { # test
    configure foo VSRUN_PROGRAM=/nonexistent/vsrun
    for action in start restart; do
        expect 5 ./foo "$action"
        shows err 'is not installed'
    done
    configure foo VSRUN_COMMAND=/nonexistent/server
    expect 5 ./foo start
    configure foo VSRUN_HANDLER=/nonexistent/handler
    expect 5 ./foo start
    equal '' "$(ls /run | grep -e '^foo' -e '^bar')"
}

a_service_that_is_not_configured_is_status_6() { # test
    configure foo
    rm /etc/default/foo
    for action in start restart; do
        # The program is where packages put it, or that is reported first.
        VSRUN_PROGRAM=$AREA/vsrun status_of ./foo "$action"
        [ -x /usr/sbin/vsrun ] || equal 5 "$status"
        [ ! -x /usr/sbin/vsrun ] || equal 6 "$status"
    done
    expect 3 ./foo status
    expect 0 ./foo stop
    configure foo VSRUN_COMMAND=
    expect 6 ./foo start
    shows err 'sets no VSRUN_COMMAND'
    configure foo "VSRUN_COMMAND='sleep \"1000'"
    expect 6 ./foo start
    shows err 'VSRUN_COMMAND has an open quotation'
}

a_start_that_fails_is_status_1_and_says_why() { # test
    configure foo "VSRUN_OPTIONS='-u nonexistent-user -d $T/log 1d'"
    expect 1 ./foo start
    shows err nonexistent-user
    configure foo "VSRUN_OPTIONS='--nonsense'"
    expect 1 ./foo start
    equal '' "$(ls /run | grep -e '^foo' -e '^bar')"
}

another_name_is_another_service() { # test
    configure foo
    configure bar "VSRUN_COMMAND='sleep 2000'"
    rm bar
    ln -s foo bar
    expect 0 ./foo start
    expect 0 ./bar start
    [ "$(manager foo)" != "$(manager bar)" ] || fail "one manager"
    equal 2000 "$(tr '\0' '\n' <"/proc/$(server bar)/cmdline" | tail -n 1)"
    expect 0 ./bar stop
    expect 3 ./bar status
    expect 0 ./foo status
}

the_names_that_init_gives_are_the_same_service() { # test
    configure foo
    ln -s foo S20foo
    ln -s foo K05foo
    expect 0 ./S20foo start
    expect 0 ./foo status
    expect 0 ./K05foo stop
    expect 3 ./foo status
}

a_name_that_is_no_name_is_refused() { # test
    configure foo
    for odd in 'a b' '-x' 'a$b'; do
        cp foo "./$odd" 2>/dev/null || continue
        expect 2 "./$odd" status
    done
}

sysconfig_is_read_too_and_wins() { # test
    configure foo
    echo "VSRUN_COMMAND='sleep 3000'" >/etc/sysconfig/foo
    expect 0 ./foo start
    equal 3000 "$(tr '\0' '\n' <"/proc/$(server foo)/cmdline" | tail -n 1)"
}

words_are_grouped_by_quotes_and_never_expanded() { # test
    printf '#!/bin/sh\nprintf "[%%s]" "$@" >"%s/words"\nexec sleep 1000\n' "$T" >show
    chmod 755 show
    configure foo "VSRUN_COMMAND='$T/show \"a  b\" c\\ d * \$HOME \$(touch broken) ; & -- -x'" \
        "VSRUN_OPTIONS='-d \"$T/log dir\" 1d'"
    expect 0 ./foo start
    eventually test -s words
    equal '[a  b][c d][*][$HOME][$(touch][broken)][;][&][--][-x]' "$(cat words)"
    [ -d "log dir" ] || fail "$(ls)"
    [ ! -e broken ] || fail "it was executed"
}

the_output_goes_to_the_syslog_unless_told_otherwise() { # test
    command -v logger >/dev/null || skip "logger is not installed"
    configure foo VSRUN_OPTIONS=
    expect 0 ./foo start
    tr '\0' ' ' <"/proc/$(manager foo)/cmdline" >arguments
    shows arguments ' -s foo -- sleep 1000'
    expect 0 ./foo stop
    configure foo "VSRUN_OPTIONS='-s other'"
    expect 0 ./foo start
    tr '\0' ' ' <"/proc/$(manager foo)/cmdline" >arguments
    shows arguments ' -s other -- sleep 1000'
    hides arguments '-s foo'
}

what_the_settings_set_reaches_server_and_handler_but_for_vsruns_own() { # test
    printf '#!/bin/sh\nenv >"%s/handler.env"\nexit 0\n' "$T" >handler
    chmod 755 handler
    configure foo "VSRUN_HANDLER=$T/handler" 'FOO_SETTING="a b"' MAIL_ADMIN_TO=ops
    expect 0 ./foo start
    tr '\0' '\n' <"/proc/$(server foo)/environ" >server.env
    shows server.env 'FOO_SETTING=a b'
    hides server.env VSRUN_
    kill -s SEGV "$(server foo)"
    eventually test -s handler.env
    shows handler.env MAIL_ADMIN_TO=ops
    hides handler.env VSRUN_COMMAND=
}

the_sample_settings_start_after_two_edits() { # test
    configure foo
    sed -e "s|^VSRUN_COMMAND=.*|VSRUN_COMMAND='sleep 1000'|" -e "s|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS='-u nobody -d $T/log 1d'|" \
        "$AREA/init/sysv/vsrun-service.default" >/etc/default/foo
    equal 2 "$(grep -c -v -x -F -f "$AREA/init/sysv/vsrun-service.default" /etc/default/foo)"
    printf 'VSRUN_PROGRAM=%s\nVSRUN_HANDLER=%s\n' "$AREA/vsrun" "$AREA/init/handlers/mail-admin" >>/etc/default/foo
    expect 0 ./foo start
    equal 65534 "$(stat -c %u "/proc/$(server foo)")"
    server=$(server foo)
    kill -s SEGV "$server"
    eventually server_is_not "$server" foo
    grep 'mail-admin: ' log/vsrun.log
}

two_starts_at_once_are_one_service() { # test
    configure foo
    for round in 1 2 3 4 5 6; do
        ./foo start >"$round.out" 2>&1 &
    done
    wait
    sleep 0.2
    count=0
    for process in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$process/cmdline" | grep -q -x -e /run/foo-manager.pid; then
            count=$((count + 1))
        fi
    done
    equal 1 "$count"
    expect 0 ./foo status
    grep -L -e started -e 'already running' ./*.out >odd || :
    [ ! -s odd ] || fail "$(cat ./*.out)"
}

it_runs_with_nothing_in_the_environment() { # test
    configure foo
    expect 0 env -i "$T/foo" start
    expect 0 env -i "$T/foo" status
    expect 0 env -i "$T/foo" stop
}

the_header_is_for_update_rc_d_and_chkconfig() { # test
    script=$AREA/init/sysv/vsrun-service
    sed -n '/^### BEGIN INIT INFO/,/^### END INIT INFO/p' "$script" >header
    for line in Required-Start Required-Stop Default-Start Default-Stop Short-Description; do
        shows header "# $line:"
    done
    hides header Provides
    shows "$script" '# chkconfig: 2345 80 20'
    shows "$script" '# description: '
}

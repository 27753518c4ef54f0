# OpenRC, started by sysvinit's first process.
# shellcheck shell=sh
. "$TESTS/boot.inc.sh"

examples=/usr/share/doc/vsrun/examples

openrc_machine() {
    machine openrc
    install_server
    # A container has neither terminals nor hardware, and cgroups of its own.
    sed -i /getty/d "$M/etc/inittab"
    for script in hwclock.sh checkroot.sh checkfs.sh checkroot-bootclean.sh brightness mountnfs.sh mountnfs-bootclean.sh cgroups; do
        rm -f "$M"/etc/runlevels/*/"$script"
    done
}

is_up() {
    [ "$(inside rc-status -r 2>/dev/null)" = default ] && ! inside pgrep -x openrc >/dev/null && inside test -S /dev/log
}

boot_openrc() {
    boot
    eventually is_up
}

# configure NAME: by the sample, with two lines edited.
configure() {
    # Debian's OpenRC comes without it.
    mkdir -p "$M/etc/conf.d"
    install -m 755 "$M$examples/openrc/vsrun-service" "$M/etc/init.d/$1"
    sed -e 's|^VSRUN_COMMAND=.*|VSRUN_COMMAND="/usr/local/sbin/fooserver \\"a b\\" c"|' \
        -e 's|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS="-u daemon"|' "$M$examples/openrc/vsrun-service.confd" >"$M/etc/conf.d/$1"
}

a_service_starts_crashes_restarts_reloads_stops_and_boots_again() { # test
    openrc_machine
    configure foo
    boot_openrc
    expect 0 inside rc-update add foo default
    expect 0 inside rc-service foo start
    equal daemon "$(user_of "$(server)")"
    expect 0 inside rc-service foo status
    expect 0 inside rc-service foo start

    crash
    eventually mailed '^Subject: \[vsrun\] fooserver RESTARTED on .*: terminated by signal 11'
    eventually logged 'foo.*fooserver a b c is up' /var/log/syslog
    expect 0 inside rc-service foo status

    before=$(server)
    manager=$(manager)
    expect 0 inside rc-service foo reload
    eventually server_is_not "$before" foo
    equal "$manager" "$(manager)"
    expect 0 inside rc-service foo restart
    [ "$(manager)" != "$manager" ] || fail "the same manager"

    old=$(server)
    expect 0 inside rc-service foo stop
    inside test ! -e "/proc/$old"
    expect 3 inside rc-service foo status
    equal '' "$(inside sh -c 'ls /run | grep ^foo')"
    expect 0 inside rc-service foo start

    reboot reboot
    eventually is_up
    eventually server_is_not '' foo
    expect 0 inside rc-service foo status
    eventually are_running 1 -x vsrun
}

a_stop_waits_for_the_server_and_a_deaf_one_fails_it() { # test
    openrc_machine
    configure foo
    printf '#!/bin/sh\ntrap "sleep 2; exit 0" TERM\n: >/tmp/slow\nwhile :; do sleep 0.1; done\n' >"$M/usr/local/sbin/fooserver"
    boot_openrc
    expect 0 inside rc-service foo start
    eventually inside test -e /tmp/slow
    old=$(server)
    expect 0 inside rc-service foo stop
    inside test ! -e "/proc/$old"
    printf '#!/bin/sh\ntrap "" TERM\n: >/tmp/deaf\nwhile :; do sleep 0.1; done\n' >"$M/usr/local/sbin/fooserver"
    echo VSRUN_STOP_TIMEOUT=1 >>"$M/etc/conf.d/foo"
    expect 0 inside rc-service foo start
    eventually inside test -e /tmp/deaf
    old=$(server)
    status_of inside rc-service foo stop
    [ "$status" -ne 0 ] || fail "it said that it stopped"
    inside test -e "/proc/$old"
}

a_start_that_fails_says_so() { # test
    openrc_machine
    configure foo
    sed -i 's/^VSRUN_OPTIONS=.*/VSRUN_OPTIONS="-u nonexistent"/' "$M/etc/conf.d/foo"
    configure bar
    sed -i /^VSRUN_COMMAND=/d "$M/etc/conf.d/bar"
    boot_openrc
    for name in foo bar; do
        status_of inside rc-service "$name" start
        [ "$status" -ne 0 ] || fail "it started"
        status_of inside rc-service "$name" status
        [ "$status" -ne 0 ] || fail "it runs"
    done
}

two_names_are_two_services_and_options_choose_the_output() { # test
    openrc_machine
    configure foo
    configure bar
    sed -i 's|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS="-u daemon -d /var/log/bar 4w"|' "$M/etc/conf.d/bar"
    ln -s foo "$M/etc/init.d/baz"
    cp "$M/etc/conf.d/foo" "$M/etc/conf.d/baz"
    boot_openrc
    for name in foo bar baz; do
        expect 0 inside rc-service "$name" start
    done
    eventually logged 'is up' /var/log/bar/logfile
    expect 0 inside rc-service bar stop
    expect 0 inside rc-service foo status
    expect 0 inside rc-service baz status
}

# sysvinit as the first process.
# shellcheck shell=sh
. "$TESTS/boot.inc.sh"

examples=/usr/share/doc/vsrun/examples

sysvinit_machine() {
    machine sysvinit
    install_server
    # A container has neither terminals nor hardware.
    sed -i /getty/d "$M/etc/inittab"
    for script in hwclock.sh checkroot.sh checkfs.sh checkroot-bootclean.sh brightness mountnfs.sh mountnfs-bootclean.sh; do
        chroot "$M" update-rc.d "$script" disable >/dev/null 2>&1
    done
}

is_up() {
    [ "$(inside runlevel 2>/dev/null)" = 'N 2' ] && ! inside pgrep -x rc >/dev/null && inside test -S /dev/log
}

boot_sysvinit() {
    boot
    eventually is_up
}

# configure NAME: by the sample, with two lines edited.
configure() {
    sed -e 's|^VSRUN_COMMAND=.*|VSRUN_COMMAND="/usr/local/sbin/fooserver \\"a  b\\" c"|' \
        -e 's|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS="-u daemon"|' "$M$examples/sysv/vsrun-service.default" >"$M/etc/default/$1"
}

a_copy_starts_crashes_restarts_reloads_stops_and_boots_again() { # test
    sysvinit_machine
    install -m 755 "$M$examples/sysv/vsrun-service" "$M/etc/init.d/foo"
    configure foo
    boot_sysvinit
    expect 0 inside update-rc.d foo defaults
    inside sh -c 'ls /etc/rc?.d/*foo' >links
    shows links /etc/rc2.d/S
    shows links /etc/rc0.d/K
    expect 0 inside service foo start
    equal daemon "$(user_of "$(server)")"
    expect 0 inside service foo status
    expect 0 inside service foo start

    crash
    eventually mailed '^Subject: \[vsrun\] fooserver RESTARTED on .*: terminated by signal 11'
    eventually logged 'foo.*fooserver a  b c is up' /var/log/syslog
    eventually logged 'foo.*mail-admin: mail to root handed over' /var/log/syslog

    before=$(server)
    manager=$(manager)
    expect 0 inside service foo reload
    eventually server_is_not "$before" foo
    equal "$manager" "$(manager)"
    expect 0 inside service foo restart
    [ "$(manager)" != "$manager" ] || fail "the same manager"
    expect 0 inside service foo try-restart
    expect 0 inside invoke-rc.d foo status

    expect 0 inside service foo stop
    expect 3 inside service foo status
    expect 7 inside service foo reload
    expect 0 inside service foo stop
    expect 2 inside service foo bogus
    equal '' "$(inside sh -c 'ls /run | grep ^foo')"
    expect 0 inside service foo start

    reboot reboot
    eventually is_up
    eventually server_is_not '' foo
    expect 0 inside service foo status
    eventually are_running 1 -x vsrun
    # The scripts of runlevel 6 stopped it before the system killed all.
    inside grep 'server [0-9]* terminated by signal 15' /var/log/syslog
}

copies_and_links_are_services_of_their_own_for_insserv() { # test
    sysvinit_machine
    install -m 755 "$M$examples/sysv/vsrun-service" "$M/etc/init.d/foo"
    install -m 755 "$M$examples/sysv/vsrun-service" "$M/etc/init.d/bar"
    install -m 755 "$M$examples/sysv/vsrun-service" "$M/usr/local/sbin/vsrun-service"
    ln -s /usr/local/sbin/vsrun-service "$M/etc/init.d/baz"
    for name in foo bar baz; do
        configure "$name"
        chroot "$M" update-rc.d "$name" defaults
        ls "$M"/etc/rc2.d/S*"$name"
    done
    boot_sysvinit
    for name in foo bar baz; do
        eventually server_is_not '' "$name"
    done
    eventually are_running 3 -x vsrun
    expect 0 inside service baz stop
    expect 0 inside service foo status
    expect 0 inside service bar status
    expect 0 inside update-rc.d bar remove
    expect 0 inside update-rc.d foo disable
}

inittab_keeps_a_manager_in_the_foreground() { # test
    sysvinit_machine
    echo 'fo:2345:respawn:/usr/sbin/vsrun -u daemon -p /run/foo.pid -m /run/foo-manager.pid /bin/true -s foo -- /usr/local/sbin/fooserver' >>"$M/etc/inittab"
    boot_sysvinit
    eventually server_is_not '' foo
    crash
    before=$(server)
    inside kill -s TERM "$(manager)"
    eventually server_is_not "$before" foo
    eventually are_running 1 -x vsrun
}

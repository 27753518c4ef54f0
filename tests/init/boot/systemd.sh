# systemd as the first process.
# shellcheck shell=sh
. "$TESTS/boot.inc.sh"

examples=/usr/share/doc/vsrun/examples

# systemd_machine [SUITE]
systemd_machine() {
    suite=${1:-bookworm}
    machine "systemd-$suite"
    install_server
    # No time zone means a first boot that asks; no network means no wait.
    : >"$M/etc/machine-id"
}

is_up() {
    case $(inside systemctl is-system-running 2>/dev/null) in
        running | degraded) ;;
        *) return 1 ;;
    esac
}

boot_systemd() {
    boot
    eventually is_up
}

property() {
    inside systemctl show -P "$2" "$1"
}

state_is() {
    [ "$(property "$1" ActiveState)" = "$2" ]
}

# A server by the sample, with two lines edited.
configure() {
    mkdir -p "$M/etc/vsrun"
    sed -e 's|^VSRUN_COMMAND=.*|VSRUN_COMMAND="/usr/local/sbin/fooserver \\"a  b\\" c"|' \
        -e 's|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS="-u daemon"|' "$M$examples/systemd/example.conf" >"$M/etc/vsrun/foo.conf"
}

# unit FILE: that example, as foo.service.
unit() {
    cp "$M$examples/systemd/$1" "$M/etc/systemd/system/foo.service"
}

# unit_setting LINE...: in a drop-in.
unit_setting() {
    mkdir -p "$M/etc/systemd/system/foo.service.d"
    printf '%s\n' '[Service]' "$@" >"$M/etc/systemd/system/foo.service.d/test.conf"
}

the_template_starts_crashes_restarts_reloads_stops_and_boots_again() { # test
    drive_template bookworm
}

the_template_does_so_under_a_newer_systemd_too() { # test
    drive_template trixie
}

drive_template() {
    systemd_machine "$1"
    configure
    boot_systemd
    expect 0 inside systemctl enable --now vsrun@foo
    eventually server_is_not '' foo
    equal "$(manager)" "$(property vsrun@foo MainPID)"
    equal daemon "$(user_of "$(server)")"
    equal root "$(user_of "$(manager)")"
    eventually journaled 'fooserver a  b c is up' -u vsrun@foo

    crash
    eventually mailed '^Subject: \[vsrun\] fooserver RESTARTED on .*: terminated by signal 11'
    expect 0 inside cat /var/mail/root
    shows out 'Command:   /usr/local/sbin/fooserver'
    shows out 'User:      daemon'
    shows out 'Restarts:  0'
    state_is vsrun@foo active || fail "not active"

    before=$(server)
    manager=$(manager)
    expect 0 inside systemctl reload vsrun@foo
    eventually server_is_not "$before" foo
    equal "$manager" "$(manager)"
    expect 0 inside systemctl status vsrun@foo

    expect 0 inside systemctl stop vsrun@foo
    equal inactive "$(property vsrun@foo ActiveState)"
    equal success "$(property vsrun@foo Result)"
    equal '' "$(inside sh -c 'ls /run | grep ^foo')"
    expect 3 inside systemctl status vsrun@foo

    reboot systemctl reboot
    eventually is_up
    eventually server_is_not '' foo
    state_is vsrun@foo active || fail "not active after the reboot"
    eventually are_running 1 -x vsrun
}

a_handler_that_refuses_leaves_the_unit_failed_with_the_servers_status() { # test
    systemd_machine
    configure
    echo VSRUN_HANDLER=/bin/false >>"$M/etc/vsrun/foo.conf"
    boot_systemd
    inside systemctl start vsrun@foo
    eventually server_is_not '' foo
    inside kill -s SEGV "$(server)"
    eventually state_is vsrun@foo failed
    equal exit-code "$(property vsrun@foo Result)"
    equal 139 "$(property vsrun@foo ExecMainStatus)"
}

a_manager_that_was_killed_is_started_again_with_one_server() { # test
    systemd_machine
    configure
    boot_systemd
    inside systemctl start vsrun@foo
    eventually server_is_not '' foo
    before=$(server)
    inside kill -s KILL "$(manager)"
    eventually server_is_not "$before" foo
    eventually state_is vsrun@foo active
    eventually are_running 1 -u daemon -x sleep
}

an_instance_without_settings_does_not_start() { # test
    systemd_machine
    boot_systemd
    status_of inside systemctl start vsrun@nothing
    [ "$status" -ne 0 ] || fail "it started"
    shows err 'failed'
}

two_instances_are_two_services() { # test
    systemd_machine
    configure
    cp "$M/etc/vsrun/foo.conf" "$M/etc/vsrun/bar.conf"
    boot_systemd
    expect 0 inside systemctl start vsrun@foo vsrun@bar
    eventually server_is_not '' foo
    eventually server_is_not '' bar
    expect 0 inside systemctl stop vsrun@bar
    state_is vsrun@foo active || fail "the other one stopped"
}

the_exec_example_is_driven() { # test
    systemd_machine
    unit vsrun-exec.service
    boot_systemd
    expect 0 inside systemctl start foo
    eventually server_is_not '' foo
    equal nobody "$(user_of "$(server)")"
    crash
    before=$(server)
    inside systemctl reload foo
    eventually server_is_not "$before" foo
    inside systemctl stop foo
    equal success "$(property foo Result)"
}

the_forking_example_is_driven() { # test
    systemd_machine
    unit vsrun-forking.service
    boot_systemd
    expect 0 inside systemctl start foo
    # No waiting here: start returns when the server runs.
    equal "$(manager)" "$(property foo MainPID)"
    equal nobody "$(user_of "$(server)")"
    crash
    before=$(server)
    inside systemctl reload foo
    eventually server_is_not "$before" foo
    eventually logged 'is up' /var/log/foo/logfile
    eventually logged 'mail-admin: ' /var/log/foo/vsrun.log
    inside systemctl stop foo
    equal success "$(property foo Result)"
    equal inactive "$(property foo ActiveState)"
}

the_forking_example_fails_at_once_where_the_server_is_missing() { # test
    systemd_machine
    unit vsrun-forking.service
    rm "$M/usr/local/sbin/fooserver"
    boot_systemd
    status_of inside systemctl start foo
    [ "$status" -ne 0 ] || fail "it started"
    equal failed "$(property foo ActiveState)"
    eventually journaled 'status=127' -u foo
    eventually journaled "cannot execute command '/usr/local/sbin/fooserver': No such file or directory" -u foo
}

the_hardened_example_is_driven_and_its_mail_fails_as_it_says() { # test
    systemd_machine
    unit vsrun-hardened.service
    unit_setting 'Environment="CHAIN_HANDLERS=normal-signals uptime-threshold mail-admin"'
    boot_systemd
    expect 0 inside systemctl start foo
    eventually server_is_not '' vsrun/foo-server
    server=$(server vsrun/foo-server)
    equal nobody "$(user_of "$server")"
    crash vsrun/foo-server
    eventually journaled 'mail-admin: no mail to root: the mailer ended with status' -u foo
    eventually journaled 'uptime-threshold: restart: it lived for' -u foo
    eventually journaled 'short life 1 in' -u foo
    ! journaled 'cannot be kept' -u foo || fail "it does not keep count"
    inside systemctl reload foo
    inside systemctl stop foo
    equal success "$(property foo Result)"
    inside test -d /run/vsrun
}

the_hardened_example_with_the_mail_drop_in_mails() { # test
    systemd_machine
    unit vsrun-hardened.service
    mkdir -p "$M/etc/systemd/system/foo.service.d"
    cp "$M$examples/systemd/mail-handler.conf" "$M/etc/systemd/system/foo.service.d"
    boot_systemd
    expect 0 inside systemctl start foo
    eventually server_is_not '' vsrun/foo-server
    server=$(server vsrun/foo-server)
    grep '^NoNewPrivs' "/proc/$leader/root/proc/$server/status"
    equal 0 "$(inside sed -n 's/^NoNewPrivs:.//p' "/proc/$server/status")"
    crash vsrun/foo-server
    eventually mailed '^Subject: \[vsrun\] fooserver RESTARTED on .*: terminated by signal 11'
}

the_hardened_example_allows_another_root() { # test
    systemd_machine
    unit vsrun-hardened.service
    mkdir -p "$M/srv/jail/bin"
    cp "$M/bin/busybox" "$M/srv/jail/bin/sleep"
    unit_setting ExecStart= 'ExecStart=/usr/sbin/vsrun -u nobody -r /srv/jail -p /run/vsrun/foo-server.pid -m /run/vsrun/foo.pid /bin/true -- /bin/sleep 100000'
    boot_systemd
    expect 0 inside systemctl start foo
    eventually server_is_not '' vsrun/foo-server
    server=$(server vsrun/foo-server)
    equal /srv/jail "$(inside readlink "/proc/$server/root")"
    equal nobody "$(user_of "$server")"
    crash vsrun/foo-server
    inside systemctl stop foo
    equal success "$(property foo Result)"
}

# archive_as USER PID: the handler, where core_pattern names systemd-coredump.
archive_as() {
    inside chown "$1" /srv/kept
    inside unshare --mount sh -c "
        mount --bind /root/pattern /proc/sys/kernel/core_pattern
        exec setpriv --reuid=$1 --regid=$1 --clear-groups env -i \
            VSRUN_SERVER_COREDUMP=1 VSRUN_SERVER_PID=$2 VSRUN_SERVER_UPTIME=1 \
            VSRUN_SERVER_COMMAND=/bin/sleep ARCHIVE_CORE_DIR=/srv/kept \
            /usr/share/vsrun/handlers/archive-core"
}

coredumpctl_and_the_storage_give_the_core_to_its_owner() { # test
    systemd_machine
    mkdir "$M/srv/kept"
    # core_pattern belongs to the whole machine, so systemd-coredump gets a core
    # here as the kernel would give it, and the handler a core_pattern to read.
    cat >"$M/root/feed" <<'EOT'
set -eu
user=$1
setpriv --reuid="$user" --regid="$user" --clear-groups sleep 1000 >/dev/null &
pid=$!
until [ "$(cat "/proc/$pid/comm")" = sleep ]; do sleep 0.1; done
uid=$(id -u "$user")
/lib/systemd/systemd-coredump "$pid" "$uid" "$(id -g "$user")" 11 "$(date +%s)" 18446744073709551615 here 1 </root/core
echo "$pid"
EOT
    (
        ulimit -c unlimited
        cd "$T"
        cp /bin/sleep crasher
        ./crasher 100 &
        eventually grep -q crasher "/proc/$!/comm"
        kill -SEGV $!
        wait $! || :
    )
    [ "$(cat /proc/sys/kernel/core_pattern)" = core ] || skip "the kernel gives its cores away here"
    cp core "$M/root/core"
    boot_systemd
    echo '|/lib/systemd/systemd-coredump %P %u %g %s %t %c %h %d' >"$M/root/pattern"
    echo 'person:x:1234:1234::/:/bin/sh' >>"$M/etc/passwd"
    echo 'person:x:1234:' >>"$M/etc/group"
    for user in root person; do
        pid=$(inside sh /root/feed "$user")
        eventually inside sh -c "ls /var/lib/systemd/coredump | grep -q '\.$pid\.'"
        expect 0 archive_as "$user" "$pid"
        shows err 'archive-core: kept the core as '
        inside sh -c 'for f in /srv/kept/core.sleep.*; do case $f in *.zst) zstd -q -d -c "$f" ;; *) cat "$f" ;; esac | cmp - /root/core && rm "$f"; done'
        equal '' "$(inside ls /srv/kept)"
    done
    inside sh -c 'printf "[Coredump]\nStorage=journal\n" >/etc/systemd/coredump.conf'
    pid=$(inside sh /root/feed root)
    expect 0 archive_as root "$pid"
    shows err 'archive-core: kept the core as '
    inside sh -c 'zstd -q -d -c /srv/kept/core.sleep.* | cmp - /root/core'
    inside rm /etc/systemd/coredump.conf
    pid=$(inside sh /root/feed daemon)
    eventually inside sh -c "ls /var/lib/systemd/coredump | grep -q '\.$pid\.'"
    expect 0 archive_as daemon "$pid"
    shows err 'archive-core: left with systemd-coredump, I may not read /var/lib/systemd/coredump/core.'
}

hostile_bytes_reach_the_mailbox_and_nobody_else() { # test
    systemd_machine
    boot_systemd
    cat >"$M/root/mail" <<'EOT'
set -eu
hostile=$(printf 'a\nBcc: daemon\r\nTo: daemon\n\n.\n~!touch /tmp/broken\n\033[31m\377$(touch /tmp/broken)`touch /tmp/broken`')
mkdir -p /tmp/log
printf '%s\n.\nFrom here\nBcc: daemon\n' "$hostile" >/tmp/log/logfile
exec setpriv --reuid=nobody --regid=nogroup --clear-groups env -i VSRUN_LOGDIR=/tmp/log \
    "VSRUN_SERVER_COMMAND=$hostile" "VSRUN_SERVER_EXPLAIN=$hostile" "VSRUN_SERVER_USER=$hostile" \
    /usr/share/vsrun/handlers/mail-admin
EOT
    expect 0 inside sh /root/mail
    shows err 'mail-admin: mail to root handed over'
    eventually mailed '^Subject: '
    expect 0 inside cat /var/mail/root
    equal 1 "$(grep -c '^From ' out)"
    equal 1 "$(grep -c '^Subject: ' out)"
    shows out '  | Bcc: daemon'
    inside test ! -e /var/mail/daemon
    inside test ! -e /tmp/broken
}

the_init_script_works_where_systemd_is_the_init_too() { # test
    systemd_machine
    install -m 755 "$M$examples/sysv/vsrun-service" "$M/etc/init.d/foo"
    sed -e 's|^VSRUN_COMMAND=.*|VSRUN_COMMAND=/usr/local/sbin/fooserver|' \
        -e 's|^VSRUN_OPTIONS=.*|VSRUN_OPTIONS="-u daemon"|' "$M$examples/sysv/vsrun-service.default" >"$M/etc/default/foo"
    boot_systemd
    expect 0 inside systemctl start foo
    equal daemon "$(user_of "$(server)")"
    expect 0 inside /etc/init.d/foo status
    crash
    before=$(server)
    expect 0 inside systemctl reload foo
    eventually server_is_not "$before" foo
    eventually journaled 'is up' -t foo
    expect 0 inside systemctl stop foo
    expect 3 inside /etc/init.d/foo status
    eventually are_running 0 -x vsrun
}

# boot.inc.sh - a machine in a container: made from a root, booted, entered,
# rebooted, ended.
# shellcheck shell=sh

need systemd-nspawn nsenter

# machine NAME: a machine over that root, in $M, that keeps its files until the
# test ends, reboots included.
machine() {
    M=$T/machine
    mkdir "$T/layers" "$M"
    mount -t tmpfs -o mode=0755 tmpfs "$T/layers"
    mkdir "$T/layers/upper" "$T/layers/work"
    mount -t overlay -o "lowerdir=$ROOTS/$1,upperdir=$T/layers/upper,workdir=$T/layers/work" machine "$M"
    nspawn=
    trap end_machine EXIT
    trap 'exit 1' INT TERM HUP
    cp "$DEB" "$M/root/vsrun.deb"
    chroot "$M" dpkg -i /root/vsrun.deb
}

# The server of all samples: says that it is there, and sleeps.
install_server() {
    printf '#!/bin/sh\necho "fooserver $* is up"\nexec sleep 100000\n' >"$M/usr/local/sbin/fooserver"
    chmod 755 "$M/usr/local/sbin/fooserver"
}

boot() {
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn -q --register=no --keep-unit \
        --private-network --machine="${T##*.}" -D "$M" -b --console=pipe >"$T/console" 2>&1 </dev/null &
    nspawn=$!
    find_leader
}

# Sets leader to the machine's first process.
find_leader() {
    eventually is_booting
    echo "the machine's first process is $leader"
}

is_booting() {
    leader=$(cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null) || return 1
    leader=${leader%% *}
    [ -n "$leader" ] || return 1
    case $(cat "/proc/$leader/comm" 2>/dev/null) in
        systemd | init) ;;
        *) return 1 ;;
    esac
}

# inside COMMAND...: runs it in the machine.
inside() {
    nsenter -t "$leader" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"
}

is_gone() {
    [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}

# reboot COMMAND...: runs it and boots again when the machine has asked for it.
reboot() {
    inside "$@" || :
    eventually is_gone "$nspawn"
    status=0
    wait "$nspawn" || status=$?
    # See systemd-nspawn(1).
    equal 133 "$status"
    boot
}

end_machine() {
    status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 30 "$T/console" 2>/dev/null || :
    fi
    if [ -n "$nspawn" ]; then
        is_booting && kill -s KILL "$leader"
        sleep 0.2
        kill -s KILL "$nspawn" 2>/dev/null || :
        wait "$nspawn" 2>/dev/null || :
    fi
    umount "$M" "$T/layers"
    rmdir "$M" "$T/layers"
    exit "$status"
}

# What a service's pidfiles say, as the machine sees it.
server() {
    inside cat "/run/${1:-foo}.pid"
}

manager() {
    inside cat "/run/${1:-foo}-manager.pid"
}

# server_is_not PID NAME: it is another, which has been executed. A child that has its pidfile
# before that still bears the manager's name.
server_is_not() {
    now=$(server "$2" 2>/dev/null) && [ -n "$now" ] && [ "$now" != "$1" ] &&
        now=$(inside cat "/proc/$now/comm" 2>/dev/null) && [ "$now" != vsrun ]
}

# are_running NUMBER PGREP-OPTION...: so many, no more.
are_running() {
    number=$1
    shift
    [ "$(inside pgrep -c "$@")" = "$number" ]
}

# crash [NAME]: kills the server and waits for the next one.
crash() {
    before=$(server "${1:-foo}")
    inside kill -s SEGV "$before"
    eventually server_is_not "$before" "${1:-foo}"
}

mailed() {
    inside grep -q -e "$1" /var/mail/root 2>/dev/null
}

# logged TEXT FILE: the text is in that log.
logged() {
    inside grep -q -e "$1" "$2" 2>/dev/null
}

# journaled TEXT JOURNALCTL-OPTION...: the text is in the journal.
journaled() {
    text=$1
    shift
    inside journalctl --no-pager -o cat "$@" | grep -q -F -e "$text"
}

user_of() {
    inside stat -c %U "/proc/$1"
}

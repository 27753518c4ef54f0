# The files as they lie there: nothing is booted or started.
# shellcheck shell=sh

# An absolute path, from run-files.
init=$INIT
[ -x "$init/handlers/chain" ] || fail "there is no init directory at '$init'"

scripts() {
    find "$init/handlers" "$init/sysv" "$init/openrc" -type f ! -name '*.conf' ! -name '*.confd' ! -name '*.default'
}

every_script_passes_shellcheck() { # test
    need shellcheck
    shellcheck -x $(scripts)
    shellcheck $(scripts)
}

every_script_is_posix_for_checkbashisms() { # test
    need checkbashisms
    for script in $(scripts); do
        case $script in
            # `time` and `ulimit -f` are not what it takes them for; the rest is
            # seen by the two shells below.
            */archive-core | */prelude.sh) ;;
            *) checkbashisms -p -f "$script" ;;
        esac
    done
}

every_script_parses_under_dash_and_busybox() { # test
    need dash busybox
    for script in $(scripts); do
        dash -n "$script"
        busybox sh -n "$script"
    done
}

scripts_are_executable_and_samples_are_not() { # test
    for file in $(find "$init" -type f); do
        case $(head -n 1 "$file") in
            '#!'*) [ -x "$file" ] || fail "$file is not executable" ;;
            *) [ ! -x "$file" ] || fail "$file is executable" ;;
        esac
    done
}

# A root in which units find what they name.
plant() {
    mkdir -p root/etc/systemd/system root/usr/sbin root/usr/bin root/usr/share/vsrun/handlers
    cp "$init"/systemd/*.service root/etc/systemd/system
    ln -s usr/bin root/bin
    for program in root/usr/sbin/vsrun root/usr/bin/kill; do
        printf '#!/bin/sh\n' >"$program"
        chmod 755 "$program"
    done
}

systemd_verifies_every_unit() { # test
    need systemd-analyze
    plant
    for unit in "$init"/systemd/*.service; do
        unit=${unit##*/}
        # What the units wait for comes with systemd.
        expect 0 systemd-analyze verify --man=no --recursive-errors=no --root="$T/root" \
            "$(echo "$unit" | sed 's/@/@foo/')"
        equal '' "$(grep -v 'not found' err)"
    done
}

systemd_calls_the_hardened_unit_safe() { # test
    need systemd-analyze
    cp "$init/systemd/vsrun-hardened.service" .
    expect 0 systemd-analyze security --offline=yes --threshold=25 ./vsrun-hardened.service
}

units_and_samples_name_the_same_settings() { # test
    for setting in VSRUN_COMMAND VSRUN_OPTIONS VSRUN_HANDLER; do
        for file in systemd/vsrun@.service systemd/example.conf sysv/vsrun-service \
            sysv/vsrun-service.default openrc/vsrun-service openrc/vsrun-service.confd; do
            shows "$init/$file" "$setting"
        done
    done
}

logrotate_cuts_the_log_of_a_server_that_goes_on_writing() { # test
    need logrotate
    [ "$(id -u)" = 0 ] || skip "only root"
    chmod 755 "$T"
    mkdir log
    chown nobody log
    sed -e "s|/var/log/foo|$T/log|; s|su foo foo|su nobody $(id -gn nobody)|" "$init/logrotate/vsrun-service" >conf
    (while :; do echo line; sleep 0.01; done >>log/logfile) &
    writer=$!
    trap 'kill "$writer"' EXIT
    chown nobody log/logfile 2>/dev/null || { sleep 0.2 && chown nobody log/logfile; }
    echo mine >log/logfile.1
    sleep 0.3
    logrotate -f -s "$T/state" conf
    eventually test -s log/logfile
    equal 1 "$(find log -name 'logfile-*' | wc -l | tr -d ' ')"
    equal mine "$(cat log/logfile.1)"
    # Appended, and not after a hole.
    ! grep -a -v -q '^line$' log/logfile || fail "a hole"
}

every_test_passes_shellcheck_too() { # test
    need shellcheck
    shellcheck "$TESTS"/run-* "$TESTS"/*.sh "$TESTS"/*/*.sh
}

# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

# The only file in which a count is kept.
record() {
    set -- "$T"/uptime-threshold.*
    [ "$#" -eq 1 ] && [ -f "$1" ] || fail "kept: $*"
    echo "$1"
}

a_long_life_is_restarted_and_leaves_no_file() { # test
    mkdir log
    expect 0 handler uptime-threshold VSRUN_SERVER_UPTIME=10 "VSRUN_LOGDIR=$T/log"
    says uptime-threshold 'restart: it lived for 10 s'
    rmdir log
}

short_lives_are_forgiven_up_to_the_burst() { # test
    mkdir log
    for life in 1 2 3; do
        expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=3 VSRUN_SERVER_UPTIME=9 "VSRUN_LOGDIR=$T/log"
        says uptime-threshold "restart: it lived for 9 s of 10 s, short life $life in 3600 s, 3 are forgiven"
    done
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=3 VSRUN_SERVER_UPTIME=9 "VSRUN_LOGDIR=$T/log"
    says uptime-threshold 'stay down: it lived for 9 s of 10 s, short life 4 in 3600 s'
}

# Sets deaths to the short lives within SECONDS of a server that dies at once,
# with the manager's delays: none, 0.1 s, and twice as long each time up to 30 s.
deaths_in() {
    deaths=$(awk -v limit="$1" 'BEGIN {
        for (n = 1; time <= limit; n++) {
            time += delay
            delay = n == 1 ? 0.1 : delay < 15 ? 2 * delay : 30
        }
        print n - 1
    }')
}

by_default_a_dependency_may_be_minutes_late_but_not_missing() { # test
    deaths_in 300
    expect 0 handler uptime-threshold
    read -r up rest </proc/uptime
    yes "${up%%.*}" | head -n "$((deaths - 1))" >"$(record)"
    expect 0 handler uptime-threshold
    says uptime-threshold "short life $deaths in 3600 s"
    deaths_in 1800
    yes "${up%%.*}" | head -n "$((deaths - 1))" >"$(record)"
    expect 1 handler uptime-threshold
}

a_burst_of_none_refuses_the_first_short_life() { # test
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=0
    says uptime-threshold 'stay down: '
}

a_new_manager_has_its_whole_allowance() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 VSRUN_MANAGER_PID=$((no_process + 1))
}

an_id_that_is_used_again_is_another_manager() { # test
    expect 0 handler uptime-threshold VSRUN_MANAGER_PID=$$
    start=$(sed 's/.*)//' "/proc/$$/stat" | cut -d ' ' -f 21)
    read -r boot </proc/sys/kernel/random/boot_id
    case $(record) in
        *"/uptime-threshold.$$.$start.$boot."??????) ;;
        *) fail "$(record)" ;;
    esac
}

a_short_life_outside_the_window_is_forgotten() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 UPTIME_THRESHOLD_WINDOW=1
    echo 0 >"$(record)"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 UPTIME_THRESHOLD_WINDOW=1
    says uptime-threshold 'short life 1 in'
}

the_file_is_private_and_the_only_one() { # test
    expect 0 handler uptime-threshold
    expect 0 handler uptime-threshold
    equal 600 "$(stat -c %a "$(record)")"
}

no_other_user_can_take_the_name_first() { # test
    # TMPDIR is as /tmp: another user has made every name that can be guessed.
    mkdir tmp
    chmod 1777 tmp
    for name in vsrun-handlers "vsrun-handlers-$(id -u)" uptime-threshold "uptime-threshold.$no_process"; do
        ln -s /nonexistent "tmp/$name"
    done
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "TMPDIR=$T/tmp"
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "TMPDIR=$T/tmp"
}

without_a_directory_of_its_own_root_uses_run_and_others_tmp() { # test
    manager=$no_process$$
    expect 0 handler uptime-threshold TMPDIR= "VSRUN_MANAGER_PID=$manager"
    folder=/tmp
    [ "$(id -u)" != 0 ] || folder=/run/vsrun
    rm "$folder/uptime-threshold.$manager".*
}

a_directory_that_another_user_can_change_is_not_used() { # test
    open_folder open
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$T/open"
    says uptime-threshold "the count cannot be kept ($T/open)"
    rmdir open
}

a_log_directory_that_cannot_keep_the_count_is_passed_over() { # test
    open_folder open
    mkdir closed
    chmod 555 closed
    manager=$no_process
    for log_dir in open closed; do
        manager=$((manager + 1))
        expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "VSRUN_LOGDIR=$T/$log_dir" "VSRUN_MANAGER_PID=$manager"
        expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "VSRUN_LOGDIR=$T/$log_dir" "VSRUN_MANAGER_PID=$manager"
    done
    rm -r -f open closed
}

a_link_in_place_of_the_file_is_not_followed() { # test
    expect 0 handler uptime-threshold
    file=$(record)
    echo precious >victim
    ln -s -f "$T/victim" "$file"
    expect 0 handler uptime-threshold
    says uptime-threshold 'short life 1 in'
    equal precious "$(cat victim)"
}

the_files_of_managers_long_gone_are_removed() { # test
    echo 1 >uptime-threshold.1.2.boot.AbCdEf
    touch -d '10 days ago' uptime-threshold.1.2.boot.AbCdEf 2>/dev/null ||
        touch -d @$(($(date +%s) - 864000)) uptime-threshold.1.2.boot.AbCdEf
    expect 0 handler uptime-threshold
    record
}

nonsense_in_the_file_counts_for_nothing() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    file=$(record)
    printf -- '-1\n$(touch broken)\n99999999999999999999\n999999999999\n08\n\n\377\n' >"$file"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    says uptime-threshold 'short life 1 in'
    dd if=/dev/urandom of="$file" bs=4096 count=1 2>/dev/null
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    [ ! -e broken ] || fail "it was executed"
}

a_full_disk_does_not_keep_the_server_down() { # test
    mkdir "$AREA/disk/state"
    dd if=/dev/zero of="$AREA/disk/fill" bs=1024 2>/dev/null || :
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$AREA/disk/state"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$AREA/disk/state"
    left=$(find "$AREA/disk/state" -type f -size +0)
    rm -r "$AREA/disk/state" "$AREA/disk/fill"
    says uptime-threshold 'the count cannot be kept'
    equal '' "$left"
}

an_uptime_that_is_no_number_is_restarted() { # test
    for uptime in '' -1 x '3;touch broken' 08; do
        expect 0 handler uptime-threshold "VSRUN_SERVER_UPTIME=$uptime" UPTIME_THRESHOLD_BURST=0
    done
    [ ! -e broken ] || fail "it was executed"
}

a_setting_that_is_no_number_has_its_default() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_SECONDS=ten UPTIME_THRESHOLD_BURST=-1
    shows err "UPTIME_THRESHOLD_SECONDS is no number: 'ten', so it is 10"
    shows err '30 are forgiven'
}

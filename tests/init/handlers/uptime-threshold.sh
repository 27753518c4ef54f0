# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

a_long_life_is_restarted_and_leaves_no_file() { # test
    mkdir log
    expect 0 handler uptime-threshold VSRUN_SERVER_UPTIME=10 "VSRUN_LOGDIR=$T/log"
    says uptime-threshold 'restart: it lived for 10 s'
    rmdir log
}

short_lives_are_forgiven_up_to_the_burst() { # test
    mkdir log
    for life in 1 2 3; do
        expect 0 handler uptime-threshold VSRUN_SERVER_UPTIME=9 "VSRUN_LOGDIR=$T/log"
        says uptime-threshold "restart: it lived for 9 s of 10 s, short life $life in 600 s, 3 are forgiven"
    done
    expect 1 handler uptime-threshold VSRUN_SERVER_UPTIME=9 "VSRUN_LOGDIR=$T/log"
    says uptime-threshold 'stay down: it lived for 9 s of 10 s, short life 4 in 600 s'
}

a_burst_of_none_refuses_the_first_short_life() { # test
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=0
    says uptime-threshold 'stay down: '
}

a_new_manager_has_its_whole_allowance() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 VSRUN_MANAGER_PID=99
}

servers_are_counted_apart() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 VSRUN_SERVER_COMMAND=other
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 VSRUN_SERVER_PIDFILE=/run/foo.pid
    expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
}

a_short_life_outside_the_window_is_forgotten() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 UPTIME_THRESHOLD_WINDOW=1
    sleep 2
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 UPTIME_THRESHOLD_WINDOW=1
}

the_file_is_private_even_in_a_directory_for_all() { # test
    expect 0 handler uptime-threshold
    folder=$T/vsrun-handlers-$(id -u)
    equal 700 "$(stat -c %a "$folder")"
    equal 600 "$(stat -c %a "$folder"/uptime-threshold.*)"
    set -- "$folder"/*
    equal 1 "$#"
}

a_directory_that_others_may_write_is_not_used() { # test
    mkdir shared
    chmod 777 shared
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$T/shared"
    says uptime-threshold "cannot keep count in '$T/shared'"
    rmdir shared
}

a_log_directory_that_cannot_keep_count_is_passed_over() { # test
    mkdir shared closed
    chmod 777 shared
    chmod 555 closed
    for log_dir in shared closed; do
        rm -r -f "vsrun-handlers-$(id -u)"
        expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "VSRUN_LOGDIR=$T/$log_dir"
        expect 1 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "VSRUN_LOGDIR=$T/$log_dir"
    done
    rm -r -f shared closed
}

a_link_in_place_of_the_directory_is_not_followed() { # test
    mkdir elsewhere
    ln -s elsewhere "vsrun-handlers-$(id -u)"
    expect 0 handler uptime-threshold
    shows err 'cannot keep count'
    rmdir elsewhere
}

a_link_in_place_of_the_file_is_not_followed() { # test
    expect 0 handler uptime-threshold
    file=$(echo "$T/vsrun-handlers-$(id -u)"/*)
    echo precious >victim
    ln -s -f "$T/victim" "$file"
    expect 0 handler uptime-threshold
    shows err 'cannot keep count'
    equal precious "$(cat victim)"
}

nonsense_in_the_file_counts_for_nothing() { # test
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    file=$(echo "$T/vsrun-handlers-$(id -u)"/*)
    printf 'manager 4241\n-1\n$(touch broken)\n99999999999999999999\n999999999999\n08\n\n\377\n' >"$file"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    says uptime-threshold 'short life 1 in'
    # A time to come: the machine was booted since.
    read -r up rest </proc/uptime
    printf 'manager 4241\n%s\n' "$((${up%%.*} + 300))" >"$file"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    dd if=/dev/urandom of="$file" bs=4096 count=1 2>/dev/null
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1
    [ ! -e broken ] || fail "it was executed"
}

a_full_disk_does_not_keep_the_server_down() { # test
    mkdir "$AREA/disk/state"
    dd if=/dev/zero of="$AREA/disk/fill" bs=1024 2>/dev/null || :
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$AREA/disk/state"
    expect 0 handler uptime-threshold UPTIME_THRESHOLD_BURST=1 "UPTIME_THRESHOLD_STATE_DIR=$AREA/disk/state"
    left=$(ls "$AREA/disk/state")
    rm -r "$AREA/disk/state" "$AREA/disk/fill"
    says uptime-threshold 'cannot keep count'
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
    shows err '3 are forgiven'
}

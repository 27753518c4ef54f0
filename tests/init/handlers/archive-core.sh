# shellcheck shell=sh
. "$TESTS/handlers.inc.sh"

# make_core FILE: a real core of $AREA/crasher, by the kernel where its own
# core_pattern is a plain name, else by gcore. Sets crashed to its process.
make_core() {
    (
        mkdir dump
        cd dump
        # The copy shows what the kernel goes by; the file in /proc is ours.
        case $(cat "$AREA/real_core_pattern") in
            core)
                ulimit -c unlimited
                "$AREA/crasher" 100 &
                sleep 0.1
                kill -SEGV $!
                echo $! >../crashed
                wait $! || :
                mv core* ../made_core
                ;;
            *)
                command -v gcore >/dev/null || skip "no gcore, and core_pattern is not plain"
                "$AREA/crasher" 100 &
                gcore -o core $! >/dev/null
                kill $!
                echo $! >../crashed
                mv core.* ../made_core
                ;;
        esac
    )
    crashed=$(cat crashed)
    mv made_core "$1"
}

archive() {
    handler archive-core VSRUN_SERVER_COMMAND="$AREA/crasher 100" VSRUN_SERVER_COREDUMP=1 \
        "VSRUN_SERVER_PID=$crashed" "VSRUN_SERVER_WORKDIR=$T" "ARCHIVE_CORE_DIR=$T/kept" "$@"
}

pattern() {
    echo "$1" >"$AREA/core_pattern"
    echo "${2:-0}" >"$AREA/core_uses_pid"
}

# The only file that is kept.
kept() {
    set -- kept/core.crasher.*
    [ "$#" -eq 1 ] && [ -f "$1" ] || fail "kept: $*"
    echo "$1"
}

works() {
    [ "$1" = none ] || "$1" -c </dev/null >/dev/null 2>&1
}

gdb_opens_the_archived_core() { # test
    need gdb
    pattern core
    make_core core
    expect 0 archive ARCHIVE_CORE_COMPRESS=gzip
    says archive-core 'archive-core: kept the core as '
    [ ! -e core ] || fail "the core is still there"
    gzip -d -c "$(kept)" >again
    expect 0 gdb -batch -nx -ex 'info threads' "$AREA/crasher" again
    shows out "LWP $crashed"
    if [ "$(cat "$AREA/real_core_pattern")" = core ]; then
        shows out 'terminated with signal SIGSEGV'
    fi
}

the_archive_is_private_and_named_by_server_time_and_id() { # test
    pattern core
    make_core core
    expect 0 archive
    equal 700 "$(stat -c %a kept)"
    equal 600 "$(stat -c %a "$(kept)")"
    kept | grep -E -q "^kept/core\.crasher\.[0-9]{8}T[0-9]{6}Z\.$crashed(\.zst|\.gz)\$" || fail "$(kept)"
    equal '' "$(find kept -name '.core*')"
}

each_compressor_gives_the_same_core_back() { # test
    pattern core
    for way in zstd gzip xz none; do
        case $way in
            none) back=cat ;;
            *) back="$way -d -c" ;;
        esac
        works "$way" || continue
        rm -rf kept dump
        make_core core
        cp core original
        expect 0 archive "ARCHIVE_CORE_COMPRESS=$way"
        $back <"$(kept)" >again
        cmp original again
    done
}

a_compressor_that_does_not_work_is_reported_and_the_core_kept() { # test
    pattern core
    make_core core
    mkdir bad
    printf '#!/bin/sh\nexit 1\n' >bad/zstd
    chmod 755 bad/zstd
    expect 0 archive "PATH=$T/bad:$PATH" ARCHIVE_CORE_COMPRESS=zstd
    shows err 'ARCHIVE_CORE_COMPRESS cannot be'
    kept
}

an_unknown_compressor_is_reported_and_the_core_kept() { # test
    pattern core
    make_core core
    expect 0 archive 'ARCHIVE_CORE_COMPRESS=touch broken'
    shows err 'ARCHIVE_CORE_COMPRESS cannot be'
    kept
    [ ! -e broken ] || fail "it was executed"
}

the_core_is_found_by_every_kind_of_plain_pattern() { # test
    mkdir -p 'sub dir [x]' abs
    make_core made
    while IFS='|' read -r in_kernel uses_pid file; do
        pattern "$in_kernel" "$uses_pid"
        cp made "$file"
        expect 0 archive
        rm -rf kept
        says archive-core 'archive-core: kept the core as '
        [ ! -e "$file" ] || fail "$file is still there"
    done <<EOT
core|0|core
core|1|core.$crashed
core.%p|0|core.$crashed
core.%p|1|core.$crashed
%e-%p.core|0|crasher-$crashed.core
core.%e.%t|0|core.crasher.1700000000
%h.%u.%g.%s.%P.%i.%I.%E.%f|0|host.0.0.11.1.2.3.!usr!sbin!x.y
%%core%|0|%core
sub dir [x]/core.%p|0|sub dir [x]/core.$crashed
$T/abs/core.%p|0|$T/abs/core.$crashed
$T/abs/[*?].%p|0|$T/abs/[*?].$crashed
EOT
}

the_core_of_a_chroot_is_found_where_the_setting_says() { # test
    mkdir -p root/var/crash
    make_core made
    pattern /var/crash/core.%p
    cp made "root/var/crash/core.$crashed"
    expect 0 archive "ARCHIVE_CORE_SEARCH=/nonexistent:$T/root"
    says archive-core 'archive-core: kept the core as '
    rm -r kept
    cp made "root/core.$crashed"
    expect 0 archive "ARCHIVE_CORE_SEARCH=$T/root:/nonexistent"
    says archive-core 'archive-core: kept the core as '
}

the_newest_of_several_cores_is_taken() { # test
    make_core made
    pattern core.%t
    cp made core.1
    touch -d '2 minutes ago' core.1 2>/dev/null || touch -d @$(($(date +%s) - 120)) core.1
    cp made core.2
    expect 0 archive
    [ -e core.1 ] && [ ! -e core.2 ] || fail "$(ls)"
}

what_is_no_core_of_this_server_is_left_alone() { # test
    make_core made
    pattern 'core*'
    # A source file, a program, a link to a core, a directory, an old core.
    echo 'int main;' >core.c
    cp "$AREA/crasher" core.exe
    ln -s "$T/made" core.link
    mkdir core.d
    mkfifo core.fifo
    cp made core.old
    touch -d '3 hours ago' core.old 2>/dev/null || touch -d @$(($(date +%s) - 10800)) core.old
    if [ "$(id -u)" = 0 ]; then
        cp made core.stranger
        chown 1 core.stranger
    fi
    before=$(ls | grep -v -e '^out$' -e '^err$')
    pattern 'core.%t'
    expect 0 archive
    says archive-core 'archive-core: found no core of process'
    rmdir kept 2>/dev/null || :
    equal "$before" "$(ls | grep -v -e '^out$' -e '^err$')"
}

without_a_core_nothing_is_done() { # test
    crashed=4242
    pattern core
    expect 0 archive VSRUN_SERVER_COREDUMP=0
    says archive-core 'archive-core: no core was dumped'
    [ ! -e kept ] || fail "it made a directory"
}

the_newest_n_are_kept() { # test
    pattern core
    make_core made
    mkdir kept
    for day in 01 02 03 04; do
        echo "$day" >"kept/core.crasher.202001${day}T000000Z.1.gz"
        echo "$day" >"kept/core.other.202001${day}T000000Z.1.gz"
    done
    echo mine >kept/notes
    cp made core
    expect 0 archive ARCHIVE_CORE_KEEP=3
    equal '20200103 20200104' "$(ls kept | sed -n 's/core\.crasher\.\(2020[0-9]*\)T.*/\1/p' | tr '\n' ' ' | sed 's/ $//')"
    equal 3 "$(ls kept | grep -c core.crasher)"
    equal 4 "$(ls kept | grep -c core.other)"
    equal mine "$(cat kept/notes)"
}

at_most_s_bytes_are_kept() { # test
    pattern core
    make_core made
    mkdir kept
    for day in 01 02 03; do
        dd if=/dev/zero of="kept/core.crasher.202001${day}T000000Z.1.gz" bs=1024 count=300 2>/dev/null
    done
    cp made core
    expect 0 archive ARCHIVE_CORE_MAX_SIZE=600K
    equal 20200103 "$(ls kept | sed -n 's/core\.crasher\.\(2020[0-9]*\)T.*/\1/p' | tr '\n' ' ' | sed 's/ $//')"
    equal 2 "$(ls kept | grep -c core.crasher)"
}

a_core_beyond_the_size_is_left_where_it_was() { # test
    pattern core
    make_core core
    mkdir kept
    echo old >kept/core.crasher.20200101T000000Z.1.gz
    expect 0 archive ARCHIVE_CORE_MAX_SIZE=1K
    says archive-core "archive-core: left $T/core: it compresses to more than 1024 bytes"
    [ -f core ] || fail "the core is gone"
    equal old "$(cat "$(kept)")"
    equal '' "$(find kept -name '.core*')"
    expect 0 archive ARCHIVE_CORE_MAX_SIZE=1K ARCHIVE_CORE_UNARCHIVED=remove
    says archive-core "archive-core: removed $T/core: it compresses"
    [ ! -e core ] || fail "the core is still there"
}

a_full_disk_leaves_no_half_written_file() { # test
    pattern core
    make_core core
    mkdir "$AREA/disk/kept"
    dd if=/dev/zero of="$AREA/disk/fill" bs=1024 2>/dev/null || :
    expect 0 archive "ARCHIVE_CORE_DIR=$AREA/disk/kept" ARCHIVE_CORE_COMPRESS=gzip
    left=$(ls -A "$AREA/disk/kept")
    rm -r "$AREA/disk/kept" "$AREA/disk/fill"
    says archive-core "archive-core: left $T/core: no space left in $AREA/disk/kept"
    [ -f core ] || fail "the core is gone"
    equal '' "$left"
}

on_a_full_disk_the_oldest_cores_make_room() { # test
    for way in gzip zstd xz none; do
        works "$way" || continue
        rm -rf dump
        pattern core
        make_core core
        # A core that does not fit even alone shows only that all is tidy.
        mkdir "$AREA/disk/kept"
        for day in 01 02 03; do
            dd if=/dev/zero of="$AREA/disk/kept/core.crasher.202001${day}T000000Z.1.gz" bs=1024 count=36 2>/dev/null
        done
        dd if=/dev/zero of="$AREA/disk/kept/notes" bs=1024 2>/dev/null || :
        expect 0 archive "ARCHIVE_CORE_DIR=$AREA/disk/kept" ARCHIVE_CORE_COMPRESS="$way"
        left=$(ls -A "$AREA/disk/kept" | tr '\n' ' ')
        rm -r "$AREA/disk/kept"
        case $way in
            none) says archive-core "archive-core: left $T/core: no space left" ;;
            *)
                says archive-core 'archive-core: kept the core as '
                case $left in
                    *".$crashed."*) ;;
                    *) fail "kept: $left" ;;
                esac
                ;;
        esac
        case $left in
            *.core*) fail "half-written: $left" ;;
        esac
        rm -f core
    done
}

an_archive_that_cannot_be_written_changes_nothing() { # test
    pattern core
    make_core core
    echo file >kept
    expect 0 archive
    says archive-core "archive-core: left $T/core: cannot write in '$T/kept'"
    [ -f core ] || fail "the core is gone"
    if [ "$(id -u)" != 0 ]; then
        expect 0 archive ARCHIVE_CORE_DIR=/proc/cores
        expect 0 archive ARCHIVE_CORE_DIR=/usr
        says archive-core "cannot write in '/usr'"
    fi
}

a_core_that_another_user_can_replace_is_left() { # test
    pattern core
    open_folder open
    make_core open/core
    expect 0 archive "VSRUN_SERVER_WORKDIR=$T/open"
    says archive-core "archive-core: left $T/open/core: other users can replace it"
    [ -f open/core ] && [ ! -e kept ] || fail "it was touched"
}

an_archive_that_another_user_can_change_is_not_used() { # test
    pattern core
    make_core core
    open_folder open
    mkdir -m 700 open/log elsewhere
    for folder in open open/log; do
        expect 0 archive ARCHIVE_CORE_DIR= "VSRUN_LOGDIR=$T/$folder"
        says archive-core "archive-core: left $T/core: other users can change '$T/$folder'"
    done
    ln -s "$T/elsewhere" open/cores
    chmod 755 elsewhere
    open_folder elsewhere/open
    ln -s "$T/elsewhere/open" open/log/cores
    expect 0 archive ARCHIVE_CORE_DIR= "VSRUN_LOGDIR=$T/open/log"
    says archive-core "archive-core: left $T/core: other users can change '$T/open/log/cores'"
    [ -f core ] || fail "the core is gone"
    equal '' "$(find elsewhere open -type f)"
}

compression_has_a_time_limit() { # test
    pattern core
    make_core core
    mkdir slow
    printf '#!/bin/sh\n[ -n "$(head -c 1)" ] || exit 0\nexec sleep 1000\n' >slow/zstd
    chmod 755 slow/zstd
    before=$(date +%s)
    expect 0 archive "PATH=$T/slow:$PATH" ARCHIVE_CORE_COMPRESS=zstd ARCHIVE_CORE_TIMEOUT=1
    [ $(($(date +%s) - before)) -lt 60 ] || fail "it took too long"
    says archive-core 'it took more than 1 s'
    [ -f core ] || fail "the core is gone"
    equal '' "$(ls -A kept)"
}

a_handler_that_is_terminated_leaves_nothing_half_written() { # test
    pattern core
    make_core core
    mkdir slow
    printf '#!/bin/sh\n[ -n "$(head -c 1)" ] || exit 0\necho half\necho $$ >%s/compressor\nexec sleep 1000\n' "$T" >slow/zstd
    chmod 755 slow/zstd
    # As vsrun does: a session of its own, and the signal to the whole group.
    setsid sh -c 'echo $$ >group; exec "$@"' sh env -i "PATH=$T/slow:$PATH" "ARCHIVE_CORE_DIR=$T/kept" \
        VSRUN_SERVER_COREDUMP=1 "VSRUN_SERVER_PID=$crashed" "VSRUN_SERVER_WORKDIR=$T" \
        ARCHIVE_CORE_COMPRESS=zstd "$HANDLERS/archive-core" 2>err &
    eventually sh -c 'find kept -name ".core.*" -size +0 2>/dev/null | grep -q .'
    kill -TERM "-$(cat group)"
    status=0
    wait $! || status=$?
    eventually sh -c '[ -z "$(ls -A kept)" ]'
    [ "$status" -ne 0 ] || fail "it said restart"
    eventually test ! -e "/proc/$(cat compressor)"
    [ -f core ] || fail "the core is gone"
}

what_a_killed_handler_left_is_removed_later() { # test
    pattern core
    make_core core
    mkdir kept
    echo half >kept/.core.AbCdEf
    touch -d '2 hours ago' kept/.core.AbCdEf 2>/dev/null || touch -d @$(($(date +%s) - 7200)) kept/.core.AbCdEf
    echo half >kept/.core.GhIjKl
    expect 0 archive
    equal .core.GhIjKl "$(ls -A kept | grep '^\.core')"
}

cores_that_go_to_a_program_are_left_there() { # test
    crashed=4242
    pattern '|/usr/share/apport/apport -p%p -s%s -- %E'
    expect 0 archive
    says archive-core 'archive-core: cores go to another program: |/usr/share/apport/apport'
}

coredumpctl_gives_the_core_that_systemd_took() { # test
    pattern '|/lib/systemd/systemd-coredump %P %u %g %s %t %c %h'
    make_core made
    mkdir fake
    cat >fake/coredumpctl <<EOT
#!/bin/sh
echo "\$*" >>"$T/asked"
case "\$*" in
    "-q --since=@"*" list $crashed") [ -e "$T/ready" ] || { touch "$T/ready"; exit 1; } ;;
    "-q --since=@"*" dump $crashed") cat "$T/made" ;;
    *) exit 64 ;;
esac
EOT
    chmod 755 fake/coredumpctl
    expect 0 archive "PATH=$T/fake:$PATH" ARCHIVE_CORE_COMPRESS=gzip
    says archive-core 'archive-core: kept the core as '
    gzip -d -c "$(kept)" | cmp - made
}

a_core_that_coredumpctl_cannot_give_leaves_nothing() { # test
    pattern '|/lib/systemd/systemd-coredump %P %u %g %s %t %c %h'
    crashed=4242
    mkdir fake
    printf '#!/bin/sh\ncase $* in *list*) ;; *) echo half; exit 1 ;; esac\n' >fake/coredumpctl
    chmod 755 fake/coredumpctl
    expect 0 archive "PATH=$T/fake:$PATH"
    says archive-core 'archive-core: left the core with systemd-coredump: cannot archive it'
    equal '' "$(ls -A kept)"
}

a_core_pattern_or_names_with_odd_bytes_run_nothing() { # test
    make_core made
    odd='$(touch broken)`touch broken`;*'
    pattern "$odd.%p"
    cp made "$odd.$crashed"
    expect 0 archive "VSRUN_SERVER_COMMAND=$hostile"
    shows err 'archive-core: kept the core as '
    [ ! -e broken ] || fail "it was executed"
    set -- kept/core.a.*
    [ -f "$1" ] || fail "$(ls kept)"
}

a_size_that_is_none_has_its_default() { # test
    pattern core
    make_core core
    expect 0 archive ARCHIVE_CORE_MAX_SIZE=much
    shows err "ARCHIVE_CORE_MAX_SIZE is no size: 'much', so it is 1G"
    kept
}

a_mount_name_without_log_or_work_directory_is_the_handlers_own() { # test
    pattern core
    make_core core
    expect 0 env -i "PATH=$PATH" VSRUN_SERVER_COREDUMP=1 "VSRUN_SERVER_PID=$crashed" "$HANDLERS/archive-core"
    [ ! -e core ] && [ -f "$(echo cores/core.server.*)" ] || fail "$(ls . cores)"
}

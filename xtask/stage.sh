#!/bin/sh
# Installs what xtask/manifest lists below a directory. A script, so that a
# package's build needs no xtask: debian/rules and rpm/vsrun.spec call it as
# `cargo xtask dist` does.
#
#   stage.sh --for deb|rpm|plain --binaries DIR --destdir DIR [--prefix DIR]
#            [--list FILE]
#
# --list writes the paths as a %files list of rpm. Runs in the repository's
# root, whatever the caller's directory.
set -eu
umask 022

complain() {
    echo "stage.sh: $*" >&2
    exit 1
}

flavour=plain binaries='' destdir='' prefix=/usr list=/dev/null
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || complain "'$1' wants a value"
    case $1 in
        --for) flavour=$2 ;;
        --binaries) binaries=$2 ;;
        --destdir) destdir=$2 ;;
        --prefix) prefix=$2 ;;
        --list) list=$2 ;;
        *) complain "unknown argument '$1'" ;;
    esac
    shift 2
done
[ -n "$binaries" ] || complain "--binaries is missing"
[ -n "$destdir" ] || complain "--destdir is missing"
case $flavour in
    deb | rpm | plain) ;;
    *) complain "'$flavour' is none of deb, rpm, plain" ;;
esac
case $prefix in
    *[!A-Za-z0-9/._+-]*) complain "the prefix '$prefix' has a character that a script would trip over" ;;
    /*) prefix=${prefix%/} ;;
    *) complain "the prefix '$prefix' is not absolute" ;;
esac
case $binaries in /*) ;; *) binaries=$PWD/$binaries ;; esac
case $destdir in /*) ;; *) destdir=$PWD/$destdir ;; esac
case $list in /*) ;; *) list=$PWD/$list ;; esac
cd "$(dirname "$0")/.."

# listed MODE PATH: one entry of rpm's list.
listed() {
    case $1,$2 in
        dir,*) echo "%dir %attr(0755,root,root) $2" ;;
        *,*/share/man/*) echo "%attr($1,root,root) %doc $2*" ;;
        *,*/share/licenses/*) echo "%attr($1,root,root) %license $2" ;;
        *,*/share/doc/*) echo "%attr($1,root,root) %doc $2" ;;
        *) echo "%attr($1,root,root) $2" ;;
    esac
}

while read -r where mode path source; do
    case $where in '' | '#'*) continue ;; esac
    case ,all,$where, in
        ,all,all, | *,"$flavour",*) ;;
        *) continue ;;
    esac
    case $path in /*) ;; *) path=$prefix/$path ;; esac
    case $mode,$source in
        dir,*) install -d -m 0755 "$destdir$path" ;;
        *,@bin/*) install -D -m "$mode" "$binaries/${source#@bin/}" "$destdir$path" ;;
        *)
            install -D -m "$mode" "$source" "$destdir$path"
            if [ "$prefix" != /usr ]; then
                sed -i "s,/usr/\(sbin/vsrun\|share/vsrun/\|share/doc/vsrun/\),$prefix/\1,g" \
                    "$destdir$path"
            fi
            ;;
    esac
    listed "$mode" "$path" >&3
done <xtask/manifest 3>"$list"

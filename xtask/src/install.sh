# Installs the packages named as arguments. Starts none of the services that come
# with them, and enables none for the next boot.
set -eu

policy=/usr/sbin/policy-rc.d
mark='# put here by vsrun, cargo xtask test'
export DEBIAN_FRONTEND=noninteractive

# Prints what can be enabled: units that packages have registered (see
# deb-systemd-helper(1)), and init scripts.
services() {
    for file in /var/lib/systemd/deb-systemd*helper-enabled/*.dsh-also /etc/init.d/*; do
        [ ! -f "$file" ] || echo "$file"
    done
}

disable_new_services() {
    for file in $(services); do
        name=${file##*/}
        name=${name%.dsh-also}
        case $before in
            *" $file "*) continue ;;
        esac
        case $file in
            /etc/init.d/*) update-rc.d "$name" disable || : ;;
            *-user-helper-enabled/*) systemctl --global disable "$name" || : ;;
            *) systemctl disable "$name" || : ;;
        esac
    done
}

policy_is_ours() {
    grep -qxF "$mark" "$policy" 2>/dev/null
}

finish() {
    if policy_is_ours; then
        rm -f "$policy"
    fi
    disable_new_services
}

before=" $(services | tr '\n' ' ')"
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# With this policy no package starts a service: see invoke-rc.d(8). An
# administrator's own stays. noclobber opens with O_EXCL: never through a link,
# never over a file.
(set -C && printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy") 2>/dev/null || :
if policy_is_ours; then
    chmod 755 "$policy"
fi

install() {
    apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" </dev/null
}

# Lists that are missing or old make the first attempt fail.
if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || ! install "$@"; then
    apt-get update </dev/null
    install "$@"
fi

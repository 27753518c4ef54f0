# Installs the packages named as arguments without letting one of them start a
# service: policy-rc.d (invoke-rc.d(8)) says no for as long as apt-get runs. One
# that is there already is the administrator's and stays.
set -eu

policy=/usr/sbin/policy-rc.d
mark='# put here by vsrun, cargo xtask test'
export DEBIAN_FRONTEND=noninteractive

if [ -f "$policy" ] && grep -qxF "$mark" "$policy"; then
    # Left behind by a run that was killed.
    rm -f "$policy"
fi
# noclobber opens with O_EXCL: never through a link, never over a file.
if (set -C && printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy") 2>/dev/null; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
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

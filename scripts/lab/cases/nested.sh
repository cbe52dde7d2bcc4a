#!/bin/sh
# nested KIND: xc-save by itself refuses a guest that may run virtual machines of its own, and leaves it alone. Xen 4.20 makes none
# in the lab: it wants more of a processor for this than QEMU's emulation has.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" nestedhvm=1
proves g
id=$(id_of g)
/tmp/bin/xc-save --live "$id" >/tmp/case/g 2>/tmp/case/why && die "xc-save: exit status 0"
cat /tmp/case/why
grep -q 'may run virtual machines of its own' /tmp/case/why || die "it is refused for something else"
[ ! -s /tmp/case/g ] || die "something was written"
if log_dirty "$id"; then die "log-dirty is on"; fi
proves g suspended=0

#!/bin/sh
# direct KIND: xc-save and xc-restore without a toolstack; the guest goes on in a domain that xc-restore makes.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
in_time 200 /tmp/bin/xc-save "$id" >/tmp/case/g || die "xc-save: exit status $?"
suspended "$id" || die "the domain is not left suspended"
in_time 30 xl destroy "$id"
forget g
in_time 200 /tmp/bin/xc-restore --domid-file /tmp/case/domid </tmp/case/g || die "xc-restore: exit status $?"
id=$(cat /tmp/case/domid)
proves g resumed=1

#!/bin/sh
# direct KIND [FILE]: xc-save and xc-restore without a toolstack; the guest goes on in a domain that xc-restore makes. An image
# that is a FILE on /share goes by copies: 9p pins the memory that it reads and writes, which cannot be that of another domain.
# shellcheck source=lib.sh
. /share/lab/lib.sh
file=${2:-/tmp/case/g}
create g "$1"
proves g
id=$(id_of g)
in_time 200 /tmp/bin/xc-save "$id" >"$file" || die "xc-save: exit status $?"
suspended "$id" || die "the domain is not left suspended"
/tmp/bin/verify-v2 -q -i "$file" || die "verify-v2: exit status $?"
in_time 30 xl destroy "$id"
forget g
in_time 200 /tmp/bin/xc-restore --domid-file /tmp/case/domid <"$file" || die "xc-restore: exit status $?"
proves g resumed=1
rm "$file"

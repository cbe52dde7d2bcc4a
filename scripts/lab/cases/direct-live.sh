#!/bin/sh
# direct-live KIND: xc-save --live | xc-restore, the guest busy meanwhile.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" extra="rate=16"
proves g
id=$(id_of g)
{ in_time 200 /tmp/bin/xc-save --live "$id"; echo $? >/tmp/case/saved; } | in_time 200 /tmp/bin/xc-restore --domid-file /tmp/case/domid ||
  die "xc-restore: exit status $?"
[ "$(cat /tmp/case/saved)" = 0 ] || die "xc-save: exit status $(cat /tmp/case/saved)"
in_time 30 /tmp/bin/xc-save --destroy "$id" || die "xc-save --destroy: exit status $?"
proves g resumed=1

#!/bin/sh
# deaf KIND: xc-save by itself stops a guest without PV drivers, which nobody can ask to suspend, and lets it run on where it was.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1" extra="drivers=no"
proves g
id=$(id_of g)
in_time 200 /tmp/bin/xc-save --live --leave running "$id" >/tmp/case/g || die "xc-save: exit status $?"
proves g suspended=0
in_time 200 /tmp/bin/xc-save "$id" >/tmp/case/g || die "xc-save: exit status $?"
suspended "$id" || die "it is not suspended"
/tmp/bin/xc-save --resume "$id" || die "xc-save --resume: exit status $?"
proves g suspended=0

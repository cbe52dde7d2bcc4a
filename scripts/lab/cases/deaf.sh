#!/bin/sh
# deaf KIND: xc-save by itself stops a guest without PV drivers, which nobody can ask to suspend, and lets it run on where it was.
# Linux, which needs nothing of Xen then, is also saved with its devices, and restored by xl.
# shellcheck source=lib.sh
. /share/lab/lib.sh
case $1 in
  linux-*) create g "$1" extra="xen_nopv console=ttyS0" serial=\"file:$logs/guest-g.log\" ;;
  *) create g "$1" extra="drivers=no" ;;
esac
proves g
id=$(id_of g)
in_time 200 /tmp/bin/xc-save --live --leave running "$id" >/tmp/case/g || die "xc-save: exit status $?"
proves g suspended=0
in_time 200 /tmp/bin/xc-save "$id" >/tmp/case/g || die "xc-save: exit status $?"
suspended "$id" || die "it is not suspended"
/tmp/bin/xc-save --resume "$id" || die "xc-save --resume: exit status $?"
proves g suspended=0
case $1 in
  linux-*)
    rm /tmp/case/g
    in_time 200 /tmp/bin/xl-stream save g /tmp/case/g || die "xl-stream save: exit status $?"
    [ -z "$(id_of g)" ] || in_time 30 xl destroy g
    restore ours /tmp/case/g
    proves g
    ;;
esac

#!/bin/sh
# abort-late KIND HOW [HELPER...]: xl save fails after the suspend request and before END. xl lets the domain run on, and it is whole,
# and all that a toolstack sees of it is as it was. Under ours if no HELPER is named, else under each in turn: with stock among them
# it is shown that the stock helper leaves no less and no more.
#
#   HOW  term or kill, the signal that the save helper gets; reader, who goes away; full, the disk; xl, which dies with its helper
#        and leaves the guest suspended: xc-save --resume revives it
# shellcheck source=lib.sh
. /share/lab/lib.sh
kind=$1 how=$2
shift 2
[ $# -gt 0 ] || set -- ours
create g "$kind"
proves g
id=$(id_of g)
mkdir -p /tmp/case/small
mount -t tmpfs -o size=4m small /tmp/case/small
mkfifo /tmp/case/pipe

# abort has xl save fail under a helper.
abort() { # HELPER
  if [ "$how" = full ]; then
    with "$1" in_time 120 xl save g /tmp/case/small/g && die "xl save: exit status 0"
    return
  fi
  { head -c 2000000 >/dev/null; exec sleep 300; } </tmp/case/pipe &
  reader=$!
  with "$1" in_time 120 xl save g /tmp/case/pipe &
  saving=$!
  wait_for 60 suspended "$id" || die "the guest was not suspended"
  sleep 2
  case $how in
    term | kill) kill -"$how" "$(helper_of "$id")" ;;
    xl) kill -KILL "$(xl_of "$id")" "$(helper_of "$id")" ;;
  esac
  kill "$reader"
  wait "$saving" && die "xl save: exit status 0"
  [ "$how" = xl ] || return 0
  suspended "$id" || die "the guest is not suspended"
  /tmp/bin/xc-save --resume "$id" || die "xc-save --resume: exit status $?"
}

# seen is all that a toolstack sees of the domain; whether it runs or blocks just now is no matter.
seen() {
  xl list "$id" | awk 'NR > 1 {gsub(/[rb]/, "-", $5); print $2, $3, $4, $5}'
  xenstore-ls -p
  ls /var/lib/xen
}

seen >/tmp/case/before
times=0
for helper; do
  times=$((times + 1))
  abort "$helper"
  proves g suspended=$times resumed=0
  if log_dirty "$id"; then die "log-dirty is still on"; fi
  seen >/tmp/case/after
  diff /tmp/case/before /tmp/case/after || die "under $helper the domain is not left as it was"
done

#!/bin/sh
# abort-late KIND HOW: xl save fails after the suspend request and before END. xl lets the domain run on, and it is whole.
#
#   HOW  term or kill, the signal that the save helper gets; reader, who goes away; full, the disk; xl, which dies with its helper
#        and leaves the guest suspended: xc-save --resume revives it
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
id=$(id_of g)
case $2 in
  full)
    mkdir -p /tmp/case/small
    mount -t tmpfs -o size=4m small /tmp/case/small
    with ours in_time 120 xl save g /tmp/case/small/g
    status=$?
    ;;
  *)
    mkfifo /tmp/case/pipe
    { head -c 2000000 >/dev/null; exec sleep 300; } </tmp/case/pipe &
    reader=$!
    with ours in_time 120 xl save g /tmp/case/pipe &
    saving=$!
    wait_for 60 suspended "$id" || die "the guest was not suspended"
    sleep 2
    case $2 in
      term | kill) kill -"$2" "$(helper_of "$id")" ;;
      xl) kill -KILL "$(xl_of "$id")" "$(helper_of "$id")" ;;
    esac
    kill "$reader"
    wait "$saving"
    status=$?
    if [ "$2" = xl ]; then
      suspended "$id" || die "the guest is not suspended"
      /tmp/bin/xc-save --resume "$id" || die "xc-save --resume: exit status $?"
    fi
    ;;
esac
[ "$status" != 0 ] || die "xl save: exit status 0"
proves g suspended=1 resumed=0
if log_dirty "$id"; then die "log-dirty is still on"; fi

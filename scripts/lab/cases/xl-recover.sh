#!/bin/sh
# xl-recover KIND WHEN: xl-stream send is killed while it moves a guest within this host; xl-stream recover then leaves one, whole.
#
#   WHEN  early, while the guest runs and is copied; before GO, when the target is ready; after it, when the guest runs there and
#         the sender has not heard of it
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
export XENFERRY_JOURNAL=/tmp/case/journal
create g "$1"
proves g
id=$(id_of g)
case $2 in # what the sender gets to hear: the banner, that the target holds the guest; not REPORT
  early | before) heard='head -c 54' ;;
  after) heard='head -c 54; head -c 43' ;;
esac
xl-stream send --link-timeout "$((120 * slow))s" g "exec:xl-stream receive | { $heard; exec sleep 300; }" &
sender=$!
called() { id_of "$1" >/dev/null; }
case $2 in
  early) wait_for 200 log_dirty "$id" || die "the guest's writes were never logged" ;;
  before)
    wait_for 200 suspended "$id" || die "the guest was never suspended"
    wait_for 60 called g--incoming || die "there was never a target"
    sleep 3
    ;;
  after)
    wait_for 200 called g--migratedaway || die "the guest was never given away"
    wait_for 60 called g || die "the target never took the guest"
    ;;
esac
kill -KILL "$sender"
wait "$sender"
if [ "$2" = after ]; then
  proves g resumed=1
  xl-stream recover && die "recover did not ask whether the target runs the guest"
  suspended "$id" || die "domain $id is not suspended"
fi
in_time 120 xl-stream recover --peer 'xl-stream recover' || die "xl-stream recover: exit status $?"
killall -q -KILL sleep
alone() { ! others "$(id_of g)"; }
wait_for 30 alone || die "a copy is left"
case $2 in
  early) proves g suspended=0 resumed=0 ;;
  before) proves g suspended=1 resumed=0 ;;
  after) proves g resumed=1 ;;
esac
case $2,$(id_of g) in
  after,"$id") die "domain $id is still there" ;;
  after,* | *,"$id") ;;
  *) die "the guest moved" ;;
esac
if log_dirty "$(id_of g)"; then die "log-dirty is still on"; fi
nothing_left

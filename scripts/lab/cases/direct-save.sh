#!/bin/sh
# direct-save KIND: xc-save by itself, of a guest with an emulator: that stands still while the guest is suspended, and goes on
# with it, after --leave running and after --resume.
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
emulator() { xl qemu-monitor-command g 'info status' | grep -q "VM status: $1" || die "$2: the emulator is not $1: $(xl qemu-monitor-command g 'info status')"; }
create g "$1"
proves g
emulator running 'at the start'
in_time 200 xc-save --live --leave running g >/tmp/case/live || die "xc-save --live: exit status $?"
proves g suspended=1
emulator running 'after --leave running'
in_time 200 xc-save g >/tmp/case/still || die "xc-save: exit status $?"
emulator paused 'while the guest is suspended'
xc-save --resume g || die "xc-save --resume: exit status $?"
proves g suspended=2
emulator running 'after --resume'
for f in live still; do
  verify-v2 -q -i /tmp/case/$f || die "verify-v2 of $f: exit status $?"
done

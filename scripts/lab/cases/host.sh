#!/bin/sh
# host: what every host must do, done by this Xen: lib/host/hosttest, as over the simulated one.
# shellcheck source=lib.sh
. /share/lab/lib.sh
XENFERRY_TEST_XEN=1 in_time 200 /tmp/bin/hosttest -test.run 'TestXen$' -test.v >/tmp/case/log 2>&1 || { tail -n 40 /tmp/case/log; die "exit status $?"; }
grep -c '^ *--- PASS' /tmp/case/log
if grep '^ *--- SKIP: TestXen ' /tmp/case/log; then die "it was skipped"; fi

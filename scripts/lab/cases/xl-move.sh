#!/bin/sh
# xl-move KIND [HOW]: xl-stream send moves a guest to stock xl migrate-receive, and stock xl migrate back to xl-stream receive. HOW is
# live or, where Xen cannot log the guest's writes, not-live.
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
create g "$1" extra="rate=16"
proves g
from=$(id_of g)
in_time 280 xl-stream send --link-timeout "$((120 * slow))s" g 'exec:xl migrate-receive' || die "xl-stream send: exit status $?"
moved
in_time 280 xl migrate -s '' g 'xl-stream receive' || die "xl migrate: exit status $?"
moved

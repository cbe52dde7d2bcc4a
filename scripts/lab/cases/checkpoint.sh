#!/bin/sh
# checkpoint KIND SAVER: xl save -c twice: the guest runs on (before 4.15 as a new domain), and the second image still restores.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
save "$2" g /tmp/case/one -c
proves g suspended=1
save "$2" g /tmp/case/two -c
proves g suspended=2
in_time 30 xl destroy g
forget g
restore "$2" /tmp/case/two
proves g suspended=2

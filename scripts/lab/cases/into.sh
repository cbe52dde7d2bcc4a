#!/bin/sh
# into KIND: xc-restore by itself loads an image into a domain that libxl has made, paused and with event channels, and takes
# nothing of what libxl has behind it in its stream.
# shellcheck source=lib.sh
. /share/lab/lib.sh
create g "$1"
proves g
save ours g /tmp/case/g
INTO=/tmp/bin/xc-restore restore /tmp/bin/into /tmp/case/g
proves g resumed=1

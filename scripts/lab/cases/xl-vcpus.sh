#!/bin/sh
# xl-vcpus KIND FROM TO: a guest of four vCPUs, FROM of them up, has TO set while it runs. The configuration that xl-stream save
# finds is the one that stock xl saves, and stock xl restores the guest with it: an emulator wants the vCPUs of its state.
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
create g "$1" "vcpus=$2" maxvcpus=4
proves g
in_time 60 xl vcpu-set --ignore-host g "$3" || die "xl vcpu-set: exit status $?"
save stock g /tmp/case/stock -c
proves g suspended=1
in_time 200 xl-stream save g /tmp/case/ours || die "xl-stream save: exit status $?"
for f in stock ours; do
  xl-stream unwrap --config-out "/tmp/case/$f.json" <"/tmp/case/$f" >/dev/null || die "xl-stream unwrap: exit status $?"
done
cmp /tmp/case/stock.json /tmp/case/ours.json || die "the configuration is not the one that stock xl saves"
forget g
restore stock /tmp/case/ours
proves g resumed=1

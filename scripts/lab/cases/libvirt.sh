#!/bin/sh
# libvirt KIND SAVER RESTORER: virsh save and virsh restore, libvirtd's libxl running each helper, which tells that it was it.
# shellcheck source=lib.sh
. /share/lab/lib.sh
case $1 in
  pvh) os="<type machine='xenpvh'>xenpvh</type>" ;;
  *) os="<type machine='xenpv'>linux</type>" ;;
esac
cat >/tmp/case/g.xml <<X
<domain type='xen'>
  <name>g</name>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os>$os<kernel>/share/guest/$1</kernel></os>
</domain>
X
for h in "$2" "$3"; do
  # shellcheck disable=SC2016 # the variable is that of the inner shell
  with "$h" sh -c 'echo "$LIBXL_SAVE_HELPER"'
done >/tmp/case/helpers
cat >/tmp/case/helper <<'X'
#!/bin/sh
case $1 in --save-domain) line=1 ;; *) line=2 ;; esac
helper=$(sed -n ${line}p /tmp/case/helpers)
echo "$helper $1" >>/tmp/case/ran
exec "$helper" "$@"
X
chmod +x /tmp/case/helper
start_libvirtd /tmp/case/helper
forget g
virsh create /tmp/case/g.xml || die "virsh create: exit status $?"
proves g
virsh save g /tmp/case/g || die "virsh save: exit status $?"
virsh restore /tmp/case/g || die "virsh restore: exit status $?"
proves g resumed=1
cat /tmp/case/ran
[ "$(wc -l </tmp/case/ran)" = 2 ] || die "libxl did not run each helper once"

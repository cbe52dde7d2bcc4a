# shellcheck shell=dash
# lib.sh: what test scripts in a lab's dom0 use: . /share/lab/lib.sh
#
# Guests are the small one of scripts/lab/guest or Debian's Linux. Both print a proof of their memory at every beat, with a
# number that never goes back, wherever the guest goes: that is how a script knows that it runs, and that it is whole.

stock=/usr/lib/xen-$XEN_RELEASE/bin/libxl-save-helper # XEN_RELEASE is dom0-init's
HELPER=${HELPER:-$stock}                              # what 'ours' means: stock until something else is named
slow=${SLOW:-1}                                       # times as long as usual may all take
logs=/var/log/xen
[ -d /tmp/bin ] || cp -r /share/bin /tmp/bin # programs on the share start slowly

die() { echo "FAIL: $*"; exit 1; }
now() { read -r seconds _ </proc/uptime; echo "$seconds"; } # s since dom0's boot, to 10 ms

# in_time runs a command that may hang, with everything it started.
in_time() { # SECONDS COMMAND...
  t=$(($1 * slow))
  shift
  timeout -k 5 "$t" "$@"
}

# --- what this hypervisor can do, in its own words

virt_caps() { xl info | sed -n 's/^virt_caps *: *//p'; }
xen_caps() { xl info | sed -n 's/^xen_caps *: *//p'; }

capabilities() {
  echo "xen_version: $(xl info xen_version)"
  echo "virt_caps: $(virt_caps)"
  echo "xen_caps: $(xen_caps)"
}

# has is for pv, pv32, hvm, hap, shadow; and for qemu, a device model, and libvirt, which are in the share or not. PV guests have no other log-dirty than that of shadow paging.
has() {
  case $1 in
    pv32) xen_caps | grep -qw xen-3.0-x86_32p ;;
    qemu) [ -d /share/q ] ;;
    libvirt) [ -d /share/v ] ;;
    pv) xen_caps | grep -qw xen-3.0-x86_64 ;;
    *) virt_caps | grep -qw "$1" ;;
  esac
}

# --- guests

# create starts a guest: KIND is pv64, pv32 or pvh, of the small guest, pv64-tree for one that shows its P2M as a tree alone, or
# linux-pv64, linux-pvh or linux-hvm. Further words are lines of its configuration, memory=MIB and vcpus=N among them, or
# extra=WORDS for its command line.
create() { # NAME KIND [LINE...]
  name=$1 kind=$2 extra='' lines='' memory=16 vcpus=2
  shift 2
  case $kind in
    linux-* | pv32) vcpus=1 ;;
    *-tree) kind=${kind%-tree} extra='p2m=tree ' ;;
  esac
  case $kind in linux-hvm) memory=160 ;; linux-*) memory=112 ;; esac # less is too little for Debian's kernel
  for l; do
    case $l in
      extra=*) extra=$extra${l#extra=} ;;
      vcpus=*) vcpus=${l#vcpus=} ;;
      memory=*) memory=${l#memory=} ;;
      *) lines="$lines$l
" ;;
    esac
  done
  {
    echo "name=\"$name\""
    case $kind in
      linux-*)
        printf '%s\n' 'kernel="/data/vmlinuz"' 'ramdisk="/data/guest.img"'
        extra="console=hvc0 quiet blob=2 hot=16 pause=1000000 $extra"
        ;;
      *) echo "kernel=\"/share/guest/$kind\"" ;;
    esac
    case $kind in
      *pvh) echo 'type="pvh"' ;;
      *hvm)
        [ -d /tmp/q ] || cp -r /share/q /tmp/q
        printf '%s\n' 'type="hvm"' 'serial="pty"' 'vga="none"' 'nographic=1' 'xen_platform_pci=1' \
          'device_model_version="qemu-xen"' 'device_model_override="/tmp/q/dm"' 'firmware_override="/tmp/q/hvmloader"' \
          'bios="seabios"' 'bios_path_override="/tmp/q/data/bios-256k.bin"'
        ;;
    esac
    echo "memory=$memory"
    echo "vcpus=$vcpus"
    echo "extra=\"$extra\""
    echo "$lines"
  } >"/tmp/$name.cfg"
  rm -f "$logs/guest-$name"*.log
  in_time 60 xl create -q "/tmp/$name.cfg" || die "xl create $name: exit status $?"
}

id_of() { xl domid "$1" 2>/dev/null; }
state_of() { xl list "$1" 2>/dev/null | awk 'NR > 1 {print $5}'; } # as xl list prints it: r, b, p, s, c, d

# others prints the domains beside DOMID and the control domain. One that is dying is destroyed, though Xen may have it for as long as
# a page of it counts as used: 4.17 was seen to keep one of hosttest's for ever, when no process was left that had mapped anything.
others() { # DOMID
  xl list | awk -v id="$1" 'NR > 1 && $(NF-4) > 0 && $(NF-4) != id && $(NF-1) !~ /d$/' | grep .
}

# beats prints all that a guest ever said; a migration target's console is logged under another name.
beats() { cat "$logs/guest-$1.log" "$logs/guest-$1--incoming.log" 2>/dev/null | tr -d '\r'; }
forget() { for l in "$logs/guest-$1"*.log; do : >"$l"; done; } # what a guest said, before another of its name begins
last_beat() { beats "$1" | sed -n 's/^BEAT \([0-9]*\) .*/\1/p' | sort -n | tail -n 1; }

# proves waits until a guest has beaten again, twice, and wants every word it ever said to be of sound memory. Further words must
# stand in the last beat, such as resumed=1, and so must the vCPUs it was made with; only the small guest knows them.
proves() { # NAME [WORD...]
  name=$1
  shift
  from=$(last_beat "$name")
  from=${from:-0}
  end=$(($(date +%s) + 240 * slow)) # Linux takes long to boot
  while :; do
    at=$(last_beat "$name")
    [ "${at:-0}" -lt $((from + 2)) ] || break
    [ "$(date +%s)" -lt "$end" ] || { beats "$name" | tail -n 5; die "$name is silent since beat $from; xl list says '$(state_of "$name")'"; }
    usleep 100000
  done
  if beats "$name" | grep -E 'proof=BAD|^BAD|^CRASH'; then die "$name: its memory is not what it wrote"; fi
  line=$(beats "$name" | grep "^BEAT $at ")
  echo "$line"
  # shellcheck disable=SC2046 # none, where another host has made it
  for w in "$@" $(grep '^vcpus=' "/tmp/$name.cfg" 2>/dev/null); do
    case " $line " in *" $w "* | *" up="*) ;; *) die "$name: wanted $w, it says: $line" ;; esac
  done
}

# log_dirty says whether Xen still logs a domain's writes: its dump of the domain then has that word.
log_dirty() { # DOMID
  xl dmesg -c >/dev/null
  xl debug-keys q
  xl dmesg | awk -v id="$1" '/General information for domain/ {mine = $NF == id ":"} mine && /paging assistance/' | grep -q log_dirty
}

# --- toolstack

# with runs a command under a save helper: ours or stock, or a path.
with() { # HELPER COMMAND...
  case $1 in
    ours) h=$HELPER ;;
    stock) h=$stock ;;
    *) h=$1 ;;
  esac
  shift
  LIBXL_SAVE_HELPER=$h "$@"
}

# save and restore are xl's, under a helper. Images are in /tmp: foreign pages cannot be written to the share.
save() { # HELPER NAME FILE [XL-OPTION...]
  h=$1 name=$2 file=$3
  shift 3
  with "$h" in_time 200 xl save "$@" "$name" "$file" || die "xl save of $name under the $h helper: exit status $?"
}

restore() { # HELPER FILE [XL-OPTION...]
  h=$1 file=$2
  shift 2
  with "$h" in_time 200 xl restore "$@" "$file" || die "xl restore under the $h helper: exit status $?"
}

# migrate moves a guest live from this host to itself.
migrate() { # SENDER RECEIVER NAME
  with "$1" in_time 280 xl migrate -s '' "$3" "$(receiver "$2")" || die "xl migrate of $3, $1 helper to $2: exit status $?"
}

# receiver is the command that xl migrate and xl remus start at the other end.
receiver() { # HELPER [XL-OPTION...]
  case $1 in
    ours) h=$HELPER ;;
    *) h=$stock ;;
  esac
  shift
  echo "LIBXL_SAVE_HELPER=$h xl migrate-receive $*"
}

# --- libvirt

virsh() { in_time 250 /tmp/v/virsh -q -c xen:///system "$@"; }

# start_libvirtd has Debian's libvirtd serve virsh here and there, until clean.
start_libvirtd() { # HELPER
  [ -d /tmp/v ] || cp -r /share/v /tmp/v
  mkdir -p /etc/libvirt /usr/share /var/log/libvirt
  ln -sfn /tmp/v/share /usr/share/libvirt
  echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
  echo 'root:x:0:' >/etc/group
  hostname "dom0-$XEN_RELEASE"
  with "$1" /tmp/v/libvirtd -d -l -f /tmp/v/libvirtd.conf || die "libvirtd: exit status $?"
  wait_for 60 virsh version || die "libvirtd does not answer: $(tail -n 3 /var/log/libvirt/libvirtd.log)"
}

# moved wants the guest g, which was domain $from, in one place, another one, and whole; nothing of libxl's is left of the old one.
moves=0
moved() {
  moves=$((moves + 1))
  [ "$(id_of g)" != "$from" ] || die "domain $from is still there"
  xl list | grep -E -- '--(incoming|migratedaway)' && die "a copy is left"
  proves g resumed=$moves
  from=$(id_of g)
  nothing_left
}

# nothing_left wants libxl to know of no other domain than those that are there.
nothing_left() {
  for f in /var/lib/xen/userdata-*.libxl-json; do
    id=${f#*userdata-?.}
    id=${id%%.*}
    xl list "$id" >/dev/null 2>&1 || die "$f is left of domain $id"
  done
  for id in $(xenstore-list /libxl 2>/dev/null; xenstore-list /local/domain/0/backend/console 2>/dev/null); do
    xl list "$id" >/dev/null 2>&1 || die "xenstore has nodes left of domain $id"
  done
}

# clean ends all guests and whatever a script has left running.
clean() {
  [ ! -f /run/libvirtd.pid ] || kill "$(cat /run/libvirtd.pid)"
  killall -q -KILL libxl-save-helper xl xl-stream xc-save xc-restore
  killall -q -CONT xenconsoled # which a case may have stopped
  others 0 | awk '{print $(NF-4)}' | while read -r id; do in_time 30 xl destroy "$id"; done
  umount -l /tmp/case/* 2>/dev/null
  rm -rf /tmp/case
  mkdir -p /tmp/case
}

# --- processes

wait_for() { # SECONDS COMMAND...: until the command says yes
  end=$(($(date +%s) + $1 * slow))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || return 1
    usleep 200000
  done
}

# helper_of prints the process that saves a domain: the one with the helper's words, and the domain's number among them.
helper_of() { # DOMID
  for p in /proc/[0-9]*; do
    words=$({ tr '\0' ' ' <"$p/cmdline"; } 2>/dev/null) || continue
    case $words in *" --save-domain "[0-9]*" "[0-9-]*" $1 "*) echo "${p#/proc/}"; return 0 ;; esac
  done
  return 1
}

xl_of() { sed -n 's/^PPid:[[:space:]]*//p' "/proc/$(helper_of "$1")/status"; } # DOMID: the toolstack above it

no_helper() { ! helper_of "$1" >/dev/null; } # DOMID

suspended() { case $(xl list "$1" | awk 'NR > 1 {print $5}') in *s*) ;; *) return 1 ;; esac; } # DOMID

# --- the other lab of a pair

# on_peer runs a shell command there, prints what it prints and has its status.
on_peer() { # COMMAND
  sh /share/lab/peer "( $1 ) 2>&1; echo peer=\$?" </dev/null >/tmp/peer.out
  grep -v '^peer=' /tmp/peer.out
  [ "$(sed -n 's/^peer=//p' /tmp/peer.out)" = 0 ]
}

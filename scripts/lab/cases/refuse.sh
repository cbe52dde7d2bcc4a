#!/bin/sh
# refuse KIND WHY...: xc-save and xc-restore by themselves refuse what cannot work, before the first octet and by its name.
#
#   WHY  live, of a PV guest where Xen has no shadow paging; nested, of one that may run virtual machines of its own (Xen 4.20 makes
#        none in the lab: it wants more of a processor for this than QEMU's emulation has); pod, of one with memory that is to be
#        populated on demand; dying, of one that is destroyed and not gone yet; memory, a target that has too little
# shellcheck source=lib.sh
. /share/lab/lib.sh
PATH=/tmp/bin:$PATH
kind=$1
shift

because() { # WORDS: they are in what was said
  cat /tmp/case/why
  grep -q "$1" /tmp/case/why || die "it is refused for something else than $why"
}

refused() { # WORDS XC-SAVE-WORD...
  words=$1
  shift
  xc-save "$@" >/tmp/case/g 2>/tmp/case/why && die "xc-save: exit status 0"
  because "$words"
  [ ! -s /tmp/case/g ] || die "something was written"
}

for why; do
  case $why in
    nested) create g "$kind" nestedhvm=1 ;;
    pod) create g "$kind" memory=72 maxmem=96 ;; # the guest touches no more than 64
    *) create g "$kind" ;;
  esac
  proves g
  id=$(id_of g)
  case $why in
    live) refused 'needs a hypervisor with shadow paging' --live "$id" ;;
    nested) refused 'may run virtual machines of its own' --live "$id" ;;
    pod) refused 'to be populated on demand' --live "$id" ;;
    dying) # as long as xenconsoled has its ring mapped
      killall -STOP xenconsoled
      in_time 30 xl destroy g
      refused 'is dying' "$id"
      killall -CONT xenconsoled
      continue
      ;;
    memory)
      mib=$(($(xl info free_memory) + 64))
      { xc-save --live "$id"; echo $? >/tmp/case/saved; } | xc-restore --kind "$kind" --vcpus 2 --memory ${mib}M 2>/tmp/case/why &&
        die "xc-restore: exit status 0"
      because 'too little free memory'
      [ "$(cat /tmp/case/saved)" = 1 ] || die "xc-save: exit status $(cat /tmp/case/saved)"
      others "$id" && die "a half-built domain is left"
      ;;
  esac
  if log_dirty "$id"; then die "$why: log-dirty is on"; fi
  proves g suspended=0
  in_time 30 xl destroy g
done

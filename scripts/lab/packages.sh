# shellcheck shell=bash
# packages.sh: Debian packages of any suite, fetched and unpacked without installing them, for prepare and prepare-hvm.
# The folder that $cache names keeps package lists and packages.
: "${cache:?}"

# suite_of prints the suite whose main section has a release of Xen.
suite_of() { # RELEASE
  case $1 in
    4.14) echo bullseye ;;
    4.17) echo bookworm ;;
    4.20) echo trixie ;;
    *) echo "xenlab: no Debian suite for Xen $1 is known: 4.14, 4.17 and 4.20 are" >&2; return 2 ;;
  esac
}

# in_suite runs an apt command for another suite than this machine's, with a state folder of its own.
in_suite() { # SUITE COMMAND...
  local suite=$1 state=$cache/apt-$1
  shift
  "$@" -oDir::State::Lists="$state/lists" -oDir::Etc::SourceList="$state/sources.list" -oDir::Etc::SourceParts=/dev/null \
    -oDir::Cache="$state/cache" -oDir::State::status="$state/status" \
    -oAPT::Sandbox::User=root -oAPT::Architecture=amd64 -oAPT::Architectures=amd64
}

# open_suite reads a suite's package lists from the mirror that this machine uses for Debian.
open_suite() { # SUITE WHAT
  local suite=$1 what=$2 state=$cache/apt-$1 uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ ! -e "$state/open" ] || return 0
  uri=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    sed -nE 's#^URIs: *([^ ]*/debian/?)( .*)?$#\1#p; s#^deb (\[[^]]*\] )?([^ ]*/debian/?) .*#\2#p' | sed -n 1p)
  [ -n "$uri" ] || { echo "xenlab: this machine's apt sources name no mirror of Debian" >&2; exit 1; }
  mkdir -p "$state"/lists/partial "$state"/cache/archives/partial
  : >"$state/status"
  echo "deb [signed-by=$keyring] $uri $suite main" >"$state/sources.list"
  if ! in_suite "$suite" apt-get -qq update 2>"$state/update.log" || grep -q '^[EW]:.*\(404\|Release file\)' "$state/update.log"; then
    cat "$state/update.log" >&2
    if grep -q '404\|does not have a Release file' "$state/update.log"; then
      echo "xenlab: Debian's suite $suite has left the mirrors: $what cannot be had from there any more" >&2
    else
      echo "xenlab: the package lists of Debian's suite $suite cannot be read" >&2
    fi
    exit 1
  fi
  touch "$state/open"
}

unpack() { # SUITE ROOT PACKAGE...
  local suite=$1 root=$2 debs=$cache/debs-$1 p
  shift 2
  mkdir -p "$root" "$debs"
  for p; do
    compgen -G "$debs/${p}_*.deb" >/dev/null || (cd "$debs" && in_suite "$suite" apt-get -qq download "$p")
    dpkg -x "$debs/${p}"_*.deb "$root"
  done
}

# every_library_of prints the packages of shared libraries that a package needs, and theirs.
every_library_of() { # SUITE PACKAGE
  in_suite "$1" apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$2" |
    grep -oE '^(lib|zlib)[a-z0-9.+-]+$' | sort -u
}

# libraries_of leaves out what no program of a small dom0 loads.
libraries_of() { every_library_of "$@" | grep -vE 'perl|python|debconf|selinux|systemd|gcrypt|pam|audit|libcrypt1|crypt-dev'; }

# closure prints the files of the shared libraries that programs load, by asking the loader of their own suite.
closure() { # ROOT PROGRAM...
  local root=$1 loader folders p
  shift
  loader=$(find "$root" -name ld-linux-x86-64.so.2 | sed -n 1p)
  folders=$(find "$root" -type d -name x86_64-linux-gnu -path '*lib/*' | paste -sd:)
  { echo "$loader"; find -L "$root" -name libgcc_s.so.1; for p; do "$loader" --library-path "$folders" --list "$p"; done |
    sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p'; } | sort -u
}

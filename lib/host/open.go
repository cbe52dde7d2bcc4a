package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"xenferry/lib/sim"
	"xenferry/lib/xen"
)

// Env names the variable that says which host commands use, as the option --host does.
const Env = "XENFERRY_HOST"

// HelperEnv names the variable by which xl-stream tells the helpers that it starts what host it is on, and that no toolstack calls
// them: it counts also in a control domain, where Env does not, lest what a user once set make a real toolstack's helper look elsewhere.
const HelperEnv = "XENFERRY_HELPER_HOST"

// ErrNoXen says that this machine is no control domain of Xen.
var ErrNoXen = errors.New("this machine is no control domain of Xen (" + capabilities + " does not say control_d): use --host sim:SOCKET")

// capabilities tells a control domain, where there is Xen's part of /proc at all.
const capabilities = "/proc/xen/capabilities"

// Open opens the host that spec names: "xen", or "sim:SOCKET" for the simulated one that xc-sim serves there. Without
// spec it is Xen in a control domain, else what the variable Env names, else the simulated host at DefaultSocket.
func Open(ctx context.Context, spec string, log zerolog.Logger) (Host, error) {
	control := isControlDomain(capabilities)
	spec, why := choose(spec, os.Getenv(Env), control)
	log.Debug().Str("host", spec).Str("because", why).Msg("open host")
	kind, socket, _ := strings.Cut(spec, ":")
	switch {
	case spec == "xen" && !control:
		return nil, fmt.Errorf("host xen (%s): %w", why, ErrNoXen)
	case spec == "xen":
		h, err := xen.Open(ctx, log)
		if err != nil {
			return nil, fmt.Errorf("host xen (%s): %w", why, err)
		}
		return h, nil
	case kind != "sim":
		return nil, fmt.Errorf("host %q (%s): want xen or sim:SOCKET", spec, why)
	}
	if socket == "" {
		var err error
		if socket, err = DefaultSocket(); err != nil {
			return nil, fmt.Errorf("host %s (%s): %w", spec, why, err)
		}
	}
	c, err := sim.Dial(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("host %s (%s): %w", spec, why, err)
	}
	return c, nil
}

// choose is the host to open and why it is that one.
func choose(spec, env string, control bool) (host, why string) {
	if spec != "" {
		return spec, "as asked"
	}
	if control {
		return "xen", "this is a control domain"
	}
	if env != "" {
		return env, "from " + Env
	}
	return "sim:", "by default"
}

// isControlDomain reads /proc/xen/capabilities. A mere guest of Xen has the file, too, but no control_d in it.
func isControlDomain(capabilities string) bool {
	b, err := os.ReadFile(capabilities)
	return err == nil && strings.Contains(string(b), "control_d")
}

// DefaultSocket is where the simulated host is served if nothing else is said: xenferry/sim.sock in the user's
// runtime folder, $XDG_RUNTIME_DIR or /run/user/UID, else xenferry-UID/sim.sock in the temporary one. There the folder
// must be the user's alone, for others could put a socket of theirs in its place.
func DefaultSocket() (string, error) {
	uid := strconv.Itoa(os.Getuid())
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + uid} {
		if fi, err := os.Stat(dir); dir != "" && err == nil && fi.IsDir() {
			return filepath.Join(dir, "xenferry", "sim.sock"), nil
		}
	}
	dir := filepath.Join(os.TempDir(), "xenferry-"+uid)
	fi, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return filepath.Join(dir, "sim.sock"), nil
	}
	if err != nil {
		return "", fmt.Errorf("no folder for the socket: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !fi.IsDir() || fi.Mode().Perm()&0o077 != 0 || ok && int(st.Uid) != os.Getuid() {
		return "", fmt.Errorf("no folder for the socket: %s is not a folder of mode 0700 that is yours", dir)
	}
	return filepath.Join(dir, "sim.sock"), nil
}

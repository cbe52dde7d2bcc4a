package cli

import (
	"errors"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// errVersion is Parse's answer to --version.
var errVersion = errors.New("the version is asked for")

// versionFlag adds --version, which only its whole name stands for: Xen's scripts have shortened options that begin so.
func versionFlag(flags *pflag.FlagSet) {
	flags.Bool("version", false, "")
	flags.Lookup("version").Hidden = true
}

// version is that of the module that this program was built from, and the revision of its source.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	text := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += ", revision " + s.Value
		}
	}
	return text
}

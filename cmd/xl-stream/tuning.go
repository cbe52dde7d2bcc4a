package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"xenferry/lib/cli"
	"xenferry/lib/helper"
	"xenferry/lib/migrate"
	"xenferry/lib/progress"
)

// tuning are the options that xc-save, as the helper, takes from its environment.
type tuning struct {
	flags         *pflag.FlagSet
	maxIterations uint32
	minDirty      uint32
	stats         string
}

func (t *tuning) add(flags *pflag.FlagSet) {
	t.flags = flags
	flags.Uint32Var(&t.maxIterations, "max-iterations", 0, "")
	flags.Uint32Var(&t.minDirty, "min-dirty", 0, "")
	flags.StringVar(&t.stats, "stats", "", "")
}

// into reports whether the statistics would get into the file of that name, or empty it.
func (t *tuning) into(path string) bool {
	mine, err := os.Stat(t.stats)
	theirs, e := os.Stat(path)
	if err == nil && e == nil {
		return os.SameFile(mine, theirs) && mine.Mode().IsRegular()
	}
	return t.stats != "" && filepath.Clean(t.stats) == filepath.Clean(path)
}

// open is what was asked for. streams are descriptors where no statistics may get. It must be asked before this process opens
// anything.
func (t *tuning) open(streams ...int) (migrate.Tuning, error) {
	var out migrate.Tuning
	for option, name := range map[string]string{"max-iterations": helper.MaxIterationsEnv, "min-dirty": helper.MinDirtyEnv} {
		if f := t.flags.Lookup(option); f.Changed {
			out.Settings = append(out.Settings, fmt.Sprintf("%s=%s", name, f.Value))
		}
	}
	to, err := progress.ParseOutput(t.stats, streams...)
	if err != nil {
		return out, cli.Usagef("--stats: %v", err)
	}
	out.Stats, err = to.Open()
	return out, err
}

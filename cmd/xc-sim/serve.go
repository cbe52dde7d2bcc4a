package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"xenferry/lib/cli"
	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/sim"
	"xenferry/lib/sim/emulator"
	"xenferry/lib/sim/guestos"
	"xenferry/lib/sim/machine"
)

// logModes are the values of --dirty-log.
var logModes = map[string]machine.LogMode{"auto": machine.LogAuto, "kernel": machine.LogKernel, "software": machine.LogSoftware}

// serve plays a host until ctx ends.
func serve(ctx context.Context, env *cli.Env) error {
	f := cli.Flags(env)
	socket := f.String("socket", "", "")
	memory := f.String("memory", "4G", "")
	release := f.String("release", "4.17", "")
	mode := f.String("dirty-log", "auto", "")
	order := f.Uint64("seed", rand.Uint64(), "")
	populate := f.Bool("populate", false, "")
	scrub := f.Bool("scrub", false, "")
	readyFD := f.Int("ready-fd", -1, "")
	words, err := cli.Parse(f, env.Args)
	if err == nil {
		err = none(words)
	}
	if err != nil {
		return err
	}
	o := sim.Options{Software: guestos.Software{}, Logger: env.Log}
	o.Seed, o.Prealloc, o.Scrub = *order, *populate, *scrub
	if o.Memory, err = cli.ParseSize(*memory); err != nil {
		return cli.Usagef("--memory: %v", err)
	}
	if o.Release, err = guest.ParseRelease(*release); err != nil {
		return cli.Usagef("--release: %v", err)
	}
	var known bool
	if o.Log, known = logModes[*mode]; !known {
		return cli.Usagef("--dirty-log %s: want auto, kernel or software", *mode)
	}
	if *socket == "" {
		if *socket, err = defaultSocket(); err != nil {
			return err
		}
	}

	o.Devices = emulator.Launcher(*socket)
	s, err := sim.New(o)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := sim.Listen(*socket)
	if err != nil {
		return err
	}
	if err := ready(*readyFD); err != nil {
		l.Close()
		return err
	}
	env.Log.Info().Str("socket", *socket).Stringer("release", o.Release).Msg("ready")
	return s.Serve(ctx, l)
}

// defaultSocket is where commands look for a host if nothing is said, in a folder that is the user's alone.
func defaultSocket() (string, error) {
	name, err := host.DefaultSocket()
	if err != nil {
		return "", err
	}
	return name, os.MkdirAll(filepath.Dir(name), 0o700)
}

// ready tells who waits on a descriptor that the server answers. -1 is nobody.
func ready(fd int) error {
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("fd %d", fd))
	if f == nil {
		return cli.Usagef("--ready-fd %d: no such descriptor", fd)
	}
	defer f.Close()
	if _, err := f.WriteString("ready\n"); err != nil {
		return fmt.Errorf("--ready-fd: %w", err)
	}
	return nil
}

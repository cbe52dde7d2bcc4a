package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"xenferry/lib/cli"
	"xenferry/lib/guest"
	"xenferry/lib/sim/guestos"
)

// create makes a domain with a guest and prints its number.
func create(ctx context.Context, env *cli.Env) error {
	var r guestos.BuildRequest
	f := cli.Flags(env)
	hostName := f.String("host", "", "")
	kind := f.String("kind", guest.PV64.String(), "")
	memory := f.String("memory", "512M", "")
	f.Uint32Var(&r.Options.VCPUs, "vcpus", 2, "")
	f.Uint32Var(&r.Options.Online, "online", 0, "")
	p2m := f.String("p2m", "", "")
	workload := f.String("workload", string(guestos.Idle), "")
	fill := f.String("fill", "", "")
	f.BoolVar(&r.Options.Nested, "nested", false, "")
	f.Uint64Var(&r.Options.Seed, "seed", rand.Uint64(), "")
	f.StringVar(&r.Name, "name", "", "")
	id := f.String("uuid", "", "")
	f.BoolVar(&r.Paused, "paused", false, "")
	specFile := f.String("domain", "", "")
	witness := f.String("witness", "", "")
	words, err := cli.Parse(f, env.Args)
	if err == nil {
		err = none(words)
	}
	if err != nil {
		return err
	}

	if r.Options.Kind, err = guest.ParseKind(*kind); err != nil {
		return cli.Usagef("--kind: %v", err)
	}
	size, err := cli.ParseSize(*memory)
	if err != nil {
		return cli.Usagef("--memory: %v", err)
	}
	r.Options.Pages, r.Options.P2M = size/guest.PageSize, guestos.P2MKind(*p2m)
	if r.Options.Workload, err = guestos.ParseWorkload(*workload); err != nil {
		return cli.Usagef("--workload: %v", err)
	}
	if r.Options.Fill, err = guestos.ParseFill(*fill); err != nil {
		return cli.Usagef("--fill: %v", err)
	}
	if *id != "" {
		if r.UUID, err = uuid.Parse(*id); err != nil {
			return cli.Usagef("--uuid: %v", err)
		}
	}
	if err := r.Options.Check(); err != nil {
		return cli.Usagef("%v", err)
	}
	if r.Witness, err = absolute(*witness); err != nil {
		return err
	}

	c, err := open(ctx, env, *hostName)
	if err != nil {
		return err
	}
	defer c.Close()
	var a guestos.BuildAnswer
	if err := c.Call(ctx, guestos.OpBuild, r, &a); err != nil {
		return err
	}
	if err := writeSpec(*specFile, a.Spec); err != nil {
		return fmt.Errorf("domain %d is made, but: %w", a.ID, err)
	}
	_, err = fmt.Fprintln(env.Stdout, a.ID)
	return err
}

// absolute is a file's name as the server can use it, which runs in another folder. No name stays none.
func absolute(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	return filepath.Abs(name)
}

// writeSpec writes what it takes to make a domain. No name is nowhere.
func writeSpec(name string, spec guest.Spec) error {
	if name == "" {
		return nil
	}
	b, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

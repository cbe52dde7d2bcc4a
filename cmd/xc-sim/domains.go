package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/sim"
	"xenferry/lib/sim/guestos"
)

// list prints all domains.
func list(ctx context.Context, env *cli.Env) error {
	f := cli.Flags(env)
	hostName := f.String("host", "", "")
	asJSON := f.Bool("json", false, "")
	words, err := cli.Parse(f, env.Args)
	if err == nil {
		err = none(words)
	}
	if err != nil {
		return err
	}
	c, err := open(ctx, env, *hostName)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Domains(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(env, all)
	}
	w := tabwriter.NewWriter(env.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tKIND\tVCPUS\tMIB\tSTATE\tUUID")
	for _, d := range all {
		fmt.Fprintf(w, "%d\t%s\t%v\t%d\t%d\t%s\t%v\n", d.ID, d.Name, d.Kind, d.MaxVCPU+1, d.TotPages*guest.PageSize>>20,
			guestos.StateOf(&d), d.UUID)
	}
	return w.Flush()
}

// each is a command that does the same to each DOMAIN.
func each(do func(c *sim.Client, ctx context.Context, id guest.DomID) error) func(context.Context, *cli.Env) error {
	return func(ctx context.Context, env *cli.Env) error {
		f := cli.Flags(env)
		hostName := f.String("host", "", "")
		words, err := cli.Parse(f, env.Args)
		if err != nil {
			return err
		}
		return forEach(ctx, env, *hostName, words, do)
	}
}

// forEach does something to each domain that words name, even after it failed for one.
func forEach(ctx context.Context, env *cli.Env, hostName string, words []string, do func(*sim.Client, context.Context, guest.DomID) error) error {
	if len(words) == 0 {
		return cli.Usagef("a DOMAIN is needed")
	}
	c, err := open(ctx, env, hostName)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, word := range words {
		d, err := direct.Find(ctx, c, word)
		if err == nil {
			err = do(c, ctx, d.ID)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func suspend(c *sim.Client, ctx context.Context, id guest.DomID) error {
	return c.Call(ctx, guestos.OpSuspend, guestos.DomainRequest{ID: id}, nil)
}

// reasons are the values of --reason.
var reasons = map[string]guest.ShutdownReason{"poweroff": guest.ShutdownPoweroff, "reboot": guest.ShutdownReboot,
	"suspend": guest.ShutdownSuspend, "crash": guest.ShutdownCrash}

// shutdown stops domains without asking them.
func shutdown(ctx context.Context, env *cli.Env) error {
	f := cli.Flags(env)
	hostName := f.String("host", "", "")
	reason := f.String("reason", "poweroff", "")
	words, err := cli.Parse(f, env.Args)
	if err != nil {
		return err
	}
	why, known := reasons[*reason]
	if !known {
		return cli.Usagef("--reason %s: want poweroff, reboot, suspend or crash", *reason)
	}
	return forEach(ctx, env, *hostName, words, func(c *sim.Client, ctx context.Context, id guest.DomID) error {
		return c.Shutdown(ctx, id, why)
	})
}

// check prints a guest's proof, and fails if it is none.
func check(ctx context.Context, env *cli.Env) error {
	f := cli.Flags(env)
	hostName := f.String("host", "", "")
	witness := f.String("witness", "", "")
	asJSON := f.Bool("json", false, "")
	var r guestos.CheckRequest
	f.BoolVar(&r.AnyCPU, "any-cpu", false, "")
	words, err := cli.Parse(f, env.Args)
	if err != nil {
		return err
	}
	if r.Witness, err = absolute(*witness); err != nil {
		return err
	}
	c, err := open(ctx, env, *hostName)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := one(ctx, c, words)
	if err != nil {
		return err
	}
	r.ID = d.ID
	var report guestos.Report
	if err := c.Call(ctx, guestos.OpCheck, r, &report); err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(env, &report)
	} else {
		err = report.WriteText(env.Stdout)
	}
	if err == nil && !report.OK {
		err = fmt.Errorf("domain %d is not what it was", d.ID)
	}
	return err
}

// dump prints what a domain is made of.
func dump(ctx context.Context, env *cli.Env) error {
	f := cli.Flags(env)
	hostName := f.String("host", "", "")
	asJSON := f.Bool("json", false, "")
	words, err := cli.Parse(f, env.Args)
	if err != nil {
		return err
	}
	c, err := open(ctx, env, *hostName)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := one(ctx, c, words)
	if err != nil {
		return err
	}
	var p guestos.Picture
	if err := c.Call(ctx, guestos.OpDump, guestos.DomainRequest{ID: d.ID}, &p); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(env, &p)
	}
	return p.WriteText(env.Stdout)
}

func printJSON(env *cli.Env, v any) error {
	e := json.NewEncoder(env.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

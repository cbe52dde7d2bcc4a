package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/progress"
	"xenferry/lib/save"
	"xenferry/lib/transport"
	"xenferry/lib/xcstream"
)

type options struct {
	host, domain           string
	check, resume, destroy bool

	fd, ack       int
	strict        bool
	domainOut     string
	stats         string
	statsTo       progress.Output
	policy        save.Threshold
	save          direct.SaveOptions
	leave         string
	streamVersion uint32
}

func parse(env *cli.Env) (*options, error) {
	o := &options{policy: save.Default}
	f := cli.Flags(env)
	f.StringVar(&o.host, "host", "", "")
	f.BoolVar(&o.check, "check", false, "")
	f.BoolVar(&o.resume, "resume", false, "")
	f.BoolVar(&o.destroy, "destroy", false, "")
	f.BoolVar(&o.save.Live, "live", false, "")
	f.UintVar(&o.policy.MaxIterations, "max-iterations", o.policy.MaxIterations, "")
	f.Int64Var(&o.policy.MinDirty, "min-dirty", o.policy.MinDirty, "")
	f.IntVar(&o.fd, "fd", 1, "")
	f.IntVar(&o.ack, "ack", -1, "")
	f.StringVar(&o.leave, "leave", "", "")
	f.Uint32Var(&o.streamVersion, "stream-version", xcstream.Version3, "")
	f.BoolVar(&o.strict, "strict-stream", false, "")
	f.StringVar(&o.domainOut, "domain-out", "", "")
	f.BoolVar(&o.save.Verify, "debug-verify", false, "")
	f.StringVar(&o.stats, "stats", "", "")
	f.DurationVar(&o.save.SuspendTimeout, "suspend-timeout", time.Minute, "")
	words, err := cli.Parse(f, env.Args)
	if err != nil {
		return nil, err
	}
	if len(words) != 1 {
		return nil, cli.Usagef("one DOMAIN is needed, %d words are there", len(words))
	}
	o.domain = words[0]
	return o, o.validate()
}

// validate refuses what does not go together.
func (o *options) validate() error {
	switch {
	case o.resume && o.destroy || o.check && (o.resume || o.destroy):
		return cli.Usagef("--check, --resume and --destroy exclude each other")
	case o.check || o.resume || o.destroy:
		return nil
	}
	if o.leave == "" {
		o.leave = string(direct.LeaveSuspended)
		if o.ack >= 0 {
			o.leave = string(direct.LeaveDestroyed)
		}
	}
	switch o.save.Leave = direct.Leave(o.leave); {
	case o.save.Leave != direct.LeaveSuspended && o.save.Leave != direct.LeaveRunning && o.save.Leave != direct.LeaveDestroyed:
		return cli.Usagef("--leave %s: want suspended, running or destroyed", o.leave)
	case o.save.Leave == direct.LeaveRunning && o.ack >= 0:
		return cli.Usagef("--leave running with --ack would let the domain run twice")
	case o.save.Leave == direct.LeaveDestroyed && o.ack < 0 && !transport.IsRegular(o.fd):
		return cli.Usagef("--leave destroyed needs --ack, or a regular file as stream: else nobody knows that the image arrived")
	case o.streamVersion != xcstream.Version2 && o.streamVersion != xcstream.Version3:
		return cli.Usagef("--stream-version %d: want 2 or 3", o.streamVersion)
	case o.save.Verify && !o.save.Live:
		return cli.Usagef("--debug-verify is for --live")
	case o.fd < 0:
		return cli.Usagef("--fd %d: no descriptor", o.fd)
	case o.fd == o.ack:
		return cli.Usagef("--fd and --ack are both %d", o.fd)
	}
	if err := transport.CheckGiven(o.fd); err != nil {
		return cli.Usagef("stream: %v", err)
	}
	if o.ack >= 0 {
		if err := transport.CheckGiven(o.ack); err != nil {
			return cli.Usagef("--ack: %v", err)
		}
	}
	if err := o.checkOutputs(); err != nil {
		return err
	}
	o.save.Version, o.save.Policy = o.streamVersion, o.policy
	o.save.Durable = transport.IsRegular(o.fd)
	return nil
}

// checkOutputs refuses outputs that would get into the stream, or into a descriptor of this process's own.
func (o *options) checkOutputs() error {
	var err error
	if o.statsTo, err = progress.ParseOutput(o.stats, o.fd, o.ack); err != nil {
		return cli.Usagef("--stats: %v", err)
	}
	var st unix.Stat_t
	if unix.Stat(o.domainOut, &st) == nil && (transport.SameFile(o.fd, &st) || transport.SameFile(o.ack, &st)) {
		return cli.Usagef("--domain-out %s: that is the stream's file, or --ack's", o.domainOut)
	}
	return nil
}

// writeDomain writes what --domain-out asks for.
func (o *options) writeDomain() error {
	if o.domainOut == "" {
		return nil
	}
	b, err := json.MarshalIndent(o.save.Spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.domainOut, append(b, '\n'), 0o644)
}

// openStream makes the descriptors ready.
func (o *options) openStream(ctx context.Context) error {
	w, err := transport.NewWriter(o.fd)
	if err != nil {
		return err
	}
	o.save.Stream = w
	if o.ack >= 0 {
		r, err := transport.NewReader(ctx, o.ack)
		if err != nil {
			return err
		}
		o.save.Ack = r
	}
	return nil
}

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/transport"
)

type options struct {
	host      string
	fd, ack   int
	domidFile string
	restore   direct.RestoreOptions
}

func parse(env *cli.Env) (*options, error) {
	o := &options{}
	var domid, vcpus int
	var file, kind, memory, id, name string
	f := cli.Flags(env)
	f.StringVar(&o.host, "host", "", "")
	f.IntVar(&o.fd, "fd", 0, "")
	f.IntVar(&o.ack, "ack", -1, "")
	f.BoolVar(&o.restore.Paused, "paused", false, "")
	f.StringVar(&o.domidFile, "domid-file", "", "")
	f.IntVar(&domid, "domid", -1, "")
	f.Uint32Var(&o.restore.StorePort, "store-evtchn", 0, "")
	f.Uint32Var(&o.restore.ConsolePort, "console-evtchn", 0, "")
	f.StringVar(&file, "domain", "", "")
	f.StringVar(&kind, "kind", "", "")
	f.IntVar(&vcpus, "vcpus", 0, "")
	f.StringVar(&memory, "memory", "", "")
	f.StringVar(&id, "uuid", "", "")
	f.StringVar(&name, "name", "", "")
	words, err := cli.Parse(f, env.Args)
	switch {
	case err != nil:
		return nil, err
	case len(words) != 0:
		return nil, cli.Usagef("%q: no words are expected", words)
	case o.fd < 0:
		return nil, cli.Usagef("--fd %d: no descriptor", o.fd)
	case o.fd == o.ack:
		return nil, cli.Usagef("--fd and --ack are both %d", o.fd)
	}
	byFlags := kind != "" || vcpus != 0 || memory != "" || id != "" || name != ""
	switch {
	case domid >= 0 && (file != "" || byFlags), file != "" && byFlags:
		return nil, cli.Usagef("--domid, --domain and --kind with its like exclude each other")
	case domid < 0 && (o.restore.StorePort != 0 || o.restore.ConsolePort != 0):
		return nil, cli.Usagef("--store-evtchn and --console-evtchn are those of the domain that --domid names")
	case domid >= int(guest.FirstReservedDomID):
		return nil, cli.Usagef("--domid %d is no domain", domid)
	case domid >= 0:
		into := guest.DomID(domid)
		o.restore.Into = &into
	case file != "":
		o.restore.Spec, err = readSpec(file)
	case byFlags:
		o.restore.Spec, err = makeSpec(kind, vcpus, memory, id, name)
	}
	if err != nil {
		return nil, err
	}
	return o, o.check()
}

// check refuses descriptors that cannot be what they shall be.
func (o *options) check() error {
	if err := transport.CheckGiven(o.fd); err != nil {
		return cli.Usagef("stream: %v", err)
	}
	if o.ack >= 0 {
		if err := transport.CheckGiven(o.ack); err != nil {
			return cli.Usagef("--ack: %v", err)
		}
	}
	var st unix.Stat_t
	if unix.Stat(o.domidFile, &st) == nil && transport.SameFile(o.fd, &st) {
		return cli.Usagef("--domid-file %s: that is the stream's file", o.domidFile)
	}
	return nil
}

func readSpec(file string) (*guest.Spec, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s guest.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, cli.WithStatus(cli.ExitUsage, fmt.Errorf("--domain %s: %w", file, err))
	}
	return &s, nil
}

func makeSpec(kind string, vcpus int, memory, id, name string) (*guest.Spec, error) {
	if kind == "" || vcpus <= 0 || memory == "" {
		return nil, cli.Usagef("--kind, --vcpus and --memory are needed together")
	}
	k, err := guest.ParseKind(kind)
	if err != nil {
		return nil, cli.Usagef("--kind: %v", err)
	}
	octets, err := cli.ParseSize(memory)
	if err != nil {
		return nil, cli.Usagef("--memory: %v", err)
	}
	u := uuid.New()
	if id != "" {
		if u, err = uuid.Parse(id); err != nil {
			return nil, cli.Usagef("--uuid: %v", err)
		}
	}
	return &guest.Spec{Name: name, UUID: u, Kind: k, VCPUs: uint32(vcpus), MaxPages: octets >> guest.PageShift}, nil
}

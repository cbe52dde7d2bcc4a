package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"xenferry/lib/cli"
	"xenferry/lib/guest"
	"xenferry/lib/migrate"
	"xenferry/lib/sim"
	"xenferry/lib/xlstream"
)

// head is xl's header for a domain: with the configuration in a file, or libxl's own of it, or, where libxl has none, one
// that says what the host knows.
func head(ctx context.Context, env *cli.Env, side *migrate.Side, d guest.Info, file string) (xlstream.XLHeader, error) {
	if file != "" {
		h, err := xlHeader(file)
		if err != nil {
			return xlstream.XLHeader{}, err
		}
		return *h, nil
	}
	h := xlstream.XLHeader{JSON: true, StreamV2: true}
	var err error
	if _, ok := side.Host.(*sim.Client); !ok {
		h.Config, err = libxlConfig(ctx, env, side, d)
		if !errors.Is(err, fs.ErrNotExist) {
			return h, err
		}
		env.Log.Warn().Msgf("libxl has no configuration of domain %d: it is made up, without devices", d.ID)
	}
	h.Config, err = migrate.Config(d)
	return h, err
}

// ballooner is a host that knows how much memory a domain was last told to have, in KiB; 0 if nobody told it.
type ballooner interface {
	MemoryTarget(ctx context.Context, id guest.DomID) (uint64, error)
}

// libxlConfig is libxl's own configuration of a domain, and says so. fs.ErrNotExist: it has none.
func libxlConfig(ctx context.Context, env *cli.Env, side *migrate.Side, d guest.Info) ([]byte, error) {
	name := fmt.Sprintf("/var/lib/xen/userdata-d.%d.%v.libxl-json", d.ID, d.UUID)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	env.Log.Info().Msgf("configuration from %s, as it was when the domain was made", name)
	var h xlstream.XLHeader
	if err := setConfig(&h, name, b); err != nil || d.Name == "" {
		return h.Config, err
	}
	memory := uint64(0)
	if b, ok := side.Host.(ballooner); ok {
		if memory, err = b.MemoryTarget(ctx, d.ID); err != nil {
			return nil, err
		}
	}
	return migrate.Renew(h.Config, d, memory)
}

package main

import (
	"context"
	"errors"

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
	if _, ok := side.Host.(*sim.Client); !ok {
		b, err := migrate.LibxlConfig(ctx, side.Host, d, env.Log)
		if err == nil {
			err = setConfig(&h, "libxl's configuration", b)
		}
		if !errors.Is(err, migrate.ErrNoConfig) {
			return h, err
		}
		env.Log.Warn().Msgf("libxl has no configuration of domain %d: it is made up, without devices", d.ID)
	}
	b, err := migrate.Config(d)
	h.Config = b
	return h, err
}

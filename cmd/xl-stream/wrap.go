package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"xenferry/lib/cli"
	"xenferry/lib/transport"
	"xenferry/lib/xlstream"
	"xenferry/lib/xlstream/filter"
)

func wrap(ctx context.Context, env *cli.Env, args []string) error {
	var config, emulator, xenstore string
	var libxl bool
	flags := cli.Flags(env)
	flags.StringVar(&config, "config", "", "")
	flags.StringVar(&emulator, "emulator", "", "")
	flags.StringVar(&xenstore, "xenstore", "", "")
	flags.BoolVar(&libxl, "libxl", false, "")
	words, err := cli.Parse(flags, args)
	switch {
	case err != nil:
		return err
	case len(words) > 0:
		return cli.Usagef("wrap takes no word such as %q: the stream is standard input", words[0])
	case libxl && config != "":
		return cli.Usagef("--libxl and --config exclude each other: it is xl's header that holds the configuration")
	}
	var in filter.Inputs
	if !libxl {
		if in.XL, err = xlHeader(config); err != nil {
			return err
		}
	}
	if emulator != "" {
		in.Emulator = func() (io.ReadCloser, uint64, error) { return openState(emulator) }
	}
	if xenstore != "" {
		in.Xenstore = func() ([]xlstream.KeyValue, error) { return readPairs(xenstore) }
	}
	src, err := transport.NewReader(ctx, int(os.Stdin.Fd()))
	if err != nil {
		return streamStatus("standard input", err)
	}
	dst, err := transport.NewWriter(int(os.Stdout.Fd()))
	if err != nil {
		return streamStatus("standard output", err)
	}
	if err := filter.Wrap(src, dst, in); err != nil {
		return streamStatus("wrap", err)
	}
	if transport.IsRegular(dst.FD()) {
		return dst.Sync()
	}
	return nil
}

// xlHeader is xl's header with the configuration in a file, which is JSON of libxl or an xl.cfg. No name is no configuration.
func xlHeader(name string) (*xlstream.XLHeader, error) {
	h := &xlstream.XLHeader{StreamV2: true}
	if name == "" {
		return h, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return h, setConfig(h, name, b)
}

// setConfig puts a configuration into h, without the NUL that some keep behind it.
func setConfig(h *xlstream.XLHeader, name string, b []byte) error {
	h.Config = bytes.TrimSuffix(b, []byte{0})
	switch {
	case len(h.Config) == 0 || bytes.IndexByte(h.Config, 0) >= 0 || len(h.Config) > xlstream.MaxXLData/2:
		return fmt.Errorf("%s: %d octets are no configuration", name, len(b))
	case json.Valid(h.Config):
		h.JSON = true
	case h.Config[0] == '{':
		return fmt.Errorf("%s: begins as JSON, and is none", name)
	}
	return nil
}

// openState opens an emulator's state. Its length is written in front of it, so it must be known.
func openState(name string) (io.ReadCloser, uint64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: its length must be known before it is read", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, uint64(st.Size()), nil
}

// readPairs reads keys and values, a NUL behind each, as unwrap --xenstore-out writes them.
func readPairs(name string) ([]xlstream.KeyValue, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pairs, err := xlstream.ParsePairs(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return pairs, nil
}

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"xenferry/lib/cli"
	"xenferry/lib/verify"
)

// options are the command line's.
type options struct {
	in       string
	format   string
	layer    verify.Layer
	verbose  bool
	quiet    bool
	syslog   bool
	json     bool
	pedantic bool
	trailing bool
	compare  bool
	words    []string
}

// parse reads the command line. reference: the command is Xen's script, which has fewer options.
func parse(env *cli.Env, reference bool) (*options, error) {
	o := &options{}
	flags := cli.Flags(env)
	flags.StringVarP(&o.in, "in", "i", "0", "")
	flags.StringVarP(&o.format, "format", "f", "", "")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "")
	flags.BoolVar(&o.syslog, "syslog", false, "")
	flags.BoolP("help", "h", false, "")
	if !reference {
		flags.BoolVar(&o.json, "json", false, "")
		flags.BoolVar(&o.pedantic, "pedantic", false, "")
		flags.BoolVar(&o.trailing, "allow-trailing", false, "")
		flags.BoolVar(&o.compare, "compare", false, "")
	}
	args, err := cli.Expand(flags, env.Args)
	if err != nil {
		return nil, err
	}
	if o.words, err = cli.Parse(flags, args); err != nil {
		return nil, err
	}
	if help, _ := flags.GetBool("help"); help {
		return nil, pflag.ErrHelp
	}
	switch {
	case o.format != "":
		if o.layer, err = verify.ParseLayer(o.format); err != nil || o.layer == verify.Auto {
			return nil, cli.Usagef("unknown format %q: want libxc, libxl or xl", o.format)
		}
	case reference:
		o.layer = verify.LibXC
	}
	if !reference && !o.compare && len(o.words) > 0 {
		if len(o.words) > 1 || flags.Changed("in") {
			return nil, cli.Usagef("one stream at a time: %s", strings.Join(o.words, " "))
		}
		if o.in = o.words[0]; !filepath.IsAbs(o.in) {
			o.in = "./" + o.in // no descriptor
		}
	}
	o.trailing = o.trailing || reference
	if o.compare && len(o.words) != 2 {
		return nil, cli.Usagef("--compare needs two images, not %d", len(o.words))
	}
	return o, nil
}

// listing prints records as they come; a run of PAGE_DATA is one line.
type listing struct {
	print func(format string, args ...any)
	runs  uint64
	size  uint64
}

func (l *listing) item(it verify.Item) {
	if it.Name == pageData {
		l.runs++
		l.size += uint64(it.Length)
		return
	}
	l.flush()
	l.print("%#12x %s: %s, length %d", it.Offset, it.Layer, it.Name, it.Length)
}

// flush prints the run of PAGE_DATA that is not printed yet.
func (l *listing) flush() {
	if l.runs > 0 {
		l.print("%12s libxc: %d of %s, length %d in all", "", l.runs, pageData, l.size)
	}
	l.runs, l.size = 0, 0
}

// unread is an input that could not be opened.
func unread(name string, err error) error { return fmt.Errorf("open %s: %w", name, err) }

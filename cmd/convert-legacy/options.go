package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"xenferry/lib/cli"
	"xenferry/lib/legacy"
	"xenferry/lib/xcstream"
)

// referenceName is the name of Xen's script.
const referenceName = "convert-legacy-stream"

// options are the command line's.
type options struct {
	in, out   string
	read      legacy.Options
	convert   legacy.Conversion
	report    string
	verbose   bool
	syslog    bool
	reference bool
}

func parse(env *cli.Env) (*options, error) {
	o := &options{reference: env.Name == referenceName}
	var width, domain, format, version string
	flags := cli.Flags(env)
	flags.StringVarP(&o.in, "in", "i", "", "")
	flags.StringVarP(&o.out, "out", "o", "", "")
	flags.StringVarP(&width, "width", "w", "", "")
	flags.StringVarP(&domain, "guest-type", "g", "", "")
	flags.StringVarP(&format, "format", "f", "", "")
	flags.BoolVarP(&o.read.XL, "xl", "x", false, "")
	flags.BoolVar(&o.read.SkipQEMU, "skip-qemu", false, "")
	flags.StringVar(&version, "stream-version", "3", "")
	flags.BoolVar(&o.convert.Last, "last-checkpoint", false, "")
	flags.BoolVar(&o.convert.Salvage, "salvage", false, "")
	flags.StringVar(&o.report, "report", "", "")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "")
	flags.BoolVar(&o.syslog, "syslog", false, "")
	flags.Lookup("version").Hidden = false // Xen's script has it, too
	flags.BoolP("help", "h", false, "")
	args, err := cli.Expand(flags, env.Args)
	if err != nil {
		return nil, err
	}
	if _, err := cli.Parse(flags, args); err != nil {
		return nil, err
	}
	if help, _ := flags.GetBool("help"); help {
		return nil, pflag.ErrHelp
	}
	err = errors.Join(
		choose(flags, "width", map[string]legacy.Width{"32": legacy.Width32, "64": legacy.Width64}, &o.read.Layout.Width),
		choose(flags, "guest-type", map[string]xcstream.DomainType{"pv": xcstream.DomainPV, "hvm": xcstream.DomainHVM}, &o.read.Layout.Domain),
		choose(flags, "format", map[string]legacy.Format{"libxc": legacy.LibXC, "libxl": legacy.LibXL}, &o.convert.Format),
		choose(flags, "stream-version", map[string]uint32{"2": xcstream.Version2, "3": xcstream.Version3}, &o.convert.Version),
	)
	if o.convert.Version == 0 {
		o.convert.Version = xcstream.Version3
	}
	if o.convert.Format == 0 && (o.read.XL || o.reference) {
		o.convert.Format = legacy.LibXC
	}
	o.read.Checkpoints = o.convert.Last
	o.read.SkipQEMU = o.read.SkipQEMU && o.convert.Format != legacy.LibXL
	return o, err
}

// choose sets to by the value of the option called name, if it was given.
func choose[T any](flags *pflag.FlagSet, name string, values map[string]T, to *T) error {
	flag := flags.Lookup(name)
	if !flag.Changed {
		return nil
	}
	value, ok := values[flag.Value.String()]
	if !ok {
		return cli.Usagef("--%s cannot be %q", name, flag.Value.String())
	}
	*to = value
	return nil
}

// missing is the required options that were not given.
func (o *options) missing() error {
	var names []string
	for _, need := range []struct {
		name string
		lack bool
	}{
		{"--in", o.in == ""}, {"--out", o.out == ""},
		{"--width", o.reference && o.read.Layout.Width == 0}, {"--guest-type", o.reference && o.read.Layout.Domain == 0},
	} {
		if need.lack {
			names = append(names, need.name)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("missing: %s", strings.Join(names, ", "))
}

// descriptor is the number that an option's value is, as Python reads one: blanks around it and underscores between
// digits do not matter. A negative one is the name of a file.
func descriptor(value string) (fd int, ok bool) {
	s := strings.TrimSpace(value)
	if strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") || strings.HasPrefix(s, "+_") {
		return 0, false
	}
	fd, err := strconv.Atoi(strings.ReplaceAll(s, "_", ""))
	return fd, err == nil && fd >= 0
}

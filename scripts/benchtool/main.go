// Command benchtool measures the programs against minimal copies of the same octets, for scripts/bench.
//
//	usage: benchtool [--memory SIZE] [--pairs N] [--json FILE] [--only NAME]
//
// It expects the programs in PATH. Each figure is the median over pairs of a run of ours and a run of the baseline, taken
// in turn, so that a noisy machine disturbs both. Exit status: 0 measured, whatever the targets; 1 failed; 2 wrong usage.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"

	"xenferry/lib/cli"
)

//go:embed main.go
var doc string

// result is one figure. Target says what it should be at least, or at most where Most is set; OK is whether it is.
type result struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Target string  `json:"target"`
	OK     bool    `json:"ok"`
}

// bench is a run of benchtool.
type bench struct {
	env     *cli.Env
	dir     string // for sockets and images
	memory  uint64 // of the guests, in octets
	pairs   int
	results []result
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role); err != nil {
			fmt.Fprintln(os.Stderr, "benchtool:", role+":", err)
			os.Exit(1)
		}
		return
	}
	cli.Main(doc, run)
}

func run(ctx context.Context, env *cli.Env) (err error) {
	f := cli.Flags(env)
	memory := f.String("memory", "2G", "")
	jsonFile := f.String("json", "", "")
	only := f.String("only", "", "")
	b := &bench{env: env}
	f.IntVar(&b.pairs, "pairs", 9, "")
	if words, err := cli.Parse(f, env.Args); err != nil || len(words) > 0 {
		return cli.Usagef("%v %q", err, words)
	}
	if b.memory, err = cli.ParseSize(*memory); err != nil {
		return cli.Usagef("--memory: %v", err)
	}
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"hvm", func(ctx context.Context) error { return b.copies(ctx, "hvm", 0.9) }},
		{"pv64", func(ctx context.Context) error { return b.copies(ctx, "pv64", 0.7) }},
		{"verify", b.verify},
		{"legacy", b.legacy},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.print()
	if *jsonFile == "" {
		return nil
	}
	out, err := json.MarshalIndent(b.results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*jsonFile, append(out, '\n'), 0o644)
}

// atLeast adds a figure that should not be below a target, atMost one that should not be above; a target of 0 is none.
func (b *bench) atLeast(name string, value float64, unit string, target float64) {
	b.add(result{name, value, unit, fmt.Sprintf(">= %g", target), value >= target}, target)
}

func (b *bench) atMost(name string, value float64, unit string, target float64) {
	b.add(result{name, value, unit, fmt.Sprintf("<= %g", target), value <= target}, target)
}

func (b *bench) add(r result, target float64) {
	if target == 0 {
		r.Target, r.OK = "", true
	}
	b.results = append(b.results, r)
	b.env.Log.Info().Msgf("%s %.3g %s", r.Name, r.Value, r.Unit)
}

func (b *bench) print() {
	w := tabwriter.NewWriter(b.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tvalue\tunit\ttarget\t")
	for _, r := range b.results {
		mark := ""
		if !r.OK {
			mark = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%.3g\t%s\t%s\t%s\n", r.Name, r.Value, r.Unit, r.Target, mark)
	}
	_ = w.Flush()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// sample is what several runs of one thing took.
type sample struct {
	seconds, cpu []float64
	rss          map[string]float64 // peak of each program, without guest memory, in MiB
}

func (s *sample) take(m measure) {
	s.seconds, s.cpu = append(s.seconds, m.seconds), append(s.cpu, m.cpu)
	for name, v := range m.rss {
		if s.rss == nil {
			s.rss = map[string]float64{}
		}
		s.rss[name] = max(s.rss[name], v)
	}
}

// ratio is the median of how much faster ours was than theirs, pair by pair.
func ratio(ours, theirs sample) float64 {
	var r []float64
	for i := range ours.seconds {
		r = append(r, theirs.seconds[i]/ours.seconds[i])
	}
	return median(r)
}

func gib(octets uint64) float64 { return float64(octets) / (1 << 30) }

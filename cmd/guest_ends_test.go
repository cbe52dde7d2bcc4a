package cmd_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestGuestEnds: a guest that ends by itself, or is destroyed, while it is saved is not said to run on.
func TestGuestEnds(t *testing.T) {
	h := newHost(t, "--memory", "256M")
	for _, c := range []struct {
		name string
		ends []string
		says string
	}{
		{"powers off", []string{"shutdown", "--reason", "poweroff"}, "has shut down (poweroff)\n"},
		{"crashes", []string{"shutdown", "--reason", "crash"}, "has shut down (crash)\n"},
		{"is destroyed", []string{"destroy"}, "is gone\n"},
	} {
		for _, kind := range []string{"pv64", "hvm"} {
			for _, words := range [][]string{{"xc-save", "--live"}, {"xl-stream", "save", "--live"}} {
				t.Run(words[0]+"/"+kind+"/"+c.name, func(t *testing.T) {
					id := fmt.Sprint(h.create(t, "--memory", "16M", "--workload", "zipf", "--kind", kind))
					r, w := pipe(t)
					defer closeAll(r)
					p := startWith(t, nil, w, nil, append(words, "--host", h.spec, id)...)
					closeAll(w)
					if _, err := io.CopyN(io.Discard, r, 4<<20); err != nil {
						t.Fatalf("%v: %s", err, p.stderr.String())
					}
					run(t, append(append([]string{"xc-sim"}, c.ends...), "--host", h.spec, id)...)
					_, _ = io.Copy(io.Discard, r)
					if status := p.wait(); status != 1 || !strings.Contains(p.stderr.String(), "; domain "+id+" "+c.says) {
						t.Errorf("exit status %d\n%s", status, p.stderr.String())
					}
				})
			}
		}
	}
}
